"""Write the output of a job: its segments as one video stream, beside the input's other streams.

Audio, subtitles, attachments, data and cover pictures are copied without decoding them, where the
container holds them. Decoding times are made anew from the presentation times of all frames,
because those of each segment's encoder only fit within the segment.
"""

import io
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError, PatchWelcomeError
from av.stream import Disposition, Stream

from isr_jax.errors import UserError, disk_error
from isr_jax.files import replacing
from isr_jax.video.encoding import Target, Times, configure, packets_of
from isr_jax.video.names import CODECS, CONTAINERS
from isr_jax.video.reading import RESTART, demuxed, is_joined, main_stream, opened, reason

# What FFmpeg writes itself.
_OF_CONTAINER = {"encoder", "major_brand", "minor_version", "compatible_brands"}
_OF_STREAM = {"encoder", "bps", "duration", "number_of_frames", "number_of_bytes", "alpha_mode"}


def assemble(
    target: Target, file: Path, *, folder: Path, segments: list[Times], size: tuple[int, int]
) -> list[str]:
    """Write a video whole or not at all; return lines on what its container could not hold.

    Args:
        target: what the segments hold.
        file: the output.
        folder: of the segments.
        segments: their times.
        size: height and width of the upscaled frames.
    """
    kind, notices = CONTAINERS[file.suffix.lower()], Counter()
    with (
        opened(target.video.file) as source,
        replacing(file) as unfinished,
        _written(file),
        av.open(
            f"file:{unfinished}",
            "w",
            format=kind.format,
            container_options=_muxer(kind.format, source),
            metadata_errors="surrogateescape",
        ) as output,
    ):
        main = main_stream(source)
        assert main
        copied: dict[int, Stream] = {}
        encoded = None
        for stream in source.streams:
            if stream.index == main.index:
                encoded = _add_encoded(output, target, main, size=size)
            elif made := _add_copied(output, stream, source, kind.format, notices):
                copied[stream.index] = made
        assert encoded
        output.metadata.update(_without(source.metadata, _OF_CONTAINER))
        shift = _start(source)
        output.set_chapters([_moved(chapter, shift) for chapter in source.chapters()])
        output.start_encoding()
        video = _timed(target, folder, segments, encoded, shift)
        moves = _moves(target.video.file) if copied else []
        packets = _packets(source, copied, moves, notices)
        _interleave(output, packets, copied, video, shift, notices)
    return [f"{line} ({n})" if n > 1 else line for line, n in notices.items()]


@contextmanager
def _written(file: Path) -> Iterator[None]:
    """Say of the output what FFmpeg's errors are about; those of the input are caught before."""
    try:
        yield
    except FFmpegError as error:
        why = disk_error(error) or reason(error)
        raise UserError(f"{file} cannot be written: {why}") from error


def decoding_times(pts: list[int]) -> list[int]:
    """Return the decoding times of packets: they grow, and none is later than its frame is shown.

    A decoder that holds back d frames shows the earliest of those that it has. The decoding times
    are therefore the presentation times in order, d packets later; d is the least that fits.

    Args:
        pts: presentation times in the order of decoding, all different.
    """
    shown = sorted(pts)
    rank = {time: i for i, time in enumerate(shown)}
    delay = max((i - rank[time] for i, time in enumerate(pts)), default=0)
    if not shown:
        return []
    step = max(1, min((b - a for a, b in itertools.pairwise(shown)), default=1))
    before = [shown[0] - i * step for i in range(delay, 0, -1)]
    return (before + shown)[: len(shown)]


def _timed(
    target: Target, folder: Path, segments: list[Times], stream: Stream, shift: Fraction
) -> Iterator[tuple[Fraction, av.Packet]]:
    """Yield the packets of the segments with their decoding times in seconds."""
    base, unit = target.video.time_base, stream.time_base
    assert unit

    def ticks(time: int) -> int:
        return round((time * base - shift) / unit)

    shown: dict[int, int] = {}
    durations = {}
    last = None
    for times in segments:
        for pts, duration in zip(times.shown, times.durations, strict=True):
            # The container's ticks may be coarser, as the milliseconds of Matroska are.
            moved = ticks(pts) if last is None else max(ticks(pts), last + 1)
            shown[pts] = last = moved
            durations[pts] = max(1, ticks(pts + duration) - ticks(pts))
    order = [shown[pts] for times in segments for pts in times.pts]
    end = max((shown[pts] + durations[pts] for pts in shown), default=0)
    for packet, dts in zip(packets_of(folder, segments), decoding_times(order), strict=True):
        made = av.Packet(packet.data)
        made.stream, made.time_base = stream, unit
        made.pts, made.dts = shown[packet.pts], dts
        made.duration, made.is_keyframe = durations[packet.pts], packet.key
        if dts == last:  # where MP4 ends, whichever frame it is
            made.duration = end - dts
        yield made.dts * unit, made


def _interleave(
    output: OutputContainer,
    packets: Iterator[av.Packet],
    copied: dict[int, Stream],
    video: Iterator[tuple[Fraction, av.Packet]],
    shift: Fraction,
    notices: Counter,
) -> None:
    """Write the packets of all streams in the order of their decoding times."""
    waiting = next(video, None)
    for packet in packets:
        assert packet.dts is not None and packet.time_base
        time = packet.dts * packet.time_base - shift
        while waiting and waiting[0] <= time:
            output.mux_one(waiting[1])
            waiting = next(video, None)
        moved = round(shift / packet.time_base)
        packet.dts -= moved
        if packet.pts is not None:
            packet.pts -= moved
        packet.stream = copied[packet.stream_index]
        try:
            output.mux_one(packet)
        except (ArgumentError, InvalidDataError, PatchWelcomeError):
            notices["damaged packets of other streams were left out"] += 1
    while waiting:
        output.mux_one(waiting[1])
        waiting = next(video, None)


