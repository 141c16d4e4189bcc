"""Small videos made by PyAV, and what a video holds."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest

av = pytest.importorskip("av", reason="needs the package av")
av.logging.set_level(None)


def pictures(count, size=(36, 48), *, dtype=np.uint8, seed=0):
    """Pictures that move: blocks of colour that are rolled, so that every frame differs."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(
        0, np.iinfo(dtype).max + 1, (size[0] // 4 + 1, size[1] // 4 + 1, 3), dtype
    )
    big = blocks.repeat(4, axis=0).repeat(4, axis=1)[: size[0], : size[1]]
    return [np.ascontiguousarray(np.roll(big, (i, 2 * i), axis=(0, 1))) for i in range(count)]


def make_clip(
    file,
    images,
    *,
    codec="libx264",
    pix_fmt="yuv420p",
    options=None,
    pts=None,
    time_base=Fraction(1, 12800),
    step=512,
    tags=None,
    turned=None,
    aspect=None,
    audio=False,
    subtitle=False,
    chapters=(),
    metadata=None,
    cover=None,
    audio_start=0,
    last=None,
):
    """Write a video.

    `pts`, and `last`, the duration of the last packet, are in ticks of `time_base`; `tags` are
    attributes of the encoder.
    """
    with av.open(str(file), "w") as out:
        stream = out.add_stream(codec, rate=Fraction(1) / (time_base * step), options=options or {})
        context = stream.codec_context
        context.height, context.width = images[0].shape[:2]
        context.pix_fmt, context.time_base = pix_fmt, time_base
        stream.time_base = time_base
        for name, value in (tags or {}).items():
            setattr(context, name, value)
        if aspect:
            context.sample_aspect_ratio = aspect
        if turned is not None:
            stream.set_display_rotation(turned)
        out.metadata.update(metadata or {})
        sound = out.add_stream("aac", rate=44100) if audio else None
        if sound:
            sound.metadata["language"] = "deu"
        text = out.add_mux_stream("subrip", time_base=Fraction(1, 1000)) if subtitle else None
        art = None
        if cover:
            art = out.add_mux_stream("png", width=8, height=8)
            art.disposition = av.stream.Disposition.attached_pic
        out.set_chapters(list(chapters))
        packets = []
        for i, image in enumerate(images):
            deep = image.dtype == np.uint16
            frame = av.VideoFrame.from_ndarray(image, format="rgb48le" if deep else "rgb24")
            frame.colorspace = (tags or {}).get("colorspace", 6)
            frame.pts, frame.time_base = (pts[i] if pts else i * step), time_base
            full = (tags or {}).get("color_range", 1)
            frame = frame.reformat(format=pix_fmt, dst_color_range=full) if pix_fmt else frame
            packets += stream.encode(frame)
        packets += stream.encode(None)
        packets[-1].duration = last or packets[-1].duration
        if sound:
            seconds = len(images) * step * time_base
            tone = np.sin(np.arange(int(44100 * seconds)) * 0.06).astype(np.float32)[None]
            for start in range(0, tone.shape[1] - 1023, 1024):
                part = np.ascontiguousarray(tone[:, start : start + 1024].repeat(2, axis=0))
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = 44100, start + audio_start
                packets += sound.encode(frame)
            packets += sound.encode(None)
        if text:
            packet = av.Packet(b"Hello")
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = 100
            packet.duration = 200
            packets.append(packet)
        if art:
            packet = av.Packet(cover)
            packet.stream, packet.pts, packet.dts = art, 0, 0
            packet.time_base, packet.is_keyframe = Fraction(1, 90000), True
            packets.append(packet)
        out.mux(packets)
    return file


class Read(NamedTuple):
    """What a video holds: pixels as RGB, times in seconds, packets of the other streams."""

    images: list
    times: list
    durations: list
    context: object
    stream: object
    frame: object
    others: list
    chapters: list
    metadata: dict


def read_clip(file, format="rgb24"):
    """Decode a video with PyAV alone."""
    with av.open(str(file)) as source:
        stream = source.streams.video[0]
        images, times, durations, others, first = [], [], [], [], None
        for packet in source.demux():
            if packet.stream.index != stream.index:  # stream_index is 0 at the end
                if packet.dts is not None:
                    base = packet.time_base
                    others.append((packet.stream.type, bytes(packet), packet.pts * base))
                continue
            if packet.size:
                durations.append(packet.duration * packet.time_base)
            for frame in packet.decode():
                first = first or frame
                images.append(frame.to_ndarray(format=format))
                times.append(frame.pts * stream.time_base)
        context = stream.codec_context
        about = {
            name: getattr(context, name)
            for name in ("width", "height", "pix_fmt", "color_range", "colorspace", "color_trc",
                         "color_primaries", "name")
        }  # fmt: skip
        about |= {"aspect": stream.sample_aspect_ratio, "rate": stream.average_rate,
                  "disposition": stream.disposition, "tag": stream.codec_tag,
                  "types": [s.type for s in source.streams]}  # fmt: skip
        return Read(images, times, durations, about, dict(stream.metadata), first, others,
                    source.chapters(), dict(source.metadata))  # fmt: skip
