"""Which files a folder or a pattern holds, and which of them earlier runs have written."""

import glob
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from isr_jax import cli
from isr_jax.data.sources import open_source
from isr_jax.errors import UserError
from isr_jax.files import check_name, replacing
from isr_jax.photo.finding import all_files, closed_below, image_files, matching
from isr_jax.photo.formats import SUFFIXES
from isr_jax.upscaling.planning import plan_tasks
from isr_jax.video.names import without_earlier
from tests.helpers.command import run
from tests.helpers.image_files import files_in, good, noise, upscale


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(2, 2)).save(folder / name, format="PNG")


def inputs_of(*inputs, suffix="_x4", **options):
    given = {"out": None, "format": "same", "suffixes": {"": suffix}}
    plan = plan_tasks(inputs, **(given | options))
    return [task.file for task in plan.tasks], plan.earlier


def test_every_suffix_is_found_in_upper_case_too(tmp_path):
    names = [f"{i}{suffix}" for i, suffix in enumerate(SUFFIXES)]
    names += [f"upper{i}{suffix.upper()}" for i, suffix in enumerate(SUFFIXES)]
    touch(tmp_path, *names, ".hidden.png", ".folder/a.png")
    assert {file.name for file in image_files(tmp_path)} == {*names}
    assert {".jfif", ".jpe", ".gif", ".dib", ".apng"} <= {*SUFFIXES}
    files, _ = inputs_of(tmp_path)
    assert {file.name for file in files} == {*names}


@pytest.fixture
def linked(tmp_path):
    """A folder with links to a folder outside, to one inside, to itself and to nothing."""
    tree, other = tmp_path / "tree", tmp_path / "other"
    touch(tree, "z.png", "deep/a.png")
    touch(other, "b.png", "more/c.png")
    for name, target in {
        "outside": other,
        "again": tree / "deep",
        "loop": tree,
        "deep/up": tree,
        "nothing": tmp_path / "missing",
    }.items():
        (tree / name).symlink_to(target)
    (other / "back").symlink_to(tree)
    return tree


def test_links_to_folders_are_followed_once(linked):
    wanted = ["deep/a.png", "outside/b.png", "outside/more/c.png", "z.png"]
    assert [file.relative_to(linked).as_posix() for file in image_files(linked)] == wanted
    assert len(open_source(f"folder:{linked}", "train", scale=2)) == 4


@pytest.mark.parametrize("pattern", ["**/*.png", "**", "*", "**/**/*.png"])
def test_a_pattern_over_a_loop_of_links_keeps_places(tmp_path, linked, capsys, pattern):
    out = tmp_path / "out"
    good(capsys, linked / pattern, "--out", out)
    found = files_in(out)
    assert [name.rsplit("/", 1)[-1] for name in found] == [
        "a_x2.png",
        "b_x2.png",
        "c_x2.png",
        "z_x2.png",
    ]
    assert max(name.count("/") for name in found) <= 2


PATTERNS = """**/*.png **/a* */**/*.png x/** x/**/y/* **/y [xz]/**/?.png **/.h/**/*.png **/.* **
*.png **/**/b.png x/../**/*.png"""


@pytest.mark.parametrize("pattern", PATTERNS.split())
def test_patterns_match_what_glob_matches(tmp_path, pattern):
    touch(
        tmp_path,
        "a.png",
        "x/b.png",
        "x/y/a1.png",
        "x/y/z/c.png",
        "z/y/d.png",
        ".h/e.png",
        "x/.f.png",
    )
    touch(tmp_path, "x/.h/y/g.png")
    wanted = {Path(name) for name in glob.glob(str(tmp_path / pattern), recursive=True)}
    assert {*matching(tmp_path / pattern)} == wanted


def test_what_looks_like_a_photo_is_counted(tmp_path, capsys):
    touch(tmp_path, "a.png")
    for name in ("b.CR2", "c.cr2", "sub/d.psd", "e.svg", "notes.txt", ".hidden.psd", "f.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"something")
    passed = (
        "4 files that look like photos were passed over, of formats that are not read: "
        "2 .cr2, 1 .psd, 1 .svg"
    )
    assert good(capsys, tmp_path) == [passed]
    assert good(capsys, tmp_path / "**" / "*", "--out", tmp_path / "out")[1:] == [passed]
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "g.xcf").touch()
    code, (line,) = upscale(capsys, tmp_path / "only")
    assert code == 1
    assert "only holds no PNG" in line
    assert line.endswith(
        "1 file that looks like a photo was passed over, of formats that are not read: 1 .xcf"
    )


def test_what_cannot_be_looked_into_is_said(tmp_path, monkeypatch, capsys):
    """A link to a missing file, and a folder without permission: by upscale, check and training."""
    photos = tmp_path / "photos"
    (photos / "locked").mkdir(parents=True)
    Image.new("RGB", (5, 4), "red").save(photos / "a.png")
    (photos / "gone.png").symlink_to(tmp_path / "nothing.png")
    scandir = os.scandir

    def refused(folder):
        if Path(folder).name == "locked":  # to root, no folder is
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    closed = closed_below(photos)
    assert closed == {
        photos / "gone.png": "a link to a file that is missing",
        photos / "locked": "Permission denied",
    }
    code, _, lines = run(capsys, "upscale", photos, "--model", "bicubic", "--scale", "2")
    assert code == 0
    assert any("2 paths were left out that cannot be read" in line for line in lines)
    code, out, _ = run(capsys, "data", "check", photos, "--json", "-")
    found = {Path(one["file"]).name: one["reason"] for one in json.loads(out)["unreadable"]}
    assert found == {"gone.png": "a link to a file that is missing", "locked": "Permission denied"}
    assert len(open_source(f"folder:{photos}", "train", scale=2).faults) == 2
    for made in photos.glob("a*.png"):
        made.unlink()
    with pytest.raises(UserError, match=r"holds no .*2 paths were left out that cannot be read"):
        open_source(f"folder:{photos}", "train", scale=2)


