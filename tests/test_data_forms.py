"""What crops are drawn from: pairs, lists, several sources, weights, 16 bits; training on it."""

import io
import os
import signal
from fractions import Fraction

import imagecodecs
import jax
import numpy as np
import PIL.Image
import pytest
from rich.console import Console

import isr_jax
from isr_jax.data.choices import make_choices, scored_on_own
from isr_jax.data.examples import ImagePair
from isr_jax.data.loading import load_all
from isr_jax.data.pool import sample
from isr_jax.data.sources import open_source
from isr_jax.errors import UserError
from isr_jax.images import to_uint8
from isr_jax.protocols import measure
from isr_jax.resize import resize_uint8, resize_uint16
from isr_jax.training.checks import check
from isr_jax.training.loaders import open_loader, open_validation
from isr_jax.training.record import read_records
from tests.helpers.crops import check_crops, located_photos
from tests.helpers.tiny_runs import assert_bit_identical, heard, silent, tiny

pytestmark = pytest.mark.usefixtures("undrawn")

SIZES = [(24, 40), (48, 32), (32, 28)]
SCALE = 2


@pytest.fixture
def folders(tmp_path):
    """HR and LR folders of located photos, whose LR images are the negative of the bicubic."""
    photos = [
        photo._replace(lr=255 - photo.lr, own=True) for photo in located_photos(SIZES, scale=SCALE)
    ]
    for name in ("hr", "lr"):
        (tmp_path / name).mkdir()
    for photo in photos:
        PIL.Image.fromarray(photo.hr).save(tmp_path / "hr" / photo.name)
        PIL.Image.fromarray(photo.lr).save(tmp_path / "lr" / photo.name.replace(".", "x2."))
    return tmp_path, photos


def batches(config, n=1):
    """The first crops that a config's loader gives, as uint8 or uint16 [.. h w 3], and flags."""
    loader = open_loader(config, jax.devices()[:1], warn=pytest.fail)
    try:
        images = loader.take(n).images
    finally:
        loader.close()
    if config.data.loader == "stream":
        return {name: x.reshape(-1, *x.shape[2:]) for name, x in images.items()}
    options = {"batch": n * config.data.batch, "crop": config.data.crop, "scale": config.scale}
    drawn = sample(jax.random.key(0), images, **options)
    return {k: np.asarray(x if k == "own" else to_uint8(x)) for k, x in drawn.items()}


@pytest.mark.parametrize("loader", ["pool", "stream"])
def test_crops_of_pairs_are_of_both_files(folders, loader):
    root, photos = folders
    for spec in (f"pairs:{root / 'hr'}:{root / 'lr'}", f"pairs:{root}"):
        if spec.endswith(root.name):  # the layout of a benchmark set names files alike
            for photo in photos:
                (root / "lr" / photo.name.replace(".", "x2.")).rename(root / "lr" / photo.name)
        config = tiny(root, **{"data.train": spec, "data.loader": loader, "data.batch": 16})
        drawn = batches(config)
        assert drawn.keys() == {"lr", "hr"}
        check_crops(drawn["lr"], drawn["hr"], photos, scale=SCALE)


@pytest.mark.parametrize("loader", ["pool", "stream"])
def test_a_share_of_crops_is_of_the_pairs_own(folders, loader):
    """The others have the bicubic, or with a degradation are flagged to be made."""
    root, photos = folders
    spec = f"pairs:{root / 'hr'}:{root / 'lr'}"
    options = {"data.train": spec, "data.loader": loader, "data.batch": 20}
    made = located_photos(SIZES, scale=SCALE)
    config = tiny(root, **options, **{"data.paired_share": 0.25})
    drawn = batches(config, 10)
    own = drawn["lr"].mean(axis=(1, 2, 3)) > 127
    for these, expected in ((own, photos), (~own, made)):
        check_crops(drawn["lr"][these], drawn["hr"][these], expected, scale=SCALE)
    # 5 standard deviations of a binomial distribution
    assert abs(own.mean() - 0.25) < 5 * (0.25 * 0.75 / 200) ** 0.5
    degraded = {"data.degradation": "second_order", "data.margin": 4, "data.crop": 16}
    drawn = batches(tiny(root, **options, **degraded, **{"data.paired_share": 0.25}), 10)
    own = drawn["lr"].mean(axis=(1, 2, 3)) > 127
    np.testing.assert_array_equal(drawn["own"][own], True)
    assert abs(drawn["own"].mean() - 0.25) < 5 * (0.25 * 0.75 / 200) ** 0.5
    with pytest.raises(UserError, match=r"set config\.data\.paired_share, to 1 for the pairs' own"):
        batches(tiny(root, **options, **degraded))


