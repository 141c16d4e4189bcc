"""Tiles against the whole image, receptive fields by gradient, types, channels, devices, memory."""

import itertools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isr_jax
from isr_jax import images
from isr_jax.checkpoints.runs import write_generator
from isr_jax.errors import UserError
from isr_jax.models import GENERATORS, generator
from isr_jax.resize import resize_float64, resize_uint8
from isr_jax.tiling import tiles as tiling
from isr_jax.tiling.tiles import make_tiled, plan
from isr_jax.tiling.windows import windowed
from tests.helpers.drawn import CASES, assert_same, drawn, photo, soft, tiled, whole


@pytest.mark.parametrize(
    "published, scale, expected",
    [
        # Convolutions at the input's resolution, and what those at 2 and 4 times it add to them.
        ("srvggnet", 4, 1 + 32 + 1),
        ("edsr_baseline", 4, 1 + 32 + 1 + 1 + 1),
        ("edsr", 4, 1 + 64 + 1 + 1 + 1),
        ("srresnet", 4, 4 + 32 + 1 + 1 + 2),
        ("rrdbnet", 4, 1 + 6 * 15 + 1 + 2),
        ("rrdbnet", 2, 2 * (1 + 6 * 15 + 1 + 2)),
        ("span", 4, 21),
    ],
)
def test_receptive_fields_by_hand(published, scale, expected):
    options = GENERATORS[published]
    anime = {"blocks": 6} if published == "rrdbnet" else {}
    assert windowed(generator(options | anime, scale=scale)).radius == expected


