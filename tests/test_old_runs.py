"""A run folder of version 0.1.0, before the modules were moved: it loads, and training resumes.

Made by the configuration of `tiny_runs.tiny`, 4 updates, with what `isr_jax.load` made of an image.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import isr_jax
from configs import study
from isr_jax.checkpoints.restore import restore_generator
from isr_jax.errors import UserError
from isr_jax.loss_study import loop
from isr_jax.training.record import read_records
from tests.helpers.tiny_runs import silent, tiny

ARCHIVE = Path(__file__).parent / "data" / "run_0.1.0.tar.xz"


@pytest.fixture
def run(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        # Python 3.11.0 to 3.11.3 have no filters.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path, **safe)
    return tmp_path


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_its_generator_gives_the_same_image(run, weights):
    expected = np.load(run / "expected.npz")
    sr = isr_jax.load(run, weights=weights)(expected["image"])
    difference = np.abs(sr.astype(int) - expected[weights])
    # Other processors sum in another order.
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    assert expected[weights].std() > 5


def test_training_resumes_from_it(run, photos):
    before = restore_generator(run, weights="raw")
    result = isr_jax.train(tiny(photos, **{"train.steps": 6}), run, console=silent())
    assert result.step == 6
    after = restore_generator(run, weights="raw", checkpoint="latest")
    assert (before.step, after.step) == (4, 6)
    moved = np.abs(after.params["Conv_0"]["kernel"] - before.params["Conv_0"]["kernel"])
    # Two updates of Adam at 1e-4, of which the second is the halved schedule's: not a new start.
    assert 0 < moved.max() < 3e-4
    steps = [line["step"] for line in read_records(run) if line["kind"] == "train"]
    assert steps == [2, 4, 6]


def test_a_study_that_is_older_than_a_field_resumes(tmp_path):
    """Fields that its study.json lacks had their defaults."""
    identity = {"run": study.get_config("quick").to_dict(), "seeds": [0, 1]}
    loop._claim(tmp_path / "l1", identity)
    older = json.loads((tmp_path / "l1" / "study.json").read_text())
    del older["run"]["g_optimizer"]["name"], older["run"]["data"]["augment"]
    (tmp_path / "l1" / "study.json").write_text(json.dumps(older))
    loop._claim(tmp_path / "l1", identity)
    identity["run"]["g_optimizer"]["name"] = "muon"
    with pytest.raises(UserError, match=r"g_optimizer.name=adam, which is now muon"):
        loop._claim(tmp_path / "l1", identity)
