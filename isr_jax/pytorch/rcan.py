"""Key map of RCAN, as its authors and BasicSR's successors have it."""

from math import isqrt
from typing import Any

import numpy as np

from isr_jax.models.layers import DIV2K_MEAN, FACTORS
from isr_jax.pytorch.key_map import KeyMap, Options, StateDict, count, length, shuffled
from isr_jax.pytorch.resnet import mean_shift, mean_shift_extras


def _detect(state: StateDict) -> tuple[dict[str, Any], int]:
    head = state["head.1.weight" if "head.1.weight" in state else "head.0.weight"]
    channels = state["tail.1.weight"].shape[0]
    up, width = state["tail.0.0.weight"].shape[:2]
    inner = isqrt(up // width) ** count(state, r"tail\.0\.(\d+)\.weight")
    unshuffle = isqrt(head.shape[1] // channels)
    if "sub_mean.weight" in state:
        shift = mean_shift(state)
        if shift["img_range"] != 255.0 or not np.allclose(shift["rgb_mean"], DIV2K_MEAN, atol=1e-4):
            raise ValueError(
                "sub_mean is not DIV2K's mean in 0..255, the only one that the RCAN here has"
            )
    options = {
        "channels": channels,
        "width": head.shape[0],
        "groups": length(state, "body") - 1,
        "blocks": length(state, "body.0.body") - 1,
        "squeezed": state["body.0.body.0.body.3.conv_du.0.weight"].shape[0],
        "kernel": head.shape[2],
        "norm": "sub_mean.weight" in state,
        "unshuffle": unshuffle,
    }
    return options, inner // unshuffle


def _pixels(options: Options, scale: int) -> dict[str, tuple[int, int]]:
    unshuffle = options["unshuffle"]
    folded = {"head.1/kernel": (-2, unshuffle**2)} if unshuffle > 1 else {}
    factors = FACTORS[scale * unshuffle]
    return folded | shuffled({f"tail.0.{2 * i}": factor for i, factor in enumerate(factors)})


def _extras(options: Options, state: StateDict) -> dict[str, np.ndarray]:
    if not options["norm"]:
        return {}
    fields = {"channels": 3, "img_range": 255.0, "rgb_mean": DIV2K_MEAN}
    return mean_shift_extras(fields, state)


KEY_MAPS: dict[str, KeyMap] = {
    "rcan": KeyMap(
        required=("body.0.body.0.body.3.conv_du.0.weight", "tail.1.weight"),
        fixed={"name": "rcan"},
        detect=_detect,
        pixels=_pixels,
        extras=_extras,
        passed_over=(r"(sub|add)_mean\.(weight|bias)",),
    ),
}
