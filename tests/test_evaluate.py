"""`isr evaluate` and `isr_jax.evaluate`: published rows, bad files, and every format."""

import csv
import io
import json
import math
import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from scipy.io import savemat
from skimage import data

import isr_jax
from isr_jax import cli, protocols
from isr_jax.errors import UserError
from isr_jax.evaluation import evaluator
from isr_jax.perceptual.lpips import load_lpips
from isr_jax.perceptual.niqe import Pristine, niqe
from isr_jax.resize import resize_uint8
from isr_jax.upscaling.upscaler import Upscaler
from tests.helpers import command

# Huang et al. 2015, table 1, and the SRCNN family's tables.
PUBLISHED = {
    "Set5": [(33.66, 0.9299), (30.39, 0.8682), (28.42, 0.8104)],
    "Set14": [(30.23, 0.8687), (27.54, 0.7736), (26.00, 0.7019)],
}


def photo(h, w, seed=0):
    """A smooth colour image."""
    coarse = np.random.default_rng(seed).integers(0, 256, (h // 8 + 1, w // 8 + 1, 3))
    return resize_uint8(coarse.astype(np.uint8), size=(h, w))


@pytest.fixture
def benchmark_tree(tmp_path):
    """Two sets at x2, one with LR files that are no bicubic, one with a gray image."""
    root = tmp_path / "sets"
    for name, images in {"A": ["a1", "a2", "a10"], "B": ["b"]}.items():
        for folder in ("hr", "lr"):
            (root / name / "x2" / folder).mkdir(parents=True)
        for i, image in enumerate(images):
            hr = photo(48, 56, seed=i)
            hr = hr[..., 0] if name == "B" else hr
            Image.fromarray(hr).save(root / name / "x2" / "hr" / f"{image}.png")
            lr = resize_uint8(hr, scale=0.5, method="bilinear")
            Image.fromarray(lr).save(root / name / "x2" / "lr" / f"{image}.png")
    return root


def run(capsys, *arguments):
    """Exit code, standard output and the lines of standard error of `isr evaluate`."""
    return command.run(capsys, "evaluate", *arguments)


def test_bicubic_prints_the_published_tables(isr_data, capsys, tmp_path):
    file = tmp_path / "scores.json"
    data = isr_data / "benchmarks"
    code, out, err = run(
        capsys, "--model", "bicubic", "--data", data, "--scale", 2, 3, 4, "--json", file
    )
    assert (code, err) == (0, [])
    for name, row in PUBLISHED.items():
        (line,) = [line for line in out.splitlines() if f" {name} " in line]
        assert [cell.strip() for cell in line.split("│")[2:5]] == [
            f"{p:.2f}/{s:.4f}" for p, s in row
        ]
    result = json.loads(file.read_text())
    assert [(s["name"], s["scale"], len(s["images"])) for s in result["sets"]] == [
        *(("Set5", scale, 5) for scale in (2, 3, 4)),
        *(("Set14", scale, 14) for scale in (2, 3, 4)),
    ]
    for scores in result["sets"]:
        decibels, similarity = PUBLISHED[scores["name"]][scores["scale"] - 2]
        assert scores["psnr"] == pytest.approx(decibels, abs=0.005)
        assert scores["ssim"] == pytest.approx(similarity, abs=0.00005001)
    assert result == isr_jax.evaluate("bicubic", data, scale=[2, 3, 4])


@pytest.mark.parametrize("protocol", ["vdsr", "basicsr", "rgb"])
def test_any_function_is_scored_as_measure_scores_its_images(benchmark_tree, protocol):
    function = Upscaler("mine", 2, lambda lr: resize_uint8(lr, scale=2, method="lanczos"))
    result = isr_jax.evaluate(function, benchmark_tree, protocol=protocol)
    assert (result["model"], result["protocol"], result["failed"]) == ("mine", protocol, [])
    assert [row["name"] for row in result["sets"][0]["images"]] == ["a1", "a2", "a10"]
    for scores in result["sets"]:
        expected = []
        for row in scores["images"]:
            lr, hr = (
                np.array(Image.open(benchmark_tree / scores["name"] / "x2" / kind / file))
                for kind, file in (("lr", f"{row['name']}.png"), ("hr", f"{row['name']}.png"))
            )
            sr = resize_uint8(
                np.stack([lr] * 3, -1) if lr.ndim == 2 else lr, scale=2, method="lanczos"
            )
            sr = np.array(Image.fromarray(sr).convert("L")) if lr.ndim == 2 else sr
            expected.append(protocols.measure(sr, hr, crop=2, protocol=protocol))
            assert (row["psnr"], row["ssim"], row["ms_ssim"]) == expected[-1]
        for name, mean in zip(("psnr", "ssim", "ms_ssim"), np.mean(expected, axis=0), strict=True):
            assert scores[name] == pytest.approx(mean, rel=1e-12)


def test_an_interpolation_is_the_image_that_is_saved(benchmark_tree, tmp_path):
    folder = tmp_path / "saved"
    isr_jax.evaluate("bilinear", benchmark_tree, save=folder)
    for name in ("A/x2/{}a10.png", "B/x2/{}b.png"):
        lr = np.array(Image.open(benchmark_tree / name.format("lr/")))
        saved = np.array(Image.open(folder / name.format("")))
        np.testing.assert_array_equal(saved, resize_uint8(lr, scale=2, method="bilinear"))
        np.testing.assert_array_equal(saved, isr_jax.load("bilinear", scale=2)(lr))
    assert not list(folder.rglob("*.part"))
    with pytest.raises(UserError, match="saved is not empty: name a new folder"):
        isr_jax.evaluate("bilinear", benchmark_tree, save=folder)


def spoil(root):
    """One fault of each kind in set A, whose a10 stays good; the files at fault."""
    (root / "A/x2/lr/a1.png").write_bytes(b"no image")
    Image.fromarray(photo(20, 28)).save(root / "A/x2/lr/a2.png")
    Image.fromarray(photo(48, 56)).save(root / "A/x2/hr/alone.png")
    truncated = (root / "A/x2/hr/a10.png").read_bytes()
    (root / "A/x2/hr/cut.png").write_bytes(truncated[: len(truncated) // 2])
    (root / "A/x2/lr/cut.png").write_bytes((root / "A/x2/lr/a10.png").read_bytes())
    (root / "C/x2/hr").mkdir(parents=True)
    return ["alone.png", "a1.png", "a2.png", "cut.png", "C/x2/hr"]


def test_bad_files_are_named_and_the_good_ones_kept(benchmark_tree, capsys):
    good = isr_jax.evaluate("bicubic", benchmark_tree)
    names = spoil(benchmark_tree)
    code, out, err = run(capsys, "--model", "bicubic", "--data", benchmark_tree, "--json", "-")
    result = json.loads(out)
    assert code == 1
    assert [row["name"] for row in result["sets"][0]["images"]] == ["a10"]
    assert result["sets"][0]["images"][0] == good["sets"][0]["images"][2]
    assert result["sets"][1] == good["sets"][1]
    assert len(result["failed"]) == len(names)
    for name, line in zip(names, result["failed"], strict=True):
        assert name in line
        assert f"isr evaluate: {line}" in err


def test_nothing_but_bad_files(tmp_path, capsys):
    (tmp_path / "hr").mkdir()
    (tmp_path / "hr" / "a.png").write_bytes(b"")
    code, out, err = run(capsys, "--model", "bicubic", "--data", tmp_path, "--scale", 4)
    assert (code, out) == (1, "")
    (line,) = err
    assert "a.png: unreadable: not a PNG" in line


def test_a_full_disk_keeps_the_scores(benchmark_tree, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    result = isr_jax.evaluate("bicubic", benchmark_tree, save=tmp_path / "saved")
    assert [len(scores["images"]) for scores in result["sets"]] == [3, 1]
    assert len(result["failed"]) == 4
    assert "No space left" in result["failed"][0]


@pytest.fixture
def lpips_folder(tmp_path):
    """Weights of AlexNet's shapes, random, in the published files' names."""
    rng = np.random.default_rng(0)
    shapes = [
        (64, 3, 11, 11),
        (192, 64, 5, 5),
        (384, 192, 3, 3),
        (256, 384, 3, 3),
        (256, 256, 3, 3),
    ]
    trunk, linear = {}, {}
    for i, (layer, shape) in enumerate(zip((0, 3, 6, 8, 10), shapes, strict=True)):
        trunk[f"features.{layer}.weight"] = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        trunk[f"features.{layer}.bias"] = rng.normal(0, 0.1, shape[0])
        linear[f"lin{i}.model.1.weight"] = rng.uniform(0, 1, (1, shape[0], 1, 1))
    for name, state in (("alexnet-owt-7be5be79", trunk), ("alex", linear)):
        arrays = {key: value.astype(np.float32) for key, value in state.items()}
        save_file(arrays, tmp_path / f"{name}.safetensors")
    return tmp_path


def test_lpips_joins_the_tables(benchmark_tree, lpips_folder, tmp_path, capsys):
    options = ("--model", "bicubic", "--data", benchmark_tree, "--lpips", "alex")
    folder = ("--lpips-folder", lpips_folder)
    code, out, _ = run(capsys, *options, *folder, "--json", tmp_path / "a", "--csv", tmp_path / "b")
    assert code == 0
    assert "LPIPS" in out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "b").read_text())))
    distance = load_lpips("alex", folder=lpips_folder)
    values = []
    for row in json.loads((tmp_path / "a").read_text())["sets"][0]["images"]:
        lr, hr = (
            np.array(Image.open(benchmark_tree / "A/x2" / kind / f"{row['name']}.png"))
            for kind in ("lr", "hr")
        )
        values.append(distance(resize_uint8(lr, scale=2), hr, crop=2))
        assert row["lpips"] == pytest.approx(values[-1], rel=1e-6)
        assert values[-1] > 0
    assert float(rows[3]["lpips"]) == pytest.approx(np.mean(values), rel=1e-6)
    code, _, err = run(capsys, *options, "--lpips-folder", "nowhere")
    assert code == 1
    assert "nowhere: no such file or folder" in err[0]


def test_dists_and_niqe_join_the_tables(tmp_path, capsys, monkeypatch):
    """Of the SR image alone in NIQE's case; each as its own function gives it."""
    (tmp_path / "hr").mkdir()
    hr = data.camera()[:220, 60:360]
    Image.fromarray(hr).save(tmp_path / "hr" / "large.png")
    Image.fromarray(hr[:90]).save(tmp_path / "hr" / "small.png")
    model = Pristine(np.linspace(0.2, 2, 36), np.diag(np.linspace(0.1, 1, 36)))
    file = tmp_path / "model.mat"
    savemat(file, {"mu_prisparam": model.mean, "cov_prisparam": model.covariance})

    def mean_difference(sr, hr, *, crop):
        assert crop == 2
        return float(np.mean(sr != hr))

    monkeypatch.setattr(evaluator, "load_dists", lambda *, folder: {"w": mean_difference}[folder])
    options = ("--model", "bicubic", "--data", tmp_path, "--scale", 2)
    extras = ("--dists", "--dists-folder", "w", "--niqe", "pyiqa", "--niqe-folder", file)
    code, out, _ = run(capsys, *options, *extras)
    assert code == 0
    heading = next(line for line in out.splitlines() if "PSNR" in line)
    assert heading.index("MS-SSIM") < heading.index("DISTS") < heading.index("NIQE")
    _, out, _ = run(capsys, *options, *extras, "--json", "-")
    large, small = json.loads(out)["sets"][0]["images"]
    sr = resize_uint8(resize_uint8(hr, scale=0.5), scale=2)
    assert large["niqe"] == niqe(sr, model, form="pyiqa", crop=2)
    assert large["dists"] == np.mean(sr != hr)
    assert math.isnan(small["niqe"])  # not a block of 96x96
    assert small["dists"] > 0
    _, out, _ = run(capsys, *options, "--json", "-")
    assert set(json.loads(out)["sets"][0]["images"][0]) == {"name", "psnr", "ssim", "ms_ssim"}
    code, _, err = run(capsys, *options, "--niqe", "matlab", "--niqe-folder", "nowhere")
    assert code == 1
    assert "nowhere: no such file or folder" in err[0]


def test_identical_and_tiny_images(tmp_path, capsys):
    for name, size in (("same", (32, 40)), ("tiny", (12, 12))):
        (tmp_path / "hr").mkdir(exist_ok=True)
        flat = np.full((*size, 3), 90, np.uint8)
        Image.fromarray(flat).save(tmp_path / "hr" / f"{name}.png")
    arguments = ("--model", "nearest", "--data", tmp_path, "--scale", 2)
    _, out, _ = run(capsys, *arguments)
    same, tiny, mean = (
        line.split("│")[2:5] for line in out.splitlines() if line[2:6] in ("same", "tiny", "mean")
    )
    assert [cell.strip() for cell in same] == ["inf", "1.0000", "1.0000"]
    assert [cell.strip() for cell in tiny] == ["inf", "-", "-"]
    assert [cell.strip() for cell in mean] == ["inf", "1.0000", "1.0000"]
    _, out, _ = run(capsys, *arguments, "--json", "-")
    row = json.loads(out)["sets"][0]["images"][1]
    assert row["psnr"] == math.inf
    assert math.isnan(row["ssim"])


def test_csv_and_markdown_hold_the_same_rows(benchmark_tree, tmp_path, capsys):
    result = isr_jax.evaluate("bicubic", benchmark_tree, protocol="rgb")
    table = tmp_path / "scores.csv"
    code, out, err = run(
        capsys,
        "--model",
        "bicubic",
        "--data",
        benchmark_tree,
        "--protocol",
        "rgb",
        "--csv",
        table,
        "--markdown",
        "-",
    )
    assert code == 0
    assert any("PSNR" in line for line in err)  # the tables give way to Markdown
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    expected = [
        (s["name"], row["name"], row["psnr"], row["ssim"], row["ms_ssim"])
        for s in result["sets"]
        for row in (*s["images"], {**s, "name": "mean"})
    ]
    assert [
        (r["set"], r["image"], float(r["psnr"]), float(r["ssim"]), float(r["ms_ssim"]))
        for r in rows
    ] == expected
    assert {(r["model"], r["protocol"], r["scale"]) for r in rows} == {("bicubic", "rgb", "2")}
    for _, name, *numbers in expected:
        cells = " | ".join(f"{x:.{d}f}" for x, d in zip(numbers, (2, 4, 4), strict=True))
        assert f"| {name} | {cells} |" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--data", "X"), 2, "required: --model"),
        ((), 2, "required: --data"),
        (("--model", "bicubic", "--data", "X", "--scale", "0"), 2, "'0' is not a scale factor"),
        (("--model", "bicubic", "--data", "X", "--protocol", "y"), 2, "invalid choice: 'y'"),
        (("--model", "bicubic", "--data", "X", "--json", "-", "--csv", "-"), 2, "only one of"),
        (("--model", "bicubic", "--data", "X", "--json", "a", "--csv", "a"), 2, "a file each"),
        (("--model", "bicubic", "--data", "~no_user/X"), 1, "~no_user/X: there is no home folder"),
        (("--model", "bicubic", "--data", "X"), 1, "X is not a folder"),
        (("--model", "bicubic", "--data", "."), 1, ". holds no benchmark set"),
        (("--model", "runs/none", "--data", "sets"), 1, "there is no model runs/none"),
        (("--model", "bicubic", "--data", "sets", "--scale", "3"), 1, "at scale 3; it has 2"),
        (("--model", "bicubic", "--data", "sets", "--json", "no/x.json"), 1, "no/x.json cannot be"),
        (("--model", "bicubic", "--data", "sets", "--save", "sets"), 1, "sets is not empty"),
        (("--model", "bicubic", "--data", "sets", "--save", "file"), 1, "file: File exists"),
    ],
)
def test_mistakes_are_one_line(
    benchmark_tree, tmp_path, capsys, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(tmp_path if "." not in arguments else tmp_path / "sets" / "A" / "x2" / "hr")
    monkeypatch.delenv("ISR_DATA", raising=False)
    (tmp_path / "file").touch()
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    (line,) = err
    assert message in line


def test_isr_data_is_the_default_folder(benchmark_tree, capsys, monkeypatch):
    benchmark_tree.rename(benchmark_tree.parent / "benchmarks")
    monkeypatch.setenv("ISR_DATA", str(benchmark_tree.parent))
    code, out, _ = run(capsys, "--model", "bicubic")
    assert code == 0
    assert "B x2: bicubic, vdsr" in out


def test_names_of_sets_and_images_are_shown_as_they_are(benchmark_tree, tmp_path, capsys):
    """What looks like markup, and a digit that is no decimal one."""
    folder = (benchmark_tree / "B").rename(benchmark_tree / "B[bold]x")
    for image in folder.rglob("*.png"):
        image.rename(image.with_stem("5\u00b2" + image.stem))
    code, out, _ = run(
        capsys, "--model", "bicubic", "--data", folder, "--scale", 2, "--json", tmp_path / "a.json"
    )
    assert code == 0
    assert "B[bold]x x2: bicubic, vdsr" in out
    assert json.loads((tmp_path / "a.json").read_text())["sets"][0]["name"] == "B[bold]x"


def test_the_command_is_installed():
    (entry,) = metadata.entry_points(group="console_scripts", name="isr")
    assert entry.load() is cli.main


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_fifty_megapixels_stay_under_one_and_a_half_gigabytes(tmp_path):
    """Measured on a process of its own, the interpreter and JAX included."""
    (tmp_path / "hr").mkdir()
    Image.fromarray(np.tile(photo(722, 866), (8, 10, 1))).save(tmp_path / "hr" / "photo.bmp")
    # The high-water mark of this program alone: getrusage's includes what it was forked from.
    program = (
        "import re, sys; from isr_jax.cli import main; code = main(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]);"
        "sys.exit(code)"
    )
    options = ["--model", "bicubic", "--data", tmp_path, "--scale", "4"]
    done = subprocess.run(
        [sys.executable, "-c", program, "evaluate", *map(str, options)],
        capture_output=True,
        text=True,
        check=True,
    )
    peak = int(done.stdout.split()[-1]) * 1024
    assert 0.3e9 < peak < 1.5e9
