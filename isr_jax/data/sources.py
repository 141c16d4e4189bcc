"""Where photographs come from: the embedded samples, a folder, or any TFDS data set.

A source is a small immutable object with a `name`, a length, and `load(i)`, which reads image `i`
from disk whenever it is asked: random access, no state, cheap to pickle for worker processes.
Pixels are uint8 RGB. Embedded colour profiles are ignored, as the literature's loaders do.
"""

import contextlib
import dataclasses
import io
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image, ImageOps

from isr_jax.data.prepare import find_builder, prepare
from isr_jax.data.samples import IsrSamples
from isr_jax.errors import UserError, one_line
from isr_jax.resize import resize_uint8

GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class Decoded(NamedTuple):
    """What a source holds of one photograph: HR [h, w, 3] and, where it has its own, LR.

    h and w are multiples of the scale; LR is [h/scale, w/scale, 3]. Of a benchmark set, both can
    have one channel, [h, w].
    """

    name: str
    hr: UInt8[np.ndarray, "h w *c"]
    lr: UInt8[np.ndarray, "lr_h lr_w *c"] | None


class Photo(NamedTuple):
    """A photograph to train on or to judge by: HR [h, w, 3] with its LR [h/scale, w/scale, 3]."""

    name: str
    hr: UInt8[np.ndarray, "h w 3"]
    lr: UInt8[np.ndarray, "lr_h lr_w 3"]


class UnusableImageError(UserError):
    """One image of a source cannot be used: it is unreadable, or too small. Names the image."""


@runtime_checkable
class Source(Protocol):
    """A finite, ordered collection of photographs on disk."""

    @property
    def name(self) -> str:
        """What the user called it, for messages."""
        ...

    def __len__(self) -> int: ...

    def load(self, i: int) -> Decoded:
        """Decodes image `i`, 0 <= i < len. Raises `UnusableImageError` if it is unreadable."""
        ...


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """The image files under `root`; `files` are relative POSIX paths, which are the names too."""

    name: str
    scale: int
    root: Path
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def load(self, i: int) -> Decoded:
        """Decodes file `i`. Raises `UnusableImageError` if it is unreadable."""
        file = self.files[i]
        try:
            data = (self.root / file).read_bytes()
        except OSError as error:
            raise UnusableImageError(f"{file}: {error.strerror}") from error
        return fit(file, decode_image(data, name=file), None, scale=self.scale)


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource:
    """One split of a prepared TFDS data set: `records` gives undecoded examples by index."""

    name: str
    scale: int
    records: Sequence[dict[str, Any]]
    hr_key: str
    lr_key: str | None
    name_key: str | None

    def __len__(self) -> int:
        return len(self.records)

    def load(self, i: int) -> Decoded:
        """Decodes example `i`.

        Raises:
            UnusableImageError: if its HR or LR image is unreadable.
            UserError: if its LR image is not `scale` times smaller than its HR image.
        """
        record = self.records[i]
        name = record[self.name_key].decode() if self.name_key else f"{self.name}[{i}]"
        hr = decode_image(record[self.hr_key], name=name)
        lr = decode_image(record[self.lr_key], name=f"{name} (LR)") if self.lr_key else None
        return fit(name, hr, lr, scale=self.scale)


def open_source(
    spec: str,
    split: Literal["train", "validation"],
    *,
    scale: int,
    tfds_dir: str | None = None,
) -> Source:
    """Opens the data that `spec` names, preparing it on first use where it is a TFDS data set.

    Args:
        spec: `samples`, the embedded photographs; `folder:PATH`, every PNG, JPEG, WebP, BMP and
            TIFF file below PATH; or `tfds:NAME[:SPLIT]`, where NAME may hold config and version
            (`tfds:div2k/bicubic_x4`) and SPLIT may be a slice
            (`tfds:div2k/bicubic_x4:train[:80%]`).
        split: which half of the data: it picks the split of `samples`, and of a TFDS data set
            without a SPLIT of its own ("validation" falls back to "test"). A folder has no splits.
        scale: HR images are cropped at the bottom and right to a multiple of it; LR images which
            the data set brings along must be this many times smaller than its HR images.
        tfds_dir: where TFDS keeps data sets; None is TFDS's default, `~/tensorflow_datasets`.

    Raises:
        UserError: if there is no such data, or it cannot be prepared, or has no images, or its own
            LR images are of another scale.
    """
    kind, _, rest = spec.partition(":")
    if spec == "samples":
        return _open_samples(split, scale=scale, tfds_dir=tfds_dir)
    if kind == "folder" and rest:
        return _open_folder(rest, scale=scale)
    if kind == "tfds" and rest:
        return _open_tfds(spec, split, scale=scale, tfds_dir=tfds_dir)
    is_folder = spec != "" and Path(spec).expanduser().is_dir()
    choices = f"folder:{spec}" if is_folder else "samples, folder:PATH or tfds:NAME[:SPLIT]"
    raise UserError(f"unknown data source {spec!r}: use {choices}")