@pytest.mark.parametrize("case", CASES)
def test_a_pixel_depends_on_the_receptive_field_and_on_nothing_else(case):
    network, windows, params, stats = drawn(case)
    fold, scale = windows.multiple, network.scale
    centre = -(-(windows.radius + 1) // fold) * fold
    side = 2 * centre + fold
    lr = jax.random.uniform(jax.random.key(0), (1, side, side, 3))

    @jax.jit
    @jax.grad
    def gradient(lr, weights):
        return jnp.sum(network.apply(params, stats, lr, train=False)[0] * weights)

    reached = 0
    for pixel in range(centre, centre + fold):
        weights = np.zeros((1, side * scale, side * scale, 3), np.float32)
        block = slice(pixel * scale, pixel * scale + scale)
        weights[:, block, block] = np.random.default_rng(0).normal(size=(1, scale, scale, 3))
        seen = np.nonzero(np.any(gradient(lr, weights)[0] != 0, axis=-1))
        assert len(set(map(np.ptp, seen))) == 1
        reached = max(reached, *(np.abs(np.array(seen) - pixel).max(axis=1)))
    assert reached == windows.radius


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tile, sizes", [(11, [(37, 29), (1, 23), (1, 1)]), (24, [(37, 29)])])
def test_tiles_give_what_the_whole_image_gives(case, tile, sizes):
    _, _, params, stats = drawn(case)
    for size in sizes:
        lr = photo(*size, 3)
        sr = np.array(whole(case)(params, stats, lr))
        assert_same(tiled(case, tile)(lr[None])[0], sr)
    lr = photo(37, 29, 3)
    assert np.std(whole(case)(params, stats, lr)) > 10


@pytest.mark.parametrize(
    "case, ensemble",
    [("realplksr", False), ("srresnet", False), ("srresnet", True), ("rrdbnet x2", False)],
)
def test_windows_fitted_to_photos_give_what_the_whole_image_gives(
    case, ensemble, monkeypatch, caplog
):
    """Two are compiled for photos that pay for it; other photos use what is there."""
    _, windows, params, stats = drawn(case)
    fold, radius = windows.multiple, windows.radius
    used = windows.split.head_bytes if windows.split else windows.bytes_per_pixel
    used += 2 * windows.channels * windows.scale**2  # of the output, twice
    side = 2 * radius + 8 * fold
    monkeypatch.setattr(tiling, "CPU", tiling.Limits(side // fold, used * (side + 30) ** 2))
    monkeypatch.setattr(tiling, "SMALLEST", 5)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    upscale = make_tiled(windows, plan(windows), ensemble=ensemble)(params, stats)
    reference = make_tiled(windows, plan(windows, tile=0), ensemble=ensemble)(params, stats)
    compiled = []
    sizes = [(7, 9), (150, 31), (31, 150), (150, 150), (3, 160), (9, 7)]
    for size in sizes[:3] if ensemble else sizes:
        lr = photo(*size, 3)
        caplog.clear()
        with jax.log_compiles(), caplog.at_level("WARNING"):
            sr = upscale(lr[None], None)[0]
        messages = [r.message for r in caplog.records if r.message.startswith("Compiling")]
        compiled.append(sum("jit(head)" in m or "jit(in_one)" in m for m in messages))
        if ensemble:
            expected = reference(lr[None], None)[0]
        else:
            expected = np.array(whole(case)(params, stats, lr))
        assert_same(sr, expected)
    assert compiled == ([1, 2, 0] if ensemble else [1, 1, 1, 0, 0, 0])


def test_a_window_without_its_overlap_would_leave_seams():
    _, network, params, stats = drawn("srvggnet")
    narrow = plan(network, tile=11, overlap=network.radius - 1)
    lr = photo(37, 29, 3)
    sr = np.array(whole("srvggnet")(params, stats, lr)).astype(int)
    assert np.abs(make_tiled(network, narrow)(params, stats)(lr[None])[0] - sr).max() > 1


@pytest.mark.parametrize("case", ["small", "rrdbnet x2"])
def test_an_ensemble_is_the_mean_of_eight_runs(case):
    network, _, params, stats = drawn(case)
    apply = jax.jit(lambda lr: network.apply(params, stats, lr, train=False)[0])
    lr, total = photo(17, 14, 3), 0
    for up, left, diagonal in itertools.product((1, -1), (1, -1), (False, True)):
        turned = lr[::up, ::left]
        turned = turned.swapaxes(0, 1) if diagonal else turned
        sr = np.array(apply(images.to_float(turned)[None]))[0]
        total += (sr.swapaxes(0, 1) if diagonal else sr)[::up, ::left].astype(np.float64) / 8
    sr = tiled(case, 11, ensemble=True)(lr[None])[0]
    assert_same(sr, images.to_uint8(total))
    assert np.abs(sr.astype(int) - tiled(case, 11)(lr[None])[0]).max() > 5


def test_sixteen_bits_stay_sixteen_bits():
    network, _, params, stats = drawn("small")
    lr = photo(20, 17, 3, dtype=np.uint16)
    sr = tiled("small", 11)(lr[None])[0]
    expected, _ = network.apply(
        params, stats, jnp.asarray(lr[None] / np.float32(65535)), train=False
    )
    expected = np.floor(np.clip(np.array(expected[0], np.float64), 0, 1) * 65535 + 0.5)
    assert sr.dtype == np.uint16
    assert np.abs(sr - expected).max() <= 2
    # A level of 16 bits is passed on: the last 8 bits are not those of an 8-bit image.
    assert len(np.unique(sr & 255)) == 256
    assert np.any(tiled("small", 11)(lr[None] ^ 1)[0] != sr)
    white = np.full((1, 9, 9, 1), 65535, np.uint16)
    assert np.array_equal(isr_jax.load("bicubic", scale=2)(white), np.full((1, 18, 18, 1), 65535))


def test_a_flat_patch_stays_flat():
    _, network, *_ = drawn("small")
    lr = np.broadcast_to(np.uint8([200, 30, 90]), (1, 40, 36, 3))
    sr = tiled("small", 11)(lr)[0]
    edge = network.radius * 4
    inner = sr[edge:-edge, edge:-edge].reshape(40 - 2 * network.radius, 4, -1, 4, 3)
    np.testing.assert_array_equal(inner, np.broadcast_to(inner[:1, :, :1], inner.shape))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a generator."""
    folder = tmp_path_factory.mktemp("run") / "small"
    options, scale = CASES["small"]
    _, _, params, stats = drawn("small")
    write_generator(
        folder, params, stats, {"scale": scale, "generator": {"name": "resnet"} | options}
    )
    return folder


def test_a_new_size_is_never_compiled_for(run, caplog):
    upscaler = isr_jax.load(run, tile=16)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        upscaler(photo(20, 20, 3))
        assert any("Compiling" in record.message for record in caplog.records)
        caplog.clear()
        for shape in [(1, 1, 3), (33, 5, 3), (7, 50, 4), (3, 21, 18, 3)]:
            upscaler(photo(*shape))
        assert not [r.message for r in caplog.records if "Compiling" in r.message]


def test_tiles_are_spread_over_all_devices(run):
    assert jax.local_device_count() == 4
    reports = []

    def report(done, total):
        spread = [len(x.sharding.device_set) for x in jax.live_arrays() if x.dtype == np.uint8]
        reports.append((done, total, max(spread, default=0)))

    upscaler, lr = isr_jax.load(run, tile=16), photo(2, 30, 56, 3)
    sr = upscaler(lr, progress=report)
    assert [report[:2] for report in reports] == [(4, 12), (8, 12), (12, 12)]
    assert [report[2] for report in reports[:2]] == [4, 4]  # the last is on the host by then
    assert_same(sr[1], np.array(whole("small")(*drawn("small")[2:], lr[1])))


def test_types_and_channels_come_out_as_they_went_in(run):
    upscaler = isr_jax.load(run, tile=16)
    for dtype in (np.uint8, np.uint16):
        rgba = soft(2, 13, 21, 4, dtype=dtype)
        sr = upscaler(rgba)
        assert (sr.dtype, sr.shape) == (dtype, (2, 52, 84, 4))
        np.testing.assert_array_equal(upscaler(rgba[0]), sr[0])
        np.testing.assert_array_equal(upscaler(rgba[1, ..., :3]), sr[1, ..., :3])
        alpha = resize_float64(rgba[0, ..., 3].astype(float), scale=4)
        assert np.abs(sr[0, ..., 3] - alpha).max() <= 1.5  # rounded between the passes, too

        gray = rgba[0, ..., 0]
        rgb = upscaler(np.stack([gray] * 3, axis=-1)).astype(float)
        enlarged = upscaler(gray)
        assert np.abs(enlarged - rgb @ [0.299, 0.587, 0.114]).max() <= 0.5 + 1e-5 * gray.max()
        np.testing.assert_array_equal(upscaler(gray[..., None])[..., 0], enlarged)
        both = upscaler(np.stack([gray, rgba[0, ..., 3]], axis=-1))
        np.testing.assert_array_equal(both, np.stack([enlarged, sr[0, ..., 3]], axis=-1))


@pytest.mark.parametrize("model", ["bicubic", "lanczos", "bilinear", "nearest"])
def test_interpolations_take_every_type_and_channel(model):
    upscaler = isr_jax.load(model, scale=3)
    for dtype in (np.uint8, np.uint16):
        rgba = soft(2, 9, 14, 4, dtype=dtype)
        sr = upscaler(rgba)
        expected = np.stack([resize_float64(x.astype(float), scale=3, method=model) for x in rgba])
        assert (sr.dtype, sr.shape) == (dtype, (2, 27, 42, 4))
        assert np.abs(sr - expected).max() <= 1.5
        np.testing.assert_array_equal(upscaler(rgba[0, ..., :2]), sr[0, ..., :2])
    np.testing.assert_array_equal(
        upscaler(photo(9, 14)), resize_uint8(photo(9, 14), scale=3, method=model)
    )


@pytest.mark.parametrize("model", ["bicubic", "a network"])
def test_hidden_colours_do_not_bleed(run, model):
    """A patch with a hard edge; under what is transparent around it, black, white or noise."""
    upscaler = isr_jax.load(model, scale=4) if model == "bicubic" else isr_jax.load(run, tile=9)
    alpha = np.zeros((24, 30), np.uint8)
    alpha[5:19, 8:21] = 255
    colour = np.uint8([200, 30, 90])
    results = []
    for hidden in (np.uint8(0), np.uint8(255), photo(24, 30, 3)):
        colours = np.where(alpha[..., None] > 0, colour, hidden)
        sr = upscaler(np.concatenate([colours, alpha[..., None]], axis=2))
        visible = sr[..., 3] > 0
        results.append(sr * visible[..., None])
    np.testing.assert_array_equal(sr[..., 3], resize_uint8(alpha, scale=4))
    assert visible.sum() > 14 * 13 * 16
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    # As a sheet of the same colour without a hole.
    flat = upscaler(np.broadcast_to(colour, (24, 30, 3)))
    np.testing.assert_array_equal(sr[visible][:, :3], flat[visible])


def test_what_is_hidden_is_filled_alike_in_every_tile():
    """A texture with holes: tiles against one that holds the whole image."""
    rgba = photo(40, 37, 4)
    rgba[..., 3] = np.where(resize_uint8(photo(5, 5), size=(40, 37)) > 140, 255, 0)
    small, large = (tiled("small", tile)(rgba[None])[0] for tile in (11, 64))
    visible = large[..., 3] > 0
    assert 0.2 < visible.mean() < 0.9
    assert_same(small[visible], large[visible])


def test_bfloat16_differs_by_little(run):
    lr = resize_uint8(photo(6, 5, 3), scale=4)
    full, half = (isr_jax.load(run, tile=16, dtype=d)(lr).astype(int) for d in (None, "bfloat16"))
    assert 0 < np.abs(full - half).max() < 16


def test_the_host_holds_little_beside_the_image(run):
    upscaler = isr_jax.load(run, tile=32)
    upscaler(photo(8, 8, 3))
    lr = photo(400, 600, 3)
    tracemalloc.start()
    sr = upscaler(lr)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < sr.nbytes + 2e6  # a float copy would be 46 MB


def test_what_cannot_be_enlarged_is_said(run):
    upscaler = isr_jax.load(run)
    for bad in (
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(UserError, match=r"uint8 or uint16, .* with 1 to 4 channels; got"):
            upscaler(bad)
    with pytest.raises(UserError, match="tile is -1; give a number of pixels, 0 or more"):
        isr_jax.load(run, tile=-1)
    with pytest.raises(UserError, match="overlap is -1; give a number of pixels, 0 or more"):
        isr_jax.load(run, overlap=-1)


@pytest.mark.parametrize("published", ["srvggnet", "srresnet", "plksr"])
def test_memory_of_a_window_is_what_xla_allocates(published):
    network = generator(GENERATORS[published], scale=4)
    windows, lr = windowed(network), jnp.zeros((1, 64, 64, 3))
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    compiled = jax.jit(windows.whole).lower(params, stats, lr).compile()
    allocated = compiled.memory_analysis().temp_size_in_bytes / 64**2
    assert 0.6 <= windows.bytes_per_pixel / allocated <= 1.5


def test_overlaps_are_exact_up_to_a_radius():
    for published, overlap in [("srresnet", 40), ("srvggnet", 34), ("edsr", 32)]:
        network = windowed(generator(GENERATORS[published], scale=4))
        cut = plan(network)
        assert cut.overlap == overlap
        assert cut.window == cut.tile + 2 * overlap
        if cut.tile > tiling.SMALLEST:
            per_pixel = network.split.head_bytes if network.split else network.bytes_per_pixel
            assert per_pixel * cut.window**2 <= tiling.CPU.bytes
