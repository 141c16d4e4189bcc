"""Tiles of networks that see more than their surroundings, or other channels than RGB."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isr_jax import images
from isr_jax.models.generators import make_upscale
from isr_jax.resize import resize_uint8
from isr_jax.tiling.cutting import tiles_of
from isr_jax.tiling.placing import write
from isr_jax.tiling.tiles import make_tiled, plan
from tests.helpers.drawn import BEYOND, assert_same, drawn, photo, soft, tiled


@pytest.mark.parametrize("case", BEYOND)
def test_networks_that_see_all_are_whole_where_they_can_be(case):
    """A photo below a tile's window, and any photo with tile=0, under every symmetry."""
    network, windows, params, stats = drawn(case)
    assert windows.approximate and windows.radius is None
    sizes = plan(windows, tile=16, overlap=8)
    assert sizes.window % windows.multiple == 0
    upscale = make_tiled(windows, sizes)(params, stats)
    whole_images = make_tiled(windows, plan(windows, tile=0))(params, stats)
    for shape in ((21, 30, 3), (1, 1, 3), (32, 5, 3)):
        image = photo(*shape)
        expected = make_upscale(network)(params, stats, image)
        assert_same(upscale(image[None], None)[0], np.asarray(expected))
    image = photo(37, 61, 3)
    expected = make_upscale(network)(params, stats, image)
    assert_same(whole_images(image[None], None)[0], np.asarray(expected))


