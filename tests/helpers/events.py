"""What TensorBoard shows of a run: its files of events, read from their bytes."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog


def events(data: bytes) -> Iterator[Any]:
    """Yield the events of a file: length, its checksum, event, its checksum."""
    at = 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        if at + 16 + length > len(data):
            return  # cut short by a kill
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


def shown(run: Path) -> list[tuple[str, int, Any]]:
    """Return (tag, step, value) in the order in which they are shown; a picture as PNG.

    As TensorBoard does, where a file says that a session starts at a step, forget what came at or
    after it before.
    """
    found: list[tuple[str, int, Any]] = []
    for file in sorted(run.glob("events*"), key=lambda file: file.stat().st_mtime_ns):
        for event in events(file.read_bytes()):
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                found = [one for one in found if one[1] < event.step]
            for value in event.summary.value:
                picture = value.HasField("image")
                content = value.image.encoded_image_string if picture else value.simple_value
                found.append((value.tag, event.step, content))
    return found
