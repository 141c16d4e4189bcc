"""Conversions of decoded pixels: bit depth, transparency, colour profiles, Pillow images.

Pixels are uint8 or uint16, [h, w] (gray), [h, w, 2] (gray, alpha), [h, w, 3] (RGB) or [h, w, 4]
(RGB, alpha); alpha is straight, not multiplied into the colours.
"""

import io
from contextlib import suppress
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from jaxtyping import Float, Shaped, UInt8, UInt16
from PIL import Image, ImageCms

Pixels = UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"]

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FLOATS = "floating-point values were read as 0 to 1, clipped, in 16 bits"  # a notice
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


class Page(NamedTuple):
    """The pixels of one page, and the ICC profile that they are in."""

    pixels: Pixels
    icc: bytes | None


def to_8_bits(pixels: Pixels) -> UInt8[np.ndarray, "h w *c"]:
    """Return 16-bit pixels rounded to the nearest of 256 levels; 8-bit ones unchanged."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_16_bits(pixels: Pixels) -> UInt16[np.ndarray, "h w *c"]:
    """Return 8-bit pixels as the same values of 65535; 16-bit ones unchanged."""
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)


def from_bits(values: Shaped[np.ndarray, "..."], bits: int) -> Shaped[np.ndarray, "..."]:
    """Return values of 1 to 16 bits as the same parts of 255, or of 65535 beyond 8 bits."""
    if bits in (8, 16):
        return values
    peak, dtype = (255, np.uint8) if bits < 8 else (65535, np.uint16)
    most = (1 << bits) - 1
    return ((values.astype(np.uint32) * peak + most // 2) // most).astype(dtype)


def from_float(values: Float[np.ndarray, "..."]) -> UInt16[np.ndarray, "..."]:
    """Return values of 0 to 1 as uint16; those beyond are clipped, and what is no number is 0.

    Raises:
        ValueError: more than half of the values are beyond 1.
    """
    values = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    if np.count_nonzero(values > 1) * 2 > values.size:
        raise ValueError(
            f"floating-point pixels of up to {values.max():.6g}, but 1 is white: divide them, or "
            "save it with 8 or 16 bits"
        )
    np.clip(values, 0, 1, out=values)
    values *= 65535
    values += 0.5
    return values.astype(np.uint16)


def over_white(pixels: Pixels) -> np.ndarray:
    """Return gray [h, w] or RGB [h, w, 3]: pixels with alpha composed over white, and rounded."""
    if pixels.ndim == 2 or pixels.shape[2] in (1, 3):
        return pixels
    peak = np.iinfo(pixels.dtype).max
    colour, alpha = pixels[..., :-1].astype(np.uint32), pixels[..., -1:].astype(np.uint32)
    laid = (colour * alpha + (peak - alpha) * peak + peak // 2) // peak
    return laid.astype(pixels.dtype)[..., 0 if laid.shape[2] == 1 else slice(None)]


def as_image(pixels: UInt8[np.ndarray, "h w *c"]) -> Image.Image:
    """Return a read-only Pillow image that shares the pixels where Pillow can."""
    mode = MODES[pixels.shape[2] if pixels.ndim == 3 else 1]
    size = pixels.shape[1], pixels.shape[0]
    return Image.frombuffer(mode, size, np.ascontiguousarray(pixels), "raw", mode, 0, 1)


def in_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """Convert an image of mode L, RGB or CMYK from the colours of a profile to sRGB."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    srgb = ImageCms.createProfile("sRGB")
    intent, black = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    result = ImageCms.profileToProfile(
        image, profile, srgb, renderingIntent=intent, outputMode="RGB", flags=black
    )
    assert result is not None  # it is None only for a conversion in place
    return result


def colours_in_srgb(pixels: Pixels, icc: bytes) -> Pixels:
    """Convert gray or RGB pixels from the colours of a profile to sRGB; alpha stays.

    Raises:
        PyCMSError, OSError, RuntimeError: the profile is damaged.
    """
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        colour = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
        converted = colours_in_srgb(np.ascontiguousarray(colour), icc)
        return np.dstack([converted, pixels[..., -1]])
    if pixels.dtype == np.uint8:
        image = in_srgb(as_image(pixels), icc)
        return np.array(image.convert("L") if pixels.ndim == 2 else image)
    # Pillow has no 16 bits of colour. 1 is the relative intent, 0x2000 black point compensation.
    own = "gray" if pixels.ndim == 2 else "rgb"
    options: Any = {"colorspace": own, "outcolorspace": "rgb", "intent": 1, "flags": 0x2000}
    rgb = imagecodecs.cms_transform(pixels, icc, SRGB, **options)
    return np.ascontiguousarray(rgb[..., 1]) if pixels.ndim == 2 else rgb


def rgb_of_cmyk(image: Image.Image) -> tuple[UInt8[np.ndarray, "h w 3"], bytes | None]:
    """Return the RGB pixels of a CMYK image and their profile: sRGB, through its own profile.

    Without a profile, or with a damaged one, it is converted by Pillow's formula.
    """
    icc = image.info.get("icc_profile")
    if icc is not None and colour_space(icc) == b"CMYK":
        with suppress(ImageCms.PyCMSError, OSError):  # OSError: no profile at all
            return np.array(in_srgb(image, icc)), SRGB
    return np.array(image.convert("RGB")), None


def colour_space(icc: bytes) -> bytes:
    """Return the colour space that an ICC profile converts from, such as b"RGB "."""
    return icc[16:20]


def upright(pixels: Pixels, *, orientation: int) -> np.ndarray:
    """Return a view of the pixels, [h, w] or [w, h], turned by an EXIF orientation of 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    down = orientation in (3, 4, 7, 8)
    left = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if down else 1, :: -1 if left else 1]


def make_page(pixels: Pixels, icc: bytes | None) -> Page:
    """Return a page, without a profile that is for other channels than it has."""
    space = b"GRAY" if pixels.ndim == 2 or pixels.shape[2] == 2 else b"RGB "
    return Page(np.ascontiguousarray(pixels), icc if icc and colour_space(icc) == space else None)


def pillow_page(image: Image.Image, *, orientation: int, alpha: bool = False) -> Page:
    """Decode the page that an image stands at, upright; 8 bits per channel, or 16 of gray."""
    icc = image.info.get("icc_profile")
    image.load()
    if image.mode == "CMYK":
        pixels, icc = rgb_of_cmyk(image)
    elif image.mode.startswith("I;16"):
        pixels = np.array(image).astype(np.uint16)
    elif image.mode in ("I", "F"):
        raise ValueError("32-bit pixels; save it with 8 or 16 bits")
    else:
        gray = image.mode in ("1", "L", "LA", "La")
        alpha = alpha or image.has_transparency_data
        mode = ("L" if gray else "RGB") + ("A" if alpha else "")
        if image.mode == "1" and image.info.get("transparency") == 1:
            image = image.copy()
            image.info["transparency"] = 255  # as convert calls it, and Pillow itself from 12.1
        # Pillow has no way from 1 bit with transparency to gray with alpha but this one.
        image = image.convert("RGBA") if mode == "LA" and image.mode == "1" else image
        pixels = np.array(image if image.mode == mode else image.convert(mode))
    return make_page(upright(pixels, orientation=orientation), icc)
