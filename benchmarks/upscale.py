"""Memory, speed, seams and colours of upscaling, beside the usual tiling.

    python -m benchmarks.upscale memory [--megapixels 48] [--scale 2.5 ...]
    python -m benchmarks.upscale speed [--model realesr-animevideov3.pth] [--rounds N]
    python -m benchmarks.upscale folder [--photos N]
    python -m benchmarks.upscale seams [--model RealESRGAN_x4plus.pth ...]
    python -m benchmarks.upscale colours --model compact-x4 [RealESRGAN_x4plus.pth ...]

memory: `isr upscale` of a JPEG photograph at 4x by compact-x4, in a process of its own; with
--scale, at these scales instead, to PNG.
speed: a photograph at 4x, beside PyTorch computing the same network whole and in tiles with a
padding of 10 pixels, as Real-ESRGAN's code does; the best time. Needs PyTorch.
folder: JPEG photos of 1 megapixel to PNG and to JPEG at 4x by compact-x4, decoded, computed and
encoded, beside the time of the computation alone.
seams: the difference between tiles and the whole image, for windows of the receptive field and for
the usual tiles. Without --model, networks have random parameters.
colours: the colours of upscaled flat patches.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import imagecodecs
import jax
import numpy as np
import skimage.data

import isr_jax
from benchmarks import timing
from configs import msssim
from isr_jax.checkpoints.restore import restore_generator
from isr_jax.models import GENERATORS, Generator, count_params, generator
from isr_jax.models.generators import make_upscale
from isr_jax.pytorch.state_dicts import to_state_dict
from isr_jax.resize import resize_uint8
from isr_jax.tiling.tiles import make_tiled, plan
from isr_jax.tiling.windows import Windowed, windowed
from isr_jax.upscaling.folders import upscale_files

SCALE, PAD = 4, 10
Upscale = Callable[[np.ndarray], np.ndarray]


class Network(NamedTuple):
    """A generator with parameters."""

    name: str
    options: Mapping[str, Any]
    whole: Generator
    windows: Windowed
    params: Any
    stats: Any

    def tiled(self, **how: int | None) -> Upscale:
        """Upscale by isr_jax's tiles."""
        cut = plan(self.windows, **how)
        run = make_tiled(self.windows, cut)(self.params, self.stats)
        return lambda lr: run(lr[None], None)[0]


