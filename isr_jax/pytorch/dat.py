"""Key map of DAT, as its authors have it."""

from typing import Any

import numpy as np

from isr_jax.models.dat import shifts
from isr_jax.pytorch.key_map import KeyMap, Options, StateDict, length
from isr_jax.pytorch.swinir import (
    SIDE,
    detect_upsampler,
    mlp_ratio,
    position_index,
    residual_convs,
    upsampler_pixels,
    window_mask,
)

_FIRST = "layers.0.blocks.0.attn"


def _detect(state: StateDict) -> tuple[dict[str, Any], int]:
    upsampler, scale, channels = detect_upsampler(state)
    depths = tuple(length(state, f"layers.{i}.blocks") for i in range(length(state, "layers")))
    options = {
        "channels": channels,
        "width": state["conv_first.weight"].shape[0],
        "depths": depths,
        "heads": tuple(_heads(state, i, depth) for i, depth in enumerate(depths)),
        "split": tuple(int(side) + 1 for side in state[f"{_FIRST}.attns.0.rpe_biases"][-1]),
        "mlp_ratio": mlp_ratio(state, "layers.0.blocks.0.ffn"),
        "qkv_bias": f"{_FIRST}.qkv.bias" in state,
        "residual_convs": residual_convs(state),
        "upsampler": upsampler,
    }
    if upsampler == "pixelshuffle":
        options["features"] = state["conv_last.weight"].shape[1]
    return options, scale


def _heads(state: StateDict, group: int, depth: int) -> int:
    if depth > 1:
        return state[f"layers.{group}.blocks.1.attn.temperature"].shape[0]
    return 2 * state[f"layers.{group}.blocks.0.attn.attns.0.pos.pos3.2.weight"].shape[0]


def _pixels(options: Options, scale: int) -> dict[str, tuple[int, int]]:
    return upsampler_pixels(options, scale)


def _extras(options: Options, state: StateDict) -> dict[str, np.ndarray]:
    extras, (rows, columns) = {}, options["split"]
    side = -(-SIDE // max(rows, columns)) * max(rows, columns)
    for i, depth in enumerate(options["depths"]):
        for j in range(0, depth, 2):
            block = f"layers.{i}.blocks.{j}.attn"
            for k, size in enumerate(((rows, columns), (columns, rows))):
                places = np.indices((2 * size[0] - 1, 2 * size[1] - 1)).reshape(2, -1).T
                places = (places - np.array(size) + 1).astype(np.float32)
                extras[f"{block}.attns.{k}.rpe_biases"] = places
                extras[f"{block}.attns.{k}.relative_position_index"] = position_index(size)
                if shifts(i, j):
                    shift = (size[0] // 2, size[1] // 2)
                    extras[f"{block}.attn_mask_{k}"] = window_mask((side, side), size, shift)
    return extras


KEY_MAPS: dict[str, KeyMap] = {
    "dat": KeyMap(
        required=(f"{_FIRST}.attns.0.pos.pos_proj.weight", "before_RG.1.weight"),
        fixed={"name": "dat"},
        detect=_detect,
        pixels=_pixels,
        extras=_extras,
        passed_over=(r".*\.(rpe_biases|relative_position_index|attn_mask_[01])",),
        wrapper="params",
        undetectable=("img_range",),
    ),
}
