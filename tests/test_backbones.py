"""Feature networks against PyTorch ones with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isr_jax.errors import UserError
from isr_jax.models import count_params
from isr_jax.perceptual.backbones import (
    NETWORKS,
    backbone,
    params_from_torch,
    vgg19_params_from_keras,
)

torch = pytest.importorskip("torch", reason="compares with PyTorch")

from tests.helpers import trunks

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
DEEPEST = {"alexnet": "relu5", "vgg16": "relu5_3", "vgg19": "relu5_4", "squeezenet": "fire9"}


def photo(h, w):
    return jnp.array(RNG.uniform(size=(1, h, w, 3)), jnp.float32)


# SqueezeNet's pools cut their last window at even sides: 39x52 passes 19x25, 9x12, 4x6, 2x3.
@pytest.mark.parametrize(
    "network, size",
    [
        ["alexnet", (75, 98)],
        ["vgg16", (33, 47)],
        ["vgg19", (37, 34)],
        ["squeezenet", (39, 52)],
        ["squeezenet", (17, 22)],
    ],
)
def test_every_layer_equals_torch(network, size):
    trunk = trunks.random_trunk(network)
    layers = tuple(NETWORKS[network])
    ours = backbone(network, layers=layers, precision="highest")
    params = params_from_torch(network, trunks.arrays(trunk), layers=layers)
    images = photo(*size)
    features = jax.jit(ours.apply)(params, images)
    expected = trunks.outputs(trunk, trunks.imagenet_normalised(trunks.to_torch(images)))
    assert len(expected) == len(layers)
    for name, reference in zip(layers, expected, strict=True):
        assert features[name].shape == reference.shape
        assert 0.1 < reference.abs().max() < 100
        np.testing.assert_allclose(features[name], reference, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("network", DEEPEST)
def test_least_size_is_where_torch_stops(network):
    name = DEEPEST[network]
    ours = backbone(network, layers=[name])
    depth = list(NETWORKS[network]).index(name) + 1
    trunk = trunks.random_trunk(network, length=depth)
    params = params_from_torch(network, trunks.arrays(trunk), layers=[name])
    least = ours.least
    assert min(trunk(torch.zeros(1, 3, least, least)).shape) >= 1
    assert min(jax.eval_shape(ours.apply, params, jnp.zeros((1, least, least, 3)))[name].shape) >= 1
    with pytest.raises(RuntimeError):
        trunk(torch.zeros(1, 3, least, least - 1))
    with pytest.raises(UserError, match=f"{network} needs images of {least}x{least} pixels"):
        ours.apply(params, jnp.zeros((1, least, least - 1, 3)))


def test_nothing_deeper_than_asked_is_needed_or_computed():
    trunk = trunks.random_trunk("vgg19", length=9)  # up to relu2_2
    layers = ["relu2_2", "conv1_2"]
    params = params_from_torch("vgg19", trunks.arrays(trunk), layers=layers)
    assert set(params) == {"mean", "std", "conv1_1", "conv1_2", "conv2_1", "conv2_2"}
    ours = backbone("vgg19", layers=layers)
    assert count_params(params) == count_params(ours.init(KEY))
    images = photo(8, 8)
    features = ours.apply(params, images)
    assert list(features) == ["conv1_2", "relu2_2"]
    assert str(jax.make_jaxpr(ours.apply)(params, images)).count("conv_general_dilated") == 4
    assert features["conv1_2"].min() < 0 <= features["relu2_2"].min()


def test_params_have_the_published_count():
    """torchvision's documents: 61,100,840 for AlexNet less its classifier, and so on."""
    expected = {
        "alexnet": 61_100_840 - (9216 * 4096 + 4096) - (4096 * 4096 + 4096) - 4_097_000,
        "vgg16": 138_357_544 - (25088 * 4096 + 4096) - (4096 * 4096 + 4096) - 4_097_000,
        "vgg19": 143_667_240 - (25088 * 4096 + 4096) - (4096 * 4096 + 4096) - 4_097_000,
        "squeezenet": 1_235_496 - 513_000,
    }
    for network, name in DEEPEST.items():
        params = jax.eval_shape(backbone(network, layers=[name]).init, KEY)
        assert count_params(params) - 6 == expected[network]


def test_precision_is_heard():
    for precision, expected in [("highest", 2), ("default", 0)]:
        ours = backbone("vgg16", layers=["relu1_2"], precision=precision)
        program = str(jax.make_jaxpr(ours.apply)(ours.init(KEY), photo(4, 4)))
        assert program.count("Precision.HIGHEST, Precision.HIGHEST") == expected


def test_unknown_names_are_named():
    with pytest.raises(UserError, match="no network is called 'vgg11'"):
        backbone("vgg11", layers=["relu1_1"])
    with pytest.raises(UserError, match="vgg19 has no layer 'relu6_1'; it has conv1_1, "):
        backbone("vgg19", layers=["relu1_1", "relu6_1"])
    with pytest.raises(UserError, match="at least one layer"):
        backbone("vgg19", layers=[])


def test_wrong_weights_are_named():
    state = trunks.arrays(trunks.random_trunk("alexnet"))
    lacking = {name: value for name, value in state.items() if name != "features.3.bias"}
    with pytest.raises(UserError, match=r"not weights of alexnet: features\.3\.bias is missing"):
        params_from_torch("alexnet", lacking, layers=["relu2"])
    params_from_torch("alexnet", lacking, layers=["relu1"])
    with pytest.raises(UserError, match=r"not weights of vgg16: features\.0\.weight has shape"):
        params_from_torch("vgg16", state, layers=["relu1_1"])


def keras_arrays(trunk):
    """VGG19's convolutions as Keras has them: HWIO, by block."""
    names = [f"block{b}_conv{i}" for b in range(1, 6) for i in range(1, 3 if b < 3 else 5)]
    convs = [layer for layer in trunk if isinstance(layer, torch.nn.Conv2d)]
    state = {}
    for name, conv in zip(names, convs, strict=False):
        state[f"{name}/kernel"] = conv.weight.permute(2, 3, 1, 0).numpy()
        state[f"{name}/bias"] = conv.bias.numpy()
    return state


def test_keras_weights_see_bgr_less_caffes_mean():
    """The border too, where zero padding follows the subtraction."""
    trunk = trunks.random_trunk("vgg19")
    trunk[0].weight *= 0.01  # the input is a hundred times larger
    layers = ["conv1_1", "relu2_2", "conv5_4"]
    params = vgg19_params_from_keras(keras_arrays(trunk), layers=layers)
    pixels = RNG.integers(0, 256, (1, 35, 38, 3))
    bgr = torch.tensor(pixels[..., ::-1].astype(np.float32)).permute(0, 3, 1, 2)
    mean = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    expected = trunks.outputs(trunk, bgr - mean)
    ours = backbone("vgg19", layers=layers, precision="highest")
    features = ours.apply(params, jnp.array(pixels / 255.0, jnp.float32))
    for name in layers:
        reference = expected[list(NETWORKS["vgg19"]).index(name)]
        assert 0.1 < reference.abs().max() < 100
        np.testing.assert_allclose(features[name], reference, atol=1e-4, err_msg=name)


def test_wrong_keras_weights_are_named():
    state = keras_arrays(trunks.random_trunk("vgg19", length=5))
    with pytest.raises(UserError, match="not weights of vgg19: block2_conv1/bias is missing"):
        vgg19_params_from_keras(state, layers=["conv2_1"])
