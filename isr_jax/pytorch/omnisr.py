"""Key map of OmniSR, as its authors have it."""

from math import isqrt
from typing import Any

from isr_jax.pytorch.key_map import KeyMap, Options, StateDict, length, shuffled

_BLOCK = "residual_layer.0.residual_layer.0.layer"


def _detect(state: StateDict) -> tuple[dict[str, Any], int]:
    width, channels = state["input.weight"].shape[:2]
    table = state.get(f"{_BLOCK}.2.fn.rel_pos_bias.weight")
    options = {
        "channels": channels,
        "width": width,
        "groups": length(state, "residual_layer"),
        "blocks": length(state, "residual_layer.0.residual_layer") - 1,
        # Without biases of positions nothing tells the window; all published ones have 8.
        "window": 8 if table is None else (isqrt(table.shape[0]) + 1) // 2,
        "position_bias": table is not None,
        "bias": "input.bias" in state,
    }
    return options, isqrt(state["up.0.weight"].shape[0] // channels)


def _pixels(options: Options, scale: int) -> dict[str, tuple[int, int]]:
    return shuffled({"up.0": scale})


KEY_MAPS: dict[str, KeyMap] = {
    "omnisr": KeyMap(
        required=(f"{_BLOCK}.0.fn.0.weight", "input.weight", "up.0.weight"),
        fixed={"name": "omnisr"},
        detect=_detect,
        pixels=_pixels,
    ),
}
