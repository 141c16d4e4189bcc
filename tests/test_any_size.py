"""Any size: what is meant, which networks reach it, and the network's output resized in float64."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

import isr_jax
from isr_jax.checkpoints.runs import write_generator
from isr_jax.errors import UserError
from isr_jax.photo.pixels import to_16_bits
from isr_jax.resize import resize_uint8, resize_uint16
from isr_jax.tiling.resizing import Resizing
from isr_jax.tiling.tiles import make_stream, plan
from isr_jax.upscaling import any_size
from isr_jax.upscaling.sizes import LABEL, choose_scales, make_target, size_of, target_of
from tests.helpers.drawn import CASES, assert_same, drawn, photo, soft, tiled


@pytest.mark.parametrize(
    ("asked", "size", "wanted", "label"),
    [
        # Height and width of the image, then of the result.
        ({"scale": 2.5}, (101, 50), (253, 125), "x2.5"),  # 252.5 up
        ({"scale": Fraction(1, 10)}, (4, 5), (1, 1), "x0.1"),  # 0.4 and 0.5
        ({"scale": 1.1}, (10, 30), (11, 33), "x1.1"),  # not 33.000000000000004 or less
        ({"scale": 4}, (7, 9), (28, 36), "x4"),
        ({"width": 1920}, (1000, 1500), (1280, 1920), "w1920"),
        ({"width": 3}, (1, 2), (2, 3), "w3"),  # 1.5 up
        ({"width": 1}, (1, 3000), (1, 1), "w1"),
        ({"height": 1080}, (333, 500), (1080, 1622), "h1080"),  # 1621.62
        ({"fit": (1920, 1080)}, (100, 100), (1080, 1080), "1920x1080"),
        ({"fit": (1920, 1080)}, (100, 300), (640, 1920), "1920x1080"),
        ({"megapixels": 8}, (1500, 2000), (2449, 3266), "8mp"),  # 2449.49, 3265.99
        ({"megapixels": Fraction("0.24")}, (20, 30), (400, 600), "0.24mp"),
    ],
)
def test_sizes(asked, size, wanted, label):
    target = make_target(**asked)
    assert size_of(target, size) == wanted
    assert target.label == label
    assert LABEL.search(f"my_photo_{label}_net")[1] == LABEL.search(f"my_photo_{label}")[1] == label
    assert target_of(label) == target
    # A side that is asked for is exact, whichever way the image lies.
    if "width" in asked:
        turned = make_target(height=asked["width"])
        assert size_of(turned, size[::-1]) == wanted[::-1]


def test_sizes_that_are_none():
    assert make_target() is None
    with pytest.raises(UserError, match="scale and width are given; give one of them"):
        make_target(scale=2, width=3)
    for asked, message in (
        ({"scale": 0}, r"scale is 0; give a number from 10\^-6 to 10\^6, such as 2.5"),
        ({"scale": float("inf")}, "scale is inf; give a number from"),
        ({"megapixels": -1}, "megapixels is -1; give a number from"),
        ({"width": 0}, "width is 0; give a number of pixels, 1 or more"),
        ({"height": True}, "height is True; give a number of pixels"),
        ({"fit": (3, 0)}, "fit is 0; give a number of pixels"),
    ):
        with pytest.raises(UserError, match=message):
            make_target(**asked)


@pytest.mark.parametrize(
    ("ratio", "shipped", "given"),
    [
        (0.5, (), ()),
        (1, (), ()),
        (1.01, (2,), (4,)),
        (2, (2,), (4,)),
        (2.5, (3,), (4,)),
        (4, (4,), (4,)),  # not 2 and 2
        (4.01, (3, 2), (4,)),
        (7, (4, 2), (4,)),
        (8, (4, 2), (4,)),
        (10, (4, 3), (4,)),
        (16, (4, 4), (4,)),
        (20, (4, 4), (4,)),
    ],
)
def test_the_smallest_that_reaches_the_size(ratio, shipped, given):
    size = (100, 300)
    wanted = size_of(make_target(scale=ratio), size)
    assert choose_scales(size, wanted, (2, 3, 4), turns=2) == shipped
    assert choose_scales(size, wanted, (4,), turns=1) == given
    assert choose_scales(size, size, (1,), turns=1) == (1,)


def contributions(length, out):
    """A dense matrix of MATLAB's `imresize`, from its published source, in float64."""
    scale = out / length
    width = 4 / min(scale, 1)
    matrix = np.zeros((out, length))
    for i in range(out):
        u = (i + 1) / scale + 0.5 * (1 - 1 / scale)
        places = np.floor(u - width / 2) + np.arange(np.ceil(width) + 2)
        x = np.abs((u - places) * min(scale, 1))
        weights = (1.5 * x**3 - 2.5 * x**2 + 1) * (x <= 1)
        weights += (-0.5 * x**3 + 2.5 * x**2 - 4 * x + 2) * ((x > 1) & (x <= 2))
        np.add.at(
            matrix[i],
            np.clip(places, 1, length).astype(int) - 1,
            weights / weights.sum(),
        )
    return matrix


