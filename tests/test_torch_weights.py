"""PyTorch weights: the same outputs from the same state dicts, both ways, in every wrapping."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with PyTorch")

from safetensors.numpy import load_file

from isr_jax.errors import UserError
from isr_jax.models import GENERATORS, discriminator, generator
from isr_jax.models.generators import complete
from isr_jax.pytorch import state_dicts as torch_weights
from isr_jax.pytorch.key_maps import KEY_MAPS
from isr_jax.pytorch.leaves import torch_leaves
from tests.helpers import torch_generators as twins

RRDB = {"width": 6, "growth": 4, "blocks": 2, "doublings": 2}
RESNET = {"width": 8, "blocks": 2}
EDSR_L = {"width": 8, "blocks": 3, "residual_scale": 0.1}
SRRESNET = {**RESNET, "kernel": 9, "batch_norm": True}
VGG = {"width": 4, "layers": 3}

# naming, module, size, fields
CASES = {
    **{f"rrdbnet x{s}": ("rrdbnet_basicsr", twins.RRDBNet, s, RRDB) for s in (1, 2, 4)},
    "rrdbnet esrgan": ("rrdbnet_esrgan", twins.RRDBNet, 4, RRDB),
    "rrdbnet first x4": ("rrdbnet_first", twins.FirstRRDBNet, 4, RRDB),
    "rrdbnet first x1": ("rrdbnet_first", twins.FirstRRDBNet, 1, {**RRDB, "doublings": 0}),
    "rrdbnet first x2": ("rrdbnet_first", twins.FirstRRDBNet, 2, {**RRDB, "doublings": 1}),
    "rrdbnet first x8": ("rrdbnet_first", twins.FirstRRDBNet, 8, {**RRDB, "doublings": 3}),
    **{f"edsr x{s}": ("edsr_basicsr", twins.EDSR, s, RESNET) for s in (2, 3, 4)},
    **{f"edsr original x{s}": ("edsr_original", twins.OriginalEDSR, s, RESNET) for s in (2, 3, 4)},
    "edsr large": ("edsr_basicsr", twins.EDSR, 4, EDSR_L),
    "edsr large original": ("edsr_original", twins.OriginalEDSR, 2, EDSR_L),
    **{f"msrresnet x{s}": ("msrresnet_basicsr", twins.MSRResNet, s, RESNET) for s in (2, 3, 4)},
    "msrresnet mmsr": ("msrresnet_mmsr", twins.MSRResNet, 4, RESNET),
    **{f"srresnet x{s}": ("srresnet", twins.SRResNet, s, SRRESNET) for s in (2, 3, 4, 8)},
    "srresnet first": ("srresnet_first", twins.SRResNet, 4, SRRESNET),
    "srresnet plain": ("srresnet", twins.SRResNet, 4, {**SRRESNET, "batch_norm": False}),
    **{f"srvggnet x{s}": ("srvggnet", twins.SRVGGNet, s, VGG) for s in (1, 2, 3, 4)},
}


def a_twin(case):
    """A PyTorch network with random weights, statistics and slopes."""
    naming, build, size, fields = CASES[case]
    torch.manual_seed(0)
    twin = build(naming, scale=size, **fields)
    randomise(twin)
    return twin.eval()


def randomise(twin):
    generator = torch.Generator().manual_seed(1)
    for module in twin.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                values.data.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, torch.nn.PReLU):
            module.weight.data.uniform_(0.1, 0.4, generator=generator)


def state_of(twin):
    return {key: value.numpy() for key, value in twin.state_dict().items()}


def imported(state, case):
    """(detected, params, stats), where the residual scale is told, as no state tells it."""
    fields = CASES[case][3]
    options = {name: value for name, value in fields.items() if name == "residual_scale"}
    detected = torch_weights.detect(state, options=options)
    return detected, *torch_weights.to_params(state, detected)


@pytest.mark.parametrize("case", CASES)
def test_the_same_weights_give_the_same_image(case):
    naming, _, scale, fields = CASES[case]
    twin = a_twin(case)
    detected, params, stats = imported(state_of(twin), case)
    assert (detected.key_map, detected.size) == (naming, scale)
    assert fields.items() <= detected.options.items()
    network = generator(detected.options, scale=detected.size)
    # Odd sizes, and two images; PyTorch folds pixels only where they divide.
    side = 12 if scale < 4 and naming == "rrdbnet_basicsr" else 9
    lr = np.random.default_rng(0).uniform(size=(2, side, side - 4, 3)).astype(np.float32)
    sr, _ = jax.jit(network.apply, static_argnames="train")(params, stats, lr, train=False)
    with torch.no_grad():
        expected = twin(torch.tensor(lr.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    assert sr.shape == expected.shape
    assert np.ptp(expected - expected.mean((1, 2), keepdims=True)) > 1e-2
    assert np.abs(sr - expected).max() < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_export_undoes_import(case):
    """Every key and bit comes back; PyTorch's own loader takes what is exported."""
    naming, _, scale, _ = CASES[case]
    twin = a_twin(case)
    state = state_of(twin)
    detected, params, stats = imported(state, case)
    written = torch_weights.to_state_dict(
        params, stats, options=detected.options, size=scale, key_map=naming
    )
    assert written.keys() == state.keys()
    for key, value in written.items():
        assert value.dtype == state[key].dtype
        np.testing.assert_array_equal(value, np.broadcast_to(state[key], value.shape), key)
    if naming.startswith("srresnet"):  # whose PReLU there has one slope for all channels
        return
    twin.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in written.items()})


