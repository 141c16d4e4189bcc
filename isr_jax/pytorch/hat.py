"""Key map of HAT, as its authors have it."""

from math import isqrt
from typing import Any

import numpy as np

from isr_jax.pytorch.key_map import KeyMap, Options, StateDict, length
from isr_jax.pytorch.swinir import detect_upsampler, mlp_ratio, position_index, upsampler_pixels

_GROUP = "layers.0.residual_group"
_OVERLAPPING = f"{_GROUP}.overlap_attn"


def _detect(state: StateDict) -> tuple[dict[str, Any], int]:
    _, scale, channels = detect_upsampler(state)
    groups = range(length(state, "layers"))
    table = "layers.{}.residual_group.overlap_attn.relative_position_bias_table"
    window = (
        isqrt(state[f"{_GROUP}.blocks.0.attn.relative_position_bias_table"].shape[0]) + 1
    ) // 2
    block = f"{_GROUP}.blocks.0.conv_block.cab"
    options = {
        "channels": channels,
        "width": state["conv_first.weight"].shape[0],
        "depths": tuple(length(state, f"layers.{i}.residual_group.blocks") for i in groups),
        "heads": tuple(state[table.format(i)].shape[1] for i in groups),
        "window": window,
        "overlapping": isqrt(state[table.format(0)].shape[0]) - window + 1,
        "compressed": state[f"{block}.0.weight"].shape[0],
        "squeezed": state[f"{block}.3.attention.1.weight"].shape[0],
        "mlp_ratio": mlp_ratio(state, f"{_GROUP}.blocks.0.mlp"),
        "qkv_bias": f"{_OVERLAPPING}.qkv.bias" in state,
        "residual_convs": int("conv_after_body.weight" in state),
        "features": state["conv_last.weight"].shape[1],
    }
    return options, scale


def _pixels(options: Options, scale: int) -> dict[str, tuple[int, int]]:
    return upsampler_pixels({"upsampler": "pixelshuffle"}, scale)


def _extras(options: Options, state: StateDict) -> dict[str, np.ndarray]:
    window, larger = options["window"], options["overlapping"]
    rows, columns = (at.ravel() for at in np.indices((window, window)))
    below, right = (at.ravel() for at in np.indices((larger, larger)))
    first = window - larger + 1
    down, across = below - rows[:, None] + first, right - columns[:, None] + first
    return {
        "relative_position_index_SA": position_index((window, window)),
        "relative_position_index_OCA": down * (window + larger - 1) + across,
    }


KEY_MAPS: dict[str, KeyMap] = {
    "hat": KeyMap(
        required=(f"{_OVERLAPPING}.relative_position_bias_table", "conv_first.weight"),
        fixed={"name": "hat"},
        detect=_detect,
        pixels=_pixels,
        extras=_extras,
        passed_over=(r"relative_position_index_(SA|OCA)", r".*\.attn_mask"),
        wrapper="params_ema",
        undetectable=("conv_scale", "img_range"),
    ),
}
