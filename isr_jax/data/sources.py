"""Where photographs come from: the embedded samples, a folder, or any TFDS data set.

A source is a small immutable object with a `name`, a length, and `load(i)`, which reads image `i`
from disk whenever it is asked: random access, no state, cheap to pickle for worker processes.
Pixels are uint8 RGB. Embedded colour profiles are ignored, as the literature's loaders do.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from isr_jax.data.examples import Decoded, ImagePair, UnusableImageError, decode_image, fit
from isr_jax.errors import UserError
from isr_jax.photo.formats import KINDS, image_files
from isr_jax.resize import resize_uint8


@runtime_checkable
class Source(Protocol):
    """A finite, ordered collection of photographs on disk."""

    @property
    def name(self) -> str:
        """The user's name for it, for messages."""
        ...

    @property
    def scale(self) -> int:
        """The scale factor between HR and LR."""
        ...

    def __len__(self) -> int: ...

    def load(self, i: int) -> Decoded:
        """Decode image `i`, 0 <= i < len; raise `UnusableImageError` where it is unreadable."""
        ...

    def fingerprint(self) -> str:
        """Return a line that is the same as long as the images are: their number, and a digest."""
        ...


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """The image files below `root`; `files` are relative POSIX paths, which name the images."""

    name: str
    scale: int
    root: Path
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def load(self, i: int) -> Decoded:
        """Decode file `i`; raise `UnusableImageError` where it is unreadable."""
        file = self.files[i]
        try:
            opened = open(self.root / file, "rb")  # noqa: SIM115 (closed by the decoder)
        except OSError as error:
            raise UnusableImageError(f"{file}: {error.strerror}") from error
        return fit(file, decode_image(opened, name=file), None, scale=self.scale)

    def fingerprint(self) -> str:
        """Return the number of files, and a digest of their names and sizes."""
        return fingerprint({file: (self.root / file).stat().st_size for file in self.files})


def fingerprint(sizes: Mapping[str, int]) -> str:
    """Return the number of images, and the first digits of a SHA-256 of their names and sizes."""
    digest = hashlib.sha256(repr(sorted(sizes.items())).encode("utf-8", "surrogatepass"))
    return f"{len(sizes)} images ({digest.hexdigest()[:12]})"


def open_source(
    spec: str,
    split: Literal["train", "validation"],
    *,
    scale: int,
    tfds_dir: str | None = None,
) -> Source:
    """Open the data that `spec` names; a TFDS data set is prepared on first use.

    Args:
        spec: `samples`, the embedded photographs; `folder:PATH`, every PNG, JPEG, WebP, BMP and
            TIFF file below PATH; or `tfds:NAME[:SPLIT]`, where NAME may hold config and version
            (`tfds:div2k/bicubic_x4`) and SPLIT may be a slice
            (`tfds:div2k/bicubic_x4:train[:80%]`).
        split: of `samples`, and of a TFDS data set without a SPLIT of its own ("validation" falls
            back to "test"). A folder has no splits.
        scale: HR images are cropped at the bottom and right to a multiple of it; the data set's own
            LR images must be this many times smaller than its HR images.
        tfds_dir: where TFDS keeps data sets; None is TFDS's default, `~/tensorflow_datasets`.

    Raises:
        UserError: there is no such data, it cannot be prepared or has no images, or its own LR
            images are of another scale.
    """
    kind, _, rest = spec.partition(":")
    # Imported here: TFDS takes seconds, and folders do without it.
    if spec == "samples":
        from isr_jax.data.tfds import open_samples

        return open_samples(split, scale=scale, tfds_dir=tfds_dir)
    if kind == "folder" and rest:
        return _open_folder(rest, scale=scale)
    if kind == "tfds" and rest:
        from isr_jax.data.tfds import open_tfds

        return open_tfds(spec, split, scale=scale, tfds_dir=tfds_dir)
    is_folder = spec != "" and Path(spec).expanduser().is_dir()
    choices = f"folder:{spec}" if is_folder else "samples, folder:PATH or tfds:NAME[:SPLIT]"
    raise UserError(f"unknown data source {spec!r}: use {choices}")


def load_usable(source: Source, i: int, *, min_size: int) -> Decoded:
    """Return image `i` of `source`, which is at least `min_size` HR pixels high and wide.

    Raises:
        UnusableImageError: it is unreadable or smaller.
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
    warn: Callable[[str], None],
    most: int | None = None,
) -> list[ImagePair]:
    """Return every usable image of `source` with its LR image, in the source's order.

    Where the source has no LR images of its own, they are the exact bicubic of the whole HR image.

    Args:
        source: where the images are.
        min_size: smallest height and width of an HR image in pixels, the side of a training crop.
        warn: called with one line for each skipped image, and a last one that counts them.
        most: read the first so many only; None for all.

    Raises:
        UserError: no usable image is left.
    """
    count = len(source) if most is None else min(most, len(source))

    def load(i: int) -> ImagePair | UnusableImageError:
        try:
            photo = load_usable(source, i, min_size=min_size)
        except UnusableImageError as error:
            return error
        lr = (
            resize_uint8(photo.hr, scale=Fraction(1, source.scale))
            if photo.lr is None
            else photo.lr
        )
        return ImagePair(photo.name, photo.hr, lr)

    # Decoding and NumPy both release the interpreter lock, so threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        results = list(executor.map(load, range(count)))
    photos = [result for result in results if isinstance(result, ImagePair)]
    errors = [result for result in results if isinstance(result, UnusableImageError)]
    if not photos:
        raise no_usable_image(source, errors[0])
    for error in errors:
        warn(f"skipped {error}")
    if errors:
        warn(f"{source.name}: skipped {len(errors)} of {count} images")
    return photos


def no_usable_image(source: Source, first: UnusableImageError) -> UserError:
    """Return the error for a source without usable images, with the reason for the first."""
    return UserError(
        f"{source.name}: none of its {len(source)} images can be used (first, {first}): "
        "give it readable, larger images or train on smaller crops"
    )


def _open_folder(path: str, *, scale: int) -> FolderSource:
    root, name = Path(path).expanduser(), f"folder:{path}"
    if root.is_file():
        raise UserError(f"{name} is a file: name the folder that holds the images")
    if not root.is_dir():
        raise UserError(f"{name}: no such folder: check the path")
    files = [file.relative_to(root).as_posix() for file in image_files(root)]
    if not files:
        raise UserError(f"{name} holds no {KINDS} file: name another folder")
    return FolderSource(name, scale, root, tuple(files))