def resized(floats, size, dtype):
    """A float image in [0, 1], resized in float64, clipped and rounded half up."""
    down, across = (contributions(*pair) for pair in zip(floats.shape, size, strict=False))
    levels = np.einsum("oh,hwc,pw->opc", down, floats.astype(np.float64), across, optimize=True)
    return np.floor(np.clip(levels, 0, 1) * np.iinfo(dtype).max + 0.5).astype(dtype)


@pytest.mark.parametrize("size", [(29, 47), (60, 90), (8, 11), (1, 1), (61, 93), (130, 3)])
def test_an_image_in_parts_is_resized_as_a_whole(size):
    """Parts of every size, of a row too, and none may be kept longer than it is needed."""
    floats = np.random.default_rng(0).normal(0.5, 0.4, (60, 90, 2)).astype(np.float32)
    for rows, columns in ((60, 90), (17, 23), (1, 31), (41, 3)):
        result = np.zeros((*size, 3), np.uint16)
        resizing = Resizing((60, 90), result)
        for row in range(0, 60, rows):
            for column in range(0, 90, columns):
                resizing.put(
                    row, column, floats[row : row + rows, column : column + columns].copy()
                )
        np.testing.assert_array_equal(result[..., :2], resized(floats, size, np.uint16))
        assert not result[..., 2].any()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders of generators, by scale."""
    folder = tmp_path_factory.mktemp("runs")
    for case, name in (("small", "x4"), ("concat", "x2")):
        options, scale = CASES[case]
        _, _, params, stats = drawn(case)
        config = {"scale": scale, "generator": {"name": "resnet"} | options}
        write_generator(folder / name, params, stats, config)
    return folder


def output(upscaler, image):
    """The network's own output, float32 and neither clipped nor rounded."""
    floats = np.full((image.shape[0] * upscaler.scale, image.shape[1] * upscaler.scale, 4), np.nan)

    def put(row, column, pixels):
        assert pixels.dtype == np.float32
        floats[row : row + len(pixels), column : column + pixels.shape[1], : pixels.shape[2]] = (
            pixels
        )

    upscaler.stream(image, put, None)
    return floats[..., ~np.isnan(floats).any(axis=(0, 1))].astype(np.float32)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_result_is_the_networks_output_resized_in_float64(runs, dtype):
    network = isr_jax.load(runs / "x4", tile=16)
    models = isr_jax.load_any_size(model=runs / "x4", tile=16)
    lr = photo(37, 53, 3, dtype=dtype)
    floats = output(network, lr)
    assert floats.min() < -0.1  # it is clipped afterwards
    assert floats.max() > 1.1
    for asked, size in {
        "scale": (2.5, (93, 133)),
        "width": (160, (112, 160)),
        "height": (147, (147, 211)),
        "fit": ((60, 60), (42, 60)),
        "megapixels": (Fraction("0.1"), (264, 378)),  # larger than the network's
    }.items():
        value, wanted = size
        expected = resized(floats, wanted, dtype)
        np.testing.assert_array_equal(models(lr, **{asked: value}), expected)
    # Rounding first would have given something else.
    rounded = resized(network(lr) / np.float32(np.iinfo(dtype).max), (93, 133), dtype)
    assert (models(lr, scale=2.5) != rounded).any()
    # Its own size is its own output.
    for asked in ({"scale": 4}, {"width": 212}, {"fit": (10**4, 148)}):
        np.testing.assert_array_equal(models(lr, **asked), network(lr))
    with pytest.raises(UserError, match="give one of scale, width, height, fit and megapixels"):
        models(lr)


