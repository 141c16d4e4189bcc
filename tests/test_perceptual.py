"""The perceptual loss against PyTorch, and loading VGG19 from both kinds of files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from isr_jax.errors import UserError
from isr_jax.perceptual.backbones import params_from_torch
from isr_jax.perceptual.vgg_loss import load_vgg19, make_perceptual_loss

torch = pytest.importorskip("torch", reason="compares with PyTorch")

from tests.helpers import trunks

RNG = np.random.default_rng(0)
SR, HR = (jnp.array(RNG.uniform(size=(2, 19, 22, 3)), jnp.float32) for _ in range(2))
LAYERS = {"conv1_2": 0.5, "relu2_2": 2.0, "conv3_1": 1.0}
INDICES = {"conv1_2": 2, "relu2_2": 8, "conv3_1": 10}


@pytest.fixture(scope="module")
def trunk():
    return trunks.random_trunk("vgg19", length=11)


@pytest.fixture(scope="module")
def params(trunk):
    return params_from_torch("vgg19", trunks.arrays(trunk), layers=list(LAYERS))


def reference(trunk, criterion, sr, hr):
    difference = {
        "l1": torch.nn.functional.l1_loss,
        "l2": torch.nn.functional.mse_loss,
    }[criterion]
    of_sr, of_hr = (trunks.outputs(trunk, trunks.imagenet_normalised(x)) for x in (sr, hr))
    return sum(LAYERS[name] * difference(of_sr[i], of_hr[i]) for name, i in INDICES.items())


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_loss_and_gradient_equal_torch(trunk, params, criterion):
    sr = trunks.to_torch(SR).requires_grad_()
    expected = reference(trunk, criterion, sr, trunks.to_torch(HR))
    expected.backward()
    loss = make_perceptual_loss(LAYERS, criterion=criterion)
    value, gradient = jax.jit(jax.value_and_grad(loss, argnums=1))(params, SR, HR)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    wanted = sr.grad.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(gradient, wanted, atol=1e-5 * np.abs(wanted).max())


def test_target_gets_no_gradient(params):
    loss = make_perceptual_loss(LAYERS)
    np.testing.assert_array_equal(jax.jit(jax.grad(loss, argnums=2))(params, SR, HR), 0.0)


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_equal_images_cost_nothing(params, criterion):
    loss = make_perceptual_loss(LAYERS, criterion=criterion)
    value, gradient = jax.jit(jax.value_and_grad(loss, argnums=1))(params, HR, HR)
    assert value == 0.0
    assert np.isfinite(gradient).all()


def test_srgans_scale_is_a_weight(trunk, params):
    """Features over 12.75 under a squared error, as the documentation says it is written."""
    loss = make_perceptual_loss({"relu2_2": 1 / 12.75**2}, criterion="l2")
    shallow = params_from_torch("vgg19", trunks.arrays(trunk), layers=["relu2_2"])
    images = [trunks.imagenet_normalised(trunks.to_torch(x)) for x in (SR, HR)]
    of_sr, of_hr = (trunk[:9](x) / 12.75 for x in images)
    expected = torch.nn.functional.mse_loss(of_sr, of_hr).item()
    np.testing.assert_allclose(loss(shallow, SR, HR), expected, rtol=1e-5)


def test_loss_is_the_same_under_pmap(params):
    """The parameters are one argument, the same for all devices."""
    loss = make_perceptual_loss(LAYERS)
    whole = jax.jit(loss)(params, SR, HR)
    halves = jax.pmap(loss, in_axes=(None, 0, 0))(params, SR[:, None], HR[:, None])
    np.testing.assert_allclose(halves.mean(), whole, rtol=1e-5)


def test_layers_without_weight_are_not_computed(params):
    loss = make_perceptual_loss({"conv1_2": 1.0, "conv5_4": 0.0})
    shallow = {name: params[name] for name in ("mean", "std", "conv1_1", "conv1_2")}
    assert loss(shallow, SR, HR) > 0.0


@pytest.mark.parametrize(
    "layers, criterion, expected",
    [
        [{"conv5_5": 1.0}, "l1", "vgg19 has no layer 'conv5_5'"],
        [{"conv5_4": 0.0}, "l1", "name at least one layer"],
        [{"conv5_4": 1.0}, "huber", "no criterion is called 'huber'"],
    ],
)
def test_wrong_settings_are_named(layers, criterion, expected):
    with pytest.raises(UserError, match=expected):
        make_perceptual_loss(layers, criterion=criterion)


def test_small_images_are_refused(params):
    loss = make_perceptual_loss({"conv3_1": 1.0})
    with pytest.raises(UserError, match="needs images of 4x4 pixels"):
        loss(params, SR[:, :3], HR[:, :3])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvisions_file_is_loaded(trunk, params, tmp_path, suffix):
    state = {**trunks.arrays(trunk), "classifier.0.bias": np.zeros(4096, np.float32)}
    if suffix == ".pth":
        torch.save({k: torch.tensor(v) for k, v in state.items()}, tmp_path / "vgg19-dcbb9e9d.pth")
    else:
        state = {name: np.ascontiguousarray(array) for name, array in state.items()}
        save_file(state, tmp_path / "vgg19-dcbb9e9d.safetensors")
    loaded = load_vgg19(LAYERS, path=tmp_path)
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, params))


@pytest.mark.parametrize("given", ["folder", "file"])
def test_kerass_file_is_loaded_with_its_preprocessing(trunk, tmp_path, given):
    h5py = pytest.importorskip("h5py", reason="writes a file like Keras's")
    path = tmp_path / "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
    with h5py.File(path, "w") as file:
        for i, index in enumerate([0, 2], 1):
            group = file.create_group(f"block1_conv{i}")
            names = [f"block1_conv{i}_W_1:0", f"block1_conv{i}_b_1:0"]
            group.attrs["weight_names"] = [name.encode() for name in names]
            group[names[0]] = trunk[index].weight.permute(2, 3, 1, 0).numpy()
            group[names[1]] = trunk[index].bias.numpy()
    if given == "folder":
        loaded = load_vgg19(["conv1_2"], path=tmp_path, source="keras")
    else:
        loaded = load_vgg19(["conv1_2"], path=path)
    loss = make_perceptual_loss({"conv1_2": 1.0})
    mean = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    of_sr, of_hr = (trunk[:3](255 * trunks.to_torch(x).flip(1) - mean) for x in (SR, HR))
    expected = torch.nn.functional.l1_loss(of_sr, of_hr).item()
    np.testing.assert_allclose(loss(loaded, SR, HR), expected, rtol=1e-5)


def test_unknown_layers_and_sources_are_named_before_any_search():
    with pytest.raises(UserError, match="no layer 'conv6_1'"):
        load_vgg19(["conv6_1"], path="nowhere")
    with pytest.raises(
        UserError, match="no VGG19 comes from 'caffe'; there are torchvision, keras"
    ):
        load_vgg19(["conv1_1"], path="nowhere", source="caffe")
