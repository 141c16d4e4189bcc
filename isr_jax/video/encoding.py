"""Encode frames, in segments that each start anew, so that a job resumes at the end of one.

    JOB/00012.packets   the encoded frames, one after the other
    JOB/00012.json      their sizes and times; written last, so that a segment without it is none

A segment holds a fixed number of frames whatever happens, and its encoder has seen no other frame:
a job that was killed and resumed therefore writes the same file as one that was not.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from isr_jax.errors import UserError
from isr_jax.files import read_json, write_json
from isr_jax.video.colour import RGB, even_sides, from_rgb
from isr_jax.video.names import CODECS
from isr_jax.video.reading import Video, reason

SEGMENT = 120  # frames

os.environ.setdefault("SVT_LOG", "1")  # errors only; SVT-AV1 prints by itself


class Target(NamedTuple):
    """What is encoded.

    Attributes:
        codec: a key of CODECS.
        crf: the quality, 0 to 51; None for a lossless codec.
        width, height: of the upscaled frames, pixels.
        pix_fmt: FFmpeg's name of the format of the samples.
        matrix: tag of the matrix.
        full: whether the samples use the full range.
        options: of the encoder.
        video: the input.
    """

    codec: str
    crf: int | None
    width: int
    height: int
    pix_fmt: str
    matrix: int
    full: bool
    options: dict[str, str]
    video: Video


class Packet(NamedTuple):
    """An encoded frame, when it is shown, and whether decoding can start with it."""

    data: bytes
    pts: int
    key: bool


class Times(NamedTuple):
    """What is known of a segment.

    Attributes:
        sizes, pts, keys: of its packets in the order of decoding, bytes, ticks, and whether
            decoding can start there.
        shown, durations: of its frames in the order in which they are shown, ticks.
    """

    sizes: list[int]
    pts: list[int]
    keys: list[bool]
    shown: list[int]
    durations: list[int]


def make_target(
    video: Video, *, codec: str, crf: int | None, size: tuple[int, int]
) -> tuple[Target, list[str]]:
    """Return what is encoded, and lines on what the codec cannot hold.

    Args:
        video: that is upscaled.
        codec, crf: as of `jobs.Options`.
        size: height and width of the upscaled frames.
    """
    kind, colour = CODECS[codec], video.colour
    notices, bits = [], min(colour.bits, kind.deep) if colour.deep else 8
    if bits < colour.bits:
        notices.append(f"{colour.bits} bits became {bits}: {codec} holds no more here")
    if kind.sampling == ("rgb",) and colour.matrix != colour.used:
        raise UserError(
            f"{video.file}: {codec} would hold wrong colours of its matrix, which is not known "
            "here: choose another --codec, which keeps it"
        )
    if kind.sampling == ("rgb",):
        pix_fmt, matrix, full = ("rgb48le" if colour.deep else "bgr0"), 0, True
    else:
        sampling = video.sampling if video.sampling in kind.sampling else "420"
        sampling = "420" if colour.kind == "rgb" else sampling
        if sampling != video.sampling:
            notices.append(f"chroma was subsampled to {':'.join(sampling)}")
        pix_fmt = f"yuv{sampling}p" + ("10le" if colour.deep else "")
        # BT.709 for RGB, which has no matrix of its own.
        matrix, full = colour.matrix or 1, colour.full and colour.kind != "rgb"
        if even_sides(size, pix_fmt=pix_fmt) != size:
            notices.append(f"odd sides were padded by a pixel: {codec} needs even ones")
    crf = None if kind.crf is None else kind.crf if crf is None else crf
    if codec == "av1" and crf is not None:
        crf = max(1, crf)  # FFmpeg takes 0 as none
    options = dict(kind.options) | ({} if crf is None else {"crf": str(crf)})
    height, width = even_sides(size, pix_fmt=pix_fmt)
    options |= encoder_parameters(codec, video)
    return Target(codec, crf, width, height, pix_fmt, matrix, full, options, video), notices


def configure(context: VideoCodecContext, target: Target) -> None:
    """Give an encoder everything that it is opened with."""
    video = target.video
    context.width, context.height, context.pix_fmt = target.width, target.height, target.pix_fmt
    context.time_base, context.framerate = video.time_base, video.rate.limit_denominator(100_000)
    context.bit_rate = 0
    if video.aspect:
        context.sample_aspect_ratio = video.aspect
    context.color_range = 2 if target.full else 1
    context.colorspace = target.matrix
    context.color_primaries, context.color_trc = video.primaries, video.transfer
    context.flags |= Flags.global_header
    context.options = target.options


def make_encoder(target: Target) -> VideoCodecContext:
    """Return an encoder that has seen no frame.

    Raises:
        UserError: the codec cannot encode such frames.
    """
    # SVT-AV1 refuses smaller ones, and x265 4.1 writes beyond its memory.
    if target.codec in ("h265", "av1") and min(target.width, target.height) < 64:
        raise UserError(
            f"{target.video.file}: {target.codec} needs sides of 64 pixels or more: try --codec "
            "h264"
        )
    context = av.CodecContext.create(CODECS[target.codec].encoder, "w")
    assert isinstance(context, VideoCodecContext)
    configure(context, target)
    try:
        context.open()
    except FFmpegError as error:
        raise UserError(
            f"{target.codec} cannot encode {target.width}x{target.height} pixels: {reason(error)}; "
            "try another --codec"
        ) from error
    return context


class Segment:
    """A segment that is being written; complete once `close` has returned."""

    def __init__(self, context: VideoCodecContext, folder: Path, number: int) -> None:
        self._context, self._index = context, folder / f"{number:05}.json"
        self._file = open(folder / f"{number:05}.packets", "wb")  # noqa: SIM115 (see close)
        self.times = Times([], [], [], [], [])

    def add(self, pixels: RGB, *, pts: int, duration: int, target: Target) -> None:
        """Encode a frame."""
        frame = from_rgb(
            pixels,
            pix_fmt=target.pix_fmt,
            used=target.video.colour.used or target.matrix,
            full=target.full,
        )
        frame.pts, frame.time_base = pts, target.video.time_base
        self.times.shown.append(pts)
        self.times.durations.append(duration)
        self._write(self._context.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds, and the index."""
        with self._file:
            self._write(self._context.encode(None))
            self._file.flush()
            os.fsync(self._file.fileno())
        write_json(self._index, self.times._asdict())

    def abandon(self) -> None:
        """Leave the segment incomplete."""
        self._file.close()

    def _write(self, packets: list[Any]) -> None:
        for packet in packets:
            self.times.sizes.append(self._file.write(bytes(packet)))
            self.times.pts.append(packet.pts)
            self.times.keys.append(packet.is_keyframe)