def drawn(name: str, options: Mapping[str, Any]) -> Network:
    """Return a network with He-initialised kernels, also in the last layers, and neutral norms."""
    whole = generator(options, scale=SCALE)
    params, stats = jax.eval_shape(whole.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    plain = {"bias": 0.0, "scale": 1.0, "slope": 0.25, "mean": 0.0, "var": 1.0}

    def draw(path: Any, x: Any) -> np.ndarray:
        kind = path[-1].key
        if kind != "kernel":
            return np.full(x.shape, plain[kind], np.float32)
        return rng.normal(0, np.prod(x.shape[:-1]) ** -0.5, x.shape).astype(np.float32)

    params, stats = (jax.tree_util.tree_map_with_path(draw, x) for x in (params, stats))
    return Network(name, options, whole, windowed(whole), params, stats)


def loaded(model: str) -> Network:
    """Load a model."""
    restored = restore_generator(model)
    options = restored.config.generator.to_dict()
    network = windowed(restored.generator)
    name = f"{options['name']}, {Path(model).stem}"
    return Network(name, options, restored.generator, network, restored.params, restored.stats)


def usual_tiles(lr: np.ndarray, upscale: Upscale, *, tile: int) -> np.ndarray:
    """Upscale tiles with a padding of PAD pixels within the image, and assemble them."""
    h, w, _ = lr.shape
    sr = np.empty((h * SCALE, w * SCALE, 3), np.uint8)
    for y in range(0, h, tile):
        for x in range(0, w, tile):
            top, left = max(0, y - PAD), max(0, x - PAD)
            part = upscale(lr[top : y + tile + PAD, left : x + tile + PAD])
            part = part[(y - top) * SCALE :, (x - left) * SCALE :]
            place = sr[y * SCALE : (y + tile) * SCALE, x * SCALE : (x + tile) * SCALE]
            place[:] = part[: place.shape[0], : place.shape[1]]
    return sr


def make_peer(network: Network) -> Upscale:
    """Return the same SRVGGNetCompact in PyTorch, uint8 to uint8, rounded half to even."""
    import torch

    from tests.helpers.torch_generators import SRVGGNet

    options = network.options
    state = to_state_dict(network.params, network.stats, options=options, size=SCALE)
    peer = SRVGGNet(None, scale=SCALE, width=options["width"], layers=options["layers"]).eval()
    peer.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state.items()})

    @torch.no_grad()
    def upscale(lr: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(lr.transpose(2, 0, 1).astype(np.float32) / 255)[None]
        sr = peer(x)[0].clamp(0, 1).numpy().transpose(1, 2, 0)
        return (sr * 255.0).round().astype(np.uint8)

    return upscale


def report_speed(model: str | None, *, rounds: int) -> None:
    """Print the best seconds per output megapixel, and the differences from PyTorch."""
    import torch

    compact = {**GENERATORS["srvggnet"], "layers": 16}
    network = loaded(model) if model else drawn("srvggnet", compact)
    lr = skimage.data.hubble_deep_field()[:576, :768]
    lr = np.ascontiguousarray(lr)
    peer = make_peer(network)
    whole = make_upscale(network.whole)
    ways: dict[str, Upscale] = {
        f"PyTorch, tiles of 256 + {PAD}": partial(usual_tiles, upscale=peer, tile=256),
        f"PyTorch, tiles of 512 + {PAD}": partial(usual_tiles, upscale=peer, tile=512),
        "PyTorch, whole": peer,
    }
    for tile in (None, 256, 512):
        cut = plan(network.windows, tile=tile)
        name = f"isr_jax, tiles of {cut.tile} + {cut.overlap}"
        ways[name + (" (default)" if tile is None else "")] = network.tiled(tile=tile)
    ways[f"isr_jax, tiles of 256 + {PAD}"] = network.tiled(tile=256, overlap=PAD)
    ways["isr_jax, whole"] = lambda lr: np.asarray(whole(network.params, network.stats, lr))
    results = {name: upscale(lr) for name, upscale in ways.items()}
    times = timing.interleaved(
        {name: partial(upscale, lr) for name, upscale in ways.items()}, rounds=rounds, warm_up=0
    )
    megapixels = results["PyTorch, whole"].size / 3e6
    expected = results["PyTorch, whole"].astype(int)
    first = min(next(iter(times.values())))
    print(f"{network.name}, {count_params(network.params)} parameters, PyTorch {torch.__version__}")
    print(f"\n| {lr.shape[1]}x{lr.shape[0]} at 4x | s per megapixel | ratio | largest difference |")
    print("|---|---|---|---|")
    for name, took in times.items():
        difference = np.abs(results[name] - expected).max()
        print(f"| {name} | {min(took) / megapixels:.3f} | {min(took) / first:.2f} | {difference} |")


def report_seams(models: list[str]) -> None:
    """Print the differences between tiles and the whole image."""
    if models:
        networks = [loaded(model) for model in models]
    else:
        chosen = {**GENERATORS, "configs/msssim.py": msssim.get_config().generator.to_dict()}
        del chosen["edsr"]
        networks = [drawn(name, options) for name, options in chosen.items()]
    lr = np.ascontiguousarray(skimage.data.chelsea()[20:148, 80:224])
    print(
        f"| {lr.shape[1]}x{lr.shape[0]} at 4x | radius | tile | padding | largest | differ | > 1 |"
    )
    print("|---|---|---|---|---|---|---|")
    for network in networks:
        enlarge = make_upscale(network.whole)

        def whole(lr: np.ndarray, network: Network = network, enlarge: Any = enlarge) -> np.ndarray:
            return np.asarray(enlarge(network.params, network.stats, lr))

        expected = whole(lr).astype(int)
        for tile in (48, 96):
            overlap = plan(network.windows, tile=tile).overlap
            ways = {
                str(overlap): network.tiled(tile=tile),
                f"{PAD}, usual": partial(usual_tiles, upscale=whole, tile=tile),
            }
            for name, run in ways.items():
                difference = np.abs(run(lr) - expected)
                differ, more = (f"{100 * np.mean(difference > n):.3f} %" for n in (0, 1))
                print(
                    f"| {network.name} | {network.windows.radius} | {tile} | {name} "
                    f"| {difference.max()} | {differ} | {more} |",
                    flush=True,
                )


def report_memory(megapixels: float, scales: list[str]) -> None:
    """Print time and memory of upscaling a photograph of so many megapixels, file to file."""
    ways = [(scale, "png") for scale in scales] or [("4", x) for x in ("jpeg", "tiff", "png")]
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    photo = resize_uint8(skimage.data.coffee(), size=(height, height * 4 // 3))
    print("| JPEG to | megapixels | s | input + output, GiB | peak, GiB | beyond them |")
    print("|---|---|---|---|---|---|", flush=True)
    with TemporaryDirectory() as folder:
        source = Path(folder) / "photo.jpg"
        source.write_bytes(imagecodecs.jpeg8_encode(photo, level=95))
        lr = imagecodecs.jpeg8_decode(source.read_bytes())
        for scale, form in ways:
            images = photo.nbytes * (1 + float(scale) ** 2) / 2**30
            program = "import sys; from isr_jax.cli import main; sys.exit(main())"
            command = ["-c", program, "upscale", str(source), "--format", form, "--overwrite"]
            took, _, peak = timing.run_python([*command, "--scale", scale])
            print(
                f"| {form.upper()}, {scale}x | {megapixels * float(scale) ** 2:.0f} | {took:.0f} "
                f"| {images:.2f} | {peak:.2f} | {peak - images:.2f} |",
                flush=True,
            )
        if scales:
            return
        sr = imagecodecs.png_decode((Path(folder) / "photo_x4.png").read_bytes())
    corner = isr_jax.load("compact-x4")(lr[-128:, -128:])[64 * SCALE :, 64 * SCALE :]
    difference = np.abs(sr[-64 * SCALE :, -64 * SCALE :].astype(int) - corner).max()
    print(f"\nLargest difference of the last corner from that corner upscaled alone: {difference}")


def report_folder(photos: int) -> None:
    """Print the rate of a folder of photos as a share of that of the computation."""
    photo = resize_uint8(skimage.data.coffee(), size=(864, 1152))
    upscaler = isr_jax.load("compact-x4")
    upscaler(photo)
    print(f"| {photos} photos of 1152x864 to | s | computation, s | share |\n|---|---:|---:|---:|")
    with TemporaryDirectory() as folder:
        source = Path(folder) / "photos"
        source.mkdir()
        for i in range(photos):
            content = imagecodecs.jpeg8_encode(np.roll(photo, 10 * i, axis=1), level=95)
            (source / f"{i:02}.jpg").write_bytes(content)
        for form in ("jpeg", "png"):
            start = time.perf_counter()
            for _ in range(photos):
                upscaler(photo)
            alone = time.perf_counter() - start
            start = time.perf_counter()
            upscale_files(upscaler, [source], out=Path(folder) / form, format=form)
            took = time.perf_counter() - start
            print(f"| {form.upper()} | {took:.1f} | {alone:.1f} | {alone / took:.2f} |", flush=True)


def report_colours(models: list[str]) -> None:
    """Print how far upscaled flat patches of 64x64 pixels deviate, in levels of 255."""
    levels = (0, 32, 64, 128, 192, 224, 255)
    colours = np.array(np.meshgrid(levels, levels, levels), np.uint8).reshape(3, -1).T
    print(f"| {len(colours)} colours | inside | at the border | more than 1 inside |")
    print("|---|---|---|---|", flush=True)
    for model in models:
        network = loaded(model)
        enlarge, scale = make_upscale(network.whole), network.whole.scale
        inside, border = [], []
        for colour in colours:
            patch = np.broadcast_to(colour, (64, 64, 3))
            sr = np.asarray(enlarge(network.params, network.stats, patch))
            difference = np.abs(sr.astype(int) - colour)
            inside.append(difference[16 * scale : -16 * scale, 16 * scale : -16 * scale].max())
            border.append(difference.max())
        many = sum(x > 1 for x in inside)
        print(f"| {network.name} | {max(inside)} | {max(border)} | {many} |", flush=True)


def main() -> None:
    """Print a Markdown table."""
    parser = timing.parser(__doc__, rounds=3)
    parser.add_argument("what", choices=["memory", "speed", "folder", "seams", "colours"])
    parser.add_argument("--megapixels", type=float, default=48)
    parser.add_argument("--scale", nargs="+", default=[])
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--model", nargs="+", default=[])
    options = parser.parse_args()
    timing.print_machine()
    if options.what == "memory":
        report_memory(options.megapixels, options.scale)
    elif options.what == "folder":
        report_folder(options.photos)
    elif options.what == "colours":
        report_colours(options.model)
    elif options.what == "speed":
        report_speed(options.model[0] if options.model else None, rounds=options.rounds)
    else:
        report_seams(options.model)


if __name__ == "__main__":
    main()
