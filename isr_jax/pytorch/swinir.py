"""Key map of SwinIR, as its authors and BasicSR have it."""

from math import isqrt
from typing import Any

import numpy as np

from isr_jax.models.attention import Size, shift_mask
from isr_jax.models.layers import FACTORS
from isr_jax.pytorch.key_map import KeyMap, Options, StateDict, count, length, shuffled

# The side that the published code was built for, by which it keeps masks.
SIDE = 64
_ATTENTION = "layers.0.residual_group.blocks.0.attn"


def _detect(state: StateDict) -> tuple[dict[str, Any], int]:
    unshuffled = "conv_first.1.weight" in state
    first = state["conv_first.1.weight" if unshuffled else "conv_first.weight"]
    upsampler, up, channels = detect_upsampler(state)
    unshuffle = isqrt(first.shape[1] // channels) if unshuffled else 1
    if first.shape[1] != channels * unshuffle**2:
        raise ValueError(f"{first.shape[1]} channels in, {channels} out")
    groups = range(length(state, "layers"))
    table = "layers.{}.residual_group.blocks.0.attn.relative_position_bias_table"
    window = (isqrt(state[table.format(0)].shape[0]) + 1) // 2
    options = {
        "channels": channels,
        "width": first.shape[0],
        "depths": tuple(length(state, f"layers.{i}.residual_group.blocks") for i in groups),
        "heads": tuple(state[table.format(i)].shape[1] for i in groups),
        "window": window,
        "mlp_ratio": mlp_ratio(state, "layers.0.residual_group.blocks.0.mlp"),
        "qkv_bias": f"{_ATTENTION}.qkv.bias" in state,
        "residual_convs": residual_convs(state),
        "upsampler": upsampler,
        "unshuffle": unshuffle,
        # Not in the state dict: of the published models, those of window 7 restore JPEGs.
        "img_range": 255.0 if window == 7 else 1.0,
    }
    if "conv_before_upsample.0.weight" in state:
        options["features"] = state["conv_before_upsample.0.weight"].shape[0]
    return options, up // unshuffle


def detect_upsampler(state: StateDict) -> tuple[str, int, int]:
    """Return the upsampler of a transformer, its factor, and the channels of the image."""
    if "conv_last.weight" not in state:
        up, width = state["upsample.0.weight"].shape[:2]
        # The image's channels are those of the first convolution, which is not folded here.
        channels = state["conv_first.weight"].shape[1]
        return "pixelshuffledirect", isqrt(up // channels), channels
    channels = state["conv_last.weight"].shape[0]
    if "conv_up1.weight" in state:
        return "nearest+conv", 2 ** count(state, r"conv_up(\d+)\.weight"), channels
    if "upsample.0.weight" not in state:
        return "none", 1, channels
    up, width = state["upsample.0.weight"].shape[:2]
    return "pixelshuffle", isqrt(up // width) ** count(state, r"upsample\.(\d+)\.weight"), channels


def residual_convs(state: StateDict) -> int:
    """Return how many convolutions end a group of a transformer."""
    return 1 if "conv_after_body.weight" in state else 3


def mlp_ratio(state: StateDict, mlp: str) -> float:
    """Return the hidden channels of an MLP to its others."""
    hidden, width = state[f"{mlp}.fc1.weight"].shape[:2]
    return hidden / width


def upsampler_pixels(options: Options, inner: int) -> dict[str, tuple[int, int]]:
    """Return the pixels of an upsampler's sub-pixel layers; `inner` is its factor."""
    if options["upsampler"] == "pixelshuffledirect":
        return shuffled({"upsample.0": inner})
    if options["upsampler"] == "pixelshuffle":
        return shuffled({f"upsample.{2 * i}": f for i, f in enumerate(FACTORS[inner])})
    return {}


def _pixels(options: Options, scale: int) -> dict[str, tuple[int, int]]:
    unshuffle = options["unshuffle"]
    folded = {"conv_first.1/kernel": (-2, unshuffle**2)} if unshuffle > 1 else {}
    return folded | upsampler_pixels(options, scale * unshuffle)


def position_index(size: Size) -> np.ndarray:
    """Return the index [tokens tokens] of pairs of pixels in a table of relative positions."""
    rows, columns = (at.ravel() for at in np.indices(size))
    down = rows[:, None] - rows + size[0] - 1
    right = columns[:, None] - columns + size[1] - 1
    return down * (2 * size[1] - 1) + right


def window_mask(image: Size, size: Size, shift: Size) -> np.ndarray:
    """Return `attention.shift_mask` as an array of NumPy's."""
    return np.asarray(shift_mask(image, size, shift))


def _extras(options: Options, state: StateDict) -> dict[str, np.ndarray]:
    window, extras = options["window"], {}
    side = 126 if window == 7 else SIDE // window * window  # 126: the JPEG models
    index = position_index((window, window))
    mask = window_mask((side, side), (window,) * 2, (window // 2,) * 2)
    for i, depth in enumerate(options["depths"]):
        for j in range(depth):
            block = f"layers.{i}.residual_group.blocks.{j}"
            extras[f"{block}.attn.relative_position_index"] = index
            if j % 2:
                extras[f"{block}.attn_mask"] = mask
    return extras


KEY_MAPS: dict[str, KeyMap] = {
    "swinir": KeyMap(
        required=(f"{_ATTENTION}.relative_position_bias_table", f"{_ATTENTION}.proj.weight"),
        fixed={"name": "swinir"},
        detect=_detect,
        pixels=_pixels,
        extras=_extras,
        passed_over=(r".*\.relative_position_index", r".*\.attn_mask"),
        wrapper="params",
        undetectable=("img_range",),
    ),
}
