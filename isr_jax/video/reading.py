"""Read a video: what it is, and its frames in order, whatever is damaged in between."""

import math
import re
import struct
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
from av import logging
from av.container import InputContainer
from av.error import ArgumentError, EOFError, FFmpegError, InvalidDataError
from av.sidedata.sidedata import Type
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from isr_jax.errors import UserError, one_line
from isr_jax.photo.limits import memory
from isr_jax.video.colour import RGB, Colour, colour_of, to_rgb

# No playlist, which could name other files, and no protocol but that of files.
_FORMATS = (
    "3gp,asf,av1,avi,dv,flv,h264,hevc,ivf,m4v,matroska,mov,mp4,mpeg,mpegts,mpegtsraw,mpegvideo,"
    "mxf,nut,obu,ogg,rm,swf,vc1,webm,yuv4mpegpipe"
)
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS, "fflags": "+genpts"}

logging.set_level(None)  # FFmpeg's lines; what matters is raised too


class Video(NamedTuple):
    """What a video is, as its header and its first frame say.

    Attributes:
        file: where it is.
        width, height: of its frames, pixels.
        codec: FFmpeg's name of its codec.
        sampling: of its chroma: 420, 422 or 444; 420 for gray.
        colour: how samples stand for colours.
        primaries, transfer: tags, of FFmpeg's AVCOL_PRI and AVCOL_TRC.
        time_base: seconds of a tick of its timestamps.
        rate: frames a second, on average.
        aspect: of a pixel; 0 where it is not said.
        turned: the display matrix of 9 integers: how players turn the frames.
        mastering: primaries, white point and luminances of the mastering display, as x265 takes
            them; None where they are not said.
        light: the largest and the average light level, cd/m^2.
        length: of it in frames, as the header says, or as its duration makes likely.
        seconds: its duration as the header says; None where it says that of the whole file only.
    """

    file: Path
    width: int
    height: int
    codec: str
    sampling: str
    colour: Colour
    primaries: int
    transfer: int
    time_base: Fraction
    rate: Fraction
    aspect: Fraction
    turned: tuple[int, ...] | None
    mastering: tuple[Fraction, ...] | None
    light: tuple[int, int] | None
    length: int | None
    seconds: Fraction | None

    @property
    def sideways(self) -> bool:
        """Whether players turn the frames by a quarter."""
        return self.turned is not None and abs(self.turned[1]) > abs(self.turned[0])


RESTART = 1.0  # seconds that a clock goes back where another recording begins


class Frame(NamedTuple):
    """A frame's pixels, when it is shown, and for how long; in ticks of the video's time base."""

    pixels: RGB
    pts: int
    duration: int


@contextmanager
def opened(file: Path) -> Iterator[InputContainer]:
    """Open a video file; turn FFmpeg's errors into a line."""
    try:
        # "file:", so that a name such as http:x is a file's.
        with av.open(
            f"file:{file}", container_options=_OPTIONS, metadata_errors="surrogateescape"
        ) as container:
            yield container
    except (FFmpegError, UnicodeError) as error:
        refused = isinstance(error, (InvalidDataError, ArgumentError))
        line = "not a video that FFmpeg can read, or damaged" if refused else reason(error)
        raise UserError(f"{file}: {line}") from error


def reason(error: BaseException) -> str:
    """Return what FFmpeg says of an error."""
    text = getattr(error, "strerror", None) or one_line(error)
    return text[:1].lower() + text[1:]


