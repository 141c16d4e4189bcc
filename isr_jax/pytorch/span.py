"""Key maps of SPAN: with the parts of its convolutions, and merged for deployment."""

from math import isqrt
from typing import Any

import numpy as np

from isr_jax.models.span import BLOCKS
from isr_jax.pytorch.key_map import Detect, KeyMap, Options, StateDict, shuffled

_CONVS = (
    "conv_1",
    "conv_2",
    *(f"block_{i}.c{j}_r" for i in range(1, BLOCKS + 1) for j in (1, 2, 3)),
)


def _detect(first: str) -> Detect:
    def detect(state: StateDict) -> tuple[dict[str, Any], int]:
        width, channels = state[first].shape[:2]
        options = {"channels": channels, "width": width, "norm": "no_norm" not in state}
        return options, isqrt(state["upsampler.0.weight"].shape[0] // channels)

    return detect


def _pixels(options: Options, scale: int) -> dict[str, tuple[int, int]]:
    return shuffled({"upsampler.0": scale})


def _no_norm(options: Options, state: StateDict) -> dict[str, np.ndarray]:
    return {} if options["norm"] else {"no_norm": np.zeros(1, np.float32)}


def _merged(options: Options, state: StateDict) -> dict[str, np.ndarray]:
    """Return the merged convolutions, which the published code keeps beside their parts."""
    extras = _no_norm(options, state)
    for name in _CONVS if state else ():
        (first, a), (middle, b), (last, c), (skip, d) = (
            (state[f"{name}.{part}.weight"].astype(np.float64), state[f"{name}.{part}.bias"])
            for part in ("conv.0", "conv.1", "conv.2", "sk")
        )
        first, last = first[..., 0, 0], last[..., 0, 0]
        kernel = np.einsum("ic,oihw,do->dchw", first, middle, last, optimize=True)
        kernel[:, :, 1, 1] += skip[..., 0, 0]
        bias = last @ (middle.sum((2, 3)) @ a + b) + c + d
        extras[f"{name}.eval_conv.weight"] = kernel.astype(np.float32)
        extras[f"{name}.eval_conv.bias"] = bias.astype(np.float32)
    return extras


KEY_MAPS: dict[str, KeyMap] = {
    "span": KeyMap(
        required=("block_1.c1_r.sk.weight", "conv_cat.weight", "upsampler.0.weight"),
        fixed={"name": "span", "merged": False},
        detect=_detect("conv_1.sk.weight"),
        pixels=_pixels,
        extras=_merged,
        # A stored merged convolution can be older than its parts.
        passed_over=(r".*\.eval_conv\.(weight|bias)", "no_norm"),
        wrapper="params",
        undetectable=("rgb_mean", "img_range"),
    ),
    # As it is submitted to challenges
    "span_merged": KeyMap(
        required=("block_1.c1_r.eval_conv.weight", "conv_cat.weight", "upsampler.0.weight"),
        fixed={"name": "span", "merged": True},
        detect=_detect("conv_1.eval_conv.weight"),
        pixels=_pixels,
        extras=_no_norm,
        passed_over=("no_norm",),
        undetectable=("rgb_mean", "img_range"),
    ),
}
