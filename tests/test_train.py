"""The loop on small photographs: resuming, devices, divergence, damaged run folders."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import orbax.checkpoint as ocp
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from rich.console import Console

import isr_jax
from isr_jax import protocols, resize
from isr_jax.checkpoints.runs import open_manager
from isr_jax.errors import UserError
from isr_jax.models import DISCRIMINATORS, GENERATORS
from isr_jax.training.record import read_records
from tests.helpers.tiny_runs import environment, overrides, silent, tiny

ROOT = Path(__file__).parent.parent


def tiny_unet(photos: Path, **extra):
    """Real-ESRGAN's: with spectral norm, whose vectors are state, and feature matching."""
    config = tiny(photos, **extra)
    small = {"width": 4, "growth": 2, "blocks": 1}
    config.generator = ConfigDict({**GENERATORS["rrdbnet"], **small})
    config.discriminator = ConfigDict({**DISCRIMINATORS["unet"], "crop": 16, "width": 4})
    config.loss.feature_matching = 0.1
    return config


def arguments(photos: Path, **extra) -> list[str]:
    return [f"--config.{name}={value}" for name, value in overrides(photos, **extra).items()]


def run_py(*args: str, config: str = "base", devices: int = 1) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "run.py", "--config", f"configs/{config}.py", *args],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=ROOT,
        env=environment(devices),
    )


def heard() -> Console:
    return Console(record=True, width=400, file=io.StringIO())


def final_arrays(run: Path) -> dict[str, np.ndarray]:
    """Every array of the latest checkpoint, by its path."""
    with open_manager(run) as manager:
        args = {name: ocp.args.StandardRestore() for name in ("generator", "training")}
        step = manager.latest_step()
        saved = manager.restore(step, args=ocp.args.Composite(**args))
    leaves = jax.tree_util.tree_leaves_with_path(dict(saved.items()))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_bit_identical(run: Path, other: Path) -> None:
    first, second = final_arrays(run), final_arrays(other)
    assert first.keys() == second.keys()
    assert any("ema" in name for name in first)
    assert any("d_opt" in name for name in first)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


@pytest.fixture(scope="session")
def trained(photos, tmp_path_factory) -> Path:
    """A finished run of 8 steps that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    isr_jax.train(tiny(photos), run, console=silent())
    return run


def test_a_run_folder_holds_what_the_readme_says(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"checkpoints", "config.json", "metrics.jsonl", "images", "curves.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert sorted(p.name for p in (trained / "images").iterdir()) == [
        "step_000004.png",
        "step_000008.png",
    ]
    records = read_records(trained)
    assert [r["step"] for r in records if r["kind"] == "train"] == [2, 4, 6, 8]
    assert [r["step"] for r in records if r["kind"] == "validation"] == [4, 8]
    (baselines,) = [r for r in records if r["kind"] == "baselines"]
    assert baselines["bicubic"]["psnr"] > baselines["nearest"]["psnr"]
    assert all(np.isfinite([r["loss"], r["mse"], r["d_loss"]]).all() for r in records[1:2])
    assert json.loads((trained / "config.json").read_text())["scale"] == 2


def test_load_gives_the_validated_images_scores(trained, photos):
    """The restored generator scores what the run's last record says."""
    upscaler = isr_jax.load(trained, checkpoint="latest")
    assert (upscaler.scale, upscaler.step) == (2, 8)
    scores = []
    for path in sorted(photos.iterdir())[:2]:
        hr = np.array(PIL.Image.open(path))
        sr = upscaler(resize.resize_uint8(hr, scale=0.5))
        assert (sr.dtype, sr.shape) == (np.uint8, hr.shape)
        scores.append(protocols.measure(sr, hr, crop=2).psnr)
    last = [r for r in read_records(trained) if r["kind"] == "validation"][-1]
    np.testing.assert_allclose(np.mean(scores), last["psnr"], rtol=1e-9)
    raw = isr_jax.load(trained / "checkpoints" / "8", weights="raw")
    image = np.array(PIL.Image.open(next(photos.iterdir())))
    assert not np.array_equal(raw(image), upscaler(image))


def test_a_run_folder_is_evaluated_as_it_upscales(trained, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "set" / "hr")
    result = isr_jax.evaluate(trained, tmp_path, protocol="rgb", save=tmp_path / "sr")
    (scores,) = result["sets"]
    assert (scores["name"], scores["scale"], len(scores["images"])) == ("set", 2, 5)
    upscaler = isr_jax.load(trained)
    for row in scores["images"]:
        hr = np.array(PIL.Image.open(photos / f"{row['name']}.png"))
        sr = upscaler(resize.resize_uint8(hr, scale=0.5))
        np.testing.assert_array_equal(sr, PIL.Image.open(tmp_path / f"sr/set/x2/{row['name']}.png"))
        assert row["psnr"] == protocols.measure(sr, hr, crop=2, protocol="rgb").psnr
    with pytest.raises(UserError, match="upscales by 2, not by 4"):
        isr_jax.evaluate(trained, tmp_path, scale=[2, 4])