def load_usable(source: Source, i: int, *, min_size: int) -> Decoded:
    """Image `i` of `source`, at least `min_size` HR pixels high and wide.

    Raises:
        UnusableImageError: if it is unreadable or smaller.
    """
    photo = source.load(i)
    h, w, _ = photo.hr.shape
    if min(h, w) < min_size:
        raise UnusableImageError(f"{photo.name}: {w}x{h} is smaller than {min_size}x{min_size}")
    return photo


def load_all(
    source: Source,
    *,
    min_size: int,
    scale: int,
    warn: Callable[[str], None],
    most: int | None = None,
) -> list[Photo]:
    """Every usable image of `source` with its LR image, in the source's order.

    Where the source has no LR images of its own, they are the exact bicubic of the whole HR image.

    Args:
        source: where the images are.
        min_size: least height and width of an HR image in pixels: the side of a training crop.
        scale: the factor between HR and LR.
        warn: told one line for each image left out, and a last one that counts them.
        most: read the first so many only; None for all.

    Raises:
        UserError: if no usable image is left.
    """
    count = len(source) if most is None else min(most, len(source))

    def load(i: int) -> Photo | UnusableImageError:
        try:
            photo = load_usable(source, i, min_size=min_size)
        except UnusableImageError as error:
            return error
        lr = resize_uint8(photo.hr, scale=Fraction(1, scale)) if photo.lr is None else photo.lr
        return Photo(photo.name, photo.hr, lr)

    # Decoding and NumPy both let go of the interpreter lock, so threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        results = list(executor.map(load, range(count)))
    photos = [result for result in results if isinstance(result, Photo)]
    errors = [result for result in results if isinstance(result, UnusableImageError)]
    if not photos:
        raise no_usable_image(source, errors[0])
    for error in errors:
        warn(f"skipped {error}")
    if errors:
        warn(f"{source.name}: skipped {len(errors)} of {count} images")
    return photos


def no_usable_image(source: Source, first: UnusableImageError) -> UserError:
    """The error that says that no image of `source` can be used, and why not the first one."""
    return UserError(
        f"{source.name}: none of its {len(source)} images can be used (first, {first}): "
        "give it readable, larger images or train on smaller crops"
    )


def modcrop(image: UInt8[np.ndarray, "h w *c"], scale: int) -> UInt8[np.ndarray, "h_ w_ *c"]:
    """The top-left part of `image` whose height and width are multiples of `scale`."""
    h, w = image.shape[:2]
    return image[: h - h % scale, : w - w % scale]


def decode_image(data: bytes, *, name: str, keep_gray: bool = False) -> UInt8[np.ndarray, "h w *c"]:
    """Decodes an image file's bytes into upright RGB, [h, w, 3].

    The EXIF orientation is applied, gray, palette and CMYK become RGB, 16 bits are rounded to 8,
    transparency is laid over white, and of several frames the first is taken.

    Args:
        data: the whole file.
        name: what to call it in messages.
        keep_gray: give [h, w] where the file has one channel of gray.

    Raises:
        UnusableImageError: if the bytes are no image, or a truncated or corrupt one.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            ImageOps.exif_transpose(image, in_place=True)
            mode = "L" if keep_gray and image.mode in GRAY_MODES else "RGB"
            opaque = _opaque_8_bits(image)
            # Converting copies, even to the mode that it has.
            return np.array(opaque if opaque.mode == mode else opaque.convert(mode))
    # Pillow's decoders raise whatever they stumble over: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
        raise UnusableImageError(f"{name}: unreadable: {one_line(reason)}") from error


def _opaque_8_bits(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel, over white where it is transparent."""
    if image.mode.startswith("I"):
        # Pillow's own conversion of 16-bit gray clips at 255 instead of scaling.
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("32-bit pixels; save it with 8 or 16 bits")
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image


