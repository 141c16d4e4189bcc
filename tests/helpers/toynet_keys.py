"""The toy architecture's key map: the second of two files, pytorch/NAME.py."""

from math import isqrt
from typing import Any

from isr_jax.pytorch.key_map import KeyMap, Options, StateDict, sub_pixels


def _detect(state: StateDict) -> tuple[dict[str, Any], int]:
    return {"width": state["first.weight"].shape[0]}, isqrt(state["up.weight"].shape[0] // 3)


def _keys(options: Options, scale: int) -> dict[str, str]:
    return {"Conv_0": "first", "Conv_1": "second", "SubPixel_0/Conv_0": "up"}


KEY_MAPS: dict[str, KeyMap] = {
    "toynet": KeyMap(
        required=("first.weight", "second.weight", "up.weight"),
        fixed={"name": "toynet"},
        detect=_detect,
        keys=_keys,
        pixels=lambda options, scale: sub_pixels([scale]),
        wrapper="params",
    )
}