@pytest.mark.parametrize("case", CASES)
def test_import_undoes_export(case):
    """For parameters of our own making, as after training here."""
    naming, _, scale, fields = CASES[case]
    shift = {"rgb_mean": (0.4488, 0.4371, 0.4040), "img_range": 255.0}
    options = {**(shift if naming.startswith("edsr") else {}), **KEY_MAPS[naming].fixed, **fields}
    network = generator(options, scale=scale)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params, stats = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    state = torch_weights.to_state_dict(params, stats, options=options, size=scale, key_map=naming)
    detected, again, again_stats = imported(state, case)
    assert detected == (naming, complete(options, scale=scale), scale)
    jax.tree.map(np.testing.assert_array_equal, (params, stats), (again, again_stats))


def images(count, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(count, height, width, 3)).astype(np.float32)


def nchw(array):
    return torch.tensor(array.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("scale", [1, 2])
def test_sides_that_do_not_fold_are_reflected(scale):
    """As Real-ESRGAN pads before the network, and crops after it."""
    twin = a_twin(f"rrdbnet x{scale}")
    detected, params, stats = imported(state_of(twin), f"rrdbnet x{scale}")
    network, lr, fold = generator(detected.options, scale=scale), images(1, 9, 7), 4 // scale
    sr, _ = jax.jit(network.apply, static_argnames="train")(params, stats, lr, train=False)
    with torch.no_grad():
        padded = torch.nn.functional.pad(nchw(lr), (0, -7 % fold, 0, -9 % fold), mode="reflect")
        expected = twin(padded).numpy().transpose(0, 2, 3, 1)[:, : 9 * scale, : 7 * scale]
    assert sr.shape == expected.shape
    assert np.abs(sr - expected).max() < 1e-4


DISCRIMINATORS = {
    "vgg 128": ("vgg_basicsr", twins.VGGStyle, 128, {"width": 2, "dense": 10}),
    "vgg 96": ("vgg_basicsr", twins.VGGStyle, 96, {"width": 2, "dense": 10}),
    "unet": ("unet_basicsr", twins.UNet, 0, {"width": 4}),
}


@pytest.mark.parametrize("case", DISCRIMINATORS)
def test_discriminators_come_and_go(case):
    """The same logits, and every key and bit back but batch norm's running statistics."""
    naming, build, crop, fields = DISCRIMINATORS[case]
    torch.manual_seed(0)
    twin = build(naming, **fields, **({"crop": crop} if crop else {}))
    randomise(twin)
    state = {key: value.copy() for key, value in state_of(twin).items()}
    detected = torch_weights.detect(state)
    assert (detected.key_map, detected.size) == (naming, crop)
    assert fields.items() <= detected.options.items()
    params, stats = torch_weights.to_params(state, detected)
    hr = images(3, crop or 24, crop or 24)
    network = discriminator(detected.options, crop=crop or 24)
    logits, _, _ = jax.jit(network.apply, static_argnames="train")(params, stats, hr, train=False)
    with torch.no_grad():
        # Batch norm takes the batch's statistics; spectral norm keeps its vectors.
        expected = (twin.train() if crop else twin.eval())(nchw(hr)).numpy()
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())

    written = torch_weights.to_state_dict(
        params, stats, options=detected.options, size=detected.size
    )
    assert written.keys() == state.keys()
    for key, value in written.items():
        if "running" not in key:
            np.testing.assert_array_equal(value, state[key], key)
    twin.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in written.items()})


SMALL = "srvggnet x2"