@pytest.mark.parametrize("loader", ["pool", "stream"])
def test_16_bits_are_kept_to_the_crop(tmp_path, loader):
    """Of two images one has 16 bits; 8-bit values are the same fractions of 65535."""
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 2**16, (24, 24, 3), np.uint16)
    plain = rng.integers(0, 256, (24, 24, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(plain))
    config = tiny(tmp_path, **{"data.loader": loader, "data.batch": 16})
    loader = open_loader(config, jax.devices()[:1], warn=pytest.fail)
    images = loader.take(1).images
    if config.data.loader == "pool":
        drawn = sample(jax.random.key(0), images, batch=16, crop=24, scale=SCALE)
        drawn = {name: np.round(np.asarray(x) * 65535).astype(int) for name, x in drawn.items()}
    else:
        assert images["hr"].dtype == np.uint16
        drawn = {name: x[0].astype(int) for name, x in images.items()}
    loader.close()
    expected = [
        (np.sort(deep, None), np.sort(resize_uint16(deep, scale=Fraction(1, 2)), None)),
        (
            257 * np.sort(plain, None).astype(int),
            257 * np.sort(resize_uint8(plain, scale=Fraction(1, 2)), None).astype(int),
        ),
    ]
    found = set()
    for lr, hr in zip(drawn["lr"], drawn["hr"], strict=True):
        # Crops are whole images, turned: their values are those of one of the two.
        (which,) = (i for i, (h, _) in enumerate(expected) if (np.sort(hr, None) == h).all())
        np.testing.assert_array_equal(np.sort(lr, None), expected[which][1])
        found.add(which)
    assert found == {0, 1}
    # Scores and pictures of a validation set are of 8 bits.
    assert {photo.hr.dtype for photo in open_validation(config, pytest.fail)} == {
        np.dtype(np.uint8)
    }


def test_chances_follow_weights_and_areas(folders, tmp_path):
    root, _ = folders
    other = tmp_path / "other"
    other.mkdir()
    PIL.Image.new("RGB", (64, 64)).save(other / "a.png")
    source = open_source((f"folder:{root / 'hr'}", f"folder:{other}"), "train", scale=SCALE)
    everything = np.arange(4)
    assert make_choices(source, everything, None, weights=(), paired_share=1.0).chances is None
    areas = np.array([source.area(i) for i in range(4)], np.float64)
    assert areas.tolist() == [*(h * w for h, w in SIZES), 64 * 64]
    by_area = make_choices(source, everything, areas, weights=(), paired_share=1.0)
    np.testing.assert_allclose(np.diff(by_area.chances, prepend=0), areas / areas.sum())
    weighted = make_choices(source, everything, None, weights=(1, 3), paired_share=1.0)
    np.testing.assert_allclose(np.diff(weighted.chances, prepend=0), [1 / 12] * 3 + [3 / 4])
    both = make_choices(source, everything, areas, weights=(1, 3), paired_share=1.0)
    expected = [*(areas[:3] / areas[:3].sum() / 4), 0.75]
    np.testing.assert_allclose(np.diff(both.chances, prepend=0), expected)
    with pytest.raises(UserError, match=r"config.data.weights has 3 values, .* 2 sources"):
        make_choices(source, everything, None, weights=(1, 2, 3), paired_share=1.0)


@pytest.mark.parametrize("loader", ["pool", "stream"])
def test_crops_are_drawn_by_their_chances(folders, tmp_path, loader):
    root, _ = folders
    other = tmp_path / "other"
    other.mkdir()
    PIL.Image.new("RGB", (64, 64), "white").save(other / "a.png")
    config = tiny(root, **{"data.loader": loader, "data.batch": 20, "data.weights": (1.0, 3.0)})
    config.data.train = (f"folder:{root / 'hr'}", f"folder:{other}")
    white = (batches(config, 15)["hr"] == 255).all(axis=(1, 2, 3)).mean()
    assert abs(white - 0.75) < 5 * (0.25 * 0.75 / 300) ** 0.5


def test_lists_name_their_files(folders):
    root, photos = folders
    text = root / "meta_info.txt"
    text.write_text("# three\nhr/0.png (24,40,3)\n\nhr/2.png\nhr/missing.png (8,8,3)\n")
    source = open_source(f"list:{text}", "train", scale=SCALE)
    assert source.files == ("hr/0.png", "hr/2.png")
    assert source.faults == (f"hr/missing.png: no such file in {root}",)
    lines = []
    loaded = load_all(source, min_size=16, warn=lines.append)
    assert lines == [f"skipped {source.faults[0]}"]
    np.testing.assert_array_equal(loaded[1].hr, photos[2].hr)
    text.write_text("0.png (24,40,3)\n")
    assert len(open_source(f"list:{text}:{root / 'hr'}", "train", scale=SCALE)) == 1


def test_what_is_wrong_with_data_is_said(folders, tmp_path):
    root, _ = folders
    hr, lr, text = root / "hr", root / "lr", tmp_path / "list.txt"
    text.write_text("a.png\n")
    for spec, message in {
        f"pairs:{hr}": "holds no benchmark set",
        f"pairs:{hr}:{root / 'none'}": "none is not a folder",
        f"pairs:{hr}:{hr.parent}": "no image of .* has a counterpart",
        f"list:{root / 'none.txt'}": "No such file",
        f"list:{text}": r"none of its files is in .* \(first, a.png\)",
        f"list:{hr / '0.png'}": "it is not a text",
        (): "give a text such as folder:PATH",
        5: "give a text such as folder:PATH",
        (f"folder:{hr}", (f"folder:{lr}",)): "data source .*lr.*: give a text such as folder:PATH",
        f"pairs:{hr}:": "name both folders, as pairs:HR:LR",
        f"pairs::{lr}": "name both folders, as pairs:HR:LR",
    }.items():
        with pytest.raises(UserError, match=message):
            open_source(spec, "train", scale=SCALE)
    (lr / "1x2.png").unlink()
    source = open_source(f"pairs:{hr}:{lr}", "train", scale=SCALE)
    assert source.faults == (f"{hr / '1.png'}: no file in {lr} has its name",)
    source = open_source(f"pairs:{hr}:{hr}", "train", scale=SCALE)
    with pytest.raises(UserError, match="choose data of scale 2, or set the scale to 1"):
        load_all(source, min_size=16, warn=pytest.fail)
    for fields, message in {
        (("data.paired_share", 1.5),): r"paired_share is 1.5; it must be in \[0, 1\]",
        (("data.weights", (0.0,)),): "weights is .*; give numbers above 0",
        (("data.weights", ("a",)),): "weights is .*; give numbers above 0",
        (("data.weights", (1.0, float("inf"))),): "weights is .*; give numbers above 0",
    }.items():
        with pytest.raises(UserError, match=message):
            check(tiny(root, **dict(fields)), devices=1)


def test_validation_has_own_lr_images_only_where_training_has(folders):
    root, _ = folders
    fields = {"data.validation": f"pairs:{root / 'hr'}:{root / 'lr'}", "data.validation_images": 0}
    for share, own in {None: True, 0.5: True, 0.0: False}.items():
        config = tiny(root / "hr", **fields, **{"data.paired_share": share})
        for photo in open_validation(config, pytest.fail):
            bicubic = resize_uint8(photo.hr, scale=Fraction(1, SCALE))
            np.testing.assert_array_equal(photo.lr, 255 - bicubic if own else bicubic)
    # TFDS's own LR images are those of bicubic: training leaves them for a degradation.
    for spec, degradation, own in (
        ("tfds:div2k/bicubic_x4", "bicubic", True),
        ("tfds:div2k/bicubic_x4", "second_order", False),
        (("folder:A", "pairs:B:C"), "second_order", True),
    ):
        assert scored_on_own(degradation=degradation, paired_share=None, spec=spec) == own


def test_a_list_is_read_in_its_order_and_as_windows_writes_it(photos, tmp_path):
    text, marks = tmp_path / "list.txt", set()
    for names in (("0.png", "1.png"), ("1.png", "0.png"), ("0.png", "0.png", "1.png")):
        text.write_bytes("\ufeff".encode() + "\r\n".join(names).encode())
        source = open_source(f"list:{text}:{photos}", "train", scale=SCALE)
        assert (source.files, source.faults) == (names, ())
        marks.add(source.fingerprint())
    assert len(marks) == 3


def test_what_has_no_effect_or_makes_no_sense_is_said(photos):
    lines = []
    config = tiny(photos, **{"data.paired_share": 0.5})
    open_loader(config, jax.devices()[:1], warn=lines.append).close()
    assert [line for line in lines if "paired_share has no effect" in line]
    with pytest.raises(UserError, match=r"at config\.scale=1 bicubic ones are"):
        open_loader(tiny(photos, scale=1), jax.devices()[:1], warn=pytest.fail)


def test_a_source_of_which_no_image_can_be_read_gets_no_share(photos, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    source = open_source((f"folder:{photos}", f"folder:{tmp_path}"), "train", scale=SCALE)
    everything = np.arange(len(source))
    areas = np.array([source.area(int(i)) for i in everything], np.float64)
    with pytest.raises(UserError, match=f"folder:{tmp_path}: none of its images can be read"):
        make_choices(source, everything, areas, weights=(1.0, 1.0), paired_share=1.0)
    alone = open_source(f"folder:{tmp_path}", "train", scale=SCALE)
    with pytest.raises(UserError, match="none of its 1 images can be read"):
        make_choices(alone, np.arange(1), np.zeros(1), weights=(), paired_share=1.0)


def write_deep_pairs(root, photos, scale):
    """Pairs of 8 and 16 bits of photos that can be learnt from, LR being darker than bicubic."""
    for name in ("hr", "lr"):
        (root / name).mkdir(parents=True)
    for i, file in enumerate(sorted(photos.glob("*.png"))):
        hr = np.asarray(PIL.Image.open(file))
        lr = resize_uint8(hr, scale=Fraction(1, scale)) // 2
        if i % 2:
            hr, lr = (x.astype(np.uint16) * 257 for x in (hr, lr))
        (root / "hr" / file.name).write_bytes(imagecodecs.png_encode(hr))
        (root / "lr" / file.name).write_bytes(imagecodecs.png_encode(lr))


@pytest.mark.slow
@pytest.mark.parametrize("loader, scale", [("pool", 2), ("stream", 2), ("pool", 1)])
def test_every_form_trains_and_resumes_bit_for_bit(photos, tmp_path, loader, scale):
    """Pairs of 8 and 16 bits, a list and a folder, weighted, for 100 updates; stopped after 50.

    At scale 1, a fifth of the pairs' LR crops, and all of the others, are degraded.
    """
    write_deep_pairs(tmp_path / "pairs", photos, scale)
    (tmp_path / "list.txt").write_text("0.png (48,56,3)\n1.png\n")
    fields = {
        "scale": scale,
        "data.loader": loader,
        "data.weights": (2.0, 1.0, 1.0),
        "data.weight_by": "area",
        "data.paired_share": 0.8,
        "data.validation": f"pairs:{tmp_path / 'pairs'}",
        "train.steps": 100,
        "train.validate_every": 50,
        "train.checkpoint_every": 50,
    }
    if scale == 1:
        fields |= {"data.degradation": "second_order", "data.margin": 4, "data.crop": 16}

    def config():
        made = tiny(photos, **fields)
        made.data.train = (
            f"pairs:{tmp_path / 'pairs' / 'hr'}:{tmp_path / 'pairs' / 'lr'}",
            f"list:{tmp_path / 'list.txt'}:{photos}",
            f"folder:{photos}",
        )
        return made

    class Impatient(Console):
        """Presses Ctrl-C when step 50 has been validated."""

        def print(self, *args, **kwargs):
            super().print(*args, **kwargs)
            if args and str(args[0]).startswith("step 50:"):
                os.kill(os.getpid(), signal.SIGINT)

    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    assert isr_jax.train(config(), straight, console=silent()).step == 100
    stopped = isr_jax.train(config(), resumed, console=Impatient(file=io.StringIO())).step
    assert 50 <= stopped < 100
    console = heard()
    assert isr_jax.train(config(), resumed, console=console).step == 100
    assert f"from step {stopped}" in console.export_text()
    assert_bit_identical(straight, resumed)
    upscaled = isr_jax.load(resumed)(np.zeros((5, 6, 3), np.uint8))
    assert upscaled.shape == (5 * scale, 6 * scale, 3)


def test_validation_is_of_what_is_trained(photos, tmp_path):
    """A generator of scale 1 that starts as the identity learns to undo a degradation.

    On clean images, which the identity leaves as they are, no checkpoint would be better.
    """
    fields = {
        "scale": 1,
        "data.degradation": "second_order",
        "data.crop": 16,
        "data.margin": 4,
        "generator.global_skip": "bicubic",
        "generator.batch_norm": False,
        "loss.adversarial_weight": 0.0,
        "g_optimizer.learning_rate": 5e-3,
        "train.steps": 60,
        "train.validate_every": 20,
        "train.checkpoint_every": 20,
        "train.ema_decay": 0.8,
    }
    config = tiny(photos, **fields)
    degraded = open_validation(config, pytest.fail)
    again = open_validation(tiny(photos, **fields, seed=3), pytest.fail)
    for photo, same in zip(degraded, again, strict=True):
        assert photo.lr.shape == photo.hr.shape and photo.lr.dtype == np.uint8
        assert not photo.own and np.abs(photo.lr.astype(int) - photo.hr).mean() > 1
        np.testing.assert_array_equal(photo.lr, same.lr)
    run = tmp_path / "run"
    isr_jax.train(config, run, console=silent())
    scores = [r["psnr"] for r in read_records(run) if r["kind"] == "validation"]
    assert scores[-1] == max(scores) and scores[-1] > scores[0] + 0.05
    best = isr_jax.load(run, checkpoint="best")
    measured = [measure(best(photo.lr), photo.hr, crop=1).psnr for photo in degraded]
    assert np.mean(measured) == pytest.approx(max(scores), abs=0.01)


def test_pairs_are_validated_by_their_own_lr_images(folders):
    root, photos = folders
    spec = f"pairs:{root / 'hr'}:{root / 'lr'}"
    fields = {"data.degradation": "second_order", "data.paired_share": 0.5}
    loaded = open_validation(
        tiny(root, **fields, **{"data.validation": spec, "data.validation_images": 0}), pytest.fail
    )
    assert isinstance(loaded[0], ImagePair) and all(photo.own for photo in loaded)
    for photo, expected in zip(loaded, photos, strict=True):
        np.testing.assert_array_equal(photo.lr, expected.lr)
