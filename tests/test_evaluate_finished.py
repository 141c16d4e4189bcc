"""`isr evaluate --against`: pictures that other programs have made, scored beside a model's."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import isr_jax
from isr_jax import protocols
from isr_jax.errors import UserError
from isr_jax.evaluation.tables import methods_of
from isr_jax.images import rgb_to_gray
from isr_jax.resize import resize_uint8
from isr_jax.upscaling.upscaler import Upscaler
from tests.helpers import command
from tests.test_evaluate import photo

MINE = Upscaler("mine", 2, lambda lr: resize_uint8(lr, scale=2, method="lanczos"))


def write(file, pixels):
    """Save an image, with the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


@pytest.fixture
def sets(tmp_path):
    """Colour images of odd sizes in A, without LR images, and a gray one in B, with."""
    for i, name in enumerate(("a1", "a10")):
        write(tmp_path / f"sets/A/hr/{name}.png", photo(45, 51, seed=i))
    gray = photo(44, 40)[..., 0]
    write(tmp_path / "sets/B/hr/b.png", gray)
    write(tmp_path / "sets/B/lr/b.png", resize_uint8(gray, scale=0.5))
    return tmp_path / "sets"


def run(capsys, *arguments):
    """Exit code, standard output and the lines of standard error of `isr evaluate`."""
    return command.run(capsys, "evaluate", *arguments)


@pytest.mark.parametrize("protocol", ["vdsr", "basicsr-color", "rgb", "ntire-sr"])
def test_a_models_own_pictures_have_its_scores(sets, tmp_path, protocol):
    saved = tmp_path / "saved"
    own = isr_jax.evaluate(MINE, sets, protocol=protocol, save=saved)
    assert [len(scores["images"]) for scores in own["sets"]] == [2, 1]
    both = isr_jax.evaluate(MINE, sets, protocol=protocol, against=[saved, saved])
    alone = isr_jax.evaluate(None, sets, scale=2, protocol=protocol, against=[saved])
    assert both["sets"] == own["sets"]
    _, *others = methods_of(both)
    assert [one["model"] for one in others] == [str(saved)] * 2
    for one in (alone, *others):
        assert (one["sets"], one["failed"], one["notices"]) == (own["sets"], [], [])
    assert "against" not in own and "against" not in alone


@pytest.mark.parametrize(
    "name", ["{}", "{}x2", "{}_x2_SR", "{}_SRF_2_SR", "{}_out", "{}_Some-Net", "{}x2_net", "X2_{}"]
)
@pytest.mark.parametrize("place", ["", "x2", "A", "a/X2", "x2/A"])
def test_names_and_places(sets, tmp_path, name, place):
    own = isr_jax.evaluate(MINE, sets / "A", scale=2, save=tmp_path / "saved")
    for file in (tmp_path / "saved/A/x2").iterdir():
        target = tmp_path / "theirs" / place / f"{name.format(file.stem)}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    found = isr_jax.evaluate(None, sets / "A", scale=2, against=[tmp_path / "theirs"])
    assert (found["sets"], found["failed"]) == (own["sets"], [])


def test_sizes_that_are_right_and_one_that_is_not(sets, tmp_path):
    """Of HR's 45x51, at x2: whole, cut to 44x50, and as programs make it of an LR rounded up."""
    hr = np.array(Image.open(sets / "A/hr/a1.png"))
    sr = np.pad(np.clip(hr.astype(int) + 9, 0, 255).astype(np.uint8), ((0, 1), (0, 1), (0, 0)))
    expected = protocols.measure(sr[:44, :50], hr[:44, :50], crop=2)
    folder = tmp_path / "theirs"
    for h, w in ((45, 51), (44, 50), (46, 52), (45, 50), (22, 26)):
        write(folder / "a1.png", sr[:h, :w])
        write(folder / "a10.png", sr[:44, :50])
        result = isr_jax.evaluate(None, sets / "A", scale=2, against=[folder])
        (scores,) = result["sets"]
        if (h, w) in ((45, 51), (44, 50), (46, 52)):
            assert result["failed"] == []
            row = scores["images"][0]
            assert (row["psnr"], row["ssim"], row["ms_ssim"]) == expected
        else:
            (line,) = result["failed"]
            assert line == (
                f"{folder}/a1.png: it has {w}x{h} pixels, but beside {sets}/A/hr/a1.png it needs "
                "51x45 or 50x44"
            )
            assert [row["name"] for row in scores["images"]] == ["a10"]


