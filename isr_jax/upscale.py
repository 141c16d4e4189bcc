"""Upscaler: uint8 photograph in, uint8 photograph out."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, UInt8
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from isr_jax import checkpoint as checkpoints
from isr_jax import images
from isr_jax.data.sources import decode_image, image_files
from isr_jax.errors import UserError, one_line
from isr_jax.models import Generator
from isr_jax.resize import METHODS, resize_uint8

Enlarge = Callable[[Any, Any, UInt8[np.ndarray, "h w 3"]], UInt8[Array, "sh sw 3"]]


def make_enlarge(generator: Generator) -> Enlarge:
    """A jitted (params, stats, uint8 [h w 3]) -> uint8 [scale*h scale*w 3], rounded half up."""

    @jax.jit
    def enlarge(params: Any, stats: Any, image: Any) -> Array:
        sr, _ = generator.apply(params, stats, images.to_float(image)[None], False)
        return images.to_uint8(sr[0])

    return enlarge


@dataclasses.dataclass(frozen=True)
class Upscaler:
    """A model, called on uint8 images; `load` makes one.

    Attributes:
        name: what it was loaded as.
        scale: the factor of enlargement.
        enlarge: uint8 image -> uint8 image: RGB, and one channel too where it is a method's.
        method: the interpolation that it is; None for a trained generator.
        config: the configuration that trained the generator.
        step: the update after which its parameters were saved.
    """

    name: str
    scale: int
    enlarge: Callable[[np.ndarray], np.ndarray]
    method: str | None = None
    config: ConfigDict | None = None
    step: int | None = None

    def __call__(self, image: np.ndarray) -> UInt8[np.ndarray, "sh sw *c"]:
        """Enlarge one image.

        A generator sees one channel of gray as three equal ones, and its answer becomes gray by
        BT.601's weights.

        Args:
            image: uint8 [H, W, 3], RGB, or [H, W] or [H, W, 1], gray; 0..255.

        Raises:
            UserError: for another type or shape.
        """
        image = np.asarray(image)
        gray = image.ndim == 2 or image.shape[2:] == (1,)
        if image.dtype != np.uint8 or not (gray or image.shape[2:] == (3,)) or not image.size:
            raise UserError(
                "an image is uint8 [H, W, 3] or [H, W]; "
                f"this one is {image.dtype} {list(image.shape)}"
            )
        if not gray or self.method:
            return self.enlarge(image)
        rgb = self.enlarge(np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2))
        result = np.array(Image.fromarray(rgb).convert("L"))
        return result.reshape(*result.shape, *image.shape[2:])


def load(
    model: str | Path,
    *,
    scale: int | None = None,
    weights: Literal["ema", "raw"] = "ema",
    checkpoint: Literal["best", "latest"] | int = "best",
) -> Upscaler:
    """Load a model: a trained generator, or an interpolation.

    Args:
        model: a run folder, `runs/msssim`, or one of its `checkpoints/STEP`; a PyTorch file, .pth
            or .safetensors, of a network that `torch_weights` knows; or nearest, bilinear, bicubic
            or lanczos, which resize as MATLAB's `imresize`.
        scale: the factor; an interpolation needs it, a generator has its own.
        weights: a generator's exponential moving average (default) or its raw parameters.
        checkpoint: the one of the best validation PSNR-Y (default), the latest, or a step.

    Raises:
        UserError: where there is no such model or checkpoint, or it has another scale.
    """
    name = str(model)
    if name in METHODS:
        if scale is None:
            raise UserError(f"{name} has no scale of its own: give one")
        return Upscaler(
            name, scale, lambda image: resize_uint8(image, scale=scale, method=name), method=name
        )
    if not Path(model).expanduser().exists():
        raise UserError(
            f"there is no model {name}: give a run folder, a .pth or .safetensors file, or one of "
            + ", ".join(METHODS)
        )
    restored = checkpoints.restore_generator(model, weights=weights, checkpoint=checkpoint)
    own = restored.generator.scale
    if scale not in (None, own):
        raise UserError(f"{name} enlarges by {own}, not by {scale}")
    enlarge = make_enlarge(restored.generator)

    def run(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "sh sw 3"]:
        return np.array(enlarge(restored.params, restored.stats, image))

    return Upscaler(name, own, run, config=restored.config, step=restored.step)


def upscale_files(
    upscaler: Upscaler,
    inputs: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> list[str]:
    """Enlarge image files into PNG files; a bad one does not stop the others.

    Args:
        upscaler: the model.
        inputs: files, and folders, whose images are taken at any depth.
        out: a folder, in which those of an input folder keep their places; or, for a single file,
            the PNG file to write. None for NAME_xSCALE.png beside each image.
        overwrite: replace files that are there.
        progress: show a bar on standard error, where that is a terminal.

    Returns:
        A line for each image that could not be enlarged.

    Raises:
        UserError: where an input is nothing, or a folder without images.
    """
    files = [pair for path in inputs for pair in _images_at(Path(path).expanduser())]
    single = len(files) == 1 and out is not None and Path(out).suffix.lower() == ".png"
    failed = []
    with progress_of_images(shown=progress) as bar:
        task = bar.add_task("", total=len(files))
        for file, place in files:
            bar.update(task, description=file.name)
            name = place.with_name(f"{place.stem}_x{upscaler.scale}.png")
            target = Path(out) / name if out else file.with_name(name.name)
            target = Path(out) if out and single else target
            try:
                if target.exists() and not overwrite:
                    raise UserError(f"{target} is there already; add --overwrite to replace it")
                image = decode_image(file.read_bytes(), name=str(file), keep_gray=True)
                write_png(upscaler(image), target)
            except UserError as error:
                failed.append(str(error))
            # An image too large for the memory or the disk; the next one may not be.
            except (MemoryError, OSError, jax.errors.JaxRuntimeError) as error:
                failed.append(f"{file}: {one_line(error)}")
            bar.advance(task)
    return failed


def _images_at(path: Path) -> list[tuple[Path, Path]]:
    """Each image file, with its place below the folder."""
    if path.is_file():
        return [(path, Path(path.name))]
    if not path.is_dir():
        raise UserError(f"there is no file or folder {path}")
    found = image_files(path)
    if not found:
        raise UserError(f"{path} holds no PNG, JPEG, WebP, BMP or TIFF file")
    # Into the same folder, an image keeps only its name.
    return [(file, file.relative_to(path)) for file in found]


def write_png(image: UInt8[np.ndarray, "h w *c"], file: Path) -> None:
    """Write a PNG that is there whole or not at all; the folders above it are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(file.name + ".part")
    try:
        Image.fromarray(image).save(unfinished, format="PNG")
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def progress_of_images(*, shown: bool) -> Progress:
    """A bar over images on standard error, where that is a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (shown and console.is_terminal),
        transient=True,
    )
