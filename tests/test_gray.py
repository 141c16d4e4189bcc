"""Generators of one channel: their images, losses and degradations, training, and use on photos."""

import io
import os
import signal
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import skimage.data
from rich.console import Console

import isr_jax
from isr_jax import config as base
from isr_jax import losses
from isr_jax.data.derived import in_gray
from isr_jax.data.loading import load_all
from isr_jax.data.pool import make_pool, sample
from isr_jax.data.sources import open_source
from isr_jax.degrade.jpeg import jpeg
from isr_jax.degrade.noise import plane_noise
from isr_jax.degrade.process import apply, draw
from isr_jax.errors import UserError
from isr_jax.export import to_onnx
from isr_jax.images import to_uint8
from isr_jax.models import GENERATORS, generator
from isr_jax.models.generators import ARCHITECTURES
from isr_jax.perceptual import distances
from isr_jax.photo.pixels import to_8_bits
from isr_jax.protocols import measure
from isr_jax.pytorch import state_dicts
from isr_jax.resize import resize_uint8
from isr_jax.training.checks import check
from isr_jax.training.loaders import open_validation
from isr_jax.training.record import read_records
from tests.helpers.drawn import drawn, photo, tiled
from tests.helpers.tiny_runs import assert_bit_identical, heard, silent, tiny

# Of each architecture, a small network.
SMALL = {
    "resnet": {"width": 4, "blocks": 1},
    "msrresnet": {"width": 4, "blocks": 1},
    "rrdbnet": {"width": 4, "growth": 2, "blocks": 1},
    "srvggnet": {"width": 4, "layers": 1},
    "span": {"width": 4},
    "plksr": {"width": 8, "blocks": 1, "kernel": 5, "partial": 3},
    "realplksr": {"width": 8, "blocks": 1, "kernel": 5, "partial": 3, "upsampler": "dysample"},
    "swinir": {"width": 8, "depths": (2,), "heads": (2,), "window": 4},
    "hat": {"width": 8, "depths": (2,), "heads": (2,), "window": 4, "overlapping": 6}
    | {"compressed": 3, "squeezed": 2},
    "dat": {"width": 32, "depths": (1,), "heads": (2,), "split": (2, 4)},
    "omnisr": {"width": 8, "groups": 1},
    "rcan": {"width": 8, "groups": 1, "blocks": 1, "squeezed": 2},
}


