"""Whether a WebP file was compressed without loss, which Pillow does not tell."""

import struct
from io import BufferedIOBase


def is_lossless(file: BufferedIOBase) -> bool:
    """Return whether every frame of a WebP file is lossless.

    Args:
        file: a WebP file that can be decoded.

    Source: WebP container specification, "Simple File Format (Lossless)" and "Animation".
    """
    kinds: set[bytes] = set()
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        if kind in (b"VP8 ", b"VP8L"):
            kinds.add(kind)
        # A frame of an animation holds chunks of its own behind a header.
        file.seek(16 if kind == b"ANMF" else length + length % 2, 1)
    return kinds == {b"VP8L"}
