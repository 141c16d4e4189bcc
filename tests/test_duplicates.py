"""The perceptual hash, and the search for the nearest."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from isr_jax.data import duplicates
from isr_jax.data.duplicates import CHANGES, MOST, SIDE, changed, nearest, perceptual_hash
from isr_jax.images import dihedral
from isr_jax.resize import resize_float64
from tests.helpers import copies
from tests.helpers.copies import half, jpeg
from tests.helpers.encoded import noise


@pytest.fixture(scope="module")
def scenes():
    return copies.scenes()


def distance(a, b):
    """Differing bits of two hashes."""
    return int((a != b).sum())


class TestHash:
    def test_bits_are_signs_of_the_discrete_cosine_transform(self, scenes):
        """By the sum of its definition."""
        u, x = np.arange(SIDE)[:, None], np.arange(32)
        waves = np.cos(math.pi * u * (2 * x + 1) / 64)
        for pixels in scenes.values():
            red, green, blue = np.moveaxis(resize_float64(pixels, size=(32, 32)), 2, 0)
            gray = 0.299 * red + 0.587 * green + 0.114 * blue
            expected = np.sign(np.einsum("ux,vy,xy->uv", waves, waves, gray)).astype(np.int8)
            expected[0, 0] = 0
            np.testing.assert_array_equal(perceptual_hash(pixels), expected)

    @pytest.mark.parametrize("change", range(8))
    def test_the_hash_of_a_changed_image_is_the_changed_hash(self, scenes, change):
        for pixels in scenes.values():
            side = min(pixels.shape[:2])
            square = pixels[:side, :side]
            image = np.array(dihedral(jnp.array(square)[None], jnp.array([change])))[0]
            expected = changed(perceptual_hash(square)[None], change)[0]
            assert distance(perceptual_hash(image), expected) <= 2

    @pytest.mark.parametrize(
        ("alter", "most"),
        [
            (half, 10),
            (lambda pixels: half(half(pixels)), 10),
            (lambda pixels: np.array(Image.fromarray(pixels).reduce(3)), 20),
            (lambda pixels: jpeg(pixels, 25), 20),
            (lambda pixels: jpeg(half(pixels), 50), 20),
            (lambda pixels: np.array(Image.fromarray(pixels).convert("L")), 10),
            (lambda pixels: pixels // 2 + 60, 10),
            (lambda pixels: pixels[: len(pixels) // 4 * 4, : pixels.shape[1] // 4 * 4], MOST),
        ],
        ids=["half", "quarter", "third", "jpeg", "half-jpeg", "gray", "contrast", "modcrop"],
    )
    def test_survives_what_leaves_the_image_the_same(self, scenes, alter, most):
        for name, pixels in scenes.items():
            found = distance(perceptual_hash(alter(pixels)), perceptual_hash(pixels))
            assert found <= most, name

    def test_of_different_photos_differs(self, scenes):
        hashes = [perceptual_hash(pixels) for pixels in scenes.values()]
        assert nearest(hashes, None) == []
        assert nearest(hashes[:6], hashes[6:]) == []


class TestNearest:
    @pytest.mark.parametrize("block", [1, 2**21])
    def test_is_that_of_every_pair_in_turn(self, monkeypatch, block):
        monkeypatch.setattr(duplicates, "_BLOCK", block)
        rng = np.random.default_rng(0)
        base = np.where(rng.random((6, SIDE, SIDE)) < 0.5, 1, -1).astype(np.int8)
        base[:, 0, 0] = 0
        hashes = []
        for i in range(30):
            # A copy of one of the six, changed, with up to 60 of its bits flipped.
            copy = changed(base[i % 6][None], int(rng.integers(8)))[0].copy()
            places = rng.permutation(np.arange(1, SIDE * SIDE))[: rng.integers(60)]
            copy.reshape(-1)[places] *= -1
            hashes.append(copy)
        for known in (None, hashes[20:]):
            expected = []
            for i, mine in enumerate(hashes):
                pairs = [
                    (distance(mine, changed(other[None], k)[0]), j, k)
                    for j, other in enumerate(hashes[:i] if known is None else known)
                    for k in range(8)
                ]
                close = [pair for pair in pairs if pair[0] <= MOST]
                if close:
                    best = min(close)
                    others = len({j for _, j, _ in close}) - 1
                    expected.append((i, best[1], best[0], best[2], others))
            assert len(expected) > 8
            assert nearest(hashes, known) == expected

    def test_of_nothing_is_nothing(self):
        one = perceptual_hash(noise(40, 40))
        assert nearest([], None) == nearest([], [one]) == nearest([one], []) == []
        assert nearest([one], None) == []

    @pytest.mark.parametrize(
        ("name", "turn"),
        [
            ("", lambda image: image),
            ("flipped up-down", np.flipud),
            ("flipped left-right", np.fliplr),
            ("rotated by 180°", lambda image: np.rot90(image, 2)),
            ("transposed", lambda image: image.swapaxes(0, 1)),
            ("rotated by 90° clockwise", lambda image: np.rot90(image, -1)),
            ("rotated by 90° counterclockwise", lambda image: np.rot90(image)),
            (
                "transposed along the other diagonal",
                lambda image: np.rot90(image, 2).swapaxes(0, 1),
            ),
        ],
    )
    def test_says_what_makes_the_image_of_the_other(self, scenes, name, turn):
        image = half(np.ascontiguousarray(turn(scenes["coffee.png"])))
        known = [perceptual_hash(scenes[other]) for other in ("brick.png", "coffee.png")]
        ((image_number, of, bits, change, others),) = nearest([perceptual_hash(image)], known)
        assert (image_number, of, CHANGES[change], others) == (0, 1, name, 0)
        assert bits <= 5
