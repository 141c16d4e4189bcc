"""What validation measures and shows: metrics without a reference, the best by one, and crops."""

import io
import json
import math
import shutil

import numpy as np
import PIL.Image
import pytest
from ml_collections import ConfigDict
from rich.console import Console
from scipy.io import savemat
from skimage import data

import isr_jax
from isr_jax import config as base
from isr_jax.data.examples import ImagePair
from isr_jax.errors import UserError
from isr_jax.perceptual import weight_files as weights
from isr_jax.perceptual.niqe import Pristine, niqe
from isr_jax.protocols import measure
from isr_jax.resize import resize_uint8
from isr_jax.training import checks, scorer
from isr_jax.training.pictures import COLUMN, GAP, HEADER, RED, centre, panel
from isr_jax.training.record import closing_table, read_records
from isr_jax.training.validation import interpolations, score_line
from tests.helpers.events import shown
from tests.helpers.tiny_runs import heard, silent, tiny

MODEL = Pristine(np.linspace(0.2, 2, 36), np.diag(np.linspace(0.1, 1, 36)))


def mean_difference(sr, hr, *, crop):
    """In place of DISTS, whose weights are large."""
    return float(np.mean(sr[crop:-crop, crop:-crop] != hr[crop:-crop, crop:-crop]))


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """Photos of a block of NIQE and more, and one that is too small for it."""
    folder = tmp_path_factory.mktemp("larger")
    for i, image in enumerate((data.astronaut()[:104, 60:164], data.coffee()[:60, :80])):
        PIL.Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def put_at_hand(folder, patch):
    """NIQE's model where pyiqa keeps it, a made-up one, and a function in place of DISTS."""
    patch.setenv("TORCH_HOME", str(folder / "torch"))
    patch.setenv("ISR_WEIGHTS", str(folder / "cache"))
    patch.setitem(weights.FILES, "niqe_basicsr", weights.FILES["niqe"])
    patch.setitem(scorer.EXTRAS, "dists", scorer.Extra((), lambda form: mean_difference))
    model = folder / "torch/hub/pyiqa/niqe_modelparameters.mat"
    model.parent.mkdir(parents=True)
    savemat(model, {"mu_prisparam": MODEL.mean, "cov_prisparam": MODEL.covariance})
    return model


@pytest.fixture(scope="module")
def measured(photos, larger, trained, tmp_path_factory):
    """A run that is older than its metrics, resumed with them: its folder, result and console."""
    run, console = shutil.copytree(trained, tmp_path_factory.mktemp("runs") / "run"), heard()
    fields = {
        "data.validation": f"folder:{larger}",
        "train.steps": 16,
        "train.validation_metrics": ("niqe:pyiqa", "dists"),
        "train.validation_crop": 24,
        "train.keep_best": "niqe",
    }
    with pytest.MonkeyPatch.context() as patch:
        put_at_hand(tmp_path_factory.mktemp("weights"), patch)
        result = isr_jax.train(tiny(photos, **fields), run, console=console)
    return run, result, console.export_text()


def test_the_metrics_join_what_validation_reports(measured, larger):
    run, result, said = measured
    records = read_records(run)
    rows = {r["step"]: r for r in records if r["kind"] == "validation"}
    hr = np.array(PIL.Image.open(larger / "0.png"))
    lr = resize_uint8(hr, scale=0.5)
    sr = isr_jax.load(run, checkpoint=16)(lr)
    # The mean over the images that have one.
    assert rows[16]["niqe"] == niqe(sr, MODEL, form="pyiqa", crop=2) != rows[12]["niqe"]
    assert 0 < rows[16]["dists"] < 1
    # Less is better, and what was validated without the metric is not the best.
    assert isr_jax.load(run).step == min((12, 16), key=lambda step: rows[step]["niqe"])
    # The comparison with interpolation is recorded anew.
    older, table = (r for r in records if r["kind"] == "baselines")
    nearest = resize_uint8(lr, scale=2, method="nearest")
    assert table["nearest"]["niqe"] == niqe(nearest, MODEL, form="pyiqa", crop=2)
    assert "niqe" not in older["nearest"]
    names = ["psnr", "ssim", "ms_ssim", "dists", "niqe"]
    assert list(result.scores) == names
    assert {name: rows[16][name] for name in names} == result.scores
    line = next(x for x in said.splitlines() if x.startswith("step 16:"))
    gain = rows[16]["niqe"] - table["bicubic"]["niqe"]
    assert f"NIQE {rows[16]['niqe']:.3f} ({gain:+.3f})" in line
    assert line.endswith("(lower is better for DISTS and NIQE)")
    printed = Console(record=True, width=200, file=io.StringIO())
    closing_table(printed, result.scores, result.baselines, "scores")
    assert f"{gain:+.3f}" in printed.export_text()
    tags = {point[:2] for point in shown(run)}
    assert {("validation/niqe", 12), ("validation/images", 16)} <= tags
    # Two rows of curves, and one for the others.
    with PIL.Image.open(run / "curves.png") as drawn:
        assert drawn.size == (1400, 1125)
    with PIL.Image.open(run / "images/step_000016.png") as drawn:
        # Two photos, whose centres are squares.
        assert drawn.size == (4 * (COLUMN + GAP), 2 * (HEADER + 2 * (COLUMN + GAP)))


