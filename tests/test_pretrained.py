"""The models that come with the package: what they are, their scores, and flat colours."""

import importlib
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

import isr_jax
from isr_jax import images
from isr_jax.checkpoints.restore import architecture, restore_generator
from isr_jax.checkpoints.single_files import PRETRAINED
from isr_jax.models.generators import make_upscale
from isr_jax.resize import resize_uint8
from isr_jax.training import checks
from tests.helpers.command import run

VARIANTS = {"compact-x2": "x2", "compact-x3": "x3", "compact-x4": ""}
# PSNR-Y in dB and SSIM-Y of Set5, as README.md has them.
SET5 = {
    "compact-x2": (37.37, 0.9576),
    "compact-x3": (33.60, 0.9201),
    "compact-x4": (31.32, 0.8823),
}


def test_there_is_a_file_for_every_name():
    assert set(PRETRAINED) == set(VARIANTS)
    for file in PRETRAINED.values():
        assert file.stat().st_size < 10**6


@pytest.mark.parametrize("name", VARIANTS)
def test_a_model_is_what_its_config_trains(name):
    config = importlib.import_module("configs.compact").get_config(VARIANTS[name])
    assert checks.check(config, devices=1) == []
    assert architecture(restore_generator(name).config) == architecture(config)


@pytest.mark.parametrize("name", VARIANTS)
def test_flat_patches_of_any_colour_keep_it_up_to_the_border(name):
    """Within a level; 256 grays and 4096 colours, from black to white."""
    restored = restore_generator(name)
    grays = np.repeat(np.arange(256), 3).reshape(-1, 3)
    colours = np.stack(np.meshgrid(*[np.linspace(0, 255, 16)] * 3), -1).reshape(-1, 3)
    colours = np.concatenate([grays, colours]).astype(np.uint8)[:, None, None]

    @jax.jit
    def enlarge(flat):
        lr = images.to_float(jax.numpy.broadcast_to(flat, (len(flat), 5, 4, 3)))
        return images.to_uint8(restored.generator.apply(restored.params, {}, lr, train=False)[0])

    for part in np.array_split(colours, 16):
        assert np.abs(np.asarray(enlarge(part)).astype(int) - part).max() <= 1


@pytest.mark.parametrize("name", VARIANTS)
def test_a_flat_photograph_keeps_its_colour_in_every_tile(name):
    upscaler = isr_jax.load(name, tile=16)
    for colour in ((0, 255, 0), (255, 0, 255), (200, 30, 90)):
        lr = np.broadcast_to(np.uint8(colour), (33, 21, 3))
        assert np.abs(upscaler(lr).astype(int) - colour).max() <= 1
    deep = np.broadcast_to(np.uint16([100, 65535, 30000]), (17, 5, 3))
    assert np.abs(upscaler(deep).astype(int) - deep[0, 0]).max() <= 2


@pytest.mark.parametrize("name", VARIANTS)
def test_tiles_give_what_the_whole_photograph_gives(name):
    """Several sides of tiles; odd sizes, a column and a row of pixels, and one."""
    restored = restore_generator(name)
    whole, photo = make_upscale(restored.generator), skimage.data.chelsea()
    for tile, sizes in {24: [(61, 47), (1, 50), (1, 1)], 40: [(117, 91), (63, 1)]}.items():
        upscaler, differences = isr_jax.load(name, tile=tile), []
        for height, width in sizes:
            lr = np.ascontiguousarray(photo[90 : 90 + height, 120 : 120 + width])
            expected = np.asarray(whole(restored.params, {}, lr))
            differences.append(np.abs(upscaler(lr).astype(int) - expected).ravel())
        assert max(map(np.max, differences)) <= 1
        assert np.mean(np.concatenate(differences) > 0) <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", SET5)
def test_scores_are_those_of_the_readme(name):
    if "ISR_DATA" not in os.environ:
        pytest.skip("needs ISR_DATA, the folder of benchmark images")
    (found,) = isr_jax.evaluate(name, Path(os.environ["ISR_DATA"]) / "benchmarks/Set5")["sets"]
    psnr, ssim = SET5[name]
    assert found["psnr"] == pytest.approx(psnr, abs=0.01)
    assert found["ssim"] == pytest.approx(ssim, abs=0.0002)


@pytest.mark.parametrize(("options", "scale"), [((), 4), (("--scale", 3), 3)])
def test_upscale_takes_the_packages_own_model(tmp_path, capsys, options, scale):
    photo = resize_uint8(skimage.data.chelsea(), size=(20, 30))
    Image.fromarray(photo).save(tmp_path / "a.png")
    assert run(capsys, "upscale", tmp_path / "a.png", *options)[0] == 0
    with Image.open(tmp_path / f"a_x{scale}.png") as written:
        expected = isr_jax.load(f"compact-x{scale}")(photo)
        np.testing.assert_array_equal(np.array(written), expected)