def fit(
    name: str,
    hr: UInt8[np.ndarray, "h w *c"],
    lr: UInt8[np.ndarray, "lr_h lr_w *c"] | None,
    *,
    scale: int,
) -> Decoded:
    """A photograph whose HR image is `scale` times its LR image, cut at the bottom and right.

    Raises:
        UserError: if the LR image is of another scale.
    """
    (h, w), lr_size = hr.shape[:2], None if lr is None else lr.shape[:2]
    # Where the size is no multiple of the scale, MATLAB rounds the LR size up; others cut it off.
    if lr_size not in (None, (h // scale, w // scale), (-(-h // scale), -(-w // scale))):
        lr_h, lr_w = lr_size
        ratio = max(h / lr_h, w / lr_w, key=lambda ratio: abs(ratio - scale))
        raise UserError(
            f"{name}: its LR image is {lr_w}x{lr_h} and its HR image {w}x{h}, a scale of "
            f"{ratio:.3g}, but {scale} is asked for: choose data of scale {scale} or set the scale "
            f"to {ratio:.3g}"
        )
    lr = None if lr is None else lr[: h // scale, : w // scale]
    return Decoded(name, modcrop(hr, scale), lr)


def image_files(root: Path) -> list[Path]:
    """The image files below a folder, by name, in order of their places."""
    files = (
        file
        for file in root.rglob("*")
        if file.suffix.lower() in EXTENSIONS
        # Hidden files are not photographs: macOS leaves ._NAME.jpg beside NAME.jpg.
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
        and file.is_file()
    )
    return sorted(files, key=lambda file: file.relative_to(root).as_posix())


def _open_folder(path: str, *, scale: int) -> FolderSource:
    root, name = Path(path).expanduser(), f"folder:{path}"
    if root.is_file():
        raise UserError(f"{name} is a file: name the folder that holds the images")
    if not root.is_dir():
        raise UserError(f"{name}: no such folder: check the path")
    files = [file.relative_to(root).as_posix() for file in image_files(root)]
    if not files:
        raise UserError(f"{name} holds no PNG, JPEG, WebP, BMP or TIFF file: name another folder")
    return FolderSource(name, scale, root, tuple(files))


def _open_samples(split: str, *, scale: int, tfds_dir: str | None) -> TfdsSource:
    data_dir = _expand(tfds_dir)
    builder = prepare(lambda: IsrSamples(data_dir=data_dir), "samples", quiet=True)
    return _tfds_source("samples", builder, split, scale=scale)


def _open_tfds(spec: str, split: str, *, scale: int, tfds_dir: str | None) -> TfdsSource:
    name, chosen = _parse_tfds(spec.removeprefix("tfds:"))
    data_dir = _expand(tfds_dir)

    builder = prepare(lambda: find_builder(name, data_dir, spec), spec, quiet=False)
    splits = list(builder.info.splits)
    if chosen is None:
        wanted = ("train",) if split == "train" else ("validation", "test")
        chosen = next((s for s in wanted if s in splits), None)
        if chosen is None:
            raise UserError(
                f"{spec} has no {' or '.join(wanted)} split: choose one of {', '.join(splits)}, "
                f"such as tfds:{name}:{splits[0]}"
            )
    return _tfds_source(spec, builder, chosen, scale=scale)


def _parse_tfds(text: str) -> tuple[str, str | None]:
    """NAME[/CONFIG][:VERSION][:SPLIT] -> (all but SPLIT, SPLIT or None)."""
    # A version starts with a digit or a star, a split with a letter.
    match = re.fullmatch(r"([^:]+(?::[\d*][^:]*)?)(?::([A-Za-z_].*))?", text)
    if match is None:
        raise UserError(f"tfds:{text} is not tfds:NAME[/CONFIG][:VERSION][:SPLIT]: correct it")
    return match[1], match[2]


def _tfds_source(
    spec: str, builder: tfds.core.DatasetBuilder, split: str, *, scale: int
) -> TfdsSource:
    features = dict(getattr(builder.info.features, "items", dict)())
    # A LabeledImage holds classes and a uint16 one depths: neither is a photograph.
    images = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)
        and feature.np_dtype == np.uint8
    ]
    if not images:
        raise UserError(f"{spec} holds no images: choose a data set with an image feature")
    hr_key = "hr" if "hr" in images else images[0]
    lr_key = "lr" if hr_key == "hr" and "lr" in images else None
    texts = [k for k, feature in features.items() if isinstance(feature, tfds.features.Text)]
    name_key = next((k for k in ("name", "file_name", "filename") if k in texts), None)

    random_access = tfds.core.FileFormat.with_random_access()
    if not builder.info.available_file_formats() & random_access:
        raise UserError(
            f"{spec} is prepared in {builder.data_path} as {builder.info.file_format.value}, which "
            "has no random access: move that folder away, or set another tfds_dir, to have it "
            "prepared as ArrayRecord"
        )
    skip = {key: tfds.decode.SkipDecoding() for key in images}
    try:
        records = builder.as_data_source(split=split, decoders=skip)
    # TFDS's answers to a bad or empty slice and to an unknown split.
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{spec}: there is nothing to read in {split} (the splits are "
            f"{', '.join(builder.info.splits)}): {one_line(error)}"
        ) from error
    source = TfdsSource(spec, scale, records, hr_key, lr_key, name_key)
    if lr_key:
        # A wrong scale is best told now, not after all the images are decoded.
        with contextlib.suppress(UnusableImageError):
            source.load(0)
    return source


def _expand(path: str | None) -> str | None:
    return os.path.expanduser(path) if path else None
