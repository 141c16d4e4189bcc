"""Key maps of the discriminators of ESRGAN and Real-ESRGAN in BasicSR."""

from itertools import product
from math import isqrt
from typing import Any

from isr_jax.pytorch.key_map import KeyMap, Options, StateDict, count


def _detect_vgg(state: StateDict) -> tuple[dict[str, Any], int]:
    stages = count(state, r"conv(\d)_0\.weight")
    dense, features = state["linear1.weight"].shape
    side = isqrt(features // state[f"conv{stages - 1}_1.weight"].shape[0])
    width = state["conv0_0.weight"].shape[0]
    return {"width": width, "dense": dense, "dtype": "float32"}, side << stages


def _vgg(options: Options, crop: int) -> dict[str, str]:
    names = {"Dense_0": "linear1", "Dense_1": "linear2"}
    stages = (crop // 3).bit_length() - 1  # to a last side of 3 or 4 pixels
    for i, (stage, half) in enumerate(product(range(stages), range(2))):
        names[f"Conv_{i}"] = f"conv{stage}_{half}"
        names[f"Normaliser_{i}/BatchNorm_0"] = f"bn{stage}_{half}"
    return names


def _detect_unet(state: StateDict) -> tuple[dict[str, Any], int]:
    width = state["conv0.weight"].shape[0]
    return {"width": width, "skip": True, "dtype": "float32"}, 0


def _unet(options: Options, crop: int) -> dict[str, str]:
    names = {f"SpectralConv_{i}": f"conv{i + 1}" for i in range(8)}
    return {"Conv_0": "conv0", **names, "Conv_1": "conv9"}


def _vgg_pixels(options: Options, crop: int) -> dict[str, tuple[int, int]]:
    side = crop
    while side > 4:
        side //= 2
    return {"Dense_0/kernel": (-2, side**2)}


def _unet_pixels(options: Options, crop: int) -> dict[str, tuple[int, int]]:
    # Spectral norm's vector v has an entry for each weight of an output channel.
    return {f"SpectralConv_{i}/v": (0, 16 if i < 3 else 9) for i in range(8)}


KEY_MAPS: dict[str, KeyMap] = {
    # ESRGAN's discriminator in BasicSR
    "vgg_basicsr": KeyMap(
        required=("conv0_0.weight", "linear1.weight"),
        fixed={"name": "vgg"},
        detect=_detect_vgg,
        keys=_vgg,
        pixels=_vgg_pixels,
        wrapper="params",
    ),
    # Real-ESRGAN's discriminator
    "unet_basicsr": KeyMap(
        required=("conv0.weight", "conv1.weight_orig"),
        fixed={"name": "unet"},
        detect=_detect_unet,
        keys=_unet,
        pixels=_unet_pixels,
        wrapper="params",
        undetectable=("skip",),
    ),
}
