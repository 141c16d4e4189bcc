"""Key maps of RRDBNet: Real-ESRGAN and BasicSR, ESRGAN from 2019 on, ESRGAN of 2018."""

import re
from collections.abc import Sequence
from itertools import product
from math import isqrt
from typing import Any

from isr_jax.pytorch.key_map import Detect, KeyMap, Options, StateDict, count


def _detect(head: str, block: str, outer: str) -> Detect:
    """Return `KeyMap.detect`.

    Args:
        head: key of the first convolution.
        block: pattern of a block's first key.
        outer: pattern of the keys of all convolutions outside the blocks.
    """

    def detect(state: StateDict) -> tuple[dict[str, Any], int]:
        width, folded = state[head].shape[:2]
        first = next(value for key, value in state.items() if re.fullmatch(block, key))
        last = max((key for key in state if re.fullmatch(outer, key)), key=_place)
        channels = state[last].shape[0]
        # Four are not upsampling stages: the head, the trunk's end and the last two.
        doublings = count(state, outer) - 4
        fold = isqrt(folded // channels)
        if not 0 <= doublings < 32 or fold**2 * channels != folded:
            raise ValueError(f"{folded} channels in, {channels} out, {doublings} doublings")
        options = {
            "channels": channels,
            "width": width,
            "growth": first.shape[0],
            "blocks": count(state, block),
            "doublings": doublings,
            "plus": any("conv1x1" in key for key in state),
        }
        # Pixels folded into channels lessen the scale.
        return options, 2**doublings // fold

    return detect


def _place(key: str) -> tuple[bool, int]:
    """Return a sort key by which an outer convolution is the largest if it is the last one."""
    number = re.fullmatch(r"model\.(\d+)\.weight", key)
    return "last" in key, int(number[1]) if number else 0


def _rrdbnet(outer: Sequence[str], dense: str, blocks: int) -> dict[str, str]:
    """Return keys from those of the outer convolutions in order, and a form for the inner ones."""
    inner = {
        f"RRDB_{i}/DenseBlock_{j}/Conv_{k}": dense.format(i, j + 1, k + 1)
        for i, j, k in product(range(blocks), range(3), range(5))
    }
    for i, j in product(range(blocks), range(3)):
        plain = dense.format(i, j + 1, "1x1").removesuffix(".0")
        inner[f"RRDB_{i}/DenseBlock_{j}/Conv_1x1"] = plain
    return {f"Conv_{i}": name for i, name in enumerate(outer)} | inner


def _rrdbnet_basicsr(options: Options, scale: int) -> dict[str, str]:
    ups = [f"conv_up{i + 1}" for i in range(options["doublings"])]
    outer = ["conv_first", "conv_body", *ups, "conv_hr", "conv_last"]
    return _rrdbnet(outer, "body.{}.rdb{}.conv{}", options["blocks"])


def _rrdbnet_esrgan(options: Options, scale: int) -> dict[str, str]:
    ups = [f"upconv{i + 1}" for i in range(options["doublings"])]
    outer = ["conv_first", "trunk_conv", *ups, "HRconv", "conv_last"]
    return _rrdbnet(outer, "RRDB_trunk.{}.RDB{}.conv{}", options["blocks"])


def _rrdbnet_first(options: Options, scale: int) -> dict[str, str]:
    # An upsampling stage is three members of a sequence: nearest, a convolution, an activation.
    blocks, end = options["blocks"], 3 * options["doublings"]
    after = [*range(3, end + 1, 3), end + 2, end + 4]
    outer = ["model.0", f"model.1.sub.{blocks}", *(f"model.{i}" for i in after)]
    return _rrdbnet(outer, "model.1.sub.{}.RDB{}.conv{}.0", blocks)


def _pixels(options: Options, scale: int) -> dict[str, tuple[int, int]]:
    # At 1x and 2x the input is folded before the first convolution.
    return {"Conv_0/kernel": (-2, (2 ** options["doublings"] // scale) ** 2)}


KEY_MAPS: dict[str, KeyMap] = {
    # Real-ESRGAN, and ESRGAN in BasicSR
    "rrdbnet_basicsr": KeyMap(
        required=("body.0.rdb1.conv1.weight", "conv_body.weight"),
        fixed={"name": "rrdbnet"},
        detect=_detect(
            "conv_first.weight",
            r"body\.(\d+)\.rdb1\.conv1\.weight",
            r"(conv_(?:first|body|up\d+|hr|last))\.weight",
        ),
        keys=_rrdbnet_basicsr,
        pixels=_pixels,
        wrapper="params",
    ),
    # ESRGAN, from 2019 on
    "rrdbnet_esrgan": KeyMap(
        required=("RRDB_trunk.0.RDB1.conv1.weight", "trunk_conv.weight"),
        fixed={"name": "rrdbnet"},
        detect=_detect(
            "conv_first.weight",
            r"RRDB_trunk\.(\d+)\.RDB1\.conv1\.weight",
            r"(conv_first|trunk_conv|upconv\d+|HRconv|conv_last)\.weight",
        ),
        keys=_rrdbnet_esrgan,
        pixels=_pixels,
    ),
    # ESRGAN of 2018, and most models of enthusiasts
    "rrdbnet_first": KeyMap(
        required=("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"),
        fixed={"name": "rrdbnet"},
        detect=_detect(
            "model.0.weight",
            r"model\.1\.sub\.(\d+)\.RDB1\.conv1\.0\.weight",
            r"model\.(\d+|1\.sub\.\d+)\.weight",
        ),
        keys=_rrdbnet_first,
        pixels=_pixels,
    ),
}
