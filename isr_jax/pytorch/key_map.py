"""What a key map is: how one PyTorch codebase names the layers of an architecture."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

StateDict = Mapping[str, np.ndarray]
Options = Mapping[str, Any]
Detect = Callable[[StateDict], tuple[dict[str, Any], int]]
Keys = Callable[[Options, int], dict[str, str]]
Pixels = Callable[[Options, int], dict[str, tuple[int, int]]]
Extras = Callable[[Options, StateDict], dict[str, np.ndarray]]


class KeyMap(NamedTuple):
    """How one codebase names an architecture's layers.

    Attributes:
        required: keys that every state dict of this codebase has, and none of an earlier key map in
            `key_maps.KEY_MAPS`.
        fixed: the architecture's name, and the fields that the codebase does not vary.
        detect: state dict -> (the other fields, size), from keys and shapes; size is a generator's
            scale, or the side in pixels of a discriminator's crops, 0 for any.
        keys: (options, size) -> {path of our module: prefix of its keys}; a module that is missing
            has the published name, which is its path with dots.
        pixels: (options, size) -> {our leaf: (axis whose channels hold pixels, how many)}. PyTorch
            counts the pixels of each channel there, we the channels of each pixel.
        extras: (options, the parameters by their keys) -> entries that are not parameters, which
            the codebase's own loader expects.
        passed_over: patterns of keys of which the network needs nothing.
        wrapper: the entry of a .pth in which the codebase keeps its state dict; "" for none.
        undetectable: fields that no state dict has; `detect` assumes the published values.
        part: of a GAN, which the architecture is.
    """

    required: tuple[str, ...]
    fixed: Options
    detect: Detect
    keys: Keys = lambda options, size: {}
    pixels: Pixels = lambda options, size: {}
    extras: Extras = lambda options, state: {}
    passed_over: tuple[str, ...] = ()
    wrapper: str = ""
    undetectable: tuple[str, ...] = ()
    part: Literal["generator", "discriminator"] = "generator"


def count(state: StateDict, pattern: str) -> int:
    """Return how many different strings the pattern's group matches among the keys."""
    return len({found[1] for key in state if (found := re.fullmatch(pattern, key))})


def length(state: StateDict, prefix: str) -> int:
    """Return the length of a PyTorch sequence: one more than the largest index after a prefix."""
    found = (re.match(re.escape(prefix) + r"\.(\d+)\.", key) for key in state)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def shuffled(layers: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return the pixels of convolutions before a pixel shuffle, {path: factor}."""
    return {
        f"{name}/{leaf}": (-1, factor**2)
        for name, factor in layers.items()
        for leaf in ("kernel", "bias")
    }


def sub_pixels(factors: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Return the pixels of sub-pixel layers of these factors, in order."""
    return {
        f"SubPixel_{i}/Conv_0/{leaf}": (-1, factor**2)
        for i, factor in enumerate(factors)
        for leaf in ("kernel", "bias")
    }