def test_approximate_tiles_cover_the_photo_and_are_nearly_the_whole():
    """Of attention in windows: equal but near where tiles end, and nowhere far off."""
    network, windows, params, stats = drawn("swinir")
    image = photo(75, 50, 3)
    expected = np.asarray(make_upscale(network)(params, stats, image)).astype(int)
    for tile, overlap, most in ((16, 0, 0.5), (16, 8, 0.02), (24, 12, 0.01)):
        sizes = plan(windows, tile=tile, overlap=overlap)
        assert sizes.window == tile + 2 * overlap
        upscale = make_tiled(windows, sizes)(params, stats)
        seen = []
        sr = upscale(image[None], lambda done, total: seen.append((done, total)))[0]  # noqa: B023
        rows, columns = (1 + -(-(side - sizes.tile) // sizes.stride) for side in (76, 52))
        assert seen[-1] == (rows * columns,) * 2
        assert np.mean(np.abs(sr - expected) > 2) <= most


@pytest.mark.parametrize("shape", [(120, 88), (64, 200), (64, 64)])
def test_approximate_tiles_blend_linearly(shape):
    """Of tiles that each have one value: the mean by weights that fall off from tile to tile."""
    _, windows, _, _ = drawn("dat")
    sizes, scale = plan(windows, tile=24, overlap=16), 2
    values = np.random.default_rng(0).integers(0, 256, (99, 3))
    tiles = tiles_of(np.zeros((1, *shape, 3), np.uint8), sizes, "approximate", (0, 0))
    assert len(tiles) > 3 and all(tile.row % 4 == tile.column % 4 == 0 for tile in tiles)
    result = np.zeros((shape[0] * scale, shape[1] * scale, 3), np.uint8)
    strip = np.zeros((scale * max(tile.above for tile in tiles), *result.shape[1:]), np.uint8)
    side = sizes.tile * scale

    def weights(starts, length):
        """Of each of the tiles along an axis, at each of its pixels."""
        at, starts = np.arange(length * scale) + 0.5, [start * scale for start in starts]
        ends = [-1.0, *(start + side for start in starts)]
        rising = [
            np.clip((at - a) / max(b - a, 1), 0, 1) for a, b in zip(starts, ends, strict=False)
        ]
        rising[0] = np.ones(len(at))
        following = [*rising[1:], np.zeros(len(at))]
        return [a - b for a, b in zip(rising, following, strict=True)]

    rows, columns = (sorted({tile[i] for tile in tiles}) for i in (1, 2))
    across = dict(zip(columns, weights(columns, shape[1]), strict=True))
    down = dict(zip(rows, weights(rows, shape[0]), strict=True))
    expected = np.zeros(result.shape)
    for value, tile in zip(values, tiles, strict=False):
        sr = np.broadcast_to(value.astype(np.uint8), (side, side, 3))
        write(result, tile, sr, scale, strip)
        expected += np.outer(down[tile.row], across[tile.column])[..., None] * value
    np.testing.assert_allclose(result, expected, atol=1.01)


def test_the_self_ensemble_of_approximate_tiles_is_that_of_the_whole():
    """A square photo of a multiple of the window, whose corner tiles meet every flip."""
    network, windows, params, stats = drawn("swinir")
    image = photo(40, 24, 3)
    averaged = make_tiled(windows, plan(windows, tile=0), ensemble=True)(params, stats)(
        image[None], None
    )[0]
    views = [np.asarray(images_of(network, params, stats, image, k), np.float64) for k in range(8)]
    expected = np.floor(np.clip(np.mean(views, axis=0), 0, 1) * 255 + 0.5)
    assert np.abs(averaged - expected).max() <= 1
    tiles = make_tiled(windows, plan(windows, tile=8, overlap=16), ensemble=True)(params, stats)
    assert np.mean(np.abs(tiles(image[None], None)[0] - expected) > 2) <= 0.02


def images_of(network, params, stats, image, k):
    """The float output for a view of an image, turned back."""
    view = image[::-1] if k & 1 else image
    view = view[:, ::-1] if k & 2 else view
    view = view.swapaxes(0, 1) if k & 4 else view
    lr = jnp.asarray(view[None].astype(np.float32) / np.float32(255))
    sr, _ = jax.jit(network.apply, static_argnames="train")(params, stats, lr, train=False)
    sr = sr[0].swapaxes(0, 1) if k & 4 else sr[0]
    sr = sr[:, ::-1] if k & 2 else sr
    return sr[::-1] if k & 1 else sr


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_gray_network_takes_each_colour_by_itself(channels):
    image = soft(30, 21, channels, dtype=np.uint8)
    network, _, params, stats = drawn("gray")
    sr = tiled("gray", 16)(image[None], None)[0]
    apply = jax.jit(network.apply, static_argnames="train")
    for i in range(channels - (channels in (2, 4))):
        lr = jnp.asarray(image[None, ..., i : i + 1].astype(np.float32) / np.float32(255))
        expected = apply(params, stats, lr, train=False)[0][0, ..., 0]
        expected = np.floor(np.clip(expected, 0, 1) * 255 + 0.5)
        assert_same(sr[..., i], expected)
    if channels in (2, 4):
        np.testing.assert_array_equal(sr[..., -1], resize_uint8(image[..., -1], scale=2))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_network_of_alpha_sees_alpha_or_white(channels):
    image = photo(30, 21, channels)
    network, _, params, stats = drawn("alpha")
    sr = tiled("alpha", 16)(image[None], None)[0]
    colours = image[..., :3] if channels > 2 else np.repeat(image[..., :1], 3, axis=2)
    alpha = image[..., -1:] if channels in (2, 4) else np.full_like(image[..., :1], 255)
    rgba = np.concatenate([colours, alpha], axis=2).astype(np.float32) / np.float32(255)
    expected = jax.jit(network.apply, static_argnames="train")(
        params, stats, jnp.asarray(rgba[None]), train=False
    )[0][0]
    expected = np.floor(np.clip(expected, 0, 1) * 255 + 0.5).astype(np.uint8)
    assert sr.shape == (60, 42, channels)
    if channels > 2:
        assert_same(sr, expected[..., :channels])
    else:
        assert_same(sr[..., :1], images.rgb_to_gray(expected[..., :3]))
    if channels == 2:
        assert_same(sr[..., 1], expected[..., 3])
