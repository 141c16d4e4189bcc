"""`isr upscale` on folders of good, odd and broken files; on full disks; interrupted."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.helpers.image_files import (
    NEAREST,
    SRGB,
    files_in,
    good,
    noise,
    png,
    read,
    twice,
    upscale,
)


def test_bad_files_are_named_and_the_others_enlarged(tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    image = Image.fromarray(noise(40, 50, 3))
    bad = {"zero.png": b"", "text.jpg": b"Dear diary", "deep/folder.webp": b"RIFF\0\0\0\0WEBP"}
    for kind in ("png", "jpg", "webp", "bmp", "tif"):
        image.save(folder / f"good.{kind}")
        data = (folder / f"good.{kind}").read_bytes()
        for part in (0.3, 0.9):
            bad[f"cut{part}.{kind}"] = data[: int(len(data) * part)]
    deep = png(noise(40, 50, 3, dtype=np.uint16))
    bad["deep/cut.png"] = deep[: len(deep) // 2]
    bad["deep/broken.png"] = deep[:200] + bytes(9) + deep[209:]
    tifffile.imwrite(tmp_path / "float.tif", noise(4, 4).astype(np.float32))
    bad["float.tif"] = (tmp_path / "float.tif").read_bytes()
    bad["bomb.png"] = png(noise(2, 2), declared=(60000, 50000))
    bad["bomb16.png"] = png(noise(2, 2, dtype=np.uint16), declared=(60000, 50000))
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    Image.fromarray(noise(1, 1)).save(folder / "deep" / "one.png")
    code, lines = upscale(capsys, folder, "--out", out)
    assert code == 1
    assert lines[-1] == f"6 upscaled, 0 skipped, {len(bad)} failed"
    named = {line.split(": ")[0].removeprefix(f"{folder}/"): line for line in lines[:-1]}
    assert named.keys() == bad.keys()
    for name in ("bomb.png", "bomb16.png"):
        assert "declares 60000x50000 pixels, more than the limit of 1000000000" in named[name]
    assert "not a PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, HEIC or JPEG XL image" in named["text.jpg"]
    assert "but 1 is white: divide them" in named["float.tif"]
    kinds = ("png", "jpg", "webp", "bmp", "tif")
    assert files_in(out) == sorted(["deep/one_x2.png", *(f"good_x2.{kind}" for kind in kinds)])
    np.testing.assert_array_equal(read(out / "good_x2.png"), twice(np.array(image)))
    np.testing.assert_array_equal(read(out / "good_x2.bmp"), twice(np.array(image)))
    np.testing.assert_array_equal(read(out / "deep" / "one_x2.png"), twice(noise(1, 1)))


def test_a_second_run_does_what_is_left(tmp_path, capsys):
    for i in range(3):
        Image.fromarray(noise(4, 4, seed=i)).save(tmp_path / f"{i}.png")
    good(capsys, tmp_path)
    (tmp_path / "1_x2.png").write_bytes(b"precious")
    (tmp_path / "2_x2.png").unlink()
    # The outputs of the first run are no inputs of the second.
    again = "(already exist; --overwrite replaces them)"
    assert upscale(capsys, tmp_path) == (0, [f"1 upscaled, 2 skipped {again}, 0 failed"])
    assert (tmp_path / "1_x2.png").read_bytes() == b"precious"
    assert upscale(capsys, *tmp_path.glob("*.png"), "--overwrite")[1] == [
        "3 upscaled, 0 skipped, 0 failed"
    ]
    np.testing.assert_array_equal(read(tmp_path / "1_x2.png"), twice(noise(4, 4, seed=1)))
    assert len(files_in(tmp_path)) == 6
    good(capsys, tmp_path, "--out", tmp_path / "in it")
    good(capsys, tmp_path, "--out", tmp_path / "in it")
    assert len(files_in(tmp_path)) == 9


def test_patterns_are_walked_and_places_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/b.bmp", "in/x/c.png", "in/x/y/d.PNG", "in/x/y/.hidden.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(2, 2)).save(name)
    Path("in/notes.txt").write_text("no image")
    for pattern, wanted in (
        ("in/**/*.png", ["a_x2.png", "x/c_x2.png"]),
        ("in/*", ["a_x2.png", "b_x2.bmp", "x/c_x2.png", "x/y/d_x2.PNG"]),
        ("in/**", ["a_x2.png", "b_x2.bmp", "x/c_x2.png", "x/y/d_x2.PNG"]),
        ("i?/[ab].*", ["in/a_x2.png", "in/b_x2.bmp"]),
        ("in/x/y", ["d_x2.PNG"]),
    ):
        out = Path(f"out{len(pattern)}")
        good(capsys, pattern, "--out", out)
        assert files_in(out) == wanted
    code, (line,) = upscale(capsys, "in/*.webp")
    assert (code, line) == (1, "no image file matches in/*.webp")


def test_two_images_that_would_be_one(tmp_path, capsys):
    for name in ("a.png", "a.bmp", "sub/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(noise(2, 2)).save(tmp_path / name)
    before = files_in(tmp_path)
    code, (line,) = upscale(capsys, tmp_path, "--format", "webp")
    assert code == 1
    assert "a.bmp and " in line or "a.png and " in line
    assert f"would both be written to {tmp_path}/a_x2.webp: rename one" in line
    code, (line,) = upscale(
        capsys, tmp_path / "a.png", tmp_path / "sub" / "a.png", "--out", tmp_path / "out"
    )
    assert code == 1
    assert "out/a_x2.png" in line
    assert files_in(tmp_path) == before
    # An output may replace neither of two inputs, whichever it is named like.
    for name in ("twins/a.png", "twins/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(noise(2, 2)).save(tmp_path / name)
    for kind in ("png", "jpeg"):
        options = ("--suffix", "", "--format", kind, "--in-place")
        code, (line,) = upscale(capsys, tmp_path / "twins", *options)
        assert code == 1 and "would both be written to" in line
    # The same file twice is one.
    assert upscale(capsys, tmp_path / "a.png", tmp_path / "sub" / ".." / "a.png")[0] == 0


def test_names_of_outputs(tmp_path, capsys):
    Image.fromarray(noise(2, 2)).save(tmp_path / "a.b.JPEG")
    good(capsys, tmp_path / "a.b.JPEG", "--suffix=-big")
    good(capsys, tmp_path / "a.b.JPEG", "--format", "jpeg")
    good(capsys, tmp_path / "a.b.JPEG", "--format", "tiff", "--suffix", "")
    good(capsys, tmp_path / "a.b.JPEG", "--out", tmp_path / "new" / "c.webp")
    wanted = ["a.b-big.JPEG", "a.b.JPEG", "a.b.tif", "a.b_x2.JPEG", "new/c.webp"]
    assert files_in(tmp_path) == wanted
    kinds = {"a.b-big.JPEG": "JPEG", "a.b.tif": "TIFF", "new/c.webp": "WEBP"}
    for name, kind in kinds.items():
        with Image.open(tmp_path / name) as image:
            assert image.format == kind


def test_shards_are_disjoint_and_whole(tmp_path, capsys, monkeypatch):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for i in range(7):
        Image.fromarray(noise(2, 2)).save(images / f"{i}.png")
    written = []
    for i in (1, 2, 3):
        good(capsys, images, "--out", out / str(i), "--shard", f"{i}/3")
        written += files_in(out / str(i))
        assert len(files_in(out / str(i))) in (2, 3)
    names = [f"{i}_x2.png" for i in range(7)]
    assert sorted(written) == names
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    good(capsys, images, "--out", out)
    assert [path.name for path in sorted(out.glob("*.png"))] == ["1_x2.png", "5_x2.png"]
    monkeypatch.undo()
    # As srun starts them.
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    monkeypatch.setenv("SLURM_PROCID", "2")
    good(capsys, images, "--out", out / "srun")
    assert files_in(out / "srun") == ["2_x2.png", "5_x2.png"]
    monkeypatch.undo()
    # Outputs beside the images, of one part after the other, do not move the parts.
    for i in (1, 2, 3):
        good(capsys, images, "--shard", f"{i}/3")
    assert [name for name in files_in(images) if "_x2" in name] == names
    assert len(files_in(images)) == 14


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("a.png", "--shard", "4/3"), 2, "'4/3' is not a shard I/N such as 3/8"),
        (("a.png", "--shard", "0/3"), 2, "'0/3' is not a shard"),
        (("a.png", "--quality", "101"), 2, "'101' is not an integer of 1 to 100"),
        (("a.png", "--jobs", "0"), 2, "'0' is not an integer of 1 or more"),
        (("a.png", "--format", "heic"), 2, "invalid choice: 'heic'"),
        (("a.png", "b.png", "--out", "c.png"), 2, "c.png is one file, but there are 2 images"),
        (("a.png", "--out", "c.png", "--format", "bmp"), 2, "c.png does not match --format bmp"),
        (("a.png", "--suffix", "/x"), 2, "--suffix /x cannot be part of a file name"),
        (("a.png", "--out", "c.heic"), 2, "--out c.heic: .heic files cannot be written: name a"),
        (("a.png", "--out", "c.tga"), 2, "--out c.tga: .tga files cannot be written: name a"),
        (("a.png", "--crf", "9", "--resume"), 2, "--crf, --resume: for videos, and there are none"),
        (("none/*.png",), 1, "no image file matches none/*.png"),
        (("none",), 1, "no such file or folder: none"),
        (("empty",), 1, "empty holds no PNG"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(noise(2, 2)).save(name)
    found, (line,) = upscale(capsys, *arguments)
    assert found == code
    assert message in line
    assert files_in(tmp_path) == ["a.png", "b.png"]


def test_an_output_too_large_for_its_format_is_told_before_the_work(tmp_path, capsys):
    Image.fromarray(noise(1, 33000)).save(tmp_path / "a.png")
    Image.fromarray(noise(9000, 1)).save(tmp_path / "b.webp")
    out = ("--out", tmp_path / "out")
    code, lines = upscale(capsys, tmp_path / "a.png", *out, "--format", "jpeg")
    assert code == 1
    assert "a.png: JPEG holds at most 65500 pixels a side" in lines[0]
    assert "66000x2; choose another, such as --format tiff" in lines[0]
    code, lines = upscale(capsys, tmp_path / "b.webp", *out)
    assert code == 1
    assert "b.webp: WebP holds at most 16383 pixels a side" in lines[0]
    code, lines = upscale(capsys, tmp_path / "a.png", *out, "--max-pixels", 32999)
    assert "declares 33000x1 pixels, more than the limit of 32999" in lines[0]
    assert not (tmp_path / "out").exists()


@contextmanager
def mounted(folder, options):
    """A small file system of memory, where that may be mounted."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_outputs_that_cannot_be_written(tmp_path, capsys):
    Image.fromarray(noise(4, 4)).save(tmp_path / "a.png")
    code, lines = upscale(capsys, tmp_path / "a.png", "--out", tmp_path / "a.png" / "out")
    assert code == 1
    assert lines == [f"{tmp_path}/a.png is a file: name a folder for the outputs"]
    long = tmp_path / ("n" * 250 + ".png")
    Image.fromarray(noise(4, 4)).save(long)
    code, lines = upscale(capsys, tmp_path, "--out", tmp_path / "out")
    assert (code, files_in(tmp_path / "out")) == (1, ["a_x2.png"])
    assert "n_x2.png has 257 bytes, and the file system takes 255: rename the input" in lines[0]
    with mounted(tmp_path / "read only", "ro"):
        code, lines = upscale(capsys, tmp_path / "a.png", "--out", tmp_path / "read only")
    assert code == 1
    assert lines == [
        f"files cannot be written in {tmp_path}/read only: name another folder by --out"
    ]


