"""How published PyTorch code names the layers of our networks, and what its key names tell.

One `Naming` for each way, which `torch_weights` uses in both directions. To add one: what marks it,
what it tells of the network, and its name of each of our modules.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np

from isr_jax.errors import UserError
from isr_jax.models.resnets import FACTORS

State = Mapping[str, np.ndarray]
Options = Mapping[str, Any]
Tells = Callable[[State], tuple[dict[str, Any], int]]
Names = Callable[[Options, int], dict[str, str]]


class Naming(NamedTuple):
    """How one codebase names an architecture's layers.

    Attributes:
        marks: keys that every state of this naming has, and none of an earlier one in NAMINGS.
        fixed: the architecture's name, and those of its fields that the codebase does not vary.
        tells: state -> (the other fields, size), from keys and shapes; size is a generator's
            scale, or the side in pixels of a discriminator's crops, 0 for any.
        names: (options, size) -> {path of our module: what its keys begin with}.
        extras: options -> entries that are no parameters; {} for most.
        wrapper: the entry of a .pth in which the codebase keeps its state; "" for the whole.
        assumed: fields that `tells` takes for the published ones, since no state has them.
    """

    marks: tuple[str, ...]
    fixed: Options
    tells: Tells
    names: Names
    extras: Callable[[Options], dict[str, np.ndarray]] = lambda options: {}
    wrapper: str = ""
    assumed: tuple[str, ...] = ()


def _count(state: State, pattern: str) -> int:
    """How many different strings the pattern's group stands for."""
    return len({found[1] for key in state if (found := re.fullmatch(pattern, key))})


def _rrdbnet_tells(head: str, block: str, outer: str) -> Tells:
    """From the head's key, and patterns of a block's first key and of all outer convolutions'."""

    def tells(state: State) -> tuple[dict[str, Any], int]:
        width, channels = state[head].shape[:2]
        first = next(value for key, value in state.items() if re.fullmatch(block, key))
        # Four are not the doublings': the head, the trunk's end and the last two.
        doublings = _count(state, outer) - 4
        options = {
            "width": width,
            "growth": first.shape[0],
            "blocks": _count(state, block),
            "doublings": doublings,
        }
        # Pixels folded into channels lessen the scale.
        return options, 2**doublings // isqrt(channels // 3)

    return tells


def _rrdbnet(outer: Sequence[str], dense: str, blocks: int) -> dict[str, str]:
    """From the outer convolutions in order, and a form for block, dense block and convolution."""
    inner = {
        f"RRDB_{i}/DenseBlock_{j}/Conv_{k}": dense.format(i, j + 1, k + 1)
        for i, j, k in product(range(blocks), range(3), range(5))
    }
    return {f"Conv_{i}": name for i, name in enumerate(outer)} | inner


def _rrdbnet_basicsr(options: Options, scale: int) -> dict[str, str]:
    ups = [f"conv_up{i + 1}" for i in range(options["doublings"])]
    outer = ["conv_first", "conv_body", *ups, "conv_hr", "conv_last"]
    return _rrdbnet(outer, "body.{}.rdb{}.conv{}", options["blocks"])


def _rrdbnet_esrgan(options: Options, scale: int) -> dict[str, str]:
    ups = [f"upconv{i + 1}" for i in range(options["doublings"])]
    outer = ["conv_first", "trunk_conv", *ups, "HRconv", "conv_last"]
    return _rrdbnet(outer, "RRDB_trunk.{}.RDB{}.conv{}", options["blocks"])


def _rrdbnet_first(options: Options, scale: int) -> dict[str, str]:
    # Each doubling is three members of a sequence: the doubling, a convolution, an activation.
    blocks, end = options["blocks"], 3 * options["doublings"]
    after = [*range(3, end + 1, 3), end + 2, end + 4]
    outer = ["model.0", f"model.1.sub.{blocks}", *(f"model.{i}" for i in after)]
    return _rrdbnet(outer, "model.1.sub.{}.RDB{}.conv{}.0", blocks)