def test_missing_and_extra_files_are_named(sets, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    isr_jax.evaluate(MINE, sets, save=tmp_path / "saved")
    folder = Path("saved/A/x2")
    (folder / "a1.png").rename(folder / "sheet.png")
    table = tmp_path / "scores.csv"
    options = ("--model", "bicubic", "--data", sets, "--scale", 2, "--against", "saved")
    code, out, err = run(capsys, *options, "--csv", table)
    assert code == 1
    assert err == [
        f"isr evaluate: {sets}/A/hr/a1.png: no file in {folder} has its name",
        f"isr evaluate: {folder}/sheet.png: no file in {sets}/A/hr has its name",
    ]
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [(row["model"], row["image"]) for row in rows if row["set"] == "A"] == [
        *(("bicubic", name) for name in ("a1", "a10", "mean")),
        *(("saved", name) for name in ("a10", "mean")),
    ]
    lines = out.splitlines()
    start = lines.index("Mean PSNR (dB)/SSIM: vdsr")
    methods = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines[start + 4 :]]
    assert [cells[0] for cells in methods[:2]] == ["bicubic", "saved"]
    assert methods[1][1].endswith(" (1 of 2)")
    assert "of" not in methods[0][1] + methods[1][2]
    code, out, _ = run(capsys, *options, "--json", "-")
    result = json.loads(out)
    assert (code, result["model"], result["failed"]) == (1, "bicubic", [])
    (theirs,) = result["against"]
    assert [f"isr evaluate: {line}" for line in theirs["failed"]] == err
    assert len(theirs["sets"][0]["images"]) == 1


def test_gray_beside_colour(sets, tmp_path):
    """A program that writes gray as RGB is scored on the luma; one that writes gray, as RGB."""
    sr = photo(44, 40, seed=7)
    write(tmp_path / "theirs/B/b.png", sr)
    write(tmp_path / "theirs/A/a1.png", sr[..., 0])
    hr = np.array(Image.open(sets / "B/hr/b.png"))
    result = isr_jax.evaluate(None, sets / "B", against=[tmp_path / "theirs"])
    expected = protocols.measure(rgb_to_gray(sr), hr, crop=2)
    assert result["sets"][0]["psnr"] == expected.psnr
    write(sets / "A/hr/a1.png", photo(44, 40))
    (sets / "A/hr/a10.png").unlink()
    result = isr_jax.evaluate(None, sets / "A", scale=2, against=[tmp_path / "theirs"])
    expected = protocols.measure(np.stack([sr[..., 0]] * 3, -1), photo(44, 40), crop=2)
    assert result["sets"][0]["psnr"] == expected.psnr


def test_transparency_on_one_side_is_said(sets, tmp_path, capsys):
    for name in ("a1", "a10"):
        pixels = np.dstack([photo(44, 40), np.full((44, 40), 255, np.uint8)])
        pixels[:9, :9, 3] = 0
        write(sets / f"A/hr/{name}.png", pixels)
        write(sets / f"A/lr/{name}.png", resize_uint8(photo(44, 40), scale=0.5))
        write(tmp_path / f"theirs/{name}.png", photo(44, 40))
    options = ("--data", sets / "A", "--model", "nearest", "--against", tmp_path / "theirs")
    code, _, err = run(capsys, *options)
    assert code == 0
    assert err == [
        f"isr evaluate: {sets}/A/hr/a1.png and 1 more: the HR image has transparency, laid over "
        f"white here, and the {other} image none"
        for other in ("LR", "SR")
    ]
    for name in ("a1", "a10"):  # opaque, with an alpha channel
        write(sets / f"A/hr/{name}.png", np.dstack([photo(44, 40), np.full((44, 40), 255, "u1")]))
    assert run(capsys, *options)[::2] == (0, [])


def test_a_scale_that_is_not_told(tmp_path):
    for scale in (2, 3):
        write(tmp_path / "sets/A/hr/a.png", photo(36, 36))
        write(tmp_path / f"sets/A/lr/x{scale}/a.png", photo(36 // scale, 36 // scale))
    write(tmp_path / "flat/a.png", photo(36, 36))
    with pytest.raises(UserError, match=r"flat does not tell its scale, and A has 2, 3"):
        isr_jax.evaluate(None, tmp_path / "sets", against=[tmp_path / "flat"])
    result = isr_jax.evaluate(None, tmp_path / "sets", scale=3, against=[tmp_path / "flat"])
    assert [(s["name"], s["scale"], s["psnr"]) for s in result["sets"]] == [("A", 3, np.inf)]
    write(tmp_path / "tree/A/x3/a.png", photo(36, 36))
    result = isr_jax.evaluate(None, tmp_path / "sets", against=[tmp_path / "tree"])
    assert ([s["scale"] for s in result["sets"]], result["failed"]) == ([3], [])
    result = isr_jax.evaluate(
        "nearest", tmp_path / "sets", scale=[2, 3], against=[tmp_path / "tree"]
    )
    assert methods_of(result)[1]["failed"] == [f"{tmp_path}/tree holds no images of A at x2"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--data", "sets"), 2, "required: --model or --against"),
        (("--data", "sets", "--scale", 2, "--against", "none"), 1, "none is not a folder"),
        (("--data", "sets", "--against", "theirs"), 1, "give the scale"),
        (("--data", "sets", "--scale", 2, "--against", "theirs"), 1, "theirs/A or theirs/A/x2"),
        (("--data", "sets", "--against", "theirs", "--save", "x"), 2, "--save needs --model"),
    ],
)
def test_mistakes_are_one_line(sets, tmp_path, capsys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "theirs/a1.png", photo(45, 51))
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    (line,) = err
    assert message in line