def luma(rgb):
    """By Pillow."""
    return np.asarray(PIL.Image.fromarray(rgb).convert("L"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_makes_gray_images(name):
    scale = 3 if name == "realplksr" else 2  # DySample's groups differ at odd scales
    network = generator({"name": name, **SMALL[name], "channels": 1}, scale=scale)
    assert network.channels == 1

    def made(key, lr):
        return network.apply(*network.init(key), lr, train=False)[0]

    lr = jax.ShapeDtypeStruct((2, 12, 16, 1), jnp.float32)
    sr = jax.eval_shape(made, jax.random.key(0), lr)
    assert sr.shape == (2, 12 * scale, 16 * scale, 1)


def test_a_source_in_gray_has_pillows_luma(photos, tmp_path):
    """Of 8 bits; gray files stay as they are, and 16 bits are those of 257 times the values."""
    folder = tmp_path / "own"
    for name in ("hr", "lr"):
        (folder / name).mkdir(parents=True)
    colour = np.asarray(PIL.Image.open(photos / "0.png"))
    single = colour[..., 1]
    PIL.Image.fromarray(colour).save(folder / "hr" / "a.png")
    PIL.Image.fromarray(single).save(folder / "hr" / "b.png")
    PIL.Image.fromarray(single.astype(np.uint16) * 257 + 3).save(folder / "hr" / "c.png")
    for name in "abc":
        PIL.Image.fromarray(colour[::2, ::2]).save(folder / "lr" / f"{name}.png")
    own = in_gray(open_source(f"pairs:{folder / 'hr'}:{folder / 'lr'}", "train", scale=2))
    a, b, c = (own.load(i) for i in range(3))
    np.testing.assert_array_equal(a.hr[..., 0], luma(colour))
    np.testing.assert_array_equal(a.lr[..., 0], luma(colour[::2, ::2]))
    np.testing.assert_array_equal(b.hr[..., 0], single)
    assert c.hr.dtype == np.uint16
    np.testing.assert_array_equal(c.hr[..., 0], single.astype(np.uint16) * 257 + 3)
    both = in_gray(open_source((f"folder:{photos}", f"folder:{folder / 'hr'}"), "train", scale=2))
    assert len(both.parts) == 2 and both.place(6) == (1, 1)
    (made,) = load_all(both, min_size=8, warn=pytest.fail, most=1)
    expected = resize_uint8(luma(colour), scale=Fraction(1, 2))
    np.testing.assert_array_equal(made.lr[..., 0], expected)


def test_crops_of_the_pool_are_cut_from_gray_images(photos):
    """Each crop is where its image has it, in both images, with one of the eight symmetries."""
    images = load_all(
        in_gray(open_source(f"folder:{photos}", "train", scale=2)), min_size=48, warn=pytest.fail
    )
    pool = make_pool(images)
    drawn_ = jax.jit(lambda key: sample(key, pool, batch=6, crop=16, scale=2, channels=1))(
        jax.random.key(0)
    )
    lrs, hrs = (np.asarray(to_uint8(drawn_[name])) for name in ("lr", "hr"))
    assert lrs.shape == (6, 8, 8, 1) and hrs.shape == (6, 16, 16, 1)
    for lr, hr in zip(lrs[..., 0], hrs[..., 0], strict=True):
        assert any(_is_cut(lr, hr, image, k) for image in images for k in range(8))


def _is_cut(lr, hr, image, k):
    lr, hr = (np.rot90(x, k % 4) for x in (lr, hr))
    lr, hr = (x[:, ::-1] if k > 3 else x for x in (lr, hr))
    windows = np.lib.stride_tricks.sliding_window_view(image.hr[..., 0], hr.shape)[::2, ::2]
    for y, x in np.argwhere((windows == hr).all(axis=(2, 3))):
        np.testing.assert_array_equal(lr, image.lr[y : y + 8, x : x + 8, 0])
        return True
    return False


def test_a_gray_image_becomes_a_gray_jpeg(photos):
    image = luma(np.asarray(PIL.Image.open(photos / "3.png")))[:45, :37]
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 30, image.shape), 0, 255)
    image = noisy.astype(np.uint8)
    for quality in (20, 75, 95):
        file = io.BytesIO()
        PIL.Image.fromarray(image).save(file, "JPEG", quality=quality)
        expected = np.asarray(PIL.Image.open(file)).astype(int)
        lr = jnp.asarray(image[None, ..., None] / 255, jnp.float32)
        ours = np.round(255 * np.asarray(jax.jit(jpeg)(lr, jnp.array([quality]))))[0, ..., 0]
        assert np.abs(ours - expected).max() <= 1
        assert (ours != expected).mean() < 2e-3
        assert np.abs(expected - image).mean() > 0.3


def test_noise_of_one_channel_is_that_of_gray_noise():
    """Of three equal channels, whose luma is the channel but for its weights' sum of 0.9999."""
    z = jax.random.normal(jax.random.key(0), (1, 24, 24))
    plane = jnp.round(255 * jax.random.uniform(jax.random.key(1), (1, 24, 24))) / 255
    size, options = jnp.array([24, 24]), {"strength": jnp.array(2.0)}
    for poisson in (False, True):
        one = {
            gray: plane_noise(
                z, plane, size, poisson=jnp.array(poisson), gray=jnp.array(gray), **options
            )
            for gray in (False, True)
        }
        np.testing.assert_array_equal(one[False], one[True])
        three = plane_noise(
            jnp.repeat(z, 3, 0),
            jnp.repeat(plane, 3, 0),
            size,
            poisson=jnp.array(poisson),
            gray=jnp.array(True),
            **options,
        )
        np.testing.assert_allclose(one[True][0], three[1], atol=1e-6)


@pytest.mark.slow
def test_a_gray_image_is_degraded_as_three_equal_channels():
    """With gray noise; JPEG's colours round within a level or two."""
    hr = jnp.asarray(photo(32, 48) / 255, jnp.float32)[None, ..., None]
    parameters = draw(jax.random.key(1), batch=1)
    gray = jnp.ones(1, bool)
    parameters = parameters._replace(
        first=parameters.first._replace(gray=gray, strength=jnp.zeros(1)),
        second=parameters.second._replace(gray=gray, strength=jnp.zeros(1)),
    )
    key = jax.random.key(2)
    degrade = jax.jit(partial(apply, scale=2))
    one = degrade(key, parameters, hr)
    three = degrade(key, parameters, jnp.repeat(hr, 3, axis=-1))
    assert one.shape == (1, 16, 24, 1)
    difference = 255 * np.abs(np.asarray(three - one))
    assert difference.max() <= 3 and (difference > 0.5).mean() < 0.05


