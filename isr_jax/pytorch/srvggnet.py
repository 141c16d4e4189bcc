"""Key map of SRVGGNetCompact, as Real-ESRGAN has it."""

import re
from math import isqrt
from typing import Any

from isr_jax.pytorch.key_map import KeyMap, Options, StateDict, sub_pixels


def _detect(state: StateDict) -> tuple[dict[str, Any], int]:
    last = max(int(found[1]) for key in state if (found := re.match(r"body\.(\d+)\.", key)))
    channels = state["body.0.weight"].shape[1]
    options = {
        "channels": channels,
        "width": state["body.0.weight"].shape[0],
        "layers": last // 2 - 1,
        "activation": "prelu" if "body.1.weight" in state else "relu",
    }
    return options, isqrt(state[f"body.{last}.weight"].shape[0] // channels)


def _keys(options: Options, scale: int) -> dict[str, str]:
    layers = range(1 + options["layers"])
    names = {f"Conv_{i}": f"body.{2 * i}" for i in layers}
    names |= {f"PReLU_{i}": f"body.{2 * i + 1}" for i in layers}
    return names | {"SubPixel_0/Conv_0": f"body.{2 * len(layers)}"}


def _pixels(options: Options, scale: int) -> dict[str, tuple[int, int]]:
    return sub_pixels([scale])


KEY_MAPS: dict[str, KeyMap] = {
    # SRVGGNetCompact of Real-ESRGAN
    "srvggnet": KeyMap(
        required=("body.0.weight", "body.2.weight"),
        fixed={"name": "srvggnet"},
        detect=_detect,
        keys=_keys,
        pixels=_pixels,
        wrapper="params",
    ),
}
