"""Blur, resize and sharpening against OpenCV, SciPy and PyTorch; borders where images end."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import skimage.data

from isr_jax.degrade.filters import METHODS, plane_blur, plane_resample, sharpen

RNG = np.random.default_rng(0)


def blur(images: jax.Array, kernels: jax.Array, sizes: jax.Array | None = None) -> jax.Array:
    """`plane_blur` of a batch, channels last, of images that fill their arrays or have `sizes`."""
    if sizes is None:
        sizes = jnp.broadcast_to(jnp.array(images.shape[1:3]), (len(images), 2))
    planes = jnp.asarray(images).transpose(0, 3, 1, 2)
    return jax.vmap(plane_blur)(planes, sizes, jnp.asarray(kernels)).transpose(0, 2, 3, 1)


def resample(
    images: jax.Array, sizes: jax.Array, new: jax.Array, methods: jax.Array, shape: tuple[int, int]
) -> jax.Array:
    """`plane_resample` of a batch, channels last."""
    planes = jax.vmap(partial(plane_resample, shape=shape))(
        images.transpose(0, 3, 1, 2), sizes, new, methods
    )
    return planes.transpose(0, 2, 3, 1)


def padded(images: list[np.ndarray], shape: tuple[int, int], filling: float) -> jax.Array:
    """Each image at the top left of an array, `filling` beyond it."""
    batch = np.full((len(images), *shape, 3), filling, np.float32)
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return jnp.asarray(batch)


def random_images(*shapes: tuple[int, int]) -> list[np.ndarray]:
    return [RNG.random((*shape, 3)).astype(np.float32) for shape in shapes]


def sizes_of(images: list[np.ndarray]) -> jax.Array:
    return jnp.array([image.shape[:2] for image in images])


def test_blur_is_opencvs_and_scipys_correlation():
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    images = np.stack(random_images((40, 31), (40, 31)))
    kernels = RNG.random((2, 21, 21)).astype(np.float32)  # not symmetric
    kernels /= kernels.sum(axis=(1, 2), keepdims=True)
    plain, jitted = blur(jnp.asarray(images), jnp.asarray(kernels)), jax.jit(blur)(images, kernels)
    for image, kernel, *ours in zip(images, kernels, plain, jitted, strict=True):
        peer = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        scipys = scipy.ndimage.correlate(
            image.astype(np.float64), kernel[..., None].astype(np.float64), mode="mirror"
        )
        for result in ours:
            np.testing.assert_allclose(result, peer, atol=2e-6)
            np.testing.assert_allclose(result, scipys, atol=2e-6)


def test_blur_mirrors_where_each_image_ends():
    images = random_images((33, 20), (24, 40), (5, 3), (1, 2))  # the last mirror many times
    kernels = RNG.random((4, 21, 21)).astype(np.float32) / 441
    batch = padded(images, (40, 40), 1e3)
    out = jax.jit(blur)(batch, kernels, sizes=sizes_of(images))
    assert np.isfinite(out).all()
    for image, kernel, result in zip(images, kernels, out, strict=True):
        wide = np.pad(image.astype(np.float64), ((10, 10), (10, 10), (0, 0)), mode="reflect")
        truth = scipy.signal.correlate(wide, kernel[..., None].astype(np.float64), mode="valid")
        np.testing.assert_allclose(result[: image.shape[0], : image.shape[1]], truth, atol=1e-4)


def test_blur_of_a_smaller_kernel_and_of_any_range():
    image = 255.0 * np.stack(random_images((12, 9)))
    kernel = np.array([[[0, 1, 0], [0, 0, 0], [0, 0, 0]]], np.float32)  # takes the pixel above
    out = jax.jit(blur)(image, kernel)
    np.testing.assert_allclose(out[0, 1:], image[0, :-1], atol=1e-3)
    np.testing.assert_allclose(out[0, 0], image[0, 1], atol=1e-3)


CASES = [
    ((40, 40), (40, 40)),
    ((40, 32), (13, 10)),
    ((37, 40), (6, 7)),
    ((40, 40), (60, 60)),
    ((31, 40), (46, 59)),
    ((17, 23), (16, 22)),
    ((9, 40), (10, 44)),
    ((40, 38), (20, 19)),
    ((1, 3), (2, 6)),
]


@pytest.mark.parametrize("method", METHODS)
def test_resample_is_opencvs_resize(method):
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    flag = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
    images = random_images(*(old for old, _ in CASES))
    new = jnp.array([new for _, new in CASES])
    which = jnp.full(len(CASES), METHODS.index(method))
    arguments = padded(images, (40, 40), 1e3), sizes_of(images), new, which
    for function in (resample, jax.jit(resample, static_argnames="shape")):
        out = function(*arguments, shape=(60, 60))
        assert np.isfinite(out).all()
        for image, (h, w), result in zip(images, np.asarray(new), out, strict=True):
            peer = cv2.resize(image, (int(w), int(h)), interpolation=flag[method])
            # OpenCV holds positions in float32, ours are exact.
            np.testing.assert_allclose(result[:h, :w], peer, atol=1e-5, err_msg=str((h, w)))


def test_resample_is_pytorchs_interpolate():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    images = random_images(*(old for old, _ in CASES))
    new = jnp.array([new for _, new in CASES])
    for method in ("bilinear", "bicubic"):
        which = jnp.full(len(CASES), METHODS.index(method))
        batch = padded(images, (40, 40), 0.5)
        out = resample(batch, sizes_of(images), new, which, shape=(60, 60))
        for image, size, result in zip(images, np.asarray(new), out, strict=True):
            peer = torch.nn.functional.interpolate(
                torch.from_numpy(image).permute(2, 0, 1)[None].double(),
                size=tuple(size.tolist()),
                mode=method,
            )[0].permute(1, 2, 0)
            np.testing.assert_allclose(result[: size[0], : size[1]], peer, atol=2e-6)


def test_area_is_the_mean_over_what_a_pixel_covers():
    image = jnp.arange(6.0).reshape(1, 6, 1, 1)
    out = resample(
        image,
        jnp.array([[6, 1]]),
        jnp.array([[4, 1]]),
        jnp.array([METHODS.index("area")]),
        shape=(4, 1),
    )
    # Each covers 1.5 pixels: (0 + 1/2)/1.5, (1/2 + 2)/1.5, ...
    np.testing.assert_allclose(out.ravel(), [1 / 3, 5 / 3, 10 / 3, 14 / 3], atol=1e-6)


def test_sharpen_is_unsharp_masking_by_opencv():
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    images = np.stack(
        [skimage.data.astronaut()[:90, 200:270], skimage.data.coffee()[100:190, 100:170]]
    ).astype(np.float32)
    images /= 255
    for function in (sharpen, jax.jit(sharpen)):
        for image, result in zip(images, function(jnp.asarray(images)), strict=True):
            smooth = cv2.GaussianBlur(image, (51, 51), 0)
            mask = (np.abs(image - smooth) * 255 > 10).astype(np.float32)
            mask = cv2.GaussianBlur(mask, (51, 51), 0)
            sharp = np.clip(image + 0.5 * (image - smooth), 0, 1)
            peer = mask * sharp + (1 - mask) * image
            np.testing.assert_allclose(result, peer, atol=1e-4)
            assert np.abs(peer - image).mean() > 0.001


def test_sharpen_leaves_flat_images_and_stays_in_range():
    flat = jnp.full((1, 40, 30, 3), 0.3)
    np.testing.assert_allclose(sharpen(flat), flat, atol=1e-6)
    noise = jax.random.bernoulli(jax.random.key(0), 0.5, (1, 40, 30, 3)).astype(jnp.float32)
    out = sharpen(noise)
    assert out.min() >= 0 and out.max() <= 1 and np.abs(out - noise).max() < 1e-6


def test_gradients_are_finite_and_blurs_is_its_adjoint():
    image = jnp.asarray(np.stack(random_images((20, 14))))
    kernel = jnp.asarray(RNG.random((1, 21, 21)).astype(np.float32) / 441)
    direction = jax.random.normal(jax.random.key(0), image.shape)

    def value(x):
        return jnp.vdot(blur(x, kernel), direction)

    gradient = jax.jit(jax.grad(value))(image)
    other = jax.random.normal(jax.random.key(1), image.shape)
    np.testing.assert_allclose(jnp.vdot(gradient, other), value(other), rtol=1e-4)
    assert np.isfinite(jax.jit(jax.grad(lambda x: sharpen(x).sum()))(image)).all()