def test_losses_of_gray_are_those_of_three_equal_channels(monkeypatch):
    rng = np.random.default_rng(0)
    sr, hr, ema = (jnp.asarray(rng.random((2, 24, 24, 1)), jnp.float32) for _ in range(3))
    rgb = [jnp.repeat(x, 3, axis=-1) for x in (sr, hr, ema)]
    ldl = jax.jit(losses.ldl)
    np.testing.assert_allclose(ldl(sr, hr, ema), ldl(*rgb), rtol=1e-4)

    def weighed(params, sr, hr, *, network):
        return jnp.sum(jnp.square(sr - hr) @ params, axis=(1, 2))

    monkeypatch.setattr(distances.lpips, "lpips", weighed)
    config = base.get_config()
    config.loss.lpips = 1.0
    distance, params = distances.make(config.loss)["lpips"], jnp.array([0.2, 0.3, 0.7])
    np.testing.assert_allclose(
        distance(params, sr, hr),
        1.2 * jnp.mean(jnp.sum((sr - hr)[..., 0] ** 2, axis=(1, 2))),
        rtol=1e-5,
    )


def test_what_gray_does_not_have_is_said(photos):
    fields = {"generator.channels": 1}
    for name in ("data.augment.rgb", "loss.content.chroma"):
        with pytest.raises(UserError, match=f"config.{name} is 0.5, and with .*channels=1"):
            check(tiny(photos, **fields, **{name: 0.5}), devices=1)
    with pytest.raises(UserError, match="channels is 4; training images are RGB or gray"):
        check(tiny(photos, **{"generator.channels": 4}), devices=1)
    check(tiny(photos, **fields), devices=1)


FIELDS = {
    "generator.channels": 1,
    "generator.batch_norm": False,
    "generator.global_skip": "bicubic",
    "generator.equivariant": True,
}
FORMS = {
    "stream": {"loss.feature_matching": 0.1, "train.parallel": "pmap"},
    "sharded_pool": {"data.degradation": "second_order", "data.crop": 16, "data.margin": 4},
}


class Impatient(Console):
    """Presses Ctrl-C when step 4 has been validated."""

    def print(self, *args, **kwargs):
        super().print(*args, **kwargs)
        if args and str(args[0]).startswith("step 4:"):
            os.kill(os.getpid(), signal.SIGINT)


def check_resumes(config, straight, run):
    """A run that is stopped and resumed ends as the one that was not."""
    stopped = isr_jax.train(config, run, console=Impatient(file=io.StringIO())).step
    assert 4 <= stopped < 8
    console = heard()
    assert isr_jax.train(config, run, console=console).step == 8
    assert f"from step {stopped}" in console.export_text()
    assert_bit_identical(straight, run)


@pytest.fixture(scope="module")
def gray_run(photos, tmp_path_factory):
    """A finished run of an equivariant generator of gray, with a GAN, and its config."""
    run, config = tmp_path_factory.mktemp("gray") / "run", tiny(photos, **FIELDS)
    isr_jax.train(config, run, console=silent())
    return run, config


@pytest.mark.slow
def test_gray_training_resumes_bit_for_bit(gray_run, tmp_path):
    straight, config = gray_run
    check_resumes(config, straight, tmp_path / "resumed")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_gray_training_resumes_bit_for_bit(photos, tmp_path, form):
    config = tiny(photos, **{**FIELDS, "data.loader": form, **FORMS[form]})
    assert isr_jax.train(config, tmp_path / "straight", console=silent()).step == 8
    check_resumes(config, tmp_path / "straight", tmp_path / "resumed")


