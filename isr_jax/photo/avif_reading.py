"""AVIF of more than 8 bits, and of gray: Pillow would round them, or make them colour."""

from typing import Any

import imagecodecs

from isr_jax.photo.contents import Head, Still
from isr_jax.photo.iso_boxes import properties_of
from isr_jax.photo.pixels import Pixels, from_bits

OTHER_COLOURS = "the colours of {}, which are not sRGB, were kept without their label"


def open_avif(content: bytes, image: Any) -> Still:
    """Read the header of a still AVIF file.

    Args:
        content: of the file.
        image: Pillow's, with its EXIF, whose orientation is that of the file, and ICC profile.
    """
    known = properties_of(content)
    channels = (1 if known.gray else 3) + (len(image.getbands()) == 4)
    head = Head("avif", (image.size,), channels, 16 if known.bits > 8 else 8, known.bits)

    def decode() -> Pixels:
        return from_bits(imagecodecs.avif_decode(content, index=0), known.bits)

    kept = known.srgb or "icc_profile" in image.info
    notices = () if kept else (OTHER_COLOURS.format("AVIF"),)
    return Still(head, decode, dict(image.info), known.identity, notices)