def _packets(
    source: InputContainer,
    copied: dict[int, Stream],
    moves: Sequence[Fraction],
    notices: Counter,
) -> Iterator[av.Packet]:
    """Yield the packets that are copied, those of joined recordings one after the other."""
    streams = [stream for stream in source.streams if stream.index in copied]
    last: dict[int, int] = {}
    restarts: Counter[int] = Counter()
    for packet in demuxed(source, streams, notices, title="other streams"):
        if packet.dts is None and packet.size:  # a cover picture; others have a time
            packet.pts = packet.dts = packet.pts or 0
        if packet.dts is None:  # the mark of a stream's end
            continue
        assert packet.time_base
        i = packet.stream_index
        restarts[i] += (last.get(i, packet.dts) - packet.dts) * packet.time_base > RESTART
        last[i] = packet.dts
        if moves and restarts[i]:
            moved = round(moves[min(restarts[i], len(moves)) - 1] / packet.time_base)
            packet.dts += moved
            packet.pts = None if packet.pts is None else packet.pts + moved
        yield packet


def _moves(file: Path) -> list[Fraction]:
    """Return by how many seconds the parts of joined recordings, but for the first, come later."""
    moves: list[Fraction] = []
    with opened(file) as source:
        main = main_stream(source)
        if main is None or not main.time_base or not is_joined(source):
            return moves
        last, moved = None, 0
        usual = round(1 / ((main.average_rate or Fraction(25)) * main.time_base))
        for packet in demuxed(source, [main], Counter(), title="the video"):
            if packet.dts is None:
                continue
            if last is not None and (last - packet.dts) * main.time_base > RESTART:
                moved += last + usual - packet.dts
                moves.append(moved * main.time_base)
            last = packet.dts
    return moves


def _add_encoded(
    output: OutputContainer, target: Target, main: Stream, *, size: tuple[int, int]
) -> Stream:
    stream = output.add_stream(CODECS[target.codec].encoder)
    assert isinstance(stream, av.VideoStream)
    configure(stream.codec_context, target)
    stream.time_base = target.video.time_base
    if target.codec == "h265" and output.format.name in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"  # Apple's players know no other
    stream.metadata.update(_without(main.metadata, _OF_STREAM))
    stream.disposition = main.disposition
    video = target.video
    if turned := video.turned:
        across, down = Fraction(size[1], video.width), Fraction(size[0], video.height)
        shown = (down, across) if video.sideways else (across, down)
        moved = (1, 1, 1, 1, 1, 1, *shown, 1)  # the last row moves by pixels as they are shown
        stream.set_display_matrix([round(a * b) for a, b in zip(turned, moved, strict=True)])
    return stream


def _add_copied(
    output: OutputContainer, stream: Stream, source: InputContainer, format: str, notices: Counter
) -> Stream | None:
    """Return the stream of the output that packets are copied to; None where it cannot be."""
    tag = getattr(stream, "name", None)
    if stream.type == "data" and tag in (None, "bin_data"):
        # Chapters and time codes of QuickTime are streams too; FFmpeg makes them from metadata.
        if not (source.chapters() or "timecode" in {**source.metadata, **stream.metadata}):
            notices["a data stream that FFmpeg does not know was left out"] += 1
        return None
    trial = av.open(io.BytesIO(), "w", format=format)
    try:
        _copy(trial, stream)
        trial.start_encoding()
    except (FFmpegError, ValueError):
        name = {"subtitle": "subtitles"}.get(stream.type, f"a {stream.type} stream")
        name = "a cover picture" if stream.disposition & Disposition.attached_pic else name
        notices[f"{name} ({tag}) left out: {output.format.name} does not hold such"] += 1
        return None
    finally:
        with suppress(FFmpegError):  # some formats need a packet of each stream
            trial.close()
    return _copy(output, stream)


def _copy(output: OutputContainer, stream: Stream) -> Stream:
    made = output.add_stream_from_template(stream, opaque=True)
    made.metadata.update(_without(stream.metadata, _OF_STREAM))
    made.disposition = stream.disposition
    return made


def _muxer(format: str, source: InputContainer) -> dict[str, str]:
    if format not in ("mp4", "mov"):
        return {}
    # Keys of phones, such as the place of a photo, are only written if all are written that way.
    own = "+use_metadata_tags" if any(key.startswith("com.") for key in source.metadata) else ""
    return {"movflags": "+faststart" + own}


def _start(source: InputContainer) -> Fraction:
    """Return where a broadcast begins, in seconds: its clock does not start at 0."""
    if "mpeg" in source.format.name and source.start_time:
        return Fraction(source.start_time, av.time_base)
    return Fraction(0)


def _moved(chapter: Any, shift: Fraction) -> Any:
    moved = round(shift / chapter["time_base"])
    return {**chapter, "start": chapter["start"] - moved, "end": chapter["end"] - moved}


def _without(metadata: dict[str, str], names: set[str]) -> dict[str, str]:
    return {
        key: value
        for key, value in metadata.items()
        if key.lower().split("-")[0] not in names and not key.lower().startswith("_statistics")
    }