def test_a_run_of_gray_is_validated_shown_and_used(gray_run, photos, tmp_path):
    run, config = gray_run
    loaded = open_validation(config, pytest.fail)
    assert {one.hr.shape[2] for one in loaded} == {1}
    upscaler = isr_jax.load(run, checkpoint="latest")
    scores = [line["psnr"] for line in read_records(run) if line["kind"] == "validation"]
    measured = [measure(upscaler(one.lr), one.hr, crop=2).psnr for one in loaded]
    assert scores[-1] == pytest.approx(np.mean(measured), abs=1e-6)
    picture = np.asarray(PIL.Image.open(run / "images" / "step_000008.png"))
    assert picture.shape[2] == 3 and np.ptp(picture, axis=2).max() > 0  # captions are in colour
    gray = luma(np.asarray(PIL.Image.open(photos / "0.png")))
    sr = upscaler(gray)
    assert sr.shape == (2 * gray.shape[0], 2 * gray.shape[1])
    # 16 bits of the same values are the same image, less coarsely rounded
    deep = upscaler(gray.astype(np.uint16) * 257)
    np.testing.assert_array_equal(to_8_bits(deep), sr)
    assert np.any(deep % 257)
    # gray files stay gray through `isr upscale`, with alpha and 16 bits
    alpha = np.dstack([gray, 255 - gray // 2])
    for name, pixels in (("a", gray), ("b", alpha)):
        PIL.Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    PIL.Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "c.png")
    from isr_jax.upscaling.folders import upscale_files

    assert upscale_files(upscaler, [tmp_path], out=tmp_path / "out").failed == []
    written = {file.stem: PIL.Image.open(file) for file in (tmp_path / "out").iterdir()}
    assert {name: image.mode for name, image in written.items()} == {
        "a_x2": "L",
        "b_x2": "LA",
        "c_x2": "I;16",
    }
    np.testing.assert_array_equal(np.asarray(written["a_x2"]), sr)
    np.testing.assert_array_equal(np.asarray(written["b_x2"])[..., 0], sr)
    np.testing.assert_array_equal(np.asarray(written["c_x2"]), deep)


def test_a_gray_network_is_scored_on_gray_and_colour_files(gray_run, tmp_path):
    run, _ = gray_run
    colour = skimage.data.chelsea()[100:164, 100:180]
    for name, pixels in (("colour", colour), ("gray", luma(colour))):
        folder = tmp_path / "set" / "hr"
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(folder / f"{name}.png")
    upscaler = isr_jax.load(run)
    (scores,) = isr_jax.evaluate(run, tmp_path / "set", protocol="basicsr")["sets"]
    rows = {row["name"]: row["psnr"] for row in scores["images"]}
    assert rows.keys() == {"colour", "gray"}
    for name, hr in (("colour", colour), ("gray", luma(colour))):
        lr = resize_uint8(hr, scale=Fraction(1, 2))
        assert rows[name] == measure(upscaler(lr), hr, crop=2, protocol="basicsr").psnr
    # Studio swing has 219 levels of 255, which adds 1.32 dB: the luma of both is nearly the same.
    assert rows["colour"] - rows["gray"] == pytest.approx(20 * np.log10(255 / 219), abs=0.2)


def test_gray_in_colour_is_as_gray():
    image = photo(30, 21)
    single = tiled("gray", 16)(image[None, ..., None], None)[0]
    three = tiled("gray", 16)(np.repeat(image[None, ..., None], 3, axis=3), None)[0]
    np.testing.assert_array_equal(three, np.repeat(single, 3, axis=2))


def test_hidden_colours_do_not_show_through_a_gray_network():
    image = np.concatenate([photo(12, 10, 3), np.full((12, 10, 1), 255, np.uint8)], axis=2)
    image[:, :5, 3] = 0
    changed = image.copy()
    changed[:, :5, :3] = 77
    one, other = (tiled("gray", 16)(x[None], None)[0] for x in (image, changed))
    np.testing.assert_array_equal(one, other)


def test_a_gray_network_is_exported_with_one_channel():
    pytest.importorskip("onnx", reason="writes ONNX: pip install isr-jax[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="runs ONNX: pip install isr-jax[onnx]")
    network, _, params, stats = drawn("gray")
    content = to_onnx(network, params, stats)
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    lr = np.random.default_rng(0).random((2, 6, 8, 1), np.float32)
    (sr,) = session.run(["output"], {"input": lr.transpose(0, 3, 1, 2)})
    expected, _ = jax.jit(network.apply, static_argnames="train")(params, stats, lr, train=False)
    assert sr.shape == (2, 1, 12, 16)
    np.testing.assert_allclose(sr.transpose(0, 2, 3, 1), expected, atol=1e-4)


@pytest.mark.parametrize(
    "naming", ["edsr_basicsr", "edsr_original", "msrresnet_basicsr", "srresnet"]
)
def test_pytorch_files_of_gray_networks_come_back(naming):
    published = {"edsr": "edsr_baseline", "msrr": "msrresnet", "srre": "srresnet"}[naming[:4]]
    fields = {**GENERATORS[published], "channels": 1, "width": 4, "blocks": 1}
    network = generator(fields, scale=2)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params, stats = jax.tree.map(lambda x: rng.random(x.shape, np.float32), shapes)
    state = state_dicts.to_state_dict(params, stats, options=fields, size=2, key_map=naming)
    detected = state_dicts.detect(state)
    assert detected == (naming, fields, 2)
    again = state_dicts.to_params(state, detected)
    jax.tree.map(np.testing.assert_array_equal, (params, stats), again)
