"""IPTC's records (IIM: captions, keywords, places) among Photoshop's image resources.

Source: Adobe Photoshop File Formats Specification, "Image Resource Blocks".
"""

import struct

_RESOURCE = 0x0404


def iptc_of(resources: bytes) -> bytes:
    """Return IPTC's records among Photoshop's image resources, or alone; b"" for none."""
    if resources.startswith(b"\x1c"):
        return resources
    at, found = 0, b""
    while resources[at : at + 4] == b"8BIM" and len(resources) >= at + 12:
        (kind,) = struct.unpack_from(">H", resources, at + 4)
        at += 6 + (1 + resources[at + 6] + 1) // 2 * 2
        size = int.from_bytes(resources[at : at + 4], "big")
        if kind == _RESOURCE:
            found += resources[at + 4 : at + 4 + size]
        at += 4 + (size + 1) // 2 * 2
    return found


def as_resource(iptc: bytes) -> bytes:
    """Return IPTC's records as an image resource of Photoshop's."""
    head = struct.pack(">4sHHI", b"8BIM", _RESOURCE, 0, len(iptc))
    return head + iptc + bytes(len(iptc) % 2)
