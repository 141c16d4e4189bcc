"""Frames a second of upscaling a video, beside those of the computation alone.

    python -m benchmarks.video [--frames 48] [--size 640x360] [--codec h264] [--rounds 3]
        [--network compact-x2]

A photo that moves, in H.264 at 25 frames a second, is upscaled by compact-x2 and by SRVGGNetCompact
of 16 layers at 4x with random parameters: decoded, computed, encoded and written. The computation
alone takes the same frames from memory, in batches of 16. Both in turn; the median of the rounds.
The last column is the computation's share of the processors' time, which other work on the machine
does not disturb: a video that keeps all cores busy cannot be faster. Needs pip install '.[video]'.
"""

import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import av
import numpy as np
import skimage.data

import isr_jax
from benchmarks import cases, timing
from benchmarks.upscale import drawn
from isr_jax.tiling.tiles import make_tiled, plan
from isr_jax.upscaling.upscaler import Upscaler
from isr_jax.video.jobs import Options, upscale_videos


def moving(count: int, width: int, height: int) -> list[np.ndarray]:
    """Return windows of a photo, each a few pixels from the one before."""
    photo = skimage.data.hubble_deep_field()
    tall = np.concatenate([photo, photo[::-1]])
    big = np.concatenate([tall, tall[:, ::-1]], axis=1)
    most = min(big.shape[0] - height, big.shape[1] - width)
    starts = [3 * i % most for i in range(count)]
    return [np.ascontiguousarray(big[i : i + height, i : i + width]) for i in starts]


def write(file: Path, images: list[np.ndarray]) -> None:
    """Write a clip in H.264."""
    with av.open(str(file), "w") as out:
        stream = out.add_stream("libx264", rate=Fraction(25), options={"crf": "16"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = images[0].shape[:2]
        for image in images:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))


def srvgg() -> Upscaler:
    """Return SRVGGNetCompact of 16 layers with random parameters."""
    network = drawn("srvggnet", cases.UPSCALED["SRVGG-16"])
    tiled = make_tiled(network.windows, plan(network.windows))(network.params, network.stats)
    return Upscaler("SRVGG-16", network.whole.scale, None, tiled=tiled)


NETWORKS = {"compact-x2": partial(isr_jax.load, "compact-x2"), "SRVGG-16": srvgg}


def main() -> None:
    """Print a Markdown table."""
    parser = timing.parser(__doc__, rounds=3)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--codec", default="h264")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    timing.print_machine(f"PyAV {av.__version__}")
    images = moving(options.frames, width, height)
    print(
        f"| {options.frames} frames of {options.size} to {options.codec} | computation, frames/s "
        "| video to video, frames/s "
        "| relative to computation alone | computation's share of CPU time |\n"
        "|---|---:|---:|---:|---:|",
        flush=True,
    )
    for network in options.network:
        upscaler = NETWORKS[network]()
        upscaler(images[0])  # compiles
        with TemporaryDirectory() as folder:
            clip = Path(folder) / "clip.mp4"
            write(clip, images)
            ways: dict[str, Callable[[], object]] = {
                "alone": partial(compute, upscaler, images),
                "video": partial(whole, upscaler, clip, options.codec),
            }
            taken = [[measured(way) for way in ways.values()] for _ in range(options.rounds)]
        (alone, alone_cpu), (video, video_cpu) = (
            [median(values) for values in zip(*rounds, strict=True)]
            for rounds in zip(*taken, strict=True)
        )
        print(
            f"| {upscaler.name}, {upscaler.scale}x | {options.frames / alone:.2f} "
            f"| {options.frames / video:.2f} | {alone / video:.2f} | {alone_cpu / video_cpu:.2f} |",
            flush=True,
        )


def measured(way: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of a call, by the clock and on processors."""
    clock, processors = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - clock, time.process_time() - processors


def compute(upscaler: Upscaler, images: list[np.ndarray]) -> None:
    """Upscale frames in batches of 16."""
    for start in range(0, len(images), 16):
        upscaler(np.stack(images[start : start + 16]))


def whole(upscaler: Upscaler, clip: Path, codec: str) -> None:
    """Upscale a clip from file to file."""
    outcome = upscale_videos(
        upscaler, [(clip, Path(clip.name))], options=Options(codec=codec), overwrite=True
    )
    assert outcome.upscaled == 1, outcome


if __name__ == "__main__":
    main()