def main_stream(container: InputContainer) -> VideoStream | None:
    """Return the first video stream that is no cover picture."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    return next((s for s in container.streams.video if not s.disposition & pictures), None)


def look(file: Path, *, max_pixels: int) -> tuple[Video, list[str]]:
    """Return what a video is, and lines on what of it cannot be kept.

    Args:
        file: the video.
        max_pixels: the most that a frame may have.

    Raises:
        UserError: it has no video, or none that can be decoded, or is too large.
    """
    with opened(file) as container:
        stream = main_stream(container)
        if stream is None:
            raise UserError(f"{file}: has no video stream")
        if stream.codec_context is None:
            raise UserError(f"{file}: FFmpeg has no decoder for its video")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > max_pixels:
            raise UserError(
                f"{file}: declares {width}x{height} pixels, more than the limit of {max_pixels}; "
                "if you trust the file, `isr upscale --max-pixels` raises it"
            )
        if width * height * 8 > memory() / 2:
            raise UserError(
                f"{file}: declares {width}x{height} pixels; this machine's memory of "
                f"{memory() / 1e9:.1f} GB is too small to decode them"
            )
        frame = next(_decoded(container, stream, Counter()), None)
        if frame is None:
            raise UserError(f"{file}: no frame of its video can be decoded")
        return _described(file, container, stream, frame)


def _described(
    file: Path, container: InputContainer, stream: VideoStream, frame: av.VideoFrame
) -> tuple[Video, list[str]]:
    colour, context = colour_of(frame), stream.codec_context
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    seconds = whole = _seconds(stream)
    if seconds is None and container.duration:
        whole = Fraction(container.duration, av.time_base)
        seconds = whole if len(container.streams) == 1 else None
    length = stream.frames or (math.ceil(whole * rate) if whole else None)
    data = {part.type: bytes(part) for part in cast(Any, frame.side_data)}  # stubs call it a dict
    video = Video(
        file=file,
        width=frame.width,
        height=frame.height,
        codec=context.name if context.name in ("h264", "hevc", "ffv1") else _codec(context.name),
        sampling=_sampling(frame),
        colour=colour,
        primaries=frame.color_primaries,
        transfer=frame.color_trc,
        time_base=stream.time_base or 1 / rate,
        rate=rate,
        aspect=stream.sample_aspect_ratio or Fraction(0),
        turned=_integers(data.get(Type.DISPLAYMATRIX), 9),
        mastering=_mastering(data.get(Type.MASTERING_DISPLAY_METADATA)),
        light=_light(data.get(Type.CONTENT_LIGHT_LEVEL)),
        length=length,
        seconds=seconds,
    )
    notices = []
    if frame.interlaced_frame:
        notices.append("interlaced fields were upscaled as if they were one frame")
    if any(part.is_alpha for part in frame.format.components) or "alpha_mode" in stream.metadata:
        notices.append("transparency was left out: no output holds it")
    lost = {
        Type.A53_CC: "closed captions within the pictures were left out",
        Type.DOVI_METADATA: "Dolby Vision metadata was left out",
        Type.DYNAMIC_HDR_PLUS: "HDR10+ metadata was left out",
    }
    notices += [line for kind, line in lost.items() if kind in data]
    if colour.matrix != colour.used:
        notices.append("colours were upscaled by a matrix that is similar to the video's own")
    return video, notices


def frames(video: Video, *, start: int, notices: Counter) -> Generator[Frame, None, None]:
    """Yield the frames of a video from one on, in the order in which they are shown.

    Earlier ones are decoded, because frames are counted exactly, and not converted. What is damaged
    is left out and counted in `notices`. Timestamps that are missing, or do not grow, are replaced.
    """
    with opened(video.file) as container:
        stream = main_stream(container)
        assert stream
        first, end = None, 0
        decoded = _decoded(container, stream, notices)
        shown = _shown(decoded, video, joined=is_joined(container), notices=notices)
        for i, (frame, pts, duration) in enumerate(shown, 1):
            first = pts if first is None else first
            end = pts + duration
            if frame.is_corrupt:
                notices["damaged frames were upscaled as they were decoded"] += 1
            if i <= start:
                continue
            if (frame.width, frame.height) != (video.width, video.height):
                notices["frames of another size were resized to that of the first"] += 1
            pixels = to_rgb(frame, video.colour, width=video.width, height=video.height)
            yield Frame(pixels, pts, duration)
        if first is not None and video.seconds:
            missing = video.seconds - (end - first) * video.time_base
            if missing * video.rate > 2:
                notices[f"{float(missing):.1f} of {float(video.seconds):.1f} s are missing"] += 1


def _shown(
    decoded: Iterator[av.VideoFrame], video: Video, *, joined: bool, notices: Counter
) -> Iterator[tuple[av.VideoFrame, int, int]]:
    """Yield frames, when each is shown, and for how long, in ticks; the times grow.

    Args:
        decoded: the frames.
        video: that they are of.
        joined: whether recordings may follow each other, each with a clock of its own.
        notices: counts what was wrong with the times.
    """
    usual = max(1, round(1 / (video.rate * video.time_base)))
    last = latest = None  # of the times of showing, and the latest of decoding
    moved = 0
    for frame in decoded:
        stated = frame.pts if frame.pts is not None else frame.dts
        following = 0 if last is None else last + usual
        pts = following if stated is None else stated + moved
        if last is not None and pts <= last:
            if joined and _restarts(last, pts, video) and _restarts(latest, frame.dts, video):
                notices["the clock began anew: what follows was joined on"] += 1
                moved += following - pts
                pts, latest = following, None
            else:
                notices["timestamps that did not grow were moved"] += 1
                pts = last + 1
        last = pts
        if frame.dts is not None:
            latest = frame.dts if latest is None else max(latest, frame.dts)
        yield frame, pts, frame.duration or usual


def _restarts(before: int | None, now: int | None, video: Video) -> bool:
    """Return whether a time, of decoding or of showing, is before the last one by far."""
    return before is not None and now is not None and (before - now) * video.time_base > RESTART


def is_joined(container: InputContainer) -> bool:
    """Return whether a file can be several recordings, each with a clock of its own."""
    return "mpeg" in container.format.name


def demuxed(
    container: InputContainer, streams: Sequence[Stream], notices: Counter, *, title: str
) -> Iterator[av.Packet]:
    """Yield the packets of some streams, up to where the file is damaged.

    Args:
        container: that holds them.
        streams: of it.
        notices: counts a line if the file is damaged.
        title: what the line calls the streams.
    """
    packets = container.demux(list(streams)) if streams else iter(())
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FFmpegError:
            notices[f"the end of {title} is missing or damaged"] += 1
            return
        yield packet


def _decoded(
    container: InputContainer, stream: VideoStream, notices: Counter
) -> Iterator[av.VideoFrame]:
    stream.thread_type = "AUTO"
    packets = demuxed(container, [stream], notices, title="the video")
    for packet in chain(packets, [None]):  # None: what the decoder still holds
        try:
            yield from stream.decode(packet)
        except EOFError:
            return
        except FFmpegError:
            notices["damaged parts of the video were left out"] += 1


def _sampling(frame: av.VideoFrame) -> str:
    """Return the nearest of 420, 422 and 444."""
    colours = [part for part in frame.format.components if not part.is_alpha]
    if frame.format.is_rgb:
        return "444"
    if len(colours) < 3:
        return "420"
    across, down = colours[1].width < frame.width, colours[1].height < frame.height
    return "420" if across and down else "422" if across else "444"


def _seconds(stream: VideoStream) -> Fraction | None:
    """Return the duration of a stream that its header, or Matroska's tag, says."""
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))
    return int(found[1]) * 3600 + int(found[2]) * 60 + Fraction(found[3]) if found else None


def _codec(name: str) -> str:
    return "av1" if "av1" in name else name


def _integers(data: bytes | None, count: int) -> tuple[int, ...] | None:
    return struct.unpack(f"={count}i", data[: 4 * count]) if data else None


def _mastering(data: bytes | None) -> tuple[Fraction, ...] | None:
    """Return x and y of red, green, blue and white, and the least and the largest luminance.

    Source: AVMasteringDisplayMetadata: ten fractions, and whether the two parts are set.
    """
    values = _integers(data, 22)
    if not values or not (values[20] and values[21]) or 0 in values[1:20:2]:
        return None
    return tuple(Fraction(*values[i : i + 2]) for i in range(0, 20, 2))


def _light(data: bytes | None) -> tuple[int, int] | None:
    values = _integers(data, 2)
    return (values[0], values[1]) if values and values[0] else None