def test_channels_and_batches(runs):
    network = isr_jax.load(runs / "x4", tile=16)
    models = isr_jax.load_any_size(model=runs / "x4", tile=16)
    rgba = soft(2, 20, 31, 4, dtype=np.uint8)
    size = (50, 78)
    sr = models(rgba, scale=2.5)
    assert (sr.shape, sr.dtype) == ((2, *size, 4), np.uint8)
    for image, result in zip(rgba, sr, strict=True):
        np.testing.assert_array_equal(
            result[..., :3], resized(output(network, image[..., :3]), size, np.uint8)
        )
        np.testing.assert_array_equal(result[..., 3], resize_uint8(image[..., 3], size=size))
    gray = rgba[0, ..., 0]
    expected = output(network, np.stack([gray] * 3, axis=-1)) @ [0.299, 0.587, 0.114]
    expected = resized(expected[..., None], size, np.uint8)[..., 0]
    assert_same(models(gray, scale=2.5), expected)
    np.testing.assert_array_equal(
        models(gray, scale=2.5), models(gray[..., None], scale=2.5)[..., 0]
    )
    both = models(np.stack([gray, rgba[0, ..., 3]], axis=-1), scale=2.5)
    np.testing.assert_array_equal(both, np.stack([models(gray, scale=2.5), sr[0, ..., 3]], axis=-1))


def test_a_size_that_needs_no_network(runs):
    sized = any_size.load_any_size(model=runs / "x4").at(make_target(width=20))
    for dtype, resize in ((np.uint8, resize_uint8), (np.uint16, resize_uint16)):
        lr = photo(37, 53, 3, dtype=dtype)
        np.testing.assert_array_equal(sized(lr), resize(lr, size=(14, 20)))
    (line,) = sized.remarks((37, 53))
    assert "no network was needed: the image already has this size or a larger one" in line
    assert sized.remarks((10, 15)) == ()
    (line,) = sized.remarks((2, 4))
    assert line.endswith("x4 upscaled by 4, and bicubic interpolation to the size")


@pytest.mark.parametrize("method", ["bicubic", "nearest"])
def test_interpolations(method):
    lr = photo(21, 34, 4)
    lr[..., 3] |= 1
    sr = isr_jax.load_any_size(model=method)(lr, width=51)
    np.testing.assert_array_equal(sr, resize_uint8(lr, size=(32, 51), method=method))
    whole = isr_jax.load_any_size(model=method)(lr, scale=3)
    np.testing.assert_array_equal(whole, isr_jax.load(method, scale=3)(lr))


def test_two_networks_in_turn(runs, monkeypatch):
    """In strips, against whole images: 16 bits between them, and the second's output resized."""
    first, second = isr_jax.load(runs / "x4", tile=16), isr_jax.load(runs / "x2", tile=64)
    monkeypatch.setattr(any_size, "SHIPPED", {4: runs / "x4", 2: runs / "x2"})
    lr = soft(70, 9, 4, dtype=np.uint8)
    reports = []
    for strip_bytes in (2**31, 1):
        monkeypatch.setattr(any_size, "_STRIP_BYTES", strip_bytes)
        models = isr_jax.load_any_size(tile=16)
        between = first(to_16_bits(lr))
        floats = output(second, between)
        for scale, size in ((8, (560, 72)), (7, (490, 63))):
            reports.clear()
            sr = models(lr, scale=scale, progress=lambda *report: reports.append(report))
            assert_same(sr[..., :3], resized(floats, size, np.uint8))
            np.testing.assert_array_equal(sr[..., 3], resize_uint8(lr[..., 3], size=size))
            assert reports == sorted(reports)
            assert reports[-1][0] == reports[-1][1]
    (line,) = models.at(make_target(scale=20)).remarks((70, 9))
    assert line.endswith("x4 upscaled by 16, and bicubic interpolation to the size")


def test_tiles_that_blend_come_in_rows():
    case = "plksr"
    _, network, params, stats = drawn(case)
    tile, lr = (16, photo(45, 61, 3))
    stream = make_stream(network, plan(network, tile=tile))(params, stats)
    floats = np.full((90, 122, 3), np.nan)

    def put(row, column, pixels):
        assert np.isnan(floats[row : row + len(pixels)]).all()
        floats[row : row + len(pixels)] = pixels

    stream(lr, put)
    expected = tiled(case, tile)(lr[None])[0].astype(int)
    clipped = np.clip(floats, 0, 1) * 255
    # Tiles are rounded and clipped before they blend where integers are wanted.
    inside = ((floats > 0.02) & (floats < 0.98)).all(axis=-1)
    assert np.abs(clipped - expected)[inside].max() < 40
    assert np.mean(np.abs(clipped - expected)[inside] > 1.01) < 0.05


def test_an_output_is_never_held_as_a_whole(runs):
    models = isr_jax.load_any_size(model=runs / "x4", tile=32)
    models(photo(8, 8, 3), width=30)
    lr = photo(200, 300, 3)
    tracemalloc.start()
    sr = models(lr, scale=2.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < sr.nbytes + 5e6  # the output as floats is 11.5 MB
