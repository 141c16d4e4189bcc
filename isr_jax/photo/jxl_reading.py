"""JPEG XL, by imagecodecs."""

import imagecodecs

from isr_jax.photo.contents import Head, Still
from isr_jax.photo.jxl_header import boxes, read_header
from isr_jax.photo.pixels import FLOATS, Pixels, from_bits, from_float

_LONGEST_EXIF = 2**24


def open_jxl(content: bytes) -> Still:
    """Read the header of a JPEG XL file.

    Raises:
        ValueError: it is damaged.
    """
    header = read_header(content)
    channels = (1 if header.gray else 3) + header.alpha
    deep = header.bits > 8
    size = (header.width, header.height)
    head = Head("jxl", (size,), channels, 16 if deep else 8, 0 if header.floating else header.bits)
    notices = [FLOATS] if header.floating else []
    if header.animated:
        notices.append("only the first frame of an animated JPEG XL was read")
    if header.srgb is None:
        notices.append("the ICC profile of JPEG XL cannot be read, and the colours were kept")
    elif not header.srgb:
        notices.append("the colours of JPEG XL, which are not sRGB, were kept without their label")
    if header.extra > header.alpha:
        notices.append("channels of JPEG XL beyond colour and transparency were left out")
    info = {}
    if content[:2] != b"\xff\x0a":
        parts = boxes(content)
        exif, packed = parts.get(b"Exif", b""), parts.get(b"brob", b"")
        if packed[:4] == b"Exif":
            try:
                exif = bytes(imagecodecs.brotli_decode(packed[4:], out=_LONGEST_EXIF))
            except RuntimeError:
                notices.append("EXIF was left out because it cannot be read")
        if packet := parts.get(b"xml ", b""):
            info["xmp"] = packet
        if len(exif) > 4:
            info["exif"] = b"Exif\0\0" + exif[4 + int.from_bytes(exif[:4], "big") :]

    def decode() -> Pixels:
        values = imagecodecs.jpegxl_decode(content, index=0)
        values = values.reshape(*values.shape[:2], -1)[..., :channels]
        pixels = from_float(values) if header.floating else from_bits(values, header.bits)
        return pixels[..., 0] if channels == 1 else pixels

    # The decoder turns the pixels, and what EXIF says of that does not count.
    return Still(head, decode, info, header.lossless, tuple(notices))