def _resnet_tells(head: str, block: str, up: str) -> Tells:
    """From the head's key, and patterns of a block's first key and of the sub-pixel layers'."""

    def tells(state: State) -> tuple[dict[str, Any], int]:
        options = {"width": state[head].shape[0], "blocks": _count(state, block)}
        ups = [value.shape for key, value in state.items() if re.fullmatch(up, key)]
        return options, prod(isqrt(shape[0] // shape[1]) for shape in ups)

    return tells


def _resnet(
    outer: Sequence[str], ups: Sequence[str], block: Mapping[str, str], blocks: int
) -> dict[str, str]:
    """From the outer convolutions and the sub-pixel layers in order, and forms for a block's."""
    names = {f"Conv_{i}": name for i, name in enumerate(outer)}
    names |= {f"SubPixel_{i}/Conv_0": name for i, name in enumerate(ups)}
    for i in range(blocks):
        names |= {f"ResidualBlock_{i}/{ours}": name.format(i) for ours, name in block.items()}
    return names


PLAIN = {
    "convs": 2,
    "skip": "add",
    "long_skip": True,
    "tail": "progressive",
    "global_skip": "none",
}
EDSR = {
    "name": "resnet",
    **PLAIN,
    "activation": "relu",
    "batch_norm": False,
    "kernel": 3,
    "head_activation": False,
    "tail_activation": False,
}
SRRESNET = {
    "name": "resnet",
    **PLAIN,
    "activation": "prelu",
    "residual_scale": 1.0,
    "head_activation": True,
    "tail_activation": True,
    "rgb_mean": (0.0, 0.0, 0.0),
    "img_range": 1.0,
}


def _edsr_tells(head: str, block: str, up: str) -> Tells:
    def tells(state: State) -> tuple[dict[str, Any], int]:
        options, scale = _resnet_tells(head, block, up)(state)
        # Not in the state: of the published models, those of width 256 have 0.1.
        options["residual_scale"] = 0.1 if options["width"] == 256 else 1.0
        return {**options, **_mean_shift(state)}, scale

    return tells


def _mean_shift(state: State) -> dict[str, Any]:
    """DIV2K's mean and 0..255, unless the state has a mean shift that says otherwise."""
    if "sub_mean.bias" not in state:
        return {"rgb_mean": (0.4488, 0.4371, 0.4040), "img_range": 255.0}
    if not np.array_equal(state["sub_mean.weight"][..., 0, 0], np.eye(3)):
        raise ValueError("sub_mean divides by a standard deviation, which no generator here does")
    shift = -state["sub_mean.bias"]
    img_range = 1.0 if 0.0 < np.max(np.abs(shift)) <= 1.0 else 255.0
    mean = (shift / np.float32(img_range)).astype(np.float32)
    # By way of its shortest form, so that 0.4488 is 0.4488.
    return {"rgb_mean": tuple(float(str(value)) for value in mean), "img_range": img_range}


def _mean_shift_extras(options: Options) -> dict[str, np.ndarray]:
    """Two fixed 1x1 convolutions, which take the mean off and put it back.

    Raises:
        UserError: where they would not tell the range.
    """
    shift = np.float32(options["img_range"]) * np.array(options["rgb_mean"], np.float32)
    eye = np.eye(3, dtype=np.float32)[..., None, None]
    state = {
        "sub_mean.weight": eye,
        "sub_mean.bias": -shift,
        "add_mean.weight": eye.copy(),
        "add_mean.bias": shift,
    }
    if _mean_shift(state)["img_range"] != options["img_range"]:
        raise UserError(
            f"a mean shift of {shift.tolist()} does not tell that img_range is "
            f"{options['img_range']}; name the weights by edsr_basicsr"
        )
    return state


def _edsr_basicsr(options: Options, scale: int) -> dict[str, str]:
    outer = ["conv_first", "conv_after_body", "conv_last"]
    ups = [f"upsample.{2 * i}" for i in range(len(FACTORS[scale]))]
    block = {"Conv_0": "body.{}.conv1", "Conv_1": "body.{}.conv2"}
    return _resnet(outer, ups, block, options["blocks"])


def _edsr_original(options: Options, scale: int) -> dict[str, str]:
    outer = ["head.0", f"body.{options['blocks']}", "tail.1"]
    ups = [f"tail.0.{2 * i}" for i in range(len(FACTORS[scale]))]
    block = {"Conv_0": "body.{}.body.0", "Conv_1": "body.{}.body.2"}
    return _resnet(outer, ups, block, options["blocks"])


def _msrresnet(body: str, hr: str) -> Names:
    def names(options: Options, scale: int) -> dict[str, str]:
        ups = [f"upconv{i + 1}" for i in range(len(FACTORS[scale]))]
        block = {"Conv_0": body + ".{}.conv1", "Conv_1": body + ".{}.conv2"}
        return _resnet(["conv_first", hr, "conv_last"], ups, block, options["blocks"])

    return names


def _srresnet_tells(head: str) -> Tells:
    tells_resnet = _resnet_tells(
        head, r"trunk\.(\d+)\.rcb\.0\.weight", r"upsampling\.\d+\.upsample_block\.0\.weight"
    )

    def tells(state: State) -> tuple[dict[str, Any], int]:
        options, scale = tells_resnet(state)
        options["kernel"] = state[head].shape[-1]
        options["batch_norm"] = "trunk.0.rcb.1.running_mean" in state
        return options, scale

    return tells


def _srresnet(conv: str) -> Names:
    def names(options: Options, scale: int) -> dict[str, str]:
        ups = [f"upsampling.{i}.upsample_block" for i in range(len(FACTORS[scale]))]
        block = ["Conv_0", "PReLU_0", "Conv_1"]
        names = {"PReLU_0": f"{conv}1.1"}
        if options["batch_norm"]:
            norms = ["Normaliser_0/BatchNorm_0", "Normaliser_1/BatchNorm_0"]
            block = ["Conv_0", norms[0], "PReLU_0", "Conv_1", norms[1]]
            names[norms[0]] = f"{conv}2.1"
        names |= {f"PReLU_{i + 1}": f"{up}.2" for i, up in enumerate(ups)}
        return names | _resnet(
            [f"{conv}1.0", f"{conv}2.0", f"{conv}3"],
            [f"{up}.0" for up in ups],
            {ours: f"trunk.{{}}.rcb.{i}" for i, ours in enumerate(block)},
            options["blocks"],
        )

    return names


def _srvggnet_tells(state: State) -> tuple[dict[str, Any], int]:
    last = max(int(found[1]) for key in state if (found := re.match(r"body\.(\d+)\.", key)))
    options = {"width": state["body.0.weight"].shape[0], "layers": last // 2 - 1}
    return options, isqrt(state[f"body.{last}.weight"].shape[0] // 3)


def _srvggnet(options: Options, scale: int) -> dict[str, str]:
    layers = range(1 + options["layers"])
    names = {f"Conv_{i}": f"body.{2 * i}" for i in layers}
    names |= {f"PReLU_{i}": f"body.{2 * i + 1}" for i in layers}
    return names | {"SubPixel_0/Conv_0": f"body.{2 * len(layers)}"}


def _vgg_tells(state: State) -> tuple[dict[str, Any], int]:
    stages = _count(state, r"conv(\d)_0\.weight")
    dense, features = state["linear1.weight"].shape
    side = isqrt(features // state[f"conv{stages - 1}_1.weight"].shape[0])
    width = state["conv0_0.weight"].shape[0]
    return {"width": width, "dense": dense, "dtype": "float32"}, side << stages


def _vgg(options: Options, crop: int) -> dict[str, str]:
    names = {"Dense_0": "linear1", "Dense_1": "linear2"}
    stages = (crop // 3).bit_length() - 1  # to a last side of 3 or 4 pixels
    for i, (stage, half) in enumerate(product(range(stages), range(2))):
        names[f"Conv_{i}"] = f"conv{stage}_{half}"
        names[f"Normaliser_{i}/BatchNorm_0"] = f"bn{stage}_{half}"
    return names


def _unet_tells(state: State) -> tuple[dict[str, Any], int]:
    width = state["conv0.weight"].shape[0]
    return {"width": width, "skip": True, "dtype": "float32"}, 0


def _unet(options: Options, crop: int) -> dict[str, str]:
    names = {f"SpectralConv_{i}": f"conv{i + 1}" for i in range(8)}
    return {"Conv_0": "conv0", **names, "Conv_1": "conv9"}


# The first of an architecture is the one to write, where none is asked for.
NAMINGS: dict[str, Naming] = {
    # Real-ESRGAN, and ESRGAN in BasicSR
    "rrdbnet_basicsr": Naming(
        marks=("body.0.rdb1.conv1.weight", "conv_body.weight"),
        fixed={"name": "rrdbnet"},
        tells=_rrdbnet_tells(
            "conv_first.weight", r"body\.(\d+)\.rdb1\.conv1\.weight", r"(conv_\w+)\.weight"
        ),
        names=_rrdbnet_basicsr,
        wrapper="params",
    ),
    # ESRGAN, from 2019 on
    "rrdbnet_esrgan": Naming(
        marks=("RRDB_trunk.0.RDB1.conv1.weight", "trunk_conv.weight"),
        fixed={"name": "rrdbnet"},
        tells=_rrdbnet_tells(
            "conv_first.weight",
            r"RRDB_trunk\.(\d+)\.RDB1\.conv1\.weight",
            r"(conv_first|trunk_conv|upconv\d+|HRconv|conv_last)\.weight",
        ),
        names=_rrdbnet_esrgan,
    ),
    # ESRGAN of 2018, and most models of enthusiasts
    "rrdbnet_first": Naming(
        marks=("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"),
        fixed={"name": "rrdbnet"},
        tells=_rrdbnet_tells(
            "model.0.weight",
            r"model\.1\.sub\.(\d+)\.RDB1\.conv1\.0\.weight",
            r"model\.(\d+|1\.sub\.\d+)\.weight",
        ),
        names=_rrdbnet_first,
    ),
    # EDSR in BasicSR
    "edsr_basicsr": Naming(
        marks=("conv_after_body.weight", "body.0.conv1.weight"),
        fixed=EDSR,
        tells=_edsr_tells(
            "conv_first.weight", r"body\.(\d+)\.conv1\.weight", r"upsample\.\d+\.weight"
        ),
        names=_edsr_basicsr,
        wrapper="params",
        assumed=("residual_scale", "rgb_mean", "img_range"),
    ),
    # EDSR by its authors
    "edsr_original": Naming(
        marks=("head.0.weight", "body.0.body.0.weight"),
        fixed=EDSR,
        tells=_edsr_tells(
            "head.0.weight", r"body\.(\d+)\.body\.0\.weight", r"tail\.0\.\d+\.weight"
        ),
        names=_edsr_original,
        extras=_mean_shift_extras,
        assumed=("residual_scale",),
    ),
    # SRResNet in SRGAN-PyTorch, as it is and as it was until 2022
    "srresnet": Naming(
        marks=("conv1.0.weight", "trunk.0.rcb.0.weight"),
        fixed=SRRESNET,
        tells=_srresnet_tells("conv1.0.weight"),
        names=_srresnet("conv"),
        wrapper="state_dict",
    ),
    "srresnet_first": Naming(
        marks=("conv_block1.0.weight", "trunk.0.rcb.0.weight"),
        fixed=SRRESNET,
        tells=_srresnet_tells("conv_block1.0.weight"),
        names=_srresnet("conv_block"),
        wrapper="state_dict",
    ),
    # MSRResNet in BasicSR, and in MMSR before it
    "msrresnet_basicsr": Naming(
        marks=("conv_hr.weight", "body.0.conv1.weight"),
        fixed={"name": "msrresnet"},
        tells=_resnet_tells(
            "conv_first.weight", r"body\.(\d+)\.conv1\.weight", r"upconv\d\.weight"
        ),
        names=_msrresnet("body", "conv_hr"),
        wrapper="params",
    ),
    "msrresnet_mmsr": Naming(
        marks=("HRconv.weight", "recon_trunk.0.conv1.weight"),
        fixed={"name": "msrresnet"},
        tells=_resnet_tells(
            "conv_first.weight", r"recon_trunk\.(\d+)\.conv1\.weight", r"upconv\d\.weight"
        ),
        names=_msrresnet("recon_trunk", "HRconv"),
    ),
    # SRVGGNetCompact of Real-ESRGAN
    "srvggnet": Naming(
        marks=("body.0.weight", "body.1.weight", "body.2.weight"),
        fixed={"name": "srvggnet"},
        tells=_srvggnet_tells,
        names=_srvggnet,
        wrapper="params",
    ),
    # ESRGAN's discriminator in BasicSR
    "vgg_basicsr": Naming(
        marks=("conv0_0.weight", "linear1.weight"),
        fixed={"name": "vgg"},
        tells=_vgg_tells,
        names=_vgg,
        wrapper="params",
    ),
    # Real-ESRGAN's discriminator
    "unet_basicsr": Naming(
        marks=("conv0.weight", "conv1.weight_orig"),
        fixed={"name": "unet"},
        tells=_unet_tells,
        names=_unet,
        wrapper="params",
        assumed=("skip",),
    ),
}
