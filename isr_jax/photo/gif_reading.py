"""How large the frames of a GIF file are, read before Pillow takes memory for them."""

from io import BufferedIOBase

_IMAGE, _EXTENSION, _END = b",", b"!", b";"


def canvas(file: BufferedIOBase) -> tuple[int, int]:
    """Return the width and height that hold all frames of a GIF file.

    The header's may be smaller: Pillow enlarges the image for a frame that goes beyond it. The file
    stands at its start, and does so again afterwards.

    Source: CompuServe 1990, "Graphics Interchange Format, version 89a", sections 15 to 26.
    """
    screen = file.read(13)
    width, height = _number(screen, 6), _number(screen, 8)
    _skip_colours(file, screen[10:11])
    while (kind := file.read(1)) not in (b"", _END):
        if kind not in (_IMAGE, _EXTENSION):
            continue  # as Pillow does
        if kind == _IMAGE:
            frame = file.read(9)
            width = max(width, _number(frame, 0) + _number(frame, 4))
            height = max(height, _number(frame, 2) + _number(frame, 6))
            _skip_colours(file, frame[8:9])
        file.seek(1, 1)  # the size of LZW's codes, or the kind of extension
        while length := int.from_bytes(file.read(1), "little"):
            file.seek(length, 1)
    file.seek(0)
    return width, height


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _skip_colours(file: BufferedIOBase, flags: bytes) -> None:
    """Skip the table of colours that a header's flags announce."""
    if flags and flags[0] & 0x80:
        file.seek(3 << (flags[0] & 7) + 1, 1)