def test_a_run_lets_metrics_and_trackers_go(measured, photos, tmp_path):
    run = shutil.copytree(measured[0], tmp_path / "run")
    fields = {"train.steps": 16, "train.trackers": ()}
    result = isr_jax.train(tiny(photos, **fields), run, console=silent())
    assert list(result.scores) == ["psnr", "ssim", "ms_ssim"]
    assert [r["kind"] for r in read_records(run)].count("baselines") == 3
    with PIL.Image.open(run / "curves.png") as drawn:
        assert drawn.size == (1400, 750)
    assert {*run.glob("events*")} == {run / file.name for file in measured[0].glob("events*")}


def test_a_score_that_is_none_is_written_as_such():
    """As where an untrained network's image is flat."""
    scores = {"psnr": 20.0, "niqe": math.nan}
    line = score_line(3, scores, {"psnr": 19.0, "niqe": 5.0})
    assert line.startswith("step 3: PSNR-Y 20.00 dB (+1.00), NIQE - (-); gain")


def test_images_that_are_too_small_are_said(tmp_path, monkeypatch):
    put_at_hand(tmp_path, monkeypatch)
    hr = data.coffee()[:60, :80]
    pairs = [ImagePair("a.png", hr, resize_uint8(hr, scale=0.5))] * 3
    measure_by = scorer.load_scorer(("niqe",), scale=2)
    with pytest.raises(UserError, match=r"validation_metrics names niqe, .* all 3 images"):
        interpolations(pairs, scorer=measure_by)


def test_a_file_that_cannot_be_had_is_said_before_there_is_a_run(photos, tmp_path, monkeypatch):
    put_at_hand(tmp_path, monkeypatch).unlink()
    file = weights.FILES["niqe"]._replace(url="http://127.0.0.1:9/modelparameters.mat")
    for key in ("niqe", "niqe_basicsr"):
        monkeypatch.setitem(weights.FILES, key, file)
    config = tiny(photos, **{"train.validation_metrics": ("niqe",)})
    with pytest.raises(UserError) as caught:
        isr_jax.train(config, tmp_path / "run", console=silent())
    said = str(caught.value)
    assert said.startswith("config.train.validation_metrics names niqe: niqe_modelparameters.mat ")
    assert f"put it into {tmp_path / 'cache'}" in said
    assert not (tmp_path / "run").exists()