def test_gray_in_is_gray_out(trained):
    upscaler = isr_jax.load(trained)
    gray = np.arange(16 * 12, dtype=np.uint8).reshape(16, 12)
    rgb = upscaler(np.stack([gray] * 3, axis=-1)).astype(float)
    luma = rgb @ [0.299, 0.587, 0.114]
    assert np.abs(upscaler(gray) - luma).max() <= 0.51
    np.testing.assert_array_equal(upscaler(gray[..., None])[..., 0], upscaler(gray))


def test_load_names_what_is_wrong(trained, tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        isr_jax.load(tmp_path)
    with pytest.raises(
        UserError, match=r"there is no model bicubik: give a run folder, .* bicubic"
    ):
        isr_jax.load("bicubik")
    with pytest.raises(UserError, match="bicubic has no scale of its own"):
        isr_jax.load("bicubic")
    with pytest.raises(UserError, match="upscales by 2, not by 4"):
        isr_jax.load(trained, scale=4)
    with pytest.raises(UserError, match=r"no checkpoint 3; there are best, latest and \[.*8\]"):
        isr_jax.load(trained, checkpoint=3)
    with pytest.raises(UserError, match=r"uint8 or uint16, .*; got float64"):
        isr_jax.load(trained)(np.zeros((4, 4, 3)))


@pytest.mark.parametrize(
    "make, loader, parallel",
    [
        (tiny, "pool", "jit"),
        (tiny, "stream", "jit"),
        (tiny, "pool", "pmap"),
        (tiny, "stream", "pmap"),
        (tiny_unet, "pool", "pmap"),
    ],
)
def test_a_stopped_run_goes_on_where_it_was(photos, tmp_path, trained, make, loader, parallel):
    """Stopped by Ctrl-C after 4 of 8 steps, and resumed: bit-identical."""
    config = make(photos, **{"data.loader": loader, "train.parallel": parallel})
    straight, resumed = trained, tmp_path / "resumed"
    if (make, loader, parallel) != (tiny, "pool", "jit"):
        straight = tmp_path / "straight"
        isr_jax.train(config, straight, console=silent())

    class Impatient(Console):
        """Presses Ctrl-C once, when step 4 has been validated."""

        pressed = False

        def print(self, *args, **kwargs):
            super().print(*args, **kwargs)
            if not self.pressed and str(args[0]).startswith("step 4:"):
                self.pressed = True
                os.kill(os.getpid(), signal.SIGINT)

    console = Impatient(file=io.StringIO())
    result = isr_jax.train(config, resumed, console=console)
    assert 4 <= result.step < 8
    console = heard()
    assert isr_jax.train(config, resumed, console=console).step == 8
    assert f"from step {result.step}" in console.export_text()
    assert_bit_identical(straight, resumed)
    assert any("d_stats" in name for name in final_arrays(resumed)) == (make is tiny_unet)
    assert any("RRDB_0" in name for name in final_arrays(resumed)) == (make is tiny_unet)
    scale = config.scale
    assert isr_jax.load(resumed)(np.zeros((5, 6, 3), np.uint8)).shape == (5 * scale, 6 * scale, 3)
    records = read_records(resumed)
    assert [r["step"] for r in records if r["kind"] == "validation"] == [4, 8]
    training = [r for r in records if r["kind"] == "train"]
    assert all(("feature_matching" in r) == (make is tiny_unet) for r in training)


@pytest.mark.slow
def test_a_killed_run_ends_bit_for_bit_like_an_undisturbed_one(photos, tmp_path):
    """kill -9 between two checkpoints, the same command again."""
    extra = {"train.steps": 100, "train.validate_every": 50, "train.checkpoint_every": 25}
    command = [*arguments(photos, **extra)]
    done = run_py(*command, f"--workdir={tmp_path / 'straight'}")
    assert done.returncode == 0, done.stderr
    assert "SR - bicubic" in done.stdout

    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [
            sys.executable,
            "run.py",
            "--config",
            "configs/base.py",
            *command,
            f"--workdir={killed}",
        ],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        saved = [int(p.name) for p in killed.glob("checkpoints/*") if p.name.isdigit()]
        if saved and read_records(killed)[-1]["step"] > max(saved):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    steps = [int(p.name) for p in killed.glob("checkpoints/*") if p.name.isdigit()]
    assert 0 < max(steps) < 100
    # As if it had been killed while it wrote a checkpoint, too.
    (killed / "checkpoints" / f"99{ocp.utils.TMP_DIR_SUFFIX}-1").mkdir()
    again = run_py(*command, f"--workdir={killed}")
    assert again.returncode == 0, again.stderr
    assert f"from step {max(steps)}" in again.stderr
    assert_bit_identical(tmp_path / "straight", killed)
    assert not list((killed / "checkpoints").glob("*tmp*"))
    keep = [(r["kind"], r["step"], r.get("loss")) for r in read_records(killed)]
    assert keep == [
        (r["kind"], r["step"], r.get("loss")) for r in read_records(tmp_path / "straight")
    ]


def losses_of(run: Path) -> np.ndarray:
    return np.array([r["loss"] for r in read_records(run) if r["kind"] == "train"])


@pytest.mark.parametrize("loader", ["pool", "stream"])
def test_pmap_gives_jit_s_losses(photos, tmp_path, loader):
    """On 4 devices, over 20 steps, to 1e-4, and the final PSNR to 0.05 dB."""
    extra = {
        "data.loader": loader,
        "data.batch": 8,
        "train.steps": 20,
        "train.log_every": 1,
        "train.validate_every": 20,
        "train.checkpoint_every": 20,
        "loss.content.ms_ssim": 1.0,
        "loss.adversarial": "relativistic",
    }
    results = {}
    for parallel in ("jit", "pmap"):
        config = tiny(photos, **extra, **{"train.parallel": parallel})
        with mock.patch("jax.pmap", wraps=jax.pmap) as pmap:
            results[parallel] = isr_jax.train(config, tmp_path / parallel, console=silent())
        assert pmap.called == (parallel == "pmap")
    assert len(losses_of(tmp_path / "jit")) == 20
    np.testing.assert_allclose(losses_of(tmp_path / "pmap"), losses_of(tmp_path / "jit"), rtol=1e-4)
    assert abs(results["pmap"].scores["psnr"] - results["jit"].scores["psnr"]) < 0.05


def test_many_steps_per_dispatch_give_the_same_losses(photos, tmp_path, trained):
    config = tiny(photos, **{"train.steps_per_dispatch": 4, "train.checkpoint_every": 4})
    isr_jax.train(config, tmp_path / "scan", console=silent())
    straight = losses_of(trained).reshape(2, 2).mean(1)
    np.testing.assert_allclose(losses_of(tmp_path / "scan"), straight, rtol=1e-4)


def test_the_adversarial_part_joins_in_when_it_is_told(photos, tmp_path):
    config = tiny(photos, **{"loss.adversarial_from": 3, "train.log_every": 1})
    isr_jax.train(config, tmp_path, console=silent())
    training = [r for r in read_records(tmp_path) if r["kind"] == "train"]
    assert [r["step"] for r in training if "d_loss" in r] == [4, 5, 6, 7, 8]


def test_a_checkpoint_that_diverges_at_once_is_not_called_good(photos, tmp_path):
    """Step 1 is finite and its update explodes; the checkpoint of step 1 would fail for ever."""
    extra = {"train.checkpoint_every": 1, "g_optimizer.learning_rate": 1e30}
    with pytest.raises(UserError, match=r"step 2: .*; there is no good checkpoint yet"):
        isr_jax.train(tiny(photos, **extra), tmp_path, console=silent())
    assert (tmp_path / "quarantine" / "1").is_dir()
    assert isr_jax.train(tiny(photos), tmp_path, console=silent()).step == 8


def test_a_run_may_go_on_by_the_other_loader(photos, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = tiny(photos, **{"data.loader": "stream", "train.steps": 10})
    assert isr_jax.train(config, run, console=silent()).step == 10


def test_before_the_first_validation_the_latest_checkpoint_is_the_best(tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for step in run.glob("checkpoints/*"):
        if step.name != "6":
            shutil.rmtree(step)
    assert isr_jax.load(run).step == 6


def test_damaged_records_and_scores_do_not_stop_a_run(photos, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "metrics.jsonl").write_text("")
    scores = run / "checkpoints/8/metrics/metrics"
    scores.write_text(scores.read_text()[:5])
    console = heard()
    isr_jax.train(tiny(photos), run, console=console)
    assert "checkpoint 8 cannot be read (its scores)" in console.export_text()
    assert [r["kind"] for r in read_records(run)].count("baselines") == 1
    assert_bit_identical(trained, run)


def test_divergence_names_the_step_and_the_last_good_checkpoint(photos, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = tiny(photos)
    config.train.steps = 16
    config.g_optimizer.learning_rate = 1e30
    console = heard()
    with pytest.raises(UserError, match=r"step \d+: .* not finite; .*checkpoints/8; lower"):
        isr_jax.train(config, run, console=console)
    said = console.export_text()
    assert "config.g_optimizer.learning_rate is 1e+30 from here on; it was 0.0001" in said
    assert isr_jax.load(run, checkpoint="latest").step == 8


def biggest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_a_checkpoint_cut_short_goes_to_quarantine_for_the_one_before(photos, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    with open(biggest_file(run / "checkpoints" / "8"), "r+b") as file:
        file.truncate(os.fstat(file.fileno()).st_size // 2)
    console = heard()
    assert isr_jax.train(tiny(photos), run, console=console).step == 8
    said = console.export_text()
    assert "checkpoint 8 cannot be read" in said
    assert "from step 6" in said
    assert (run / "quarantine" / "8").is_dir()
    assert_bit_identical(trained, run)

    left = [p for p in (run / "checkpoints").iterdir() if p.name.isdigit()]
    for step in left:
        biggest_file(step).write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read"):
        isr_jax.train(tiny(photos), run, console=silent())
    biggest_file(run / "checkpoints" / "8" / "generator").write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoint 8 of .* cannot be read \(.*choose another"):
        isr_jax.load(run, checkpoint=8)
    assert all(step.is_dir() for step in left)


def test_a_run_of_another_architecture_is_refused(photos, trained, tmp_path):
    run = tmp_path / "whole crop"
    whole = {"discriminator.crop": 0, "train.steps": 2}
    isr_jax.train(tiny(photos, **whole), run, console=silent())
    with pytest.raises(UserError, match=r"holds a run with data.crop=24, this one has 32"):
        larger = tiny(photos, **{"discriminator.crop": 0, "data.crop": 32})
        isr_jax.train(larger, run, console=silent())
    assert (run / "checkpoints" / "2").is_dir()
    with pytest.raises(UserError, match=r"holds a run with generator.width=4, this one has 8"):
        isr_jax.train(tiny(photos, **{"generator.width": 8}), trained, console=silent())


def test_a_run_older_than_the_choice_of_networks_goes_on(photos, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (saved,) = (run / "checkpoints/8/config").glob("metadata")
    config = json.loads(saved.read_text())
    del config["discriminator"]["name"], config["loss"]["feature_matching"]
    del config["generator"]["name"], config["generator"]["img_range"]
    saved.write_text(json.dumps(config))
    image = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    np.testing.assert_array_equal(isr_jax.load(run)(image), isr_jax.load(trained)(image))
    console = heard()
    assert isr_jax.train(tiny(photos, **{"train.steps": 10}), run, console=console).step == 10
    said = console.export_text()
    assert "from step 8" in said
    assert "discriminator.name" not in said
    assert "config.generator" not in said
    with pytest.raises(UserError, match=r"discriminator.name=classifier, this one has unet"):
        isr_jax.train(tiny_unet(photos), run, console=silent())


class Leaves(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS data set with an image under a name of its own, in a single split."""

    VERSION = tfds.core.Version("1.0.0")
    folder: Path

    def _info(self):
        features = tfds.features.FeaturesDict({"leaf": tfds.features.Image()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for path in sorted(self.folder.iterdir()):
            yield path.name, {"leaf": str(path)}


@pytest.mark.parametrize("loader", ["pool", "stream"])
def test_a_tfds_data_set_trains_by_one_field(photos, tmp_path, loader):
    """The same photographs, from files that TFDS has no code for."""
    Leaves.folder = photos
    Leaves(data_dir=tmp_path / "tfds").download_and_prepare(file_format="array_record")
    extra = {"data.tfds_dir": str(tmp_path / "tfds"), "data.loader": loader, "train.steps": 4}
    isr_jax.train(
        tiny(photos, **extra, **{"data.train": "tfds:leaves"}), tmp_path / "tfds", console=silent()
    )
    losses = losses_of(tmp_path / "tfds")
    assert len(losses) == 2
    assert np.isfinite(losses).all()


def test_t91_trains_by_one_field(isr_data, photos, tmp_path):
    console = heard()
    config = tiny(photos, **{"data.train": f"folder:{isr_data / 'train/T91'}", "data.crop": 80})
    assert isr_jax.train(config, tmp_path, console=console).step == 8
    assert "skipped 1 of 91 images" in console.export_text()


@pytest.mark.slow
def test_the_msssim_config_beats_bicubic_on_photographs_it_never_saw(tmp_path):
    """A small part of its updates; the whole of it is `make train`."""
    less = ["--config.train.steps=90", "--config.data.batch=4"]
    done = run_py(*less, f"--workdir={tmp_path}", config="msssim")
    assert done.returncode == 0, done.stderr
    records = read_records(tmp_path)
    (bicubic,) = [r["bicubic"] for r in records if r["kind"] == "baselines"]
    last = [r for r in records if r["kind"] == "validation"][-1]
    assert last["psnr"] > bicubic["psnr"] + 0.3
    assert last["ssim"] > bicubic["ssim"] + 0.01
    assert last["ms_ssim"] > bicubic["ms_ssim"] + 0.006
    if "ISR_DATA" not in os.environ:
        pytest.skip("the held-out photographs passed; set ISR_DATA to judge Set5 as well")
    upscaler = isr_jax.load(tmp_path)
    scores = []
    for hr in sorted(Path(os.environ["ISR_DATA"], "benchmarks/Set5/x4/hr").iterdir()):
        pair = (hr, hr.parent.parent / "lr" / hr.name)
        target, lr = (np.array(PIL.Image.open(path).convert("RGB")) for path in pair)
        scores.append(protocols.measure(upscaler(lr), target, crop=4).psnr)
    assert np.mean(scores) > 28.8  # bicubic has 28.42


BAD = {
    "data.crop=25": "must be divisible by config.scale=2",
    "data.train=folder:none": "no such folder",
    "data.train=tfds:mnits": "mnist",
    "data.crop=480": "smaller",
    "loss.content.ms_ssim=1 --config.data.crop=20": "two scales need 22 px",
    "loss.adversarial=wasserstein": "vanilla, least_squares, hinge, relativistic",
    "train.parallel=tpu": "jit, pmap",
    "scale=5": "2, 3, 4, 8",
    "discriminator.crop=64": "exceeds config.data.crop=24",
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", BAD)
def test_bad_settings_are_one_line_and_exit_1(photos, tmp_path, setting):
    done = run_py(*arguments(photos), *f"--config.{setting}".split(), f"--workdir={tmp_path}")
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("run.py: ")
    assert BAD[setting] in line
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_damaged_and_foreign_run_folders_through_the_command_line(photos, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    done = run_py(*arguments(photos, **{"generator.blocks": 2}), f"--workdir={run}")
    assert done.returncode == 1
    assert "generator.blocks=1, this one has 2" in done.stderr.strip().splitlines()[-1]
    file = biggest_file(run / "checkpoints" / "8")
    file.write_bytes(file.read_bytes()[:-9])
    done = run_py(*arguments(photos), f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    assert "checkpoint 8 cannot be read" in done.stderr
    (tmp_path / "empty").mkdir()
    done = run_py(*arguments(tmp_path / "empty"), f"--workdir={tmp_path / 'none'}")
    assert done.returncode == 1
    assert "empty" in done.stderr.strip().splitlines()[-1]
    done = run_py(*arguments(photos), f"--workdir={file}")
    assert done.returncode == 1
    assert "give another --workdir" in done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_batch_must_divide_among_the_devices(photos, tmp_path):
    done = run_py(*arguments(photos, **{"data.batch": 6}), f"--workdir={tmp_path}", devices=4)
    assert done.returncode == 1
    assert "config.data.batch=6 must be divisible by 4" in done.stderr


@pytest.mark.slow
def test_bad_images_among_good_ones_are_named_and_counted(photos, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(photos, folder)
    (folder / "text.png").write_text("no image")
    cut = (photos / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(cut[: len(cut) // 2])
    done = run_py(*arguments(folder, **{"train.steps": 1}), f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "text.png" in done.stderr
    assert "cut.png" in done.stderr
    assert "skipped 2 of 7 images" in done.stderr
    for path in photos.iterdir():
        (folder / path.name).unlink()
    done = run_py(*arguments(folder), f"--workdir={tmp_path / 'run2'}")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("run.py: ")


USAGE = {
    "--config.train.stepz=5": 'did you mean "steps"',
    "--config.train.steps=abc": "--config.train.steps=abc",
    "--config.generator.long_skip=maybe": "maybe",
    "--workdri=x": "workdri",
    "extra": "extra",
}


@pytest.mark.parametrize("argument", USAGE)
def test_wrong_usage_is_one_line_and_exit_2(argument):
    done = run_py(argument)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("run.py: ")
    assert USAGE[argument] in line


def test_a_config_that_is_not_there_is_named():
    done = run_py(config="none")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "configs/none.py" in line
