"""Videos that are interrupted, resumed, damaged or no videos; how files are named and found."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import isr_jax
from isr_jax import cli
from isr_jax.errors import UsageError, UserError
from isr_jax.upscaling.upscaler import Upscaler
from isr_jax.video.names import CODECS, CONTAINERS, choose_codec, plan_videos, split_inputs
from tests.helpers.clips import make_clip, pictures, read_clip
from tests.helpers.command import ROOT
from tests.helpers.image_files import files_in, good, twice, upscale

RGB = {"codec": "ffv1", "pix_fmt": "bgr0"}

KILLED = """
import os, signal, sys
from isr_jax import cli
from isr_jax.video import encoding, jobs
jobs.SEGMENT = 4
close = encoding.Segment.close

def close_or_die(segment):
    if segment._index.name == "00002.json":
        os.kill(os.getpid(), signal.SIGKILL)
    close(segment)

encoding.Segment.close = close_or_die
cli.main(sys.argv[1:])
"""


@pytest.fixture
def short_segments(monkeypatch):
    """Segments of four frames."""
    monkeypatch.setattr("isr_jax.video.jobs.SEGMENT", 4)


def interrupt_at(monkeypatch, segment):
    """Ctrl-C when a segment is about to be complete; returns what undoes it."""
    from isr_jax.video.encoding import Segment

    close = Segment.close

    def interrupted(self):
        if self._index.name == f"{segment:05}.json":
            raise KeyboardInterrupt
        close(self)

    monkeypatch.setattr(Segment, "close", interrupted)
    return lambda: monkeypatch.setattr(Segment, "close", close)


def test_a_killed_job_resumes_and_equals_one_that_was_not(tmp_path, capsys, short_segments):
    clip = make_clip(tmp_path / "a.mp4", pictures(18), audio=True)
    good(capsys, clip, "--out", tmp_path / "whole")
    command = ["upscale", clip, "--model", "nearest", "--scale", "2", "--resume"]
    program = [sys.executable, "-c", KILLED, *map(str, command)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    job = ".a_x2.mp4.job"
    assert f"{job}/00001.json" in files_in(tmp_path)
    assert f"{job}/00002.json" not in files_in(tmp_path)
    assert "a_x2.mp4" not in files_in(tmp_path)
    begun = (tmp_path / job / "00000.packets").stat().st_mtime_ns
    # Nothing is thrown away unasked, and nothing of another job is used.
    code, lines = upscale(capsys, clip)
    assert code == 1
    assert "holds an unfinished job: --resume continues it, --overwrite starts over" in lines[0]
    code, lines = upscale(capsys, clip, "--resume", "--crf", 30)
    assert code == 1
    assert "cannot be resumed: the codec differ" in lines[0]
    assert begun == (tmp_path / job / "00000.packets").stat().st_mtime_ns
    good(capsys, clip, "--resume")
    assert files_in(tmp_path) == ["a.mp4", "a_x2.mp4", "whole/a_x2.mp4"]
    whole, resumed = (read_clip(tmp_path / name) for name in ("whole/a_x2.mp4", "a_x2.mp4"))
    assert len(whole.images) == 18
    np.testing.assert_array_equal(resumed.images, whole.images)
    assert (resumed.times, resumed.others) == (whole.times, whole.others)
    assert (tmp_path / "a_x2.mp4").read_bytes() == (tmp_path / "whole/a_x2.mp4").read_bytes()


def test_what_is_complete_is_not_computed_again(tmp_path, capsys, monkeypatch, short_segments):
    clip = make_clip(tmp_path / "a.mkv", pictures(11), **RGB)
    undo = interrupt_at(monkeypatch, 2)
    assert upscale(capsys, clip, "--resume")[0] == 130
    undo()
    seen = []
    call = Upscaler.__call__
    monkeypatch.setattr(
        Upscaler, "__call__", lambda self, x, **o: seen.append(len(x)) or call(self, x, **o)
    )
    good(capsys, clip, "--resume")
    assert sum(seen) == 3
    found = read_clip(tmp_path / "a_x2.mkv").images
    np.testing.assert_array_equal(found, [twice(image) for image in pictures(11)])


def test_an_interrupted_job_leaves_nothing_without_resume(
    tmp_path, capsys, monkeypatch, short_segments
):
    clip = make_clip(tmp_path / "a.mkv", pictures(11), **RGB)
    interrupt_at(monkeypatch, 1)
    assert upscale(capsys, clip) == (130, ["interrupted"])
    assert files_in(tmp_path) == ["a.mkv"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_a_failed_end_can_be_resumed(tmp_path, capsys, monkeypatch, short_segments):
    """A full disk while the output is put together, after the last segment."""
    clip = make_clip(tmp_path / "a.mkv", pictures(6), **RGB)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("isr_jax.video.jobs.assemble", full)
        code, lines = upscale(capsys, clip, "--resume")
    assert code == 1
    assert f"{clip}: No space left on device" in lines
    assert "a_x2.mkv" not in files_in(tmp_path)
    good(capsys, clip, "--resume")
    assert len(read_clip(tmp_path / "a_x2.mkv").images) == 6


def test_identical_frames_are_computed_once(tmp_path):
    from isr_jax.video.jobs import Options, upscale_videos

    a, b, c = pictures(3)
    shown = [a] * 9 + [b] + [a] * 20 + [c, c]
    clip = make_clip(tmp_path / "a.mkv", shown, **RGB)
    computed = []

    def function(image):
        computed.append(image)
        return twice(image)

    upscaler = Upscaler("mine", 2, function, method="nearest")
    outcome = upscale_videos(upscaler, [(clip, Path(clip.name))], options=Options(codec="ffv1"))
    assert (outcome.upscaled, outcome.failed, outcome.bugs) == (1, [], [])
    np.testing.assert_array_equal(computed, [a, b, a, c])
    found = read_clip(tmp_path / "a_x2.mkv").images
    np.testing.assert_array_equal(found, [twice(image) for image in shown])


def test_frames_of_a_network_equal_those_upscaled_alone(tmp_path, capsys):
    """Over all four devices, in batches that do not divide the frames."""
    import isr_jax

    images = pictures(5, (20, 28))
    clip = make_clip(tmp_path / "a.mkv", images, **RGB)
    good(capsys, clip, "--codec", "ffv1", "--model", "compact-x2", "--tile", 16)
    upscaler = isr_jax.load("compact-x2", tile=16)
    found = read_clip(tmp_path / "a_x2.mkv").images
    assert len(found) == 5
    for image, result in zip(images, found, strict=True):
        np.testing.assert_array_equal(result, upscaler(image))


@pytest.mark.parametrize(("turned", "size"), [(None, (45, 60)), (90, (60, 80))])
def test_frames_get_any_size_as_they_are_shown(tmp_path, capsys, turned, size):
    """A width of 60 pixels: of frames that are shown on their side, their height."""
    images = pictures(3)
    make_clip(tmp_path / "a.mkv", images, codec="ffv1", pix_fmt="bgr0", turned=turned)
    options = ("--model", "compact-x2", "--width", "60", "--codec", "ffv1")
    assert cli.main(["upscale", str(tmp_path / "a.mkv"), *options]) == 0
    capsys.readouterr()
    found = read_clip(tmp_path / "a_w60.mkv")
    assert abs(found.frame.rotation) == (turned or 0)
    upscaler = isr_jax.load_any_size(model="compact-x2")
    for image, result in zip(images, found.images, strict=True):
        assert result.shape[:2] == size
        expected = upscaler(image, **{"height" if turned else "width": 60})
        np.testing.assert_array_equal(result, expected)


def test_of_a_truncated_video_what_can_be_decoded_is_kept(tmp_path, capsys):
    make_clip(tmp_path / "whole.mkv", pictures(30), **RGB)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    lines = good(capsys, tmp_path / "cut.mkv")
    found = read_clip(tmp_path / "cut_x2.mkv").images
    assert 5 < len(found) < 30
    assert len(lines) == 1
    assert "of 1.2 s are missing" in lines[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a video that FFmpeg can read"),
        (b"Dear diary", "not a video that FFmpeg can read"),
        (b"ffconcat version 1.0\nfile a.mkv\n", "not a video that FFmpeg can read"),
        (b"#EXTM3U\n#EXTINF:10,\na.mkv\n#EXT-X-ENDLIST\n", "not a video that FFmpeg can read"),
    ],
)
def test_what_is_no_video_is_said_and_the_others_are_upscaled(tmp_path, capsys, content, said):
    make_clip(tmp_path / "a.mkv", pictures(3), **RGB)
    (tmp_path / "bad.mp4").write_bytes(content)
    code, lines = upscale(capsys, tmp_path / "bad.mp4", tmp_path / "a.mkv")
    assert code == 1
    assert said in lines[0]
    assert lines[-1] == "1 upscaled, 0 skipped, 1 failed"
    assert files_in(tmp_path) == ["a.mkv", "a_x2.mkv", "bad.mp4"]


def test_a_file_without_video_is_said(tmp_path, capsys):
    from tests.helpers.clips import av

    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        sound = out.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((2, 1024), np.float32), format="fltp", layout="stereo"
        )
        frame.sample_rate = 44100
        out.mux([*sound.encode(frame), *sound.encode(None)])
    code, lines = upscale(capsys, tmp_path / "a.mp4")
    assert code == 1
    assert lines[0] == f"{tmp_path / 'a.mp4'}: has no video stream"


def test_a_frame_that_is_too_large_is_refused(tmp_path, capsys):
    clip = make_clip(tmp_path / "a.mkv", pictures(2), **RGB)
    code, lines = upscale(capsys, clip, "--max-pixels", 100)
    assert code == 1
    assert "declares 48x36 pixels, more than the limit of 100" in lines[0]


def test_photos_and_videos_together(tmp_path, capsys):
    make_clip(tmp_path / "b.mkv", pictures(3), **RGB)
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.png")
    assert upscale(capsys, tmp_path / "a.png", tmp_path / "b.mkv") == (
        0,
        ["2 upscaled, 0 skipped, 0 failed"],
    )
    again = "0 upscaled, 2 skipped (already exist; --overwrite replaces them), 0 failed"
    everything = sorted(tmp_path.iterdir())
    assert upscale(capsys, *everything) == (0, [again])
    code, lines = upscale(capsys, tmp_path)
    assert code == 0
    assert lines[0] == (f"2 videos in {tmp_path} skipped: name them, as in {tmp_path / '*.mkv'}")
    code, lines = upscale(capsys, tmp_path / "*.mkv", "--overwrite")
    assert lines == ["1 upscaled, 0 skipped, 0 failed"]
    assert files_in(tmp_path) == ["a.png", "a_x2.png", "b.mkv", "b_x2.mkv"]


def test_a_folder_of_videos_alone_says_how_to_name_them(tmp_path):
    (tmp_path / "a.MP4").touch()
    (tmp_path / ".b.mp4").touch()
    with pytest.raises(UserError, match=r"holds no photos, but 1 video: name them, as in .*\*.MP4"):
        split_inputs([str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "codec", "target"),
    [
        ("a.mp4", "same", "a_x2.mp4"),
        ("a.MOV", "h265", "a_x2.MOV"),
        ("a.mov", "av1", "a_x2.mkv"),
        ("a.webm", "same", "a_x2.webm"),
        ("a.webm", "h264", "a_x2.mkv"),
        ("a.avi", "same", "a_x2.mkv"),
        ("a.mp4", "ffv1", "a_x2.mkv"),
    ],
)
def test_a_container_is_kept_where_it_holds_the_codec(name, codec, target):
    (task,) = plan_videos([(Path(name), Path(name))], out=None, suffix="_x2", codec=codec)
    assert task.target == Path(target)


def test_plans_that_cannot_be():
    def plan(*names, out=None, codec="same"):
        return plan_videos([(Path(n), Path(n)) for n in names], out=out, suffix="_x2", codec=codec)

    with pytest.raises(UserError, match=r"would both be written to .*a_x2.mkv"):
        plan("a.avi", "a.mkv")
    with pytest.raises(UsageError, match=r"cannot hold ffv1: name a file with the suffix .mkv"):
        plan("a.avi", out="b.mp4", codec="ffv1")
    with pytest.raises(UsageError, match="one file, but there are 2 videos"):
        plan("a.mp4", "b.mp4", out="c.mp4")
    assert [task.file for task in plan("a.mp4", "a_x2.mp4")] == [Path("a.mp4")]
    assert plan("a.mp4", out="b")[0].target == Path("b/a_x2.mp4")


@pytest.mark.parametrize(
    ("own", "target", "bits", "codec"),
    [
        ("h264", "a.mp4", 8, "h264"),
        ("hevc", "a.mov", 8, "h265"),
        ("av1", "a.webm", 10, "av1"),
        ("av1", "a.mov", 8, "h264"),
        ("vp9", "a.webm", 8, "av1"),
        ("mpeg4", "a.mkv", 8, "h264"),
        ("prores", "a.mov", 10, "h265"),
    ],
)
def test_without_a_codec_the_own_one_is_kept_where_it_can_be(own, target, bits, codec):
    assert choose_codec(own, target=Path(target), bits=bits) == codec


def test_every_codec_of_a_container_is_known_to_ffmpeg():
    from tests.helpers.clips import av

    for kind in CONTAINERS.values():
        with av.open(os.devnull, "w", format=kind.format) as out:
            assert {CODECS[name].encoder for name in kind.codecs} <= out.supported_codecs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--format", "png"), "--format png is for photos: videos have --codec"),
        (("--codec", "ffv1", "--crf", 3), "--crf does not go with --codec ffv1, which is lossless"),
        (("--suffix", ""), "would replace itself"),
    ],
)
def test_wrong_usage(tmp_path, capsys, arguments, said):
    clip = make_clip(tmp_path / "a.mkv", pictures(2), **RGB)
    code, lines = upscale(capsys, clip, *arguments)
    assert code == 2
    assert said in lines[0]


def test_without_pyav_a_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    code, lines = upscale(capsys, tmp_path / "a.mp4")
    assert (code, lines) == (1, ["videos need PyAV: run pip install 'isr-jax[video]'"])


def test_one_process_at_a_time_works_on_a_job(tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl", reason="needs a system with flock")
    clip = make_clip(tmp_path / "a.mkv", pictures(2), **RGB)
    (tmp_path / ".a_x2.mkv.job").mkdir()
    with open(tmp_path / ".a_x2.mkv.job" / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, lines = upscale(capsys, clip)
    assert code == 1
    assert ".a_x2.mkv.job is in use by another process" in lines[0]
    good(capsys, clip)
    assert files_in(tmp_path) == ["a.mkv", "a_x2.mkv"]


def test_batches_in_flight_are_bounded(tmp_path, monkeypatch):
    """However slow the device is, no more than the next batch is decoded."""
    from isr_jax.video import jobs

    monkeypatch.setattr(jobs, "_BATCH_FRAMES", 4)
    clip = make_clip(tmp_path / "a.mkv", pictures(40), **RGB)
    decoded, ahead = [0], []
    original = jobs.frames

    def counted(*arguments, **options):
        for frame in original(*arguments, **options):
            decoded[0] += 1
            yield frame

    def function(image):
        ahead.append(decoded[0] - len(ahead))
        return twice(image)

    monkeypatch.setattr(jobs, "frames", counted)
    upscaler = Upscaler("mine", 2, function, method="nearest")
    videos = [(clip, Path(clip.name))]
    outcome = jobs.upscale_videos(upscaler, videos, options=jobs.Options(codec="ffv1"))
    assert outcome.failed == []
    assert len(ahead) == 40
    assert max(ahead) <= 8
