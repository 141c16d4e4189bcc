"""Colour against scikit-image, depth_to_space against dm_pix and PyTorch, and the symmetries."""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.color import rgb2ycbcr

from isr_jax.images import (
    depth_to_space,
    dihedral,
    rgb_to_y,
    space_to_depth,
    to_float,
    to_uint8,
)


def test_rgb_to_y_is_bt601_in_numpy_float64_and_in_jax():
    rgb = np.random.default_rng(0).random((2, 7, 5, 3))
    expected = rgb2ycbcr(rgb)[..., :1] / 255.0
    y = rgb_to_y(rgb)
    assert y.dtype == np.float64 and y.shape == (2, 7, 5, 1)
    np.testing.assert_allclose(y, expected, atol=1e-14)
    for function in (rgb_to_y, jax.jit(rgb_to_y)):
        y = function(jnp.asarray(rgb, jnp.float32))
        assert y.dtype == jnp.float32
        np.testing.assert_allclose(y, expected, atol=3e-7)
    np.testing.assert_allclose(rgb_to_y(np.zeros((1, 1, 3))), 16 / 255)
    np.testing.assert_allclose(rgb_to_y(np.ones((1, 1, 3))), 235 / 255)


@pytest.mark.parametrize("module", [np, jnp])
def test_uint8_round_trip_is_exact(module):
    levels = module.arange(256, dtype=module.uint8)
    floats = to_float(levels)
    assert floats.dtype == np.float32 and isinstance(floats, type(levels))
    assert floats[0] == 0 and floats[255] == 1
    assert (to_uint8(floats) == levels).all()


@pytest.mark.parametrize("module", [np, jnp])
def test_to_uint8_clips_and_rounds_half_up(module):
    images = module.asarray([-1.0, 0.49 / 255, 0.5 / 255, 1.51 / 255, 2.5 / 255, 1.0, 7.0])
    result = to_uint8(images)
    assert result.dtype == np.uint8 and isinstance(result, type(images))
    assert result.tolist() == [0, 0, 1, 2, 3, 255, 255]


def test_to_uint8_keeps_white_white_in_half_precision():
    for dtype in (jnp.bfloat16, jnp.float16):
        assert to_uint8(jnp.ones(3, dtype)).tolist() == [255, 255, 255]
    assert to_uint8(np.ones(3, np.float16)).tolist() == [255, 255, 255]


@pytest.mark.parametrize("r", [1, 2, 3])
def test_depth_to_space_equals_dm_pix_and_is_undone(r):
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, r * r * 3))
    for function in (depth_to_space, jax.jit(depth_to_space, static_argnums=1)):
        y = function(x, r)
        assert y.shape == (2, 4 * r, 5 * r, 3)
        np.testing.assert_array_equal(y, dm_pix.depth_to_space(x, r))
        np.testing.assert_array_equal(space_to_depth(y, r), x)


def test_depth_to_space_equals_pixel_shuffle_with_channels_permuted():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    r, c = 3, 2
    x = np.random.default_rng(0).random((2, c * r * r, 4, 5), np.float32)
    expected = torch.nn.functional.pixel_shuffle(torch.from_numpy(x), r).numpy()
    ours = x.reshape(2, c, r, r, 4, 5).transpose(0, 4, 5, 2, 3, 1).reshape(2, 4, 5, r * r * c)
    y = depth_to_space(jnp.asarray(ours), r)
    np.testing.assert_array_equal(y, expected.transpose(0, 2, 3, 1))


def test_depth_to_space_and_back_name_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"5 channels must be divisible by 2\*2"):
        depth_to_space(jnp.zeros((1, 2, 2, 5)), 2)
    with pytest.raises(ValueError, match=r"4x3 pixels must be divisible by 2"):
        space_to_depth(jnp.zeros((1, 4, 3, 5)), 2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.uint8])
def test_dihedral_gives_the_eight_symmetries_per_image(dtype):
    image = jnp.arange(3 * 3 * 2).reshape(1, 3, 3, 2).astype(dtype)
    images, k = jnp.repeat(image, 8, axis=0), jnp.arange(8)
    turned = jax.jit(dihedral)(images, k)
    assert turned.dtype == dtype
    np.testing.assert_array_equal(turned[0], image[0])
    square = np.asarray(image[0])
    expected = {np.rot90(s, i).tobytes() for s in (square, square[::-1]) for i in range(4)}
    assert {np.asarray(one).tobytes() for one in turned} == expected and len(expected) == 8
    np.testing.assert_array_equal(dihedral(images, k), turned)


def test_dihedral_under_vmap_and_with_unsigned_k():
    images = jax.random.uniform(jax.random.key(0), (2, 8, 5, 5, 3))
    k = jax.random.bits(jax.random.key(1), (2, 8), jnp.uint32)
    turned = jax.vmap(dihedral)(images, k)
    np.testing.assert_array_equal(turned[1], dihedral(images[1], k[1] % 8))
