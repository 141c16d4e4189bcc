"""The pretrained models: what they are, their scores, and flat colours."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

import isr_jax
from isr_jax import images
from isr_jax.checkpoints.restore import architecture, restore_generator
from isr_jax.checkpoints.runs import write_generator
from isr_jax.errors import UserError
from isr_jax.export import export_model
from isr_jax.models.generators import make_upscale
from isr_jax.photo.reading import open_photo
from isr_jax.pretrained import PRETRAINED, Card, describe
from isr_jax.resize import resize_uint8
from isr_jax.training import checks
from tests.helpers.command import ROOT, run
from tests.helpers.tiny_runs import environment

# The config of each, and its variant.
CONFIGS = {
    "compact-x2": ("compact", "x2"),
    "compact-x3": ("compact", "x3"),
    "compact-x4": ("compact", ""),
    "gan-x4": ("gan", "standard"),
    "photo-x2": ("photo", "x2-gan"),
    "photo-x4": ("photo", "gan"),
    "standard-x2": ("standard", "x2"),
    "standard-x4": ("standard", ""),
}
MODELS = Path(__file__).parent.parent / "docs/models.md"


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_model_is_what_its_config_trains(name):
    config, variant = CONFIGS[name]
    config = importlib.import_module(f"configs.{config}").get_config(variant)
    assert checks.check(config, devices=1) == []
    assert architecture(restore_generator(name).config) == architecture(config)


@pytest.mark.parametrize("name", PRETRAINED)
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


@pytest.mark.parametrize("name", PRETRAINED)
def test_noise_gives_finite_images_near_its_range(name):
    restored, rng = restore_generator(name), np.random.default_rng(0)
    noise = rng.integers(0, 2, (1, 12, 14, 3)) * [[[[1.0]]], [[[1 / 255]]]]  # loud, and one level
    enlarge = jax.jit(lambda lr: restored.generator.apply(restored.params, {}, lr, train=False)[0])
    for lr in noise.astype(np.float32):
        sr = np.asarray(enlarge(lr[None]))
        assert np.isfinite(sr).all()
        assert np.abs(sr - lr.mean()).max() < 3 * lr.max()


@pytest.mark.parametrize("name", PRETRAINED)
def test_an_onnx_file_gives_the_same_photo(name, tmp_path):
    pytest.importorskip("onnx", reason="writes ONNX: pip install isr-jax[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="runs ONNX: pip install isr-jax[onnx]")
    export_model(name, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    lr = np.ascontiguousarray(skimage.data.chelsea()[90:130, 120:150])
    planes = np.float32(lr.transpose(2, 0, 1)[None] / 255)
    (sr,) = session.run(None, {session.get_inputs()[0].name: planes})
    levels = np.floor(255 * np.clip(sr[0], 0, 1) + 0.5).transpose(1, 2, 0)
    assert np.abs(levels - isr_jax.load(name)(lr)).max() <= 1


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_flat_photograph_keeps_its_colour_in_every_tile(name):
    upscaler = isr_jax.load(name, tile=16)
    for colour in ((0, 255, 0), (255, 0, 255), (200, 30, 90)):
        lr = np.broadcast_to(np.uint8(colour), (33, 21, 3))
        assert np.abs(upscaler(lr).astype(int) - colour).max() <= 1
    deep = np.broadcast_to(np.uint16([100, 65535, 30000]), (17, 5, 3))
    assert np.abs(upscaler(deep).astype(int) - deep[0, 0]).max() <= 2


@pytest.mark.parametrize("name", PRETRAINED)
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
@pytest.mark.parametrize("name", PRETRAINED)
def test_scores_are_those_of_the_card(name):
    if "ISR_DATA" not in os.environ:
        pytest.skip("needs ISR_DATA, the folder of benchmark images")
    sets = Path(os.environ["ISR_DATA"]) / "benchmarks"
    expected = describe(name).card["scores"]
    code = (
        "import isr_jax, json, sys; results = [isr_jax.evaluate(sys.argv[1], data)['sets'][0] "
        "for data in sys.argv[2:]]; print(json.dumps(results))"
    )
    command = [sys.executable, "-c", code, name, *(str(sets / title) for title in expected)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, cwd=ROOT, env=environment(optimized=True)
    )
    for found, (psnr, ssim) in zip(json.loads(done.stdout), expected.values(), strict=True):
        assert found["psnr"] == pytest.approx(psnr, abs=0.01)
        assert found["ssim"] == pytest.approx(ssim, abs=0.0002)


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_card_says_all_there_is_to_say(name):
    model = describe(name)
    assert set(Card.__annotations__) - set(model.card) <= {"base"}
    assert model.card.get("base", name) in PRETRAINED
    restored = restore_generator(name)
    assert model.parameters == sum(x.size for x in jax.tree.leaves(restored.params))
    assert (model.scale, model.architecture) == (
        restored.config.scale,
        restored.config.generator.name,
    )
    row = next(line for line in MODELS.read_text().splitlines() if f"`{name}`" in line)
    for scores in model.card["scores"].values():
        assert "{:.2f}/{:.4f}".format(*scores) in row


def test_all_models_take_less_than_8_megabytes():
    assert sum(file.stat().st_size for file in PRETRAINED.values()) < 8e6


def test_models_are_listed(capsys):
    code, out, _ = run(capsys, "models")
    assert code == 0
    for name in PRETRAINED:
        (line,) = [line for line in out.splitlines() if name in line]
        assert f"{describe(name).card['scores']['Set5'][0]:.2f}" in line
    code, out, _ = run(capsys, "models", "compact-x3", "--json")
    (model,) = json.loads(out)
    assert (model["name"], model["scale"], model["card"]["base"]) == ("compact-x3", 3, "compact-x4")
    code, _, (line,) = run(capsys, "models", "compact-x9")
    assert code == 1
    assert "there is no model compact-x9" in line


def test_a_card_goes_with_the_file(tmp_path, capsys):
    card, mine = tmp_path / "card.json", tmp_path / "mine.safetensors"
    card.write_text('{"purpose": "foxes", "updates": 7, "scores": {"Set5": [30.0, 0.8]}}')
    assert run(capsys, "export", "compact-x2", mine, "--card", card)[0] == 0
    assert describe(mine).card == json.loads(card.read_text())
    copy = tmp_path / "copy.safetensors"
    assert run(capsys, "export", mine, copy)[0] == 0
    assert describe(copy).card["purpose"] == "foxes"
    x = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    np.testing.assert_array_equal(isr_jax.load(copy)(x), isr_jax.load("compact-x2")(x))


@pytest.mark.parametrize(
    ("card", "to", "message"),
    [
        ("{", "safetensors", "cannot be used as a card"),
        ('{"purpos": "foxes"}', "safetensors", "did you mean purpose?"),
        ('{"updates": "7"}', "safetensors", "updates of a card is '7'"),
        ('{"scores": {"Set5": 30}}', "safetensors", "scores of a card"),
        ('{"scores": {"Set5": ["31", ".8"]}}', "safetensors", "scores of a card"),
        ('{"updates": true}', "safetensors", "updates of a card is True"),
        ('{"hours": NaN}', "safetensors", "hours of a card is nan"),
        ('{"commands": [1]}', "safetensors", "commands of a card"),
        ("[" * 100_000, "safetensors", "cannot be used as a card"),
        ("{}", "stablehlo", "holds no card"),
    ],
)
def test_a_card_that_cannot_be_used_is_named(tmp_path, capsys, card, to, message):
    (tmp_path / "card.json").write_text(card)
    options = ("export", "compact-x2", tmp_path / f"a.{to}", "--card", tmp_path / "card.json")
    code, _, (line,) = run(capsys, *options)
    assert code == 1
    assert message in line
    assert not (tmp_path / f"a.{to}").exists()


@pytest.mark.parametrize(("options", "scale"), [((), 4), (("--scale", 3), 3)])
def test_upscale_takes_the_packages_own_model(tmp_path, capsys, options, scale):
    photo = resize_uint8(skimage.data.chelsea(), size=(20, 30))
    Image.fromarray(photo).save(tmp_path / "a.png")
    assert run(capsys, "upscale", tmp_path / "a.png", *options)[0] == 0
    with Image.open(tmp_path / f"a_x{scale}.png") as written:
        expected = isr_jax.load(f"compact-x{scale}")(photo)
        np.testing.assert_array_equal(np.array(written), expected)


@pytest.fixture(scope="module")
def gan(tmp_path_factory):
    """A file of compact-x4 with other biases and kernels, whose card names compact-x4 as base."""
    folder = tmp_path_factory.mktemp("gan")
    base = restore_generator("compact-x4")
    keys = iter(jax.random.split(jax.random.key(0), 100))
    moved = jax.tree.map(lambda x: x * (1 + jax.random.normal(next(keys), x.shape)), base.params)
    write_generator(folder / "run", moved, base.stats, architecture(base.config))
    (folder / "card.json").write_text('{"base": "compact-x4"}')
    export_model(folder / "run", folder / "gan.safetensors", card=folder / "card.json")
    return folder / "gan.safetensors"


def test_strength_mixes_a_model_with_the_one_that_it_was_made_from(gan, tmp_path, capsys):
    base, whole, half = (
        restore_generator(gan, strength=strength).params for strength in (0.0, 1.0, 0.25)
    )
    jax.tree.map(np.testing.assert_array_equal, base, restore_generator("compact-x4").params)
    jax.tree.map(np.testing.assert_array_equal, whole, restore_generator(gan).params)
    jax.tree.map(
        lambda a, b, mix: np.testing.assert_allclose(0.75 * a + 0.25 * b, mix, atol=1e-6),
        *(base, whole, half),
    )
    photo = skimage.data.chelsea()[100:116, 100:120]
    Image.fromarray(photo).save(tmp_path / "a.png")
    options = ("--model", gan, "--strength", 0.25)
    assert run(capsys, "upscale", tmp_path / "a.png", *options)[0] == 0
    with Image.open(tmp_path / "a_x4.png") as written:
        np.testing.assert_array_equal(written, isr_jax.load(gan, strength=0.25)(photo))
    size = isr_jax.load_any_size(model=gan, strength=0.0)(photo, width=50)
    np.testing.assert_array_equal(size, isr_jax.load_any_size(model="compact-x4")(photo, width=50))


def test_strength_that_cannot_mix_says_why(gan):
    for model, strength, message in [
        ("compact-x4", 0.5, "compact-x4 was not initialised from another model"),
        ("compact-x2", 0.5, "compact-x4 and compact-x2 cannot be mixed: the first has scale=4"),
        (gan, 1.5, "strength is 1.5; it must be from 0 to 1"),
    ]:
        with pytest.raises(UserError, match=message):
            isr_jax.load(model, strength=strength)


@pytest.mark.parametrize(
    ("quality", "options", "told"),
    [
        (40, (), "--model photo-x4"),
        (90, (), ""),
        (40, ("--model", "compact-x2"), "--model photo-x2"),
        (40, ("--scale", "2.5"), "--model photo-x4"),
        (40, ("--model", "bicubic", "--scale", "4"), ""),
    ],
)
def test_jpegs_of_low_quality_are_told_of_photo_models(tmp_path, capsys, quality, options, told):
    """Once for a run; other files, and other models, are not."""
    for i in range(2):
        photo = Image.fromarray(skimage.data.chelsea()[100:108, 100 : 110 + i])
        photo.save(tmp_path / f"{i}.jpg", quality=quality)
        photo.save(tmp_path / f"{i}.png")
    code, _, lines = run(capsys, "upscale", tmp_path, *options, "--out", tmp_path / "out")
    assert code == 0
    hints = [line for line in lines if "low quality" in line]
    assert len(hints) == bool(told)
    for line in hints:
        assert f"there is {told} (2 images: 0.jpg, 1.jpg)" in line


def test_the_quality_of_a_jpeg_is_estimated(tmp_path):
    for quality in (10, 30, 50, 75, 95):
        file = tmp_path / f"{quality}.jpg"
        Image.fromarray(skimage.data.chelsea()[:16, :24]).save(file, quality=quality)
        found = open_photo(file).read().jpeg_quality
        assert found == pytest.approx(quality, abs=1 if quality > 10 else 6)  # its table is clipped
    Image.fromarray(skimage.data.chelsea()[:16, :24]).save(tmp_path / "a.png")
    assert open_photo(tmp_path / "a.png").read().jpeg_quality is None
