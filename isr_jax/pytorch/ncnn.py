"""ncnn's models, a .param and a .bin, as the state dicts of PyTorch that they were converted from.

A .param lists layers in the order in which they are computed, and a .bin holds their weights in the
same order. The names of layers are the converter's, so PyTorch's are given by that order.
"""

from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isr_jax.errors import UserError
from isr_jax.models.span import BLOCKS

MAGIC = b"7767517"
_FLOAT16 = 0x01306B47  # before weights of 2 bytes; before those of 4 it is 0
# The kinds of layers of each network, besides those that all have.
_KINDS = {
    "rrdbnet": {"BinaryOp", "Concat", "Eltwise", "Interp", "ReLU", "Reorg"},
    "srvggnet": {"BinaryOp", "Interp", "PReLU", "PixelShuffle", "ReLU"},
    "span": {"BinaryOp", "Concat", "MemoryData", "PixelShuffle", "Sigmoid", "Swish"},
}
_CONVERT = "use the .pth or .safetensors that it was converted from"


class Layer(NamedTuple):
    """A layer of a .param.

    Attributes:
        kind: its type, as "Convolution".
        options: its numbered options.
        arrays: its weights and its bias, with PyTorch's axes; none for most kinds.
    """

    kind: str
    options: dict[int, Any]
    arrays: tuple[np.ndarray, ...] = ()


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Read an ncnn model of an RRDBNet, an SRVGGNetCompact or a SPAN, in float32 or float16.

    Args:
        path: its .param or its .bin; the other is the file of the same name beside it.

    Returns:
        The state dict, and the fields of the network that it does not hold; None if the file is no
        ncnn model.

    Raises:
        UserError: the other file is missing, one is damaged, or the network is another.
    """
    if not path.is_file():
        return None
    structure, weights = path.with_suffix(".param"), path.with_suffix(".bin")
    if _head(path) == MAGIC:
        structure = path
    elif path != weights or _head(structure) != MAGIC:
        return None
    if not weights.is_file():
        raise UserError(f"{structure} is the structure of an ncnn model; {weights} is missing")
    try:
        layers = list(_layers(structure))
        kinds = {layer.kind for layer in layers} - {"Input", "Split", "Convolution"}
        name = next((name for name in _KINDS if kinds <= _KINDS[name]), None)
        if name is None:
            raise _unknown(path)
        layers = list(_with_arrays(layers, weights.read_bytes()))
        if name == "span":
            return _span(path, layers)
        return (_rrdbnet if name == "rrdbnet" else _srvggnet)(path, layers), {}
    except UserError:
        raise
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{structure} and {weights.name} do not fit each other, or are damaged; copy both again"
        ) from error


def _head(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with open(path, "rb") as file:
        return file.read(16).strip()[: len(MAGIC)]


def _layers(structure: Path) -> Iterator[Layer]:
    """Yield the layers of a .param: kind, name, numbers of inputs and outputs, these, options."""
    for line in structure.read_text().splitlines()[2:]:
        if words := line.split():
            options = words[4 + int(words[2]) + int(words[3]) :]
            yield Layer(words[0], dict(map(_option, options)))


def _option(text: str) -> tuple[int, Any]:
    """Return the number of an option and its value, or its values if it is an array."""
    number, _, value = text.partition("=")
    values = [float(x) if any(c in x for c in ".e") else int(x) for x in value.split(",")]
    if int(number) <= -23300:  # arrays begin with their length
        return -23300 - int(number), values[1:]
    return int(number), values if len(values) > 1 else values[0]


def _with_arrays(layers: Iterable[Layer], content: bytes) -> Iterator[Layer]:
    """Yield layers with their arrays; raise a ValueError where a .bin has too few or too many."""
    at = 0

    def take(size: int, *, flagged: bool = False) -> np.ndarray:
        nonlocal at
        dtype = np.dtype("<f4")
        if flagged:
            flag = int.from_bytes(content[at : at + 4], "little")
            at += 4
            if flag not in (0, _FLOAT16):
                raise UserError(f"this ncnn model has quantized weights; {_CONVERT}")
            dtype = np.dtype("<f2") if flag else dtype
        array = np.frombuffer(content, dtype, size, at).astype(np.float32)
        at += -(-size * dtype.itemsize // 4) * 4  # aligned to 4 bytes
        return array

    for layer in layers:
        options, arrays = layer.options, []
        if layer.kind == "Convolution":
            width, kernel = options[0], (options.get(11, options[1]), options[1])
            arrays = [take(options[6], flagged=True).reshape(width, -1, *kernel)]
            arrays += [take(width)] if options.get(5) else []
        elif layer.kind == "PReLU":
            arrays = [take(options[0])]
        elif layer.kind == "MemoryData":
            arrays = [take(options[0] * max(1, options.get(1, 1)) * max(1, options.get(2, 1)))]
        yield layer._replace(arrays=tuple(arrays))
    if at != len(content):
        raise ValueError(f"{len(content) - at} bytes are left")


def _named(path: Path, layers: list[Layer], names: list[str]) -> dict[str, Any]:
    """Give the convolutions of a network their names, in order."""
    convolutions = [layer for layer in layers if layer.kind == "Convolution"]
    if len(convolutions) != len(names) or not all(map(_is_plain, convolutions)):
        raise _unknown(path)
    state = {}
    for name, layer in zip(names, convolutions, strict=True):
        state |= dict(zip((f"{name}.weight", f"{name}.bias"), layer.arrays, strict=False))
    return state


def _is_plain(convolution: Layer) -> bool:
    """Return whether a convolution has an odd square kernel, zeros around, and no steps or groups.

    Its options: kernel 1 and 11, dilation 2 and 12, step 3 and 13, padding 4 and 14 to 16, groups
    7, what pads 18.
    """
    options = convolution.options
    kernel = options[1]
    usual = {11: kernel, 2: 1, 12: 1, 3: 1, 13: 1, 7: 1, 18: 0}
    padding = options.get(4, 0)
    sides = {options.get(side, padding) for side in (4, 14, 15, 16)}
    return (
        kernel % 2 == 1
        and sides == {kernel // 2}
        and all(options.get(number, value) == value for number, value in usual.items())
    )


def _unknown(path: Path) -> UserError:
    return UserError(
        f"{path} is an ncnn model of an unknown network; RRDBNet, SRVGGNetCompact and SPAN are "
        f"read; for others {_CONVERT}"
    )


def _slopes(layers: list[Layer]) -> set[float]:
    """Return the slopes of all ReLUs, of their own or as part of a convolution; 0 without one."""
    own = {float(x.options.get(0, 0)) for x in layers if x.kind == "ReLU"}
    fused = [x.options for x in layers if x.kind == "Convolution" and x.options.get(9)]
    return own | {float(x[10][0]) if x[9] == 2 else 0.0 if x[9] == 1 else np.nan for x in fused}


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 3) for value in values]


def _is_nearest(interpolation: Layer, *, factor: int) -> bool:
    options = interpolation.options
    return options.get(0) == 1 and options.get(1) == options.get(2) == factor


def _rrdbnet(path: Path, layers: list[Layer]) -> dict[str, np.ndarray]:
    """Return the state dict of an RRDBNet, as BasicSR names it."""
    ups = sum(layer.kind == "Interp" for layer in layers)
    count = sum(layer.kind == "Convolution" for layer in layers)
    dense = product(range((count - 4 - ups) // 15), (1, 2, 3), range(1, 6))
    names = [
        "conv_first",
        *(f"body.{i}.rdb{j}.conv{k}" for i, j, k in dense),
        *("conv_body", *(f"conv_up{i + 1}" for i in range(ups)), "conv_hr", "conv_last"),
    ]
    reorders = [x for x in layers if x.kind == "Reorg" and x.options.get(1, 0)]
    # Nearest, twice as high and wide; and 0.2 of a residual beside all of what it is added to.
    odd = [x for x in layers if x.kind == "Interp" and not _is_nearest(x, factor=2)]
    odd += [
        x
        for x in layers
        if x.kind == "Eltwise"
        and (x.options.get(0) != 1 or _rounded(x.options.get(1, [])) != [0.2, 1.0])
    ]
    if _rounded(_slopes(layers)) != [0.2] or reorders or odd:
        raise _unknown(path)
    return _named(path, layers, names)


def _srvggnet(path: Path, layers: list[Layer]) -> dict[str, np.ndarray]:
    """Return the state dict of an SRVGGNetCompact."""
    if layers[-1].kind == "Interp":
        factor = next((x.options[0] for x in layers if x.kind == "PixelShuffle"), 1)
        raise UserError(
            f"{path} upscales {factor} times and then resizes by {layers[-1].options[1]:g}; use "
            f"the same network's {factor}x model"
        )
    # The input, by nearest, is added to the output.
    (factor,) = [x.options[0] for x in layers if x.kind == "PixelShuffle"] or [1]
    odd = [x for x in layers if x.kind == "Interp" and not _is_nearest(x, factor=factor)]
    count = sum(layer.kind == "Convolution" for layer in layers)
    slopes = [layer.arrays[0] for layer in layers if layer.kind == "PReLU"]
    if odd or _slopes(layers) - {0.0} or len(slopes) not in (0, count - 1):
        raise _unknown(path)
    state = _named(path, layers, [f"body.{2 * i}" for i in range(count)])
    return state | {f"body.{2 * i + 1}.weight": slope for i, slope in enumerate(slopes)}


def _span(path: Path, layers: list[Layer]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the state dict of a merged SPAN, and what it subtracts and multiplies by."""
    blocks = [f"block_{i + 1}.c{j}_r.eval_conv" for i, j in product(range(BLOCKS), (1, 2, 3))]
    ends = ["conv_2.eval_conv", "conv_cat", "upsampler.0"]
    state = _named(path, layers, ["conv_1.eval_conv", *blocks, *ends])
    means = [layer.arrays[0] for layer in layers if layer.kind == "MemoryData"]
    if not means:
        return state | {"no_norm": np.zeros(1, np.float32)}, {}
    # Of binary operations, 2 is a product; with a number, that is option 2.
    products = [x.options for x in layers if x.kind == "BinaryOp" and x.options.get(0) == 2]
    ranges = [float(options[2]) for options in products if options.get(1)]
    mean = tuple(float(str(value)) for value in means[0])
    return state, {"rgb_mean": mean, "img_range": ranges[0] if ranges else 1.0}
