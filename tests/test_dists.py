"""DISTS against its formula in PyTorch, the authors' code if installed, and by its properties."""

import types
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from isr_jax.errors import UserError
from isr_jax.perceptual import weight_files as weights
from isr_jax.perceptual.backbones import backbone
from isr_jax.perceptual.dists import CHANNELS, STAGES, dists, load_dists, load_params
from isr_jax.perceptual.inputs import ImageDistance

torch = pytest.importorskip("torch", reason="compares with PyTorch")

from tests.helpers import trunks

RNG = np.random.default_rng(0)
NAME = "DISTS_weights-f5e65c96"
STARTS = (0, 4, 9, 16, 23, 30)  # of the stages in torchvision's VGG16
dists_jit = jax.jit(dists)
# The parameters are an argument: closed over, they would be constants, which take long to compile.
value_and_gradient = jax.jit(
    jax.value_and_grad(lambda params, sr, hr: dists(params, sr, hr)[0], argnums=1)
)


@pytest.fixture(scope="module")
def trunk():
    return trunks.random_trunk("vgg16", length=30)


@pytest.fixture(scope="module")
def weighting():
    """alpha and beta of random sizes, some of them 0, which do not sum to 1."""
    shape = (1, sum(CHANNELS.values()), 1, 1)
    values = RNG.uniform(-0.1, 0.4, size=(2, *shape)).clip(0).astype(np.float32)
    return dict(zip(("alpha", "beta"), values, strict=True))


@pytest.fixture(scope="module")
def folder(trunk, weighting, tmp_path_factory):
    """Files like the published ones, under their names."""
    path = tmp_path_factory.mktemp("weights")
    torch.save(trunks.state_dict(trunk), path / "vgg16-397923af.pth")
    torch.save({name: torch.tensor(x) for name, x in weighting.items()}, path / f"{NAME}.pth")
    return path


@pytest.fixture(scope="module")
def params(folder):
    return load_params(folder=folder)


def l2_pool(x):
    """Root of the blurred squares, by a convolution with numpy's Hanning window of 5."""
    window = torch.tensor(np.outer(np.hanning(5), np.hanning(5))[1:-1, 1:-1], dtype=x.dtype)
    kernel = (window / window.sum()).expand(x.shape[1], 1, 3, 3)
    blurred = torch.nn.functional.conv2d(x**2, kernel, stride=2, padding=1, groups=x.shape[1])
    return (blurred + 1e-12).sqrt()


def stages(trunk, x):
    found, x = [x], trunks.imagenet_normalised(x)
    for i, (start, stop) in enumerate(pairwise(STARTS)):
        # The pool that begins a stage is replaced by the smooth one.
        x = trunk[start:stop](x) if i == 0 else trunk[start + 1 : stop](l2_pool(x))
        found.append(x)
    return found


def reference(trunk, weighting, sr, hr):
    """Ding et al. 2020, equations 4 to 6: 1 less the weighted similarities."""
    whole = sum(x.sum() for x in weighting.values())
    sizes = list(CHANNELS.values())
    alpha, beta = (torch.tensor(x / whole).split(sizes, 1) for x in weighting.values())
    total = 0
    pairs = zip(*(stages(trunk, trunks.to_torch(x)) for x in (sr, hr)), strict=True)
    for a, b, (x, y) in zip(alpha, beta, pairs, strict=True):
        mean_x, mean_y = (f.mean((2, 3), keepdim=True) for f in (x, y))
        var_x, var_y = (f.var((2, 3), keepdim=True, correction=0) for f in (x, y))
        covariance = (x * y).mean((2, 3), keepdim=True) - mean_x * mean_y
        texture = (2 * mean_x * mean_y + 1e-6) / (mean_x**2 + mean_y**2 + 1e-6)
        structure = (2 * covariance + 1e-6) / (var_x + var_y + 1e-6)
        total = total + (a * texture + b * structure).sum((1, 2, 3))
    return (1 - total).numpy()


def pair(h, w, n=1):
    hr = RNG.uniform(size=(n, h, w, 3))
    sr = np.clip(hr + RNG.normal(scale=0.1, size=hr.shape), 0, 1)
    return jnp.array(sr, jnp.float32), jnp.array(hr, jnp.float32)


@pytest.mark.parametrize("size", [(35, 50), (1, 3)])
def test_dists_equals_its_formula_in_torch(trunk, weighting, params, size):
    sr, hr = pair(*size, n=2)
    expected = reference(trunk, weighting, sr, hr)
    assert expected.min() > 1e-3
    np.testing.assert_allclose(dists_jit(params, sr, hr), expected, rtol=1e-4, atol=2e-6)
    np.testing.assert_array_equal(dists_jit(params, hr, sr), dists_jit(params, sr, hr))


def test_dists_is_the_same_without_jit(params):
    sr, hr = pair(4, 5)
    np.testing.assert_allclose(dists(params, sr, hr), dists_jit(params, sr, hr), rtol=1e-5)


