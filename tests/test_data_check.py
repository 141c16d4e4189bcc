"""`isr data check`: what it finds in folders, and what it does not."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isr_jax.data import check as checking
from isr_jax.data.check import check, contrast
from isr_jax.data.duplicates import perceptual_hash
from tests.helpers import command, copies
from tests.helpers.copies import half, jpeg, write
from tests.helpers.encoded import encode, error_of, noise


@pytest.fixture(scope="module")
def scenes():
    return copies.scenes()


@pytest.fixture
def folder(tmp_path, scenes):
    """A folder with a fault of each kind, and the kinds of files that are none."""
    root = tmp_path / "train"
    good = scenes["astronaut.png"]
    write(root / "a.png", good)
    write(root / "b" / "gray.png", scenes["camera.png"][..., 0])
    write(root / "b" / "equal.png", scenes["brick.png"])
    write(root / "c" / "alpha.png", np.dstack([scenes["coffee.png"], scenes["coffee.png"][..., 0]]))
    write(root / "deep.png", scenes["coins.png"][..., 0].astype(np.uint16) * 257)
    (root / "cut.jpg").write_bytes(encode(good, "JPEG")[:-2000])
    (root / "empty.png").write_bytes(b"")
    write(root / "tiny.png", scenes["page.png"][:95, :200])
    write(root / "edge.png", scenes["rocket.jpg"][:96, :96])
    for i, level in enumerate((7, 100, 255)):
        write(root / f"flat{i}.png", np.full((120, 130, 3), level, np.uint8))
    write(root / "small.png", half(good)[:, ::-1])
    return root


def names(rows, root):
    return [Path(row["file"]).relative_to(root).as_posix() for row in rows]


class TestCheck:
    def test_names_every_fault_and_nothing_else(self, folder):
        report = check([folder], crop=96)
        assert names(report["unreadable"], folder) == ["cut.jpg", "empty.png"]
        for row in report["unreadable"]:
            assert row["reason"] and "unreadable" not in row["reason"]
            assert str(folder) not in row["reason"]
        assert report["tiny"] == [{"file": str(folder / "tiny.png"), "width": 200, "height": 95}]
        assert names(report["flat"], folder) == ["flat0.png", "flat1.png", "flat2.png"]
        (duplicate,) = report["duplicates"]
        assert duplicate["distance"] <= 5
        del duplicate["distance"]
        assert duplicate == {
            "file": str(folder / "small.png"),
            "of": str(folder / "a.png"),
            "against": None,
            "change": "flipped left-right",
            "others": 0,
        }

    def test_counts_what_the_folder_holds(self, folder):
        (summary,) = check([folder], crop=96)["folders"]
        areas = [512 * 512, 512 * 512, 512 * 512, 600 * 400, 384 * 303, 200 * 95, 96 * 96]
        areas += [120 * 130] * 3 + [256 * 256]
        assert summary.pop("megapixels") == pytest.approx(sum(areas) / 1e6, rel=1e-12)
        assert summary == {
            "folder": str(folder),
            "images": 13,
            "lr_images": 0,
            "unreadable": 2,
            # camera, brick, coins and page have no colour, and neither have the flat ones.
            "gray": 7,
            "deep": 1,
            "alpha": 1,
            "sizes": 7,
            "smallest_side": 95,
            "median_side": 256.0,
            "largest_side": 600,
        }

    def test_several_folders_are_one_set(self, tmp_path, scenes):
        write(tmp_path / "one" / "z.png", scenes["coffee.png"])
        write(tmp_path / "two" / "a.png", jpeg(scenes["coffee.png"], 40))
        report = check([tmp_path / "one", tmp_path / "two"], crop=96)
        (duplicate,) = report["duplicates"]
        assert duplicate["file"] == str(tmp_path / "two" / "a.png")
        assert duplicate["of"] == str(tmp_path / "one" / "z.png")
        assert [summary["images"] for summary in report["folders"]] == [1, 1]

    def test_against_a_benchmark_takes_its_hr_images(self, tmp_path, scenes):
        """At two scales, the nearest is named; LR images, and faults of the set, are not."""
        write(tmp_path / "train" / "x.png", half(scenes["coffee.png"]))
        write(tmp_path / "train" / "y.png", scenes["rocket.jpg"])
        for scale in (2, 3):
            for name in ("coffee.png", "chelsea.png"):
                pixels = scenes[name]
                write(tmp_path / "sets" / "A" / f"x{scale}" / "hr" / name, pixels)
                write(tmp_path / "sets" / "A" / f"x{scale}" / "lr" / name, pixels[::2, ::2])
        write(tmp_path / "sets" / "B" / "HR" / "flat.png", np.zeros((20, 20, 3), np.uint8))
        write(tmp_path / "sets" / "B" / "LR_bicubic" / "X2" / "flatx2.png", noise(10, 10))
        (tmp_path / "sets" / "B" / "HR" / "cut.png").write_bytes(encode(noise(64, 64))[:-99])
        write(tmp_path / "more" / "rocket.png", scenes["rocket.jpg"][..., 0])
        report = check(
            [tmp_path / "train"], against=[tmp_path / "sets", tmp_path / "more"], crop=96
        )
        first, second = report["duplicates"]
        assert (first["against"], first["others"]) == (str(tmp_path / "sets"), 1)
        assert first["file"] == str(tmp_path / "train" / "x.png")
        assert first["of"] == str(tmp_path / "sets" / "A" / "x2" / "hr" / "coffee.png")
        assert second["of"] == str(tmp_path / "more" / "rocket.png")
        assert names(report["unreadable"], tmp_path) == ["sets/B/HR/cut.png"]
        assert report["tiny"] == report["flat"] == []
        assert [s["images"] for s in report["against"]] == [6, 1]
        assert [s["lr_images"] for s in report["against"]] == [5, 0]

    def test_mistakes_are_told_in_one_line(self, tmp_path, scenes):
        write(tmp_path / "a" / "x.png", scenes["coffee.png"])
        (tmp_path / "empty").mkdir()
        a = tmp_path / "a"

        def message(*folders, against=()):
            return error_of(lambda: check(folders, against=against, crop=96))

        assert "nowhere does not exist" in message(tmp_path / "nowhere")
        assert "x.png is a file: name a folder" in message(a, against=[a / "x.png"])
        assert "empty holds no PNG" in message(tmp_path / "empty")
        assert f"{a} lies within {tmp_path}" in message(a, against=[tmp_path])
        assert f"{a} lies within {tmp_path}" in message(tmp_path, against=[a])
        assert "lies within" in message(a, tmp_path / "empty" / ".." / "a")

    @pytest.mark.parametrize(("room", "most_at_once"), [(9000, 1), (2**19, 2)])
    def test_few_images_are_in_memory_at_once(self, folder, monkeypatch, room, most_at_once):
        """Two of 512x512 pixels are, where there is room for so many pixels."""
        for file in folder.rglob("*.png"):
            if file.stem not in ("a", "gray", "equal"):
                file.unlink()
        monkeypatch.setattr(checking, "_AT_ONCE", room)
        monkeypatch.setattr(checking.os, "cpu_count", lambda: 4)
        inside, most, lock = 0, 0, threading.Lock()
        together = threading.Event()

        def hashed(pixels):
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
                if inside == most_at_once:
                    together.set()
            together.wait(10)
            time.sleep(0.05)  # for more, if they may
            with lock:
                inside -= 1
            return perceptual_hash(pixels)

        monkeypatch.setattr(checking, "perceptual_hash", hashed)
        check([folder], crop=96)
        assert most == most_at_once

    def test_contrast_is_the_standard_deviation(self, scenes, monkeypatch):
        monkeypatch.setattr(checking, "_STRIP", 5000)
        for pixels in scenes.values():
            expected = pixels.reshape(-1, 3).astype(np.float64).std(axis=0).max()
            assert contrast(pixels) == pytest.approx(expected, rel=1e-9)
            gray = pixels[..., 1]
            assert contrast(gray) == pytest.approx(gray.astype(np.float64).std(), rel=1e-9)
        assert contrast(np.full((7, 9000, 3), 255, np.uint8)) == 0.0


def run(capsys, *arguments):
    """Exit code, standard output and the lines of standard error of `isr data check`."""
    return command.run(capsys, "data", "check", *arguments)


class TestCommand:
    def test_prints_every_finding_and_writes_the_report(self, folder, tmp_path, capsys):
        file = tmp_path / "report.json"
        code, out, err = run(capsys, folder, "--json", file)
        assert (code, err) == (1, [])
        assert json.loads(file.read_text()) == check([folder], crop=96)
        found = [
            [cell.strip() for cell in line.split("│")[1:-1]]
            for line in out.splitlines()
            if str(folder) in line and line.startswith("│")
        ]
        assert [(kind, Path(name).name) for kind, name, _ in found] == [
            ("unreadable", "cut.jpg"),
            ("unreadable", "empty.png"),
            ("duplicate", "small.png"),
            ("tiny", "tiny.png"),
            ("flat", "flat0.png"),
            ("flat", "flat1.png"),
            ("flat", "flat2.png"),
        ]
        assert f"{folder / 'a.png'}, flipped left-right" in found[2][2]
        assert out.splitlines()[-1] == "Found: 2 unreadable, 1 duplicate, 1 tiny, 3 flat."

    def test_json_on_standard_output_leaves_the_tables_to_standard_error(self, folder, capsys):
        code, out, err = run(capsys, folder, "--json", "-", "--crop", 97)
        assert code == 1
        assert len(json.loads(out)["tiny"]) == 2
        assert err[-1] == "Found: 2 unreadable, 1 duplicate, 2 tiny, 3 flat."

    def test_nothing_found_is_exit_code_0(self, tmp_path, capsys, scenes):
        write(tmp_path / "a" / "coffee.png", scenes["coffee.png"])
        write(tmp_path / "b" / "rocket.png", scenes["rocket.jpg"])
        code, out, err = run(capsys, tmp_path / "a", "--against", tmp_path / "b")
        assert (code, err) == (0, [])
        assert out.splitlines()[-1] == "Nothing found."

    def test_lr_images_of_a_training_set_are_left_out_and_said(self, tmp_path, capsys, scenes):
        write(tmp_path / "hr" / "a.png", scenes["coffee.png"])
        write(tmp_path / "lr" / "a.png", half(scenes["coffee.png"]))
        code, _, (line,) = run(capsys, tmp_path)
        assert code == 0
        assert line.startswith(f"isr data check: {tmp_path}: left out 1 LR image")

    def test_many_findings_are_counted_in_the_table(self, tmp_path, capsys, scenes):
        for i in range(25):
            write(tmp_path / f"{i:02}.png", scenes["coffee.png"][i * 10 :][:40, :40])
        code, out, _ = run(capsys, tmp_path, "--json", tmp_path / "report.json")
        assert code == 1
        assert out.count("is smaller than 96x96") == 20
        assert "and 5 more" in out
        assert len(json.loads((tmp_path / "report.json").read_text())["tiny"]) == 25

    def test_a_file_name_is_neither_broken_nor_obeyed(self, tmp_path, capsys):
        name = "x" * 150 + "\n\x1b[31mred[bold].png"
        write(tmp_path / name, noise(20, 20))
        _, out, _ = run(capsys, tmp_path)
        assert "x" * 150 + r"\n\x1b[31mred[bold].png" in out
        assert "\x1b" not in out

    def test_ctrl_c_ends_it_in_one_line(self, folder, capsys, monkeypatch):
        looked = []

        def look(file, room):
            looked.append(file)
            raise KeyboardInterrupt

        monkeypatch.setattr(checking, "_look_at", look)
        monkeypatch.setattr(checking.os, "cpu_count", lambda: 1)
        assert run(capsys, folder) == (130, "", ["isr data check: interrupted"])
        assert len(looked) < 13

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            ((), 2, "isr data check: the following arguments are required: DIR"),
            (("nowhere",), 1, "isr data check: nowhere does not exist"),
            ((".", "--crop", "0"), 2, "'0' is not an integer of 1 or more"),
            ((".", "--json", "nowhere/x.json"), 1, "nowhere/x.json cannot be written"),
        ],
    )
    def test_mistakes_are_one_line(self, tmp_path, capsys, monkeypatch, arguments, code, message):
        monkeypatch.chdir(tmp_path)
        found, out, (line,) = run(capsys, *arguments)
        assert (found, out) == (code, "")
        assert message in line


def test_on_real_photos_with_three_faults_among_them(isr_data, tmp_path, capsys):
    """The three are named, and else only what T91, BSD400 and Set5 do have in common.

    T91 holds one photo twice, and Set5's woman is a part of a photo of BSD400.
    """
    sets = isr_data / "benchmarks" / "Set5" / "x2", isr_data / "benchmarks" / "Set14" / "x2"
    t91, bsd400 = isr_data / "train" / "T91", isr_data / "train" / "BSD400"
    original = sorted(bsd400.iterdir())[0].read_bytes()
    (tmp_path / "cut.jpg").write_bytes(original[: len(original) // 2])
    with Image.open(sets[1] / "hr" / "009.png") as image:
        size = image.width // 2, image.height // 2
        image.resize(size, Image.Resampling.BICUBIC).save(tmp_path / "copy.png")
    write(tmp_path / "flat.png", np.full((128, 128, 3), 90, np.uint8))
    code, out, err = run(
        capsys, t91, bsd400, tmp_path, "--crop", 64, "--against", *sets, "--json", "-"
    )
    report = json.loads(out)
    assert code == 1
    assert names(report["unreadable"], tmp_path) == ["cut.jpg"]
    assert names(report["flat"], tmp_path) == ["flat.png"]
    assert [(Path(row["file"]), Path(row["of"])) for row in report["duplicates"]] == [
        (t91 / "t65.png", t91 / "t36.png"),
        (bsd400 / "302003.jpg", sets[0] / "hr" / "005.png"),
        (tmp_path / "copy.png", sets[1] / "hr" / "009.png"),
    ]
    assert [summary["images"] for summary in report["folders"]] == [91, 400, 3]
    assert err[-1] == "Found: 1 unreadable, 3 duplicate, 1 flat."
