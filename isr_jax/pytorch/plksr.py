"""Key maps of PLKSR and RealPLKSR."""

from math import isqrt
from typing import Any

import numpy as np

from isr_jax.models.plksr import MIXERS, initial_places
from isr_jax.pytorch.key_map import KeyMap, Options, StateDict, length, shuffled


def _detect(state: StateDict) -> tuple[dict[str, Any], int]:
    last = length(state, "feats") - 1
    large = state["feats.1.lk.conv.weight"]
    width, channels = state["feats.0.weight"].shape[:2]
    options = {
        "channels": channels,
        "width": width,
        "kernel": large.shape[2],
        "partial": large.shape[0],
        "attention": "feats.1.attn.f.0.weight" in state,
    }
    scale = isqrt(state[f"feats.{last}.weight"].shape[0] // channels)
    if "feats.1.channel_mixer.0.weight" in state:
        options |= {
            "blocks": last - 2,
            "norm": "layer" if "feats.1.layer_norm.weight" in state else "group",
            "upsampler": "dysample" if "to_img.offset.weight" in state else "pixelshuffle",
        }
        return options, scale
    kernels = tuple(state[f"feats.1.channe_mixer.{i}.weight"].shape[2] for i in (0, 2))
    mixer = next(name for name, known in MIXERS.items() if known == kernels)
    return {**options, "blocks": last - 1, "mixer": mixer}, scale


def _pixels(options: Options, scale: int) -> dict[str, tuple[int, int]]:
    if options.get("upsampler") == "dysample":
        return {}
    last = options["blocks"] + (2 if options["name"] == "realplksr" else 1)
    return shuffled({f"feats.{last}": scale})


def _places(options: Options, state: StateDict) -> dict[str, np.ndarray]:
    if options["upsampler"] != "dysample" or not state:
        return {}
    channels = options["channels"]
    scale = isqrt(state[f"feats.{options['blocks'] + 2}.weight"].shape[0] // channels)
    return {"to_img.init_pos": initial_places(scale, channels).reshape(1, -1, 1, 1)}


KEY_MAPS: dict[str, KeyMap] = {
    "plksr": KeyMap(
        required=("feats.1.channe_mixer.0.weight", "feats.1.lk.conv.weight"),
        fixed={"name": "plksr"},
        detect=_detect,
        pixels=_pixels,
        wrapper="params",
        undetectable=("identity",),
    ),
    "realplksr": KeyMap(
        required=("feats.1.channel_mixer.0.weight", "feats.1.lk.conv.weight"),
        fixed={"name": "realplksr"},
        detect=_detect,
        pixels=_pixels,
        extras=_places,
        passed_over=(r"to_img\.init_pos",),
        wrapper="params",
        undetectable=("norm_groups",),
    ),
}
