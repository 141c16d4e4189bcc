"""LPIPS against its formula in PyTorch, and by its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isr_jax.errors import UserError
from isr_jax.perceptual.backbones import backbone
from isr_jax.perceptual.inputs import ImageDistance
from isr_jax.perceptual.lpips import load_lpips, load_params, lpips

torch = pytest.importorskip("torch", reason="compares with PyTorch")

from tests.helpers import trunks

RNG = np.random.default_rng(0)
# The indices in torchvision's networks after which the authors compare, and the least sizes.
AFTER = {
    "alex": ("alexnet", (1, 4, 7, 9, 11), 31),
    "vgg": ("vgg16", (3, 8, 15, 22, 29), 16),
    "squeeze": ("squeezenet", (1, 4, 7, 9, 10, 11, 12), 17),
}
NETWORKS = list(AFTER)
EARLIER = {"relu1": 64, "relu2": 192, "relu3": 384, "relu4": 256}
lpips_jit = jax.jit(lpips, static_argnames="network")


def published(network):
    """A random trunk and random linear weights, some of them 0 as in the published files."""
    name, after, _ = AFTER[network]
    trunk = trunks.random_trunk(name)
    channels = [x.shape[-1] for x in trunks.outputs(trunk, torch.zeros(1, 3, 64, 64))]
    linear = [torch.rand(1, channels[i], 1, 1).sub(0.2).clamp(min=0) for i in after]
    return trunk, linear


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files like the published ones, under their names."""
    path = tmp_path_factory.mktemp("weights")
    for network, file in [
        ("alex", "alexnet-owt-7be5be79.pth"),
        ("vgg", "vgg16-397923af.pth"),
        ("squeeze", "squeezenet1_1-b8a52dc0.pth"),
    ]:
        trunk, linear = published(network)
        torch.save(trunks.state_dict(trunk), path / file)
        heads = {f"lin{i}.model.1.weight": weight for i, weight in enumerate(linear)}
        torch.save(heads, path / f"{network}.pth")
    return path