@pytest.mark.parametrize(
    "size",
    [("--scale", 4), ("--scale", 2.5), ("--width", 9), ("--height", 9), ("--fit", "9x9"),
     ("--megapixels", 0.0001)],
)  # fmt: skip
def test_outputs_of_other_runs_are_not_inputs(tmp_path, capsys, size):
    touch(tmp_path, "p.png", "q/r.jpg")
    lines = good(capsys, tmp_path)
    assert lines == []
    before = files_in(tmp_path)
    options = ["--model", "bicubic", *map(str, size), "--format", "png"]
    assert cli.main(["upscale", str(tmp_path), *options]) == 0
    lines = [line.removeprefix("isr upscale: ") for line in capsys.readouterr().err.splitlines()]
    left = "the output of an earlier run was left out; name it alone to upscale it (2 images)"
    assert lines == [left, "2 upscaled, 0 skipped, 0 failed"]
    assert len(files_in(tmp_path)) == len(before) + 2
    # And back to the first size, beside the outputs of both.
    _, lines = upscale(capsys, tmp_path, "--overwrite")
    assert lines[-1] == "2 upscaled, 0 skipped, 0 failed"
    assert len(files_in(tmp_path)) == len(before) + 2


def test_an_output_is_known_by_the_photo_beside_it(tmp_path):
    touch(
        tmp_path,
        "p.jpg",
        "p_x2.png",
        "p_x2_w100.png",
        "p_x3_x2.jpg",
        "holiday_x2.jpg",
        "a_1920x1080.png",
    )
    touch(
        tmp_path,
        "_x2.png",
        "sub/p_x2.png",
        "b_x.png",
        "b.png",
        "c_2x.png",
        "c.png",
        "d_x2y.png",
        "d.png",
    )
    own = {"p.jpg", "holiday_x2.jpg", "a_1920x1080.png", "_x2.png", "sub/p_x2.png"}
    own |= {"b_x.png", "b.png", "c_2x.png", "c.png", "d_x2y.png", "d.png"}
    files, earlier = inputs_of(tmp_path)
    assert {file.relative_to(tmp_path).as_posix() for file in files} == own
    assert earlier == 3
    # A pattern that does not hold the photo itself.
    files, earlier = inputs_of(tmp_path / "p*.png", suffix="_x8")
    assert (files, earlier) == ([], 2)


def test_a_gif_beside_a_photo_of_its_name(tmp_path, capsys):
    """Both would be a_x2.png; the same names come again in a second run."""
    Image.fromarray(noise(2, 2)).save(tmp_path / "a.gif")
    touch(tmp_path, "b.png")
    assert good(capsys, tmp_path) == []
    assert files_in(tmp_path) == ["a.gif", "a_x2.png", "b.png", "b_x2.png"]
    Image.fromarray(noise(2, 2)).save(tmp_path / "b.gif")
    assert good(capsys, tmp_path) == []
    wanted = ["a.gif", "a_x2.png", "b.gif", "b.gif_x2.png", "b.png", "b_x2.png"]
    assert files_in(tmp_path) == wanted
    assert upscale(capsys, tmp_path)[1][-1].startswith("0 upscaled, 3 skipped")
    assert files_in(tmp_path) == wanted
    assert inputs_of(tmp_path, suffix="_x4")[1] == 3


def test_a_file_that_is_named_is_taken(tmp_path):
    touch(tmp_path, "p.png", "p_x2.png")
    assert inputs_of(tmp_path / "p_x2.png") == ([tmp_path / "p_x2.png"], 0)
    files, earlier = inputs_of(tmp_path, tmp_path / "p_x2.png")
    assert ({*files}, earlier) == ({tmp_path / "p.png", tmp_path / "p_x2.png"}, 0)
    # As a shell writes *.png.
    assert inputs_of(tmp_path / "p.png", tmp_path / "p_x2.png") == ([tmp_path / "p.png"], 1)


def test_outputs_of_videos_are_not_inputs(tmp_path):
    for name in ("a.mp4", "a_x2.mkv", "b_x2.mp4", "a_x4.mp4"):
        (tmp_path / name).touch()
    videos = [
        (tmp_path / name, Path(name)) for name in ("a.mp4", "a_x2.mkv", "b_x2.mp4", "a_x4.mp4")
    ]
    assert without_earlier(videos, "_x4") == [videos[0], videos[2], videos[3]]
    assert without_earlier(videos[1:], "_x4") == videos[1:]


def test_names_as_long_as_the_file_system_takes(tmp_path, capsys):
    stem = "é" * 124  # 248 bytes
    touch(tmp_path, f"{stem}.png")
    assert good(capsys, tmp_path) == []
    assert (tmp_path / f"{stem}_x2.png").exists()
    code, lines = upscale(capsys, tmp_path / f"{stem}.png", "--suffix", "_larger")
    assert code == 1
    assert "has 259 bytes, and the file system takes 255: rename the input, or give a" in lines[0]
    check_name(tmp_path / "not" / "there" / ("n" * 255))
    with replacing(tmp_path / ("n" * 255)) as unfinished:
        unfinished.write_text("all of it")
    assert (tmp_path / ("n" * 255)).read_text() == "all of it"
    assert all_files(tmp_path)