def read_times(folder: Path) -> list[Times]:
    """Return the times of a job's complete segments, up to the first that is missing or damaged."""
    found: list[Times] = []
    with suppress(TypeError):
        while known := read_json(folder / f"{len(found):05}.json"):
            found.append(Times(**known))
    return found


def packets_of(folder: Path, segments: list[Times]) -> Iterator[Packet]:
    """Yield the packets of all segments, in the order of decoding."""
    for number, times in enumerate(segments):
        with open(folder / f"{number:05}.packets", "rb") as file:
            for size, pts, key in zip(times.sizes, times.pts, times.keys, strict=True):
                data = file.read(size)
                if len(data) < size:
                    raise UserError(f"{file.name} is cut short: remove {folder} and start over")
                yield Packet(data, pts, key)


def encoder_parameters(codec: str, video: Video) -> dict[str, str]:
    """Return an encoder's own parameters: what it always needs, and HDR10's static metadata.

    Source: the documentation of x264, x265 and SVT-AV1, for the units too.
    """
    names = {
        "h264": ("x264-params", "mastering-display", "cll"),
        "h265": ("x265-params", "master-display", "max-cll"),
        "av1": ("svtav1-params", "mastering-display", "content-light"),
    }
    if codec not in names:
        return {}
    params, display, light = names[codec]
    parts = ["log-level=none"] if codec == "h265" else []
    # x264 0.165's AVX-512 code for rate control reads memory that it has not written where rows
    # have few blocks, so that its output differs between runs.
    if codec == "h264" and _has_avx512():
        parts.append("asm=AVX2")
    if values := video.mastering:

        def scaled(value: Fraction, units: int) -> str:
            return f"{float(value):.5f}" if codec == "av1" else str(round(value * units))

        red, green, blue, white = (
            f"({scaled(values[i], 50_000)},{scaled(values[i + 1], 50_000)})" for i in (0, 2, 4, 6)
        )
        luminance = f"({scaled(values[9], 10_000)},{scaled(values[8], 10_000)})"
        parts.append(f"{display}=G{green}B{blue}R{red}WP{white}L{luminance}")
    if video.light:
        parts.append(f"{light}={video.light[0]},{video.light[1]}")
    return {params: ":".join(parts)} if parts else {}


@cache
def _has_avx512() -> bool:
    """Return whether the processor has AVX-512, and so AVX2; False where Linux does not say."""
    with suppress(OSError):
        return " avx512f" in Path("/proc/cpuinfo").read_text()
    return False
