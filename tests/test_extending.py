"""A new architecture takes two small files and two lines: then all of the package knows it.

The files are tests/helpers/toynet.py and toynet_keys.py; the lines are those of the fixture.
"""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

import isr_jax
from isr_jax.checkpoints.restore import restore_generator
from isr_jax.errors import UserError
from isr_jax.export import export_model
from isr_jax.models import generators
from isr_jax.models.fields import variants
from isr_jax.pytorch import state_dicts
from isr_jax.training.checks import check
from tests.helpers import toynet, toynet_keys
from tests.helpers.tiny_runs import silent, tiny


@pytest.fixture(autouse=True)
def two_lines(monkeypatch):
    monkeypatch.setitem(generators.ARCHITECTURES, "toynet", toynet.ToyNet)
    monkeypatch.setitem(state_dicts.KEY_MAPS, "toynet", toynet_keys.KEY_MAPS["toynet"])


@pytest.fixture
def weights(tmp_path):
    """A state dict as PyTorch has it: [out in h w], pixels of each channel together."""
    rng = np.random.default_rng(0)
    shapes = {"first": (6, 3, 3, 3), "second": (6, 6, 3, 3), "up": (12, 6, 3, 3)}
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = (0.2 * rng.normal(size=shape)).astype(np.float32)
        state[f"{name}.bias"] = (0.1 * rng.normal(size=shape[0])).astype(np.float32)
    save_file(state, tmp_path / "toy.safetensors")
    return tmp_path / "toy.safetensors"


def by_hand(state, lr):
    """The network in NumPy, channels first, on one float image [h w 3]."""

    def convolve(x, name):
        kernel = state[f"{name}.weight"]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        return np.einsum("oihw,ijkhw->ojk", kernel, windows) + state[f"{name}.bias"][:, None, None]

    x = lr.transpose(2, 0, 1)
    for name in ("first", "second"):
        x = np.maximum(convolve(x, name), 0)
    x = convolve(x, "up")
    _, h, w = x.shape
    x = x.reshape(3, 2, 2, h, w).transpose(3, 1, 4, 2, 0).reshape(2 * h, 2 * w, 3)
    return x + lr.repeat(2, axis=0).repeat(2, axis=1)


def test_a_weights_file_is_detected_and_upscales_in_tiles(weights):
    image = np.random.default_rng(1).integers(0, 256, (23, 30, 3), np.uint8)
    sr = by_hand(load_file(weights), image / 255.0)
    expected = np.floor(np.clip(sr, 0, 1) * 255 + 0.5).astype(int)
    for tile in (None, 8):
        upscaled = isr_jax.load(weights, tile=tile)(image).astype(int)
        assert np.abs(upscaled - expected).max() <= 1
        assert (upscaled != expected).mean() < 1e-3
    assert expected.std() > 20


def test_export_undoes_import(weights, tmp_path):
    restored = restore_generator(weights)
    state_dicts.export_torch(
        tmp_path / "back.safetensors",
        restored.params,
        restored.stats,
        options=restored.config.generator.to_dict(),
        size=2,
    )
    state, back = load_file(weights), load_file(tmp_path / "back.safetensors")
    assert state.keys() == back.keys()
    for key in state:
        np.testing.assert_array_equal(state[key], back[key])


def test_it_trains_by_the_same_update_and_is_exported(photos, tmp_path):
    config = tiny(photos, **{"train.steps": 2, "train.validate_every": 2})
    with config.unlocked():
        config.generator = ConfigDict({"name": "toynet", "width": 4, "dtype": "float32"})
    assert check(config, devices=1) == []
    result = isr_jax.train(config, tmp_path / "run", console=silent())
    assert result.step == 2 and np.isfinite(result.scores["psnr"])
    moved = restore_generator(tmp_path / "run", weights="raw", checkpoint="latest")
    assert jax.tree.all(jax.tree.map(lambda x: bool(np.isfinite(x).all()), moved.params))
    export_model(tmp_path / "run", tmp_path / "toy.safetensors")
    image = np.full((5, 7, 3), 90, np.uint8)
    np.testing.assert_array_equal(
        isr_jax.load(tmp_path / "toy.safetensors")(image), isr_jax.load(tmp_path / "run")(image)
    )


def test_its_fields_are_checked_and_its_variants_listed():
    architectures = {"toynet": toynet.ToyNet}
    assert variants(architectures, part="generator")["toynet_wide"]["width"] == 12
    for options, message in {
        ("widht", 4): r"unknown field of generator toynet 'widht'.*did you mean width\?",
        ("width", 65): r"generator\.width is 65; it must be in \[1, 64\]",
        ("dtype", "half"): r"unknown generator\.dtype 'half'; choose one of float32, bfloat16",
        ("width", 4.0): r"generator\.width is 4\.0; it must be an integer",
        ("width", True): r"generator\.width is True; it must be an integer",
    }.items():
        with pytest.raises(UserError, match=message):
            generators.generator({"name": "toynet", options[0]: options[1]}, scale=2)
    with pytest.raises(UserError, match="scale is 4; toynet supports 2, 3"):
        generators.generator({"name": "toynet"}, scale=4)