def test_in_place_replaces_the_inputs_alone(tmp_path, capsys):
    for i, name in enumerate(("a.png", "b.png", "b_x2.png", "c.png")):
        Image.fromarray(noise(2, 3, seed=i)).save(tmp_path / name)
    (tmp_path / "c_x2.png").mkdir()
    named = [tmp_path / "b.png", tmp_path / "c.png"]
    code, lines = upscale(capsys, *named, "--in-place")
    assert code == 1 and "c_x2.png is not a file" in lines[0]
    assert lines[1].startswith("0 upscaled, 1 skipped (already exist;")
    np.testing.assert_array_equal(read(tmp_path / "b_x2.png"), noise(2, 3, seed=2))
    good(capsys, tmp_path / "a.png", "--suffix", "", "--in-place")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), twice(noise(2, 3, seed=0)))


def test_a_folder_that_is_closed_stops_no_other(tmp_path, capsys, monkeypatch):
    """As where a part of a tree is read-only."""
    for name in ("open/a.png", "shut/a.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(noise(2, 2)).save(tmp_path / name)
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: "/shut" not in str(p) and access(p, mode))
    assert len(good(capsys, tmp_path)) == 0  # the system lets this user write there
    code, (line,) = upscale(capsys, tmp_path / "shut", "--overwrite")
    assert (code, line) == (
        1,
        f"files cannot be written in {tmp_path}/shut: name another folder by --out",
    )


