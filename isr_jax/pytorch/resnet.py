"""Key maps of the residual networks: EDSR, SRResNet, and MSRResNet, each in two codebases."""

import re
from collections.abc import Mapping, Sequence
from math import isqrt, prod
from typing import Any

import numpy as np

from isr_jax.errors import UserError
from isr_jax.models.layers import DIV2K_MEAN, FACTORS
from isr_jax.pytorch.key_map import Detect, KeyMap, Keys, Options, StateDict, count, sub_pixels


def _detect_resnet(head: str, block: str, up: str) -> Detect:
    """Return `KeyMap.detect`.

    Args:
        head: key of the first convolution.
        block: pattern of a block's first key.
        up: pattern of the keys of the sub-pixel layers.
    """

    def detect(state: StateDict) -> tuple[dict[str, Any], int]:
        width, channels = state[head].shape[:2]
        options = {"channels": channels, "width": width, "blocks": count(state, block)}
        ups = [value.shape for key, value in state.items() if re.fullmatch(up, key)]
        return options, prod(isqrt(shape[0] // shape[1]) for shape in ups)

    return detect


def _resnet(
    outer: Sequence[str], ups: Sequence[str], block: Mapping[str, str], blocks: int
) -> dict[str, str]:
    """Return keys from those of the outer layers in order, and forms for a block's."""
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


def _detect_edsr(head: str, block: str, up: str) -> Detect:
    def detect(state: StateDict) -> tuple[dict[str, Any], int]:
        options, scale = _detect_resnet(head, block, up)(state)
        # Not in the state dict: of the published models, those of width 256 have 0.1.
        options["residual_scale"] = 0.1 if options["width"] == 256 else 1.0
        return {**options, **mean_shift(state)}, scale

    return detect


def mean_shift(state: StateDict) -> dict[str, Any]:
    """Return DIV2K's mean and 0..255, or those of a mean shift in the state dict."""
    if "sub_mean.bias" not in state:
        return {"rgb_mean": DIV2K_MEAN, "img_range": 255.0}
    if not np.array_equal(state["sub_mean.weight"][..., 0, 0], np.eye(3)):
        raise ValueError("sub_mean divides by a standard deviation, which no generator here does")
    shift = -state["sub_mean.bias"]
    img_range = 1.0 if 0.0 < np.max(np.abs(shift)) <= 1.0 else 255.0
    mean = (shift / np.float32(img_range)).astype(np.float32)
    # By way of its shortest form, so that 0.4488 is 0.4488.
    return {"rgb_mean": tuple(float(str(value)) for value in mean), "img_range": img_range}


def mean_shift_extras(options: Options, state: StateDict) -> dict[str, np.ndarray]:
    """Return two fixed 1x1 convolutions, which subtract the mean of RGB and add it back.

    Raises:
        UserError: the range could not be detected from them.
    """
    shift = np.float32(options["img_range"]) * np.array(options["rgb_mean"], np.float32)
    eye = np.eye(3, dtype=np.float32)[..., None, None]
    shifts = {
        "sub_mean.weight": eye,
        "sub_mean.bias": -shift,
        "add_mean.weight": eye.copy(),
        "add_mean.bias": shift,
    }
    if options["channels"] != 3:
        shifts = {}
    if mean_shift(shifts)["img_range"] != options["img_range"]:
        raise UserError(
            f"a mean shift of {shift.tolist()} cannot encode img_range="
            f"{options['img_range']}; use --naming edsr_basicsr"
        )
    return shifts


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


def _msrresnet(body: str, hr: str) -> Keys:
    def names(options: Options, scale: int) -> dict[str, str]:
        ups = [f"upconv{i + 1}" for i in range(len(FACTORS[scale]))]
        block = {"Conv_0": body + ".{}.conv1", "Conv_1": body + ".{}.conv2"}
        return _resnet(["conv_first", hr, "conv_last"], ups, block, options["blocks"])

    return names


def _detect_srresnet(head: str) -> Detect:
    detect_resnet = _detect_resnet(
        head, r"trunk\.(\d+)\.rcb\.0\.weight", r"upsampling\.\d+\.upsample_block\.0\.weight"
    )

    def detect(state: StateDict) -> tuple[dict[str, Any], int]:
        options, scale = detect_resnet(state)
        options["kernel"] = state[head].shape[-1]
        options["batch_norm"] = "trunk.0.rcb.1.running_mean" in state
        return options, scale

    return detect


def _srresnet(conv: str) -> Keys:
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


def _pixels(options: Options, scale: int) -> dict[str, tuple[int, int]]:
    return sub_pixels(FACTORS[scale])


KEY_MAPS: dict[str, KeyMap] = {
    # EDSR in BasicSR
    "edsr_basicsr": KeyMap(
        required=("conv_after_body.weight", "body.0.conv1.weight"),
        fixed=EDSR,
        detect=_detect_edsr(
            "conv_first.weight", r"body\.(\d+)\.conv1\.weight", r"upsample\.\d+\.weight"
        ),
        keys=_edsr_basicsr,
        pixels=_pixels,
        wrapper="params",
        undetectable=("residual_scale", "rgb_mean", "img_range"),
    ),
    # EDSR by its authors
    "edsr_original": KeyMap(
        required=("head.0.weight", "body.0.body.0.weight"),
        fixed=EDSR,
        detect=_detect_edsr(
            "head.0.weight", r"body\.(\d+)\.body\.0\.weight", r"tail\.0\.\d+\.weight"
        ),
        keys=_edsr_original,
        pixels=_pixels,
        extras=mean_shift_extras,
        passed_over=(r"(sub|add)_mean\.(weight|bias)",),
        undetectable=("residual_scale",),
    ),
    # SRResNet in SRGAN-PyTorch, as it is and as it was until 2022
    "srresnet": KeyMap(
        required=("conv1.0.weight", "trunk.0.rcb.0.weight"),
        fixed=SRRESNET,
        detect=_detect_srresnet("conv1.0.weight"),
        keys=_srresnet("conv"),
        pixels=_pixels,
        wrapper="state_dict",
    ),
    "srresnet_first": KeyMap(
        required=("conv_block1.0.weight", "trunk.0.rcb.0.weight"),
        fixed=SRRESNET,
        detect=_detect_srresnet("conv_block1.0.weight"),
        keys=_srresnet("conv_block"),
        pixels=_pixels,
        wrapper="state_dict",
    ),
    # MSRResNet in BasicSR, and in MMSR before it
    "msrresnet_basicsr": KeyMap(
        required=("conv_hr.weight", "body.0.conv1.weight"),
        fixed={"name": "msrresnet"},
        detect=_detect_resnet(
            "conv_first.weight", r"body\.(\d+)\.conv1\.weight", r"upconv\d\.weight"
        ),
        keys=_msrresnet("body", "conv_hr"),
        pixels=_pixels,
        wrapper="params",
    ),
    "msrresnet_mmsr": KeyMap(
        required=("HRconv.weight", "recon_trunk.0.conv1.weight"),
        fixed={"name": "msrresnet"},
        detect=_detect_resnet(
            "conv_first.weight", r"recon_trunk\.(\d+)\.conv1\.weight", r"upconv\d\.weight"
        ),
        keys=_msrresnet("recon_trunk", "HRconv"),
        pixels=_pixels,
    ),
}
