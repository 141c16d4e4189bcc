"""JPEG against Pillow's files."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

from isr_jax.degrade.jpeg import jpeg, plane_jpeg, tables

jitted = jax.jit(jpeg)
within = jax.jit(jax.vmap(plane_jpeg))
QUALITIES = (10, 30, 50, 75, 95)


def through_a_file(image: np.ndarray, quality: int) -> tuple[np.ndarray, Image.Image]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    opened = Image.open(file)
    return np.asarray(opened), opened


def photographs(h: int, w: int) -> np.ndarray:
    pictures = (skimage.data.astronaut, skimage.data.coffee, skimage.data.chelsea)
    return np.stack([picture()[60 : 60 + h, 120 : 120 + w] for picture in pictures])


def levels(images: jax.Array) -> np.ndarray:
    out = 255.0 * np.asarray(images, np.float64)
    np.testing.assert_allclose(out, np.round(out), atol=1e-4)
    return np.round(out).astype(int)


def as_floats(images: np.ndarray) -> jax.Array:
    return jnp.asarray(images / 255.0, jnp.float32)


@pytest.mark.parametrize("shape", [(128, 160), (61, 47), (50, 34), (17, 33), (5, 9)])
@pytest.mark.parametrize("quality", QUALITIES)
def test_photographs_come_out_as_from_pillows_files(quality, shape):
    images = photographs(*shape)
    out = levels(jitted(as_floats(images), jnp.full(3, quality)))
    truth = np.stack([through_a_file(image, quality)[0] for image in images]).astype(int)
    # The inverse transform's sums exceed float32's 24 bits where coefficients are large, so that
    # a tie may be lost.
    assert np.abs(out - truth).max() <= 1
    assert (out != truth).mean() < 2e-4
    assert np.abs(truth - images).mean() > 0.3  # the comparison means something


def test_whole_photographs_at_every_quality_of_one_batch():
    image = skimage.data.chelsea()
    images = np.stack([image] * len(QUALITIES))
    out = levels(jitted(as_floats(images), jnp.array(QUALITIES)))
    for quality, result in zip(QUALITIES, out, strict=True):
        truth = through_a_file(image, quality)[0].astype(int)
        assert np.abs(result - truth).max() <= 1
        assert (result != truth).mean() < 1e-4


def test_noise_and_saturated_colours_come_out_as_from_pillow():
    images = np.random.default_rng(0).integers(0, 2, (2, 64, 48, 3), np.uint8) * 255
    images[1] = np.random.default_rng(1).integers(0, 256, images.shape[1:], np.uint8)
    for quality in (20, 90):
        out = levels(jpeg(as_floats(images), jnp.full(2, quality)))
        truth = np.stack([through_a_file(image, quality)[0] for image in images]).astype(int)
        assert np.abs(out - truth).max() <= 2 and (out != truth).mean() < 1e-3


def test_tables_are_libjpegs_at_every_quality():
    image = np.zeros((8, 8, 3), np.uint8)
    ours = np.asarray(jax.jit(tables)(jnp.arange(1, 101)))
    for quality, (luma, chroma) in zip(range(1, 101), ours, strict=True):
        written = through_a_file(image, quality)[1].quantization
        np.testing.assert_array_equal(luma.ravel(), written[0], err_msg=str(quality))
        np.testing.assert_array_equal(chroma.ravel(), written[1], err_msg=str(quality))


def test_an_image_that_fills_part_of_its_array_comes_out_as_if_alone():
    image = photographs(50, 70)[0]
    shapes = [(50, 70), (33, 47), (16, 70), (8, 6), (1, 1)]
    batch = np.full((len(shapes), 50, 70, 3), 77.0, np.float32)
    for row, (h, w) in zip(batch, shapes, strict=True):
        row[:h, :w] = image[:h, :w] / 255.0
    quality = [30, 40, 50, 60, 70]
    planes = within(batch.transpose(0, 3, 1, 2), jnp.array(shapes), jnp.array(quality))
    out = levels(planes.transpose(0, 2, 3, 1))
    for (h, w), q, result in zip(shapes, quality, out, strict=True):
        alone = through_a_file(image[:h, :w], q)[0].astype(int)
        assert np.abs(result[:h, :w] - alone).max() <= 1
        assert (result[:h, :w] != alone).mean() < 1e-3


def test_a_quality_between_two_numbers_lies_between_their_tables():
    low, middle, high = np.asarray(tables(jnp.array([40.0, 40.5, 41.0])))
    assert (low >= middle).all() and (middle >= high).all() and (low > high).any()


def test_nothing_passes_a_gradient():
    images = as_floats(photographs(40, 40)[:1])
    gradient = jax.grad(lambda x: jitted(x, jnp.array([60])).sum())(images)
    assert (gradient == 0).all()
