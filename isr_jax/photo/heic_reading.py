"""HEIC, by pi-heif, which is an extra: its decoder is under another licence than all else."""

import io

import numpy as np

from isr_jax.errors import UserError
from isr_jax.photo.contents import Head, Still
from isr_jax.photo.iso_boxes import properties_of
from isr_jax.photo.pixels import Pixels, from_bits


def open_heic(content: bytes) -> Still:
    """Read the header of a HEIC file.

    Raises:
        UserError: pi-heif is not installed.
        ValueError: the file is damaged.
    """
    try:
        import pi_heif  # pyright: ignore[reportMissingImports] (an extra)
    except ModuleNotFoundError as error:
        raise UserError("HEIC needs pi-heif: run pip install 'isr-jax[heic]'") from error
    heif = pi_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    colours, _, stored = heif.mode.partition(";")  # such as RGB;10
    channels = {"L": 1, "I": 1, "LA": 2, "RGB": 3, "RGBA": 4}.get(colours.upper())
    if channels is None:
        raise ValueError(f"{heif.mode} pixels; save it as RGB")
    bits = int(heif.info.get("bit_depth") or 8)
    shift = max(0, int(stored or bits) - bits)
    head = Head("heic", (heif.size,), channels, 16 if bits > 8 else 8, bits)
    # libheif turns the pixels, and what EXIF says of that does not count.
    info = {name: heif.info[name] for name in ("exif", "icc_profile") if heif.info.get(name)}
    notices = []
    if len(heif) > 1:
        notices.append(f"only the main one of {len(heif)} images in a HEIC file was read")
    if "icc_profile" not in info and not properties_of(content).srgb:
        notices.append("the colours of HEIC, which are not sRGB, were kept without their label")

    def decode() -> Pixels:
        return from_bits(np.ascontiguousarray(np.asarray(heif) >> shift), bits)

    return Still(head, decode, info, False, tuple(notices))