def test_the_authors_code_gives_the_same(trunk, weighting, params, monkeypatch):
    """With the same random trunk in place of torchvision's, which it would download."""
    module = pytest.importorskip("DISTS_pytorch.DISTS_pt", reason="runs the authors' code")
    fake = types.SimpleNamespace(vgg16=lambda **_: types.SimpleNamespace(features=trunk))
    monkeypatch.setattr(module, "models", fake)
    network = module.DISTS(load_weights=False)
    network.alpha.data, network.beta.data = (torch.tensor(x) for x in weighting.values())
    sr, hr = pair(37, 64, n=2)
    expected = network(trunks.to_torch(sr), trunks.to_torch(hr)).detach().numpy()
    np.testing.assert_allclose(dists_jit(params, sr, hr), expected, rtol=1e-4, atol=2e-6)


def test_identical_images_are_at_0_with_zero_gradient(params):
    _, hr = pair(9, 9)
    value, gradient = value_and_gradient(params, hr, hr)
    np.testing.assert_allclose(value, 0.0, atol=1e-12)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-9)


def test_gradient_equals_finite_differences(params):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), params)
        sr, hr = (x.astype(jnp.float64) for x in pair(9, 9))
        direction = jnp.array(RNG.normal(size=sr.shape))
        slope = jnp.vdot(value_and_gradient(wide, sr, hr)[1], direction)
        eps = 1e-7
        above, below = (dists_jit(wide, sr + e * direction, hr)[0] for e in (eps, -eps))
        np.testing.assert_allclose(slope, (above - below) / (2 * eps), rtol=1e-5)
        assert abs(slope) > 1e-6


def test_flat_images_have_a_finite_gradient(params):
    """Where no channel is active, the pool's root and both variances are at 0."""
    first = {**params["backbone"]["conv1_1"], "bias": jnp.full(64, -100.0)}
    dark = {**params, "backbone": {**params["backbone"], "conv1_1": first}}
    _, hr = pair(9, 9)
    for weighted in (params, dark):
        found = value_and_gradient(weighted, jnp.zeros_like(hr), hr)
        assert all(np.isfinite(x).all() for x in found)


def test_multiplications_stay_in_float32_on_accelerators(params):
    program = str(jax.make_jaxpr(dists)(params, *pair(4, 4)))
    assert program.count("conv_general_dilated") == 13
    assert program.count("Precision.HIGHEST, Precision.HIGHEST") == 13
    assert "dot_general" not in program


def test_smooth_pools_halve_every_size(trunk):
    """Rounded up, as the padded convolution does; the other pools round down."""
    features = backbone("vgg16_l2", layers=["pool1"])
    assert features.least == 1
    params = jax.eval_shape(features.init, jax.random.key(0))
    for size in (1, 2, 7, 8):
        images = jnp.zeros((1, size, size + 1, 3))
        got = jax.eval_shape(features.apply, params, images)["pool1"]
        x = torch.zeros(1, 64, size, size + 1)
        assert got.shape == tuple(l2_pool(x).permute(0, 2, 3, 1).shape)


def test_uint8_images_are_cropped_and_scaled(folder):
    measure = load_dists(folder=folder)
    assert isinstance(measure, ImageDistance)
    sr, hr = RNG.integers(0, 256, (2, 17, 17, 3), dtype=np.uint8)
    floats = [jnp.array(x[None, 4:-4, 4:-4] / 255.0, jnp.float32) for x in (sr, hr)]
    value = measure(sr, hr, crop=4)
    assert isinstance(value, float)
    np.testing.assert_allclose(value, dists_jit(measure.params, *floats)[0], rtol=1e-5)
    gray = measure(sr[..., 0], hr[..., 0], crop=4)
    assert gray == measure(*(np.stack([x[..., 0]] * 3, -1) for x in (sr, hr)), crop=4) > 0
    with pytest.raises(UserError, match="cannot compare images"):
        measure(sr, hr[1:])


@pytest.mark.parametrize("name", [f"{NAME}.pth", f"{NAME}.safetensors", "weights.pt"])
def test_weights_are_found_under_every_name(folder, weighting, params, tmp_path, name):
    (tmp_path / "vgg16-397923af.pth").symlink_to(folder / "vgg16-397923af.pth")
    if name.endswith("safetensors"):
        save_file(weighting, tmp_path / name)
    else:  # the authors' file is of a PyTorch that did not write archives yet
        state = {key: torch.tensor(x) for key, x in weighting.items()}
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=False)
    found = load_params(folder=tmp_path)
    for kind in ("alpha", "beta"):
        for layer in CHANNELS:
            np.testing.assert_array_equal(found[kind][layer], params[kind][layer])
    sums = [sum(jnp.sum(x) for x in params[kind].values()) for kind in ("alpha", "beta")]
    np.testing.assert_allclose(sum(sums), 1.0, rtol=1e-5)
    assert list(params["alpha"]) == ["image", *STAGES]


def test_other_weights_are_named(folder, tmp_path):
    (tmp_path / "vgg16-397923af.pth").symlink_to(folder / "vgg16-397923af.pth")
    save_file({"alpha": np.ones(1475, np.float32)}, tmp_path / f"{NAME}.safetensors")
    with pytest.raises(UserError, match=r"not DISTS's weights: beta of 1475 values is missing"):
        load_params(folder=tmp_path)


def test_the_checksum_is_in_the_name():
    assert weights.FILES["dists"].name.split("-")[1][:8] == weights.FILES["dists"].checksum[7:15]
    assert weights.FILES["dists"].checksum == weights.FILES["dists_package"].checksum
