"""Key map of ESRGAN's discriminator, as BasicSR has it."""

from itertools import product
from math import isqrt
from typing import Any

from isr_jax.pytorch.key_map import KeyMap, Options, StateDict, count


def _detect(state: StateDict) -> tuple[dict[str, Any], int]:
    stages = count(state, r"conv(\d)_0\.weight")
    dense, features = state["linear1.weight"].shape
    side = isqrt(features // state[f"conv{stages - 1}_1.weight"].shape[0])
    return {"width": state["conv0_0.weight"].shape[0], "dense": dense}, side << stages


def _keys(options: Options, crop: int) -> dict[str, str]:
    names = {"Dense_0": "linear1", "Dense_1": "linear2"}
    stages = (crop // 3).bit_length() - 1  # to a last side of 3 or 4 pixels
    for i, (stage, half) in enumerate(product(range(stages), range(2))):
        names[f"Conv_{i}"] = f"conv{stage}_{half}"
        names[f"Normaliser_{i}/BatchNorm_0"] = f"bn{stage}_{half}"
    return names


def _pixels(options: Options, crop: int) -> dict[str, tuple[int, int]]:
    side = crop
    while side > 4:
        side //= 2
    return {"Dense_0/kernel": (-2, side**2)}


KEY_MAPS: dict[str, KeyMap] = {
    "vgg_basicsr": KeyMap(
        required=("conv0_0.weight", "linear1.weight"),
        fixed={"name": "vgg"},
        part="discriminator",
        detect=_detect,
        keys=_keys,
        pixels=_pixels,
        wrapper="params",
    ),
}