def small_state():
    return {key: value.clone() for key, value in a_twin(SMALL).state_dict().items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_come_back(suffix, tmp_path):
    """Written as the codebase reads them: Real-ESRGAN looks for `params`."""
    options = {"name": "rrdbnet", **RRDB, "blocks": 1}
    network = generator(options, scale=4)
    params, stats = network.init(jax.random.key(0))
    path = tmp_path / f"model{suffix}"
    torch_weights.export_torch(path, params, stats, options=options, size=4)
    keys = load_file(path) if suffix == ".safetensors" else torch.load(path)["params"]
    assert "body.0.rdb3.conv5.weight" in keys
    config, again, again_stats, naming, assumed, _ = torch_weights.import_torch(path)
    assert assumed == ()
    assert config == {"scale": 4, "generator": complete(options, scale=4)}
    assert (naming, again_stats) == ("rrdbnet_basicsr", {})
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_fields_left_at_their_defaults_need_not_be_given(tmp_path):
    options = {"width": 4, "blocks": 1, "img_range": 255.0}
    params, stats = generator(options, scale=3).init(jax.random.key(0))
    path = tmp_path / "edsr.safetensors"
    torch_weights.export_torch(
        path, params, stats, options=options, size=3, key_map="edsr_original"
    )
    found = torch_weights.import_torch(path).config["generator"]
    assert options.items() <= found.items()
    assert found["rgb_mean"] == (0.0, 0.0, 0.0)
    with pytest.raises(UserError, match=r"cannot encode img_range=1.0"):
        torch_weights.to_state_dict(
            params, stats, options={**options, "img_range": 1.0}, size=3, key_map="edsr_original"
        )


@pytest.mark.parametrize("published", GENERATORS)
def test_published_sizes_are_told_from_shapes(published):
    """Shapes alone, by broadcasting: the whole configuration comes back, defaults and all."""
    options, scale = GENERATORS[published], 4
    naming = KEY_MAPS[torch_weights.choose_key_map(options)]
    leaves = torch_leaves(naming, options, scale)
    state = {leaf.key: np.broadcast_to(np.float32(0), leaf.torch_shape) for leaf in leaves.values()}
    detected = torch_weights.detect(state | naming.extras(options, state))
    assert detected.options == options
    assert detected.size == scale


def test_fields_that_no_file_tells_can_be_given(tmp_path):
    torch.save(a_twin("edsr large").state_dict(), tmp_path / "edsr.pth")
    unknown = ("residual_scale", "rgb_mean", "img_range")
    for options, scale in (({}, 1.0), ({"residual_scale": 0.1}, 0.1)):
        found = torch_weights.import_torch(tmp_path / "edsr.pth", options=options)
        assert found.undetected == tuple(field for field in unknown if field not in options)
        assert found.config["generator"]["residual_scale"] == scale
        assert found.config["generator"]["rgb_mean"] == (0.4488, 0.4371, 0.4040)


def test_the_mean_shift_is_read_from_the_file():
    state = state_of(a_twin("edsr original x2"))
    mean = np.array([0.5, 0.25, 0.125], np.float32)
    for img_range in (1.0, 255.0):
        state |= {"sub_mean.bias": -img_range * mean, "add_mean.bias": img_range * mean}
        options = torch_weights.detect(state).options
        assert options["rgb_mean"] == (0.5, 0.25, 0.125)
        assert options["img_range"] == img_range
    state["sub_mean.weight"] = state["sub_mean.weight"] / 0.2
    with pytest.raises(UserError, match=r"look like edsr_original.* standard deviation"):
        torch_weights.detect(state)


def damage(state, kind):
    if kind == "missing":
        del state["body.2.bias"]
    elif kind == "unknown":
        state["attention.weight"] = np.zeros(3, np.float32)
    else:
        state["body.2.weight"] = state["body.2.weight"][:, :3]
    return state


@pytest.mark.parametrize(
    "kind, named",
    [
        ("missing", r"body\.2\.bias \(missing\)"),
        ("unknown", r"attention\.weight \(unknown\)"),
        ("shape", r"body\.2\.weight \(\[4, 3, 3, 3\], not \[4, 4, 3, 3\]\)"),
    ],
)
def test_every_key_must_fit(kind, named):
    state = damage({key: value.numpy() for key, value in small_state().items()}, kind)
    with pytest.raises(UserError, match=f"look like srvggnet, except for: {named}$"):
        torch_weights.to_params(state, torch_weights.detect(state))


def test_networks_that_no_code_has_are_not_exported():
    options = {"width": 4, "blocks": 1, "skip": "concat", "global_skip": "bicubic"}
    params, stats = generator(options, scale=2).init(jax.random.key(0))
    with pytest.raises(UserError, match=r"edsr_basicsr needs skip=add, global_skip=none"):
        torch_weights.to_state_dict(params, stats, options=options, size=2)
    with pytest.raises(UserError, match="unknown key map of resnet 'srvggnet'; choose one of edsr"):
        torch_weights.to_state_dict(params, stats, options=options, size=2, key_map="srvggnet")
