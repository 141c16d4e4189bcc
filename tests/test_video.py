"""`isr upscale` on videos: pixels, times, and everything beside the pixels."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from tests.helpers.clips import av, make_clip, pictures, read_clip
from tests.helpers.image_files import files_in, good, twice, upscale

RGB = {"codec": "ffv1", "pix_fmt": "bgr0"}
# Matrix -> weights of red and blue. Source: ITU-T H.273, table 4.
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
COLOURS = [(0.9, 0.2, 0.3), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.1, 0.7, 0.4)]


def samples(colour, matrix, *, full, bits):
    """Y, Cb and Cr of a colour. Source: ITU-T H.273, equations 20 to 40."""
    (kr, kb), unit = WEIGHTS[matrix], 2 ** (bits - 8)
    r, g, b = colour
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / 2 / (1 - kb), (r - y) / 2 / (1 - kr)
    if full:
        peak = 2**bits - 1
        return peak * y, *(2 ** (bits - 1) + peak * c for c in (cb, cr))
    return unit * (16 + 219 * y), *(unit * (128 + 224 * c) for c in (cb, cr))


def plane(frame, i):
    """The samples of a plane, as a view."""
    dtype = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    rows = np.frombuffer(frame.planes[i], dtype).reshape(frame.planes[i].height, -1)
    return rows[:, : frame.planes[i].width]


@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p10le", "yuv422p12le"])
def test_colours_follow_the_standard_both_ways(matrix, full, pix_fmt):
    from isr_jax.video.colour import colour_of, from_rgb, to_rgb

    bits = int(pix_fmt[7:9]) if "le" in pix_fmt else 8
    peak, dtype = (65535, np.uint16) if bits > 8 else (255, np.uint8)
    for colour in COLOURS:
        expected = samples(colour, matrix, full=full, bits=bits)
        frame = av.VideoFrame(16, 16, pix_fmt)
        for i, value in enumerate(expected):
            plane(frame, i)[...] = min(round(value), 2**bits - 1)
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        found = colour_of(frame)
        assert (found.matrix, found.used, found.full, found.bits) == (matrix, matrix, full, bits)
        pixels = to_rgb(frame, found, width=16, height=16)
        assert pixels.dtype == dtype
        # Half a level of Y, and of chroma nearly twice that, were lost in rounding the samples.
        allowed = 2.5 * peak / (2**bits - 1)
        np.testing.assert_allclose(pixels[8, 8], np.array(colour) * peak, atol=allowed)
        flat = np.full((16, 16, 3), np.rint(np.array(colour) * peak), dtype)
        made = from_rgb(flat, pix_fmt=pix_fmt, used=matrix, full=full)
        # swscale truncates chroma of the full range.
        found = [float(plane(made, i)[3, 3]) for i in range(3)]
        np.testing.assert_allclose(found, np.minimum(expected, 2**bits - 1), atol=1.6)


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le"])
@pytest.mark.parametrize("full", [False, True])
def test_gray_has_its_range(pix_fmt, full):
    from isr_jax.video.colour import colour_of, to_rgb

    bits = 10 if "10" in pix_fmt else 8
    frame = av.VideoFrame(16, 16, pix_fmt)
    plane(frame, 0)[...] = round(samples((0.6,) * 3, 1, full=full, bits=bits)[0])
    frame.color_range = 2 if full else 1
    pixels = to_rgb(frame, colour_of(frame), width=16, height=16)
    peak = np.iinfo(pixels.dtype).max
    np.testing.assert_allclose(pixels / peak, 0.6, atol=0.7 / (2**bits - 1))


def test_without_a_tag_the_size_says_the_matrix():
    from isr_jax.video.colour import colour_of

    def matrix(width, height):
        return colour_of(av.VideoFrame(width, height, "yuv420p")).matrix

    assert [matrix(720, 576), matrix(1280, 536), matrix(640, 720)] == [6, 1, 1]


@pytest.mark.parametrize("pix_fmt", ["bgr0", "rgb48le"])
def test_lossless_frames_equal_those_upscaled_alone(tmp_path, capsys, pix_fmt):
    deep = pix_fmt == "rgb48le"
    images = pictures(7, (33, 47), dtype=np.uint16 if deep else np.uint8)
    make_clip(tmp_path / "a.mkv", images, codec="ffv1", pix_fmt=pix_fmt)
    good(capsys, tmp_path / "a.mkv", "--codec", "ffv1")
    found = read_clip(tmp_path / "a_x2.mkv", "rgb48le" if deep else "rgb24")
    assert len(found.images) == 7
    for image, result in zip(images, found.images, strict=True):
        np.testing.assert_array_equal(result, twice(image))


@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
def test_each_codec_keeps_the_pictures(tmp_path, capsys, codec):
    images = [image // 8 + 100 for image in pictures(6, (64, 64))]  # hardly a colour clips
    make_clip(tmp_path / "a.mp4", images, options={"crf": "5"})
    good(capsys, tmp_path / "a.mp4", "--codec", codec, "--crf", 5)
    before, after = read_clip(tmp_path / "a.mp4"), read_clip(tmp_path / "a_x2.mp4")
    assert (after.context["width"], after.context["height"]) == (128, 128)
    assert {"h264": "h264", "h265": "hevc", "av1": "av1"}[codec] in after.context["name"].replace(
        "libdav1d", "av1"
    )
    for image, result in zip(before.images, after.images, strict=True):
        error = result.astype(float) - twice(image)
        assert np.mean(error**2) < 16
    assert after.times == before.times


def test_a_deep_video_without_losses_equals_its_frames_upscaled_alone(tmp_path, capsys):
    from collections import Counter

    from isr_jax.video.reading import frames, look

    images = pictures(5, (64, 64), dtype=np.uint16)
    x265 = {"x265-params": "log-level=none"}
    clip = make_clip(
        tmp_path / "a.mp4", images, codec="libx265", pix_fmt="yuv420p10le", options=x265
    )
    good(capsys, clip, "--codec", "ffv1")
    video, _ = look(clip, max_pixels=10**9)
    alone = [twice(frame.pixels) for frame in frames(video, start=0, notices=Counter())]
    assert alone[0].dtype == np.uint16
    np.testing.assert_array_equal(read_clip(tmp_path / "a_x2.mkv", "rgb48le").images, alone)


def test_h264_with_crf_0_keeps_every_sample(tmp_path, capsys):
    from isr_jax.video.colour import from_rgb

    images = pictures(3, (64, 64))
    clip = make_clip(tmp_path / "a.mkv", images, **RGB)
    good(capsys, clip, "--codec", "h264", "--crf", 0)
    found = read_clip(tmp_path / "a_x2.mkv", "yuv420p")
    for image, result in zip(images, found.images, strict=True):
        frame = from_rgb(twice(image), pix_fmt="yuv420p", used=1, full=False)
        np.testing.assert_array_equal(result, frame.to_ndarray())


def test_frame_times_are_exact(tmp_path, capsys, monkeypatch):
    """A variable rate, with B-frames, and segments whose own decoding times would cross."""
    monkeypatch.setattr("isr_jax.video.jobs.SEGMENT", 5)
    pts = [0, 512, 1024, 1025, 3000, 3512, 9000, 9001, 9002, 20000, 20512, 21024, 40000]
    make_clip(tmp_path / "a.mp4", pictures(13), pts=pts, options={"bf": "3"})
    good(capsys, tmp_path / "a.mp4")
    found = read_clip(tmp_path / "a_x2.mp4")
    assert found.times == [Fraction(time, 12800) for time in pts]
    assert found.times == read_clip(tmp_path / "a.mp4").times
    with av.open(str(tmp_path / "a_x2.mp4")) as source:
        packets = [p for p in source.demux(video=0) if p.dts is not None]
    decoding = [packet.dts for packet in packets]
    assert decoding == sorted(set(decoding))
    assert all(packet.dts <= packet.pts for packet in packets)


def test_decoding_times_grow_and_precede_the_frames():
    from isr_jax.video.assembling import decoding_times

    rng = np.random.default_rng(0)
    for _ in range(200):
        shown = np.cumsum(rng.integers(1, 1000, 20)).tolist()
        # Any order in which no frame is more than four places from its own.
        order = sorted(range(20), key=lambda i: i + rng.integers(0, 4))
        pts = [shown[i] for i in order]
        dts = decoding_times(pts)
        assert all(b > a for a, b in itertools.pairwise(dts))
        assert all(d <= p for d, p in zip(dts, pts, strict=True))
    assert decoding_times([3, 5, 9]) == [3, 5, 9]
    assert decoding_times([]) == []


def test_what_is_beside_the_pixels_is_kept(tmp_path, capsys):
    chapters = [
        {"id": i, "start": 400 * i, "end": 400 * i + 400, "time_base": Fraction(1, 1000),
         "metadata": {"title": f"Part {i}"}}
        for i in range(2)
    ]  # fmt: skip
    tags = {"color_range": 2, "colorspace": 9, "color_primaries": 9, "color_trc": 16}
    make_clip(
        tmp_path / "a.mp4",
        pictures(20, (72, 96), dtype=np.uint16),
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={
            "x265-params": "log-level=none:max-cll=900,300:master-display="
            "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
        },
        tags=tags,
        turned=90,
        aspect=Fraction(4, 3),
        audio=True,
        chapters=chapters,
        metadata={"title": "A title", "creation_time": "2020-01-02T03:04:05.000000Z"},
    )
    assert good(capsys, tmp_path / "a.mp4") == []
    before, after = read_clip(tmp_path / "a.mp4"), read_clip(tmp_path / "a_x2.mp4")
    same = set(tags) | {"pix_fmt", "name", "aspect", "rate", "disposition", "types", "tag"}
    assert {k: after.context[k] for k in same - {"tag"}} == {
        k: before.context[k] for k in same - {"tag"}
    }
    assert after.context["tag"] == "hvc1"
    assert {k: after.context[k] for k in tags} == tags
    assert before.frame.rotation == after.frame.rotation == 90
    assert [c["metadata"] for c in after.chapters] == [{"title": f"Part {i}"} for i in range(2)]
    assert [(c["start"], c["end"]) for c in after.chapters] == [(0, 400), (400, 800)]
    assert after.metadata["title"] == "A title"
    assert after.metadata["creation_time"] == before.metadata["creation_time"]
    sound = [packet for packet in before.others if packet[0] == "audio"]
    assert len(sound) > 30
    assert [packet for packet in after.others if packet[0] == "audio"] == sound

    from isr_jax.video.reading import look

    old, new = (look(tmp_path / f"{name}.mp4", max_pixels=10**9)[0] for name in ("a", "a_x2"))
    assert old.light == new.light == (900, 300)
    assert old.mastering == new.mastering
    assert old.mastering[0] == Fraction(17, 25)


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_hdr_is_written_by_the_other_codecs(tmp_path, codec):
    from isr_jax.video.encoding import encoder_parameters
    from isr_jax.video.reading import look

    make_clip(tmp_path / "a.mkv", pictures(3, (64, 64)), **RGB)
    video, _ = look(tmp_path / "a.mkv", max_pixels=10**9)
    values = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329, 0.005, 1000)
    video = video._replace(light=(900, 300), mastering=tuple(map(Fraction, map(str, values))))
    encoder = {"h264": "libx264", "av1": "libsvtav1"}[codec]
    file = tmp_path / "b.mp4"
    make_clip(file, pictures(3, (64, 64)), codec=encoder, options=encoder_parameters(codec, video))
    found, _ = look(file, max_pixels=10**9)
    assert found.light == (900, 300)
    np.testing.assert_allclose([float(v) for v in found.mastering], values, atol=1e-4)


def test_subtitles_and_late_sound_stay_where_they_were(tmp_path, capsys):
    make_clip(
        tmp_path / "a.mkv",
        pictures(20),
        audio=True,
        audio_start=22050,
        subtitle=True,
        time_base=Fraction(1, 1000),
        step=40,
    )
    assert good(capsys, tmp_path / "a.mkv") == []
    before, after = read_clip(tmp_path / "a.mkv"), read_clip(tmp_path / "a_x2.mkv")
    assert {kind for kind, *_ in before.others} == {"audio", "subtitle"}
    assert sorted(after.others) == sorted(before.others)
    assert after.times == before.times


def test_a_container_that_cannot_hold_a_stream_is_named(tmp_path, capsys):
    make_clip(tmp_path / "a.mkv", pictures(8), subtitle=True)
    lines = good(capsys, tmp_path / "a.mkv", "--out", tmp_path / "b.mp4")
    assert lines == [f"{tmp_path / 'a.mkv'}: subtitles (srt) left out: mp4 does not hold such"]
    assert len(read_clip(tmp_path / "b.mp4").images) == 8


def test_a_cover_picture_is_no_video(tmp_path, capsys):
    from tests.helpers.image_files import noise, png

    make_clip(tmp_path / "a.mp4", pictures(5), cover=png(noise(8, 8, 3)))
    assert good(capsys, tmp_path / "a.mp4") == []
    with av.open(str(tmp_path / "a_x2.mp4")) as found:
        main, cover = found.streams.video
        assert (main.width, main.height) == (96, 72)
        assert (cover.width, cover.disposition) == (8, av.stream.Disposition.attached_pic)
    assert files_in(tmp_path) == ["a.mp4", "a_x2.mp4"]


def test_frames_that_are_too_small_for_a_codec_are_refused(tmp_path, capsys):
    clip = make_clip(tmp_path / "a.mp4", pictures(2, (24, 96)))
    code, lines = upscale(capsys, clip, "--codec", "h265")
    assert code == 1
    assert "h265 needs sides of 64 pixels or more: try --codec h264" in lines[0]
    assert files_in(tmp_path) == ["a.mp4"]


def test_odd_sides_are_padded_and_said(tmp_path, capsys):
    make_clip(tmp_path / "a.mkv", pictures(3, (33, 47)), **RGB)
    code, lines = upscale(capsys, tmp_path / "a.mkv", "--scale", 3, "--codec", "h264", "--crf", 1)
    assert code == 0
    assert any("odd sides were padded by a pixel: h264 needs even ones" in line for line in lines)
    found = read_clip(tmp_path / "a_x3.mkv")
    assert found.images[0].shape == (100, 142, 3)


def test_a_broadcast_begins_at_0_and_stays_in_sync(tmp_path, capsys):
    clip = make_clip(tmp_path / "a.ts", pictures(20), audio=True, audio_start=11025)
    good(capsys, clip)
    before, after = read_clip(clip), read_clip(tmp_path / "a_x2.mkv")
    first = min(before.times[0], before.others[0][2])
    assert first > 0
    assert min(after.times[0], after.others[0][2]) == 0
    for old, new in (
        (before.times, after.times),
        ([o[2] for o in before.others], [o[2] for o in after.others]),
    ):
        assert len(old) == len(new)
        # Matroska counts milliseconds.
        np.testing.assert_allclose([float(t - first) for t in old], [*map(float, new)], atol=1e-3)


def test_attachments_are_copied(tmp_path, capsys):
    images = pictures(2)
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 36, 48, "bgr0"
        out.add_attachment("a.ttf", "application/x-truetype-font", b"a font" * 50)
        for image in images:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    assert good(capsys, tmp_path / "a.mkv") == []
    with av.open(str(tmp_path / "a_x2.mkv")) as found:
        (font,) = found.streams.attachments
        assert (font.name, font.data) == ("a.ttf", b"a font" * 50)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"options": {"x264-params": "tff=1"}}, "interlaced fields were upscaled as if"),
        ({"codec": "ffv1", "pix_fmt": "bgra"}, "transparency was left out"),
        ({"codec": "ffv1", "pix_fmt": "yuv422p12le"}, "12 bits became 10: h265 holds no more"),
        ({"pix_fmt": "yuv444p"}, "chroma was subsampled to 4:2:0"),
        ({"aspect": Fraction(4, 3)}, "the pixel aspect 4:3 was left out"),
    ],
)
def test_what_is_left_out_is_said(tmp_path, capsys, options, said):
    clip = make_clip(tmp_path / "a.mkv", pictures(3, (64, 64)), **options)
    codec = "h265" if "12" in said else "av1"
    assert any(said in line for line in good(capsys, clip, "--codec", codec))


def test_sampling_is_kept(tmp_path, capsys):
    for pix_fmt in ("yuv422p", "yuv444p10le"):
        clip = make_clip(tmp_path / f"{pix_fmt}.mkv", pictures(2, (64, 64)), pix_fmt=pix_fmt)
        assert good(capsys, clip, "--codec", "h264") == []
        assert read_clip(tmp_path / f"{pix_fmt}_x2.mkv").context["pix_fmt"] == pix_fmt


def test_times_that_are_missing_or_do_not_grow_are_replaced(tmp_path, monkeypatch):
    from collections import Counter

    from isr_jax.video import reading

    clip = make_clip(tmp_path / "a.mkv", pictures(2), time_base=Fraction(1, 1000), step=40, **RGB)
    video, _ = reading.look(clip, max_pixels=10**9)

    def decoded(*_):
        for pts in (None, 40, 40, 30, None, 500):
            frame = av.VideoFrame(48, 36, "bgr0")
            frame.pts = pts
            yield frame

    monkeypatch.setattr(reading, "_decoded", decoded)
    notices = Counter()
    times = [frame.pts for frame in reading.frames(video, start=0, notices=notices)]
    assert times == [0, 40, 41, 42, 82, 500]
    assert notices == {"timestamps that did not grow were moved": 2}
