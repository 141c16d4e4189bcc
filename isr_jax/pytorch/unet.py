"""Key map of Real-ESRGAN's discriminator, as BasicSR has it."""

from typing import Any

from isr_jax.pytorch.key_map import KeyMap, Options, StateDict


def _detect(state: StateDict) -> tuple[dict[str, Any], int]:
    return {"width": state["conv0.weight"].shape[0], "skip": True}, 0


def _keys(options: Options, crop: int) -> dict[str, str]:
    names = {f"SpectralConv_{i}": f"conv{i + 1}" for i in range(8)}
    return {"Conv_0": "conv0", **names, "Conv_1": "conv9"}


def _pixels(options: Options, crop: int) -> dict[str, tuple[int, int]]:
    # Spectral norm's vector v has an entry for each weight of an output channel.
    return {f"SpectralConv_{i}/v": (0, 16 if i < 3 else 9) for i in range(8)}


KEY_MAPS: dict[str, KeyMap] = {
    "unet_basicsr": KeyMap(
        required=("conv0.weight", "conv1.weight_orig"),
        fixed={"name": "unet"},
        part="discriminator",
        detect=_detect,
        keys=_keys,
        pixels=_pixels,
        wrapper="params",
        undetectable=("skip",),
    ),
}
