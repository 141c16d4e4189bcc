"""Decoded frames to RGB and back, by the matrix, range and bits of the video.

swscale converts: it interpolates chroma where the video says that it is sited. Its 16-bit RGB is
not that of this package, which reaches from 0 to 65535: white of limited range is 65280 there, and
that of full range is the highest value, shifted. Gray is not expanded by it at all. A table of
levels makes up for both.
"""

from functools import cache
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation
from jaxtyping import UInt8, UInt16

RGB = UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w 3"]
Upscaled = UInt8[np.ndarray, "sh sw 3"] | UInt16[np.ndarray, "sh sw 3"]

_HOW = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)
_LIMITED, _FULL = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
_BT601, _BT709, _BT2020, _UNSPECIFIED = 6, 1, 9, 2  # AVCOL_SPC_*
# Matrices that swscale converts by: BT.709, FCC, BT.601 (625 and 525 lines), SMPTE 240M, BT.2020.
_KNOWN = (1, 4, 5, 6, 7, 9)
_CONSTANT_LUMINANCE = 10


class Colour(NamedTuple):
    """How samples stand for colours.

    Attributes:
        matrix: the tag, of FFmpeg's AVCOL_SPC; explicit where the video has YUV without a tag.
        used: the matrix that is converted by: the same, or where swscale lacks it, a similar one.
        full: whether samples use the full range.
        bits: per sample.
        kind: yuv, gray or rgb.
    """

    matrix: int
    used: int
    full: bool
    bits: int
    kind: str

    @property
    def deep(self) -> bool:
        """Whether pixels need 16 bits."""
        return self.bits > 8


def colour_of(frame: av.VideoFrame) -> Colour:
    """Return how a frame's samples stand for colours.

    Without a tag, the matrix is BT.709 where the frame is wider than 1279 or higher than 576
    pixels, and BT.601 elsewhere. The range is limited.
    Source: mpv, mp_csp_guess_colorspace.
    """
    name, parts = frame.format.name, frame.format.components
    bits = max(part.bits for part in parts)
    if frame.format.is_rgb or name.startswith(("pal", "mono")):
        return Colour(0, 0, True, bits, "rgb")
    matrix = frame.colorspace
    if matrix in (0, _UNSPECIFIED):
        matrix = _BT709 if frame.width >= 1280 or frame.height > 576 else _BT601
    used = matrix if matrix in _KNOWN else _BT709
    if matrix == _CONSTANT_LUMINANCE:
        used = _BT2020
    full = frame.color_range == _FULL or name.startswith("yuvj")
    return Colour(matrix, used, full, bits, "gray" if sum(map(_colours, parts)) == 1 else "yuv")


def _colours(part: object) -> bool:
    return not getattr(part, "is_alpha", False)


def to_rgb(frame: av.VideoFrame, colour: Colour, *, width: int, height: int) -> RGB:
    """Return a frame's pixels, uint16 where they have more than 8 bits.

    Args:
        frame: of the video.
        colour: as of `colour_of`.
        width, height: of the result, for a video whose size changes on its way.
    """
    if colour.kind != "rgb":
        frame.colorspace = colour.used
        frame.color_range = _FULL if colour.full else _LIMITED
    name = "rgb48le" if colour.deep else "rgb24"
    pixels: Any = frame.reformat(
        width=width, height=height, format=name, interpolation=_HOW
    ).to_ndarray()
    table = _levels(colour.kind, colour.full, colour.bits)
    return np.ascontiguousarray(pixels) if table is None else table[pixels]


def from_rgb(pixels: RGB, *, pix_fmt: str, used: int, full: bool) -> av.VideoFrame:
    """Return a frame for an encoder, its chroma sited to the left, as players expect untagged.

    Odd sides of a format that needs even ones are padded by their last row or column.

    Args:
        pixels: the image.
        pix_fmt: FFmpeg's name of the format.
        used: the matrix, where the format is YUV.
        full: whether it uses the full range.
    """
    deep, rgb = pixels.dtype == np.uint16, not pix_fmt.startswith("yuv")
    if deep and not rgb:
        pixels = _of_16_bits()[pixels]
    height, width = even_sides(pixels.shape[:2], pix_fmt=pix_fmt)
    if (height, width) != pixels.shape[:2]:
        missing = (height - pixels.shape[0], width - pixels.shape[1])
        pixels = np.pad(pixels, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="edge")
    frame = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(pixels), format="rgb48le" if deep else "rgb24"
    )
    if rgb:
        return frame.reformat(format=pix_fmt)
    frame.colorspace, frame.color_range = used, _FULL
    return frame.reformat(
        format=pix_fmt, interpolation=_HOW, dst_color_range=_FULL if full else _LIMITED
    )


def even_sides(size: tuple[int, ...], *, pix_fmt: str) -> tuple[int, int]:
    """Return height and width as a format needs them."""
    height, width = size
    return (
        height + height % 2 * ("420" in pix_fmt),
        width + width % 2 * ("420" in pix_fmt or "422" in pix_fmt),
    )


@cache
def _levels(kind: str, full: bool, bits: int) -> np.ndarray | None:
    """Return swscale's level -> the level of this package; None where they are the same."""
    if kind == "rgb" or (bits == 8 and (kind == "yuv" or full)):
        return None
    if bits <= 8:
        levels = (np.arange(256) - 16.0) * 255 / 219
        return np.rint(levels.clip(0, 255)).astype(np.uint8)
    swscale = np.arange(65536.0)
    if full:
        levels = swscale * 65535 / ((2**bits - 1) << (16 - bits))
    elif kind == "gray":
        levels = (swscale / 256 - 16) * 65535 / 219
    else:
        levels = swscale * 257 / 256
    return np.rint(levels.clip(0, 65535)).astype(np.uint16)


@cache
def _of_16_bits() -> UInt16[np.ndarray, " 65536"]:
    return np.rint(np.arange(65536) * 256 / 257).astype(np.uint16)