def test_a_link_in_a_circle_stops_nothing(tmp_path, capsys):
    Image.fromarray(noise(2, 2)).save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "loop.png").symlink_to("loop.png")
    code, lines = upscale(capsys, tmp_path)
    assert (code, lines[-1]) == (0, "1 upscaled, 0 skipped, 0 failed")
    assert "2 paths were left out that cannot be read" in lines[0]


def test_a_full_disk_leaves_nothing_half_written(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    small, large = noise(20, 20, 3), noise(200, 200, 3)
    for form in ("png", "jpg", "webp", "tif", "bmp"):
        Image.fromarray(large).save(images / f"large.{form}", quality=100)
        Image.fromarray(small).save(images / f"small.{form}")
    frames = [Image.fromarray(noise(200, 200, 3, seed=i)) for i in range(3)]
    frames[0].save(images / "moving.png", save_all=True, append_images=frames[1:])
    out = tmp_path / "disk"
    with mounted(out, "size=60k"):
        code, lines = upscale(capsys, images, "--out", out, "--quality", 100, "--jobs", 1)
        assert code == 1
        assert lines[-1] == "5 upscaled, 0 skipped, 6 failed"
        assert all("cannot be written: No space left on device" in line for line in lines[:-1])
        forms = ("bmp", "jpg", "png", "tif", "webp")
        assert files_in(out) == [f"small_x2.{form}" for form in forms]
        np.testing.assert_array_equal(read(out / "small_x2.png"), twice(small))


def test_threads_change_nothing(tmp_path, capsys):
    for i in range(9):
        Image.fromarray(noise(3 + i, 5, 3, seed=i)).save(tmp_path / f"{i}.png")
    for jobs in (1, 4):
        good(capsys, tmp_path, "--jobs", jobs, "--out", tmp_path / "out" / str(jobs))
    for i in range(9):
        for jobs in ("1", "4"):
            found = read(tmp_path / "out" / jobs / f"{i}_x2.png")
            np.testing.assert_array_equal(found, twice(noise(3 + i, 5, 3, seed=i)))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_whole_files(tmp_path, sent):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    Image.fromarray(noise(1000, 1000, 3)).save(images / "000.png")
    for i in range(1, 100):
        os.link(images / "000.png", images / f"{i:03}.png")
    program = "import sys; from isr_jax.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "upscale", str(images), *map(str, NEAREST)]
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        cwd=Path(__file__).parents[1],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while not list(out.glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    said = "isr upscale: interrupted\n" if sent == signal.SIGINT else ""
    assert (process.returncode, err) == (128 + sent, said)
    written = files_in(out)
    assert 0 < len(written) < 100
    assert not [name for name in written if not name.endswith(".png")]
    for name in written:
        assert read(out / name).shape == (2000, 2000, 3)


def test_what_a_format_cannot_hold_is_said_once(tmp_path, capsys):
    folder, clear = tmp_path / "in", noise(8, 8, 4)
    folder.mkdir()
    opaque = np.dstack([clear[..., :3], np.full((8, 8), 255, np.uint8)])
    for name, pixels in (("a", clear), ("b", clear), ("c", opaque)):
        Image.fromarray(pixels).save(folder / f"{name}.png", icc_profile=SRGB)
    (folder / "d.png").write_bytes(png(noise(8, 8, dtype=np.uint16)))
    said = {"png": [], "tiff": []}
    for form in ("png", "jpeg", "webp", "tiff", "bmp"):
        said[form] = good(capsys, folder, "--out", tmp_path / form, "--format", form)
    bits = "16 bits per channel became 8: {} holds no more (1 image)"
    over = "transparency was composed over white: {} holds none (2 images)"
    assert said["png"] == said["tiff"] == []
    assert sorted(said["jpeg"]) == [bits.format("JPEG"), over.format("JPEG")]
    assert said["webp"] == [bits.format("WebP")]
    assert sorted(said["bmp"])[::2] == [bits.format("BMP"), over.format("BMP")]
    assert sorted(said["bmp"])[1] == "colours became sRGB: BMP holds no colour profile (3 images)"
    alpha = clear[..., 3:] / 255
    white = np.floor(clear[..., :3] * alpha + 255 * (1 - alpha) + 0.5)
    assert abs(read(tmp_path / "bmp" / "a_x2.bmp") - twice(white)).max() <= 1
    assert abs(read(tmp_path / "jpeg" / "a_x2.jpg").astype(int) - twice(white)).max() < 24
    np.testing.assert_array_equal(read(tmp_path / "tiff" / "a_x2.tif"), twice(clear))
    deep = cv2.imread(str(folder / "d.png"), cv2.IMREAD_UNCHANGED)
    wanted = twice(np.floor(deep / 257 + 0.5))
    np.testing.assert_array_equal(read(tmp_path / "bmp" / "d_x2.bmp"), wanted)
