"""Write generators as files: StableHLO and ONNX for other programs, safetensors for isr_jax.

    isr export runs/msssim x4.stablehlo
    isr export runs/msssim x4.onnx
    isr export runs/msssim x4.safetensors

The last holds the EMA parameters and the architecture, without a run folder. In the others, batch,
height and width are dynamic, the computation is in float32 even if training was not, and the result
is not clipped. StableHLO, for CPU, CUDA and TPU, keeps our NHWC:

    exported = jax.export.deserialize(bytearray(Path("x4.stablehlo").read_bytes()))
    sr = exported.call(lr)  # float32 [n h w 3] in [0, 1] -> float32 [n 4h 4w 3]

ONNX has NCHW, as its runtimes expect, and is called by the names "input" and "output":

    session = onnxruntime.InferenceSession("x4.onnx")
    (sr,) = session.run(["output"], {"input": lr})  # float32 [n 3 h w] -> float32 [n 3 4h 4w]
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from isr_jax import errors
from isr_jax.checkpoints import single_files
from isr_jax.checkpoints.restore import Restored, restore_generator
from isr_jax.errors import UserError, one_line
from isr_jax.export.onnx import to_onnx
from isr_jax.export.stablehlo import to_stablehlo
from isr_jax.files import expanded, replacing
from isr_jax.pretrained import Card, card_of, read_card

DType = Literal["float32", "float16"]
SUFFIXES = {
    ".onnx": "onnx",
    ".stablehlo": "stablehlo",
    ".bin": "stablehlo",
    ".safetensors": "safetensors",
}


def to_safetensors(
    restored: Restored,
    *,
    card: Card | None = None,
    dtype: DType = "float32",
) -> bytes:
    """Return a generator as the bytes of a single file.

    Args:
        restored: the generator.
        card: what it is; None for no card.
        dtype: of its arrays in the file; they are computed with in float32 all the same.

    Raises:
        UserError: an array exceeds what float16 can hold, +-65504.
    """
    arrays = restored.params, restored.stats
    most = np.finfo(dtype).max
    if any(np.abs(x).max(initial=0) > most for x in jax.tree.leaves(arrays)):
        raise UserError(f"its parameters exceed what {dtype} can hold; leave out --dtype")
    params, stats = jax.tree.map(lambda x: np.asarray(x).astype(dtype), arrays)
    options = restored.config.generator.to_dict()
    config = {"scale": restored.config.scale, "generator": options}
    return single_files.to_bytes(params, stats, config, card=card)


# In float32 for other programs: few ONNX runtimes convolve in bfloat16.
EXPORTERS: dict[str, Callable[[Restored, Card, DType], bytes]] = {
    "onnx": lambda restored, card, dtype: to_onnx(*restored[:3]),
    "stablehlo": lambda restored, card, dtype: to_stablehlo(*restored[:3]),
    "safetensors": lambda restored, card, dtype: to_safetensors(restored, card=card, dtype=dtype),
}


def export_model(
    model: str | Path,
    file: str | Path,
    *,
    format: str | None = None,
    weights: Literal["ema", "raw"] = "ema",
    card: str | Path | None = None,
    dtype: DType = "float32",
    overwrite: bool = False,
) -> str:
    """Write a generator to a file, whole or not at all.

    Args:
        model: any MODEL that `restore_generator` accepts.
        file: the file to write; missing parent folders are created.
        format: a key of EXPORTERS; by default that of the file's suffix (SUFFIXES).
        weights: the EMA (default) or the raw parameters.
        card: a JSON file that says what the model is (see `isr_jax.pretrained`), for safetensors;
            None for the card of a model that is such a file itself.
        dtype: of the arrays in safetensors; float16 halves the file.
        overwrite: replace an existing file.

    Returns:
        A line that describes the file.

    Raises:
        UserError: there is no such model, it is an interpolation, the format is unknown, the file
            already exists or cannot be written, an array exceeds float16, or a package is missing.
    """
    file = expanded(file)
    format = format or SUFFIXES.get(file.suffix.lower())
    if format is None:
        raise UserError(
            f"{file} ends in none of {', '.join(SUFFIXES)}: rename it, or add --format "
            + " or ".join(EXPORTERS)
        )
    if format not in EXPORTERS:
        raise errors.unknown("format", format, EXPORTERS)
    if file.is_dir():
        raise UserError(f"{file} is a folder; name a file")
    if file.exists() and not overwrite:
        raise UserError(f"{file} already exists; name another file, or add --overwrite")
    if card is not None and format != "safetensors":
        raise UserError(f"{format} holds no card; leave out --card, or write safetensors")
    if dtype != "float32" and format != "safetensors":
        raise UserError(f"{format} holds float32; leave out --dtype, or write safetensors")
    known = read_card(card) if card is not None else card_of(model)
    restored = restore_generator(model, weights=weights, dtype="float32")
    content, scale = EXPORTERS[format](restored, known, dtype), restored.config.scale
    _write(file, content)
    written = f"{file}: {format}, {len(content) / 1e6:.1f} MB"
    if format == "safetensors":
        return f"{written}, a {scale}x generator for isr_jax"
    channels = restored.generator.channels
    sides = (
        f"n, {channels}, {{0}}h, {{0}}w" if format == "onnx" else f"n, {{0}}h, {{0}}w, {channels}"
    )
    lr, sr = sides.format(""), sides.format(scale if scale > 1 else "")
    return f"{written}, input float32 [{lr}] in [0, 1], output float32 [{sr}]"


def _write(file: Path, content: bytes) -> None:
    try:
        with replacing(file) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {one_line(error)}") from error