def reference(after, trunk, linear, sr, hr):
    """Zhang et al. 2018, equation 1, with the published scaling of the input and epsilon."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    pair = [((2 * trunks.to_torch(x) - 1) - shift) / scale for x in (sr, hr)]
    total = torch.zeros(len(sr))
    for index, weight in zip(after, linear, strict=True):
        units = []
        for x in pair:
            y = trunk[: index + 1](x)
            units.append(y / (torch.linalg.vector_norm(y, dim=1, keepdim=True) + 1e-10))
        squares = (units[0] - units[1]) ** 2
        total += torch.nn.functional.conv2d(squares, weight).mean(dim=(1, 2, 3))
    return total.numpy()


def pair(h, w, n=1):
    hr = RNG.uniform(size=(n, h, w, 3))
    sr = np.clip(hr + RNG.normal(scale=0.1, size=hr.shape), 0, 1)
    return jnp.array(sr, jnp.float32), jnp.array(hr, jnp.float32)


@pytest.mark.parametrize(
    "network, size", [["alex", (69, 82)], ["vgg", (35, 50)], ["squeeze", (39, 52)]]
)
def test_lpips_equals_its_formula_in_torch(folder, network, size):
    params = load_params(network, folder=folder)
    sr, hr = pair(*size, n=2)
    expected = reference(AFTER[network][1], *published(network), sr, hr)
    assert expected.min() > 1e-3
    np.testing.assert_allclose(lpips_jit(params, sr, hr, network=network), expected, rtol=1e-5)
    np.testing.assert_allclose(lpips_jit(params, hr, sr, network=network), expected, rtol=1e-5)


def test_epsilon_is_added_to_the_norm(folder):
    """Seen where features are as small as epsilon; under the root it would hide them."""
    params = load_params("alex", folder=folder)
    params["backbone"]["conv5"] = jax.tree.map(lambda x: 1e-10 * x, params["backbone"]["conv5"])
    trunk, linear = published("alex")
    trunk[10].weight *= 1e-10
    trunk[10].bias *= 1e-10
    sr, hr = pair(64, 64)
    expected = reference([11], trunk, linear[-1:], sr, hr)
    params["linear"] |= {name: jnp.zeros(size) for name, size in EARLIER.items()}
    np.testing.assert_allclose(lpips_jit(params, sr, hr), expected, rtol=1e-5)


def test_lpips_is_the_same_without_jit(folder):
    params = load_params("alex", folder=folder)
    sr, hr = pair(33, 31)
    np.testing.assert_allclose(lpips(params, sr, hr), lpips_jit(params, sr, hr), rtol=1e-5)


@pytest.mark.parametrize("network", ["alex", "squeeze"])
def test_identical_images_are_at_0_with_zero_gradient(folder, network):
    params = load_params(network, folder=folder)
    _, hr = pair(33, 34)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda x: lpips(params, x, hr, network=network)[0])
    )(hr)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("bias, dark", [(-4.0, "some"), (-100.0, "all")])
def test_pixels_without_features_have_a_finite_gradient(folder, bias, dark):
    """Where no channel of a layer is active, the norm is 0 and its root has no slope."""
    params = load_params("alex", folder=folder)
    first = {**params["backbone"]["conv1"], "bias": jnp.full(64, bias)}
    params["backbone"]["conv1"] = first
    sr, hr = pair(40, 40)
    features = backbone("alexnet", layers=["relu1"]).apply(params["backbone"], sr)["relu1"]
    inactive = jnp.all(features == 0.0, axis=-1).mean()
    assert {"some": 0.0 < inactive < 1.0, "all": inactive == 1.0}[dark]

    def distance(x):
        return lpips(params, x, hr)[0]

    # Forwards too: backwards, the ReLU before the norm would hide a NaN.
    gradient = jax.jit(jax.grad(distance))(sr)
    value, slope = jax.jit(lambda x: jax.jvp(distance, (x,), (hr - sr,)))(sr)
    assert np.isfinite([value, slope, *np.ravel(gradient)]).all()
    np.testing.assert_allclose(slope, jnp.vdot(gradient, hr - sr), rtol=1e-3)
    assert np.any(gradient != 0.0) == (dark == "some")


def test_gradient_equals_finite_differences(folder):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype(jnp.float64), load_params("alex", folder=folder))
        sr, hr = (x.astype(jnp.float64) for x in pair(40, 40))
        direction = jnp.array(RNG.normal(size=sr.shape))
        slope = jax.jit(jax.grad(lambda x: lpips(params, x, hr)[0]))(sr)
        slope = jnp.vdot(slope, direction)
        eps = 1e-7
        above, below = (lpips_jit(params, sr + e * direction, hr)[0] for e in (eps, -eps))
        np.testing.assert_allclose(slope, (above - below) / (2 * eps), rtol=1e-5)


def test_multiplications_stay_in_float32_on_accelerators(folder):
    params = load_params("alex", folder=folder)
    program = str(jax.make_jaxpr(lpips)(params, *pair(31, 31)))
    assert program.count("conv_general_dilated") == 5
    assert program.count("Precision.HIGHEST, Precision.HIGHEST") == 5
    assert "dot_general" not in program


@pytest.mark.parametrize("network", NETWORKS)
def test_small_images_are_refused(folder, network):
    params = load_params(network, folder=folder)
    least = AFTER[network][2]
    smallest = jnp.zeros((1, least, least, 3))
    assert lpips_jit(params, smallest, smallest, network=network) == 0.0
    with pytest.raises(UserError, match=f"needs images of {least}x{least} pixels"):
        lpips(params, smallest[:, 1:], smallest[:, 1:], network=network)


def test_uint8_images_are_cropped_and_scaled(folder):
    measure = load_lpips("alex", folder=folder)
    assert isinstance(measure, ImageDistance)
    sr, hr = RNG.integers(0, 256, (2, 45, 40, 3), dtype=np.uint8)
    floats = [jnp.array(x[None] / 255.0, jnp.float32) for x in (sr, hr)]
    np.testing.assert_allclose(measure(sr, hr), lpips(measure.params, *floats)[0], rtol=1e-5)
    cropped = [x[:, 4:-4, 4:-4] for x in floats]
    value = measure(sr, hr, crop=4)
    assert isinstance(value, float)
    np.testing.assert_allclose(value, lpips(measure.params, *cropped)[0], rtol=1e-5)


def test_one_channel_stands_for_three(folder):
    measure = load_lpips("alex", folder=folder)
    sr, hr = RNG.integers(0, 256, (2, 40, 40), dtype=np.uint8)
    expected = measure(*(np.stack([x, x, x], axis=-1) for x in (sr, hr)))
    assert expected > 0
    assert measure(sr, hr) == expected
    assert measure(sr[..., None], hr[..., None]) == expected


@pytest.mark.parametrize(
    "shapes, crop, expected",
    [
        [
            ((40, 40, 3), (40, 41, 3)),
            0,
            r"cannot compare images of \[40, 40, 3\] and \[40, 41, 3\]",
        ],
        [((40, 40, 2), (40, 40, 2)), 0, "2 channels"],
        [((40, 40, 3), (40, 40, 3)), 20, "leaves no image"],
        [((40, 40, 3), (40, 40, 3)), 5, "needs images of 31x31 pixels"],
    ],
)
def test_images_that_cannot_be_scored_are_refused(folder, shapes, crop, expected):
    measure = load_lpips("alex", folder=folder)
    with pytest.raises(UserError, match=expected):
        measure(*(np.zeros(shape, np.uint8) for shape in shapes), crop=crop)


def test_wrong_networks_and_files_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="unknown LPIPS network 'vgg19'; choose one of alex"):
        load_lpips("vgg19", folder=folder)
    for name in ("alexnet-owt-7be5be79.pth", "vgg.pth"):
        (tmp_path / name.replace("vgg", "alex")).symlink_to(folder / name)
    with pytest.raises(UserError, match=r"for alex: lin1\.model\.1\.weight of 192 values"):
        load_lpips("alex", folder=tmp_path)