def test_forms_are_those_of_the_metrics():
    assert scorer.chosen(("niqe", "lpips", "dists")) == {
        "niqe": "matlab",
        "lpips": "alex",
        "dists": "",
    }
    assert scorer.chosen(("lpips:vgg", "niqe:pyiqa")) == {"lpips": "vgg", "niqe": "pyiqa"}
    assert scorer.load_scorer((), scale=3).metrics == ("psnr", "ssim", "ms_ssim")


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"validation_metrics": ("nique",)}, "unknown config.train.validation_metrics 'nique'.*me"),
        ({"validation_metrics": ("niqe:matlap",)}, "'niqe:matlap'.*did you mean niqe:matlab"),
        ({"validation_metrics": ("dists:vgg",)}, "'dists:vgg'; choose one of dists"),
        ({"validation_metrics": ("lpips:",)}, "'lpips:'; choose one of lpips:alex"),
        ({"validation_metrics": ("niqe", "niqe:pyiqa")}, "names niqe twice"),
        ({"keep_best": "niqe"}, r"keep_best is niqe, .*; add niqe to config.train.validation_m"),
        ({"keep_best": "beauty"}, "unknown config.train.keep_best 'beauty'"),
        ({"validation_crop": 98}, r"validation_crop=98 must be divisible by config.scale=4"),
        ({"validation_crop": 16}, "validation_crop is 16; it must be 19 or more"),
        ({"validation_crop": -4}, "validation_crop is -4; it must be 0 or more"),
    ],
)
def test_what_cannot_be_measured_or_shown_is_refused(fields, said):
    config = base.get_config()
    config.train.update(fields)
    with pytest.raises(UserError, match=said):
        checks.check(config, devices=1)
    assert checks.check(base.get_config(), devices=1) is not None


def test_the_best_by_any_metric_passes_where_it_is_measured():
    config = base.get_config()
    config.train.update({"validation_metrics": ("lpips:vgg",), "keep_best": "lpips"})
    checks.check(config, devices=1)
    saved = json.loads(json.dumps(config.to_dict()))
    assert base.from_saved(saved) == config
    for name in ("validation_metrics", "validation_crop", "trackers"):
        del saved["train"][name]  # as from before them
    saved["train"]["keep_best"] = "psnr"
    assert base.from_saved(saved) == base.get_config()
    assert isinstance(base.from_saved(saved), ConfigDict)


@pytest.mark.parametrize(
    "size, crop, expected",
    [
        ((60, 90), 0, (0, 60, 0, 90)),
        ((60, 90), 30, (15, 45, 30, 60)),
        ((63, 90), 30, (15, 45, 30, 60)),  # 16.5, at a multiple of 3
        ((60, 90), 60, (0, 60, 15, 75)),
        ((60, 90), 66, (0, 60, 12, 78)),  # higher than the image
        ((60, 90), 300, (0, 60, 0, 90)),
    ],
)
def test_the_centre_is_at_a_multiple_of_the_scale(size, crop, expected):
    rows, columns = centre(size, crop=crop, scale=3)
    assert (rows.start, rows.stop, columns.start, columns.stop) == expected


def test_a_picture_shows_the_centre_of_all_four_images():
    """At the size of a column, pixel for pixel, but for the frame of the detail."""
    hr = data.astronaut()[:400, :480]
    lr = resize_uint8(hr, scale=0.25)
    sr = 255 - hr
    drawn = panel([ImagePair("a.png", hr, lr)], [sr], scale=4, crop=COLUMN)
    assert drawn.shape == (HEADER + 2 * COLUMN + 2 * GAP, 4 * (COLUMN + GAP), 3)
    red = [int(RED[i : i + 2], 16) for i in (1, 3, 5)]
    shown = {
        "lr": resize_uint8(lr, scale=4, method="nearest"),
        "bicubic": resize_uint8(lr, scale=4),
        "sr": sr,
        "hr": hr,
    }
    for i, image in enumerate(shown.values()):
        column = drawn[HEADER:, i * (COLUMN + GAP) :][:COLUMN, :COLUMN]
        framed = (column == red).all(axis=-1)
        assert 0 < framed.mean() < 0.02
        np.testing.assert_array_equal(column[~framed], image[40:360, 80:400][~framed])


def test_scores_in_a_picture_are_of_what_it_shows(monkeypatch):
    hr = data.astronaut()[:200, :200]
    sr = hr.copy()
    sr[80:120, 80:120] //= 2  # within the crop
    sr[:20] = 0  # outside of it
    said = []
    from isr_jax.training import pictures

    column = pictures._column

    def heard_column(image, name, caption, corner, side):
        said.append((name, caption))
        return column(image, name, caption, corner, side)

    monkeypatch.setattr(pictures, "_column", heard_column)
    pair = ImagePair("a.png", hr, resize_uint8(hr, scale=0.5))
    panel([pair], [sr], scale=2, crop=100)
    expected = measure(sr[50:150, 50:150], hr[50:150, 50:150], crop=2)
    assert dict(said)["SR"] == f"{expected.psnr:.2f} dB, SSIM {expected.ssim:.4f}"
