"""Load the images of a source: those that can be used, and a word on each of the others."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from isr_jax.data.examples import Decoded, ImagePair, UnusableImageError, in_8_bits, shrink
from isr_jax.data.sources import Source
from isr_jax.errors import UserError

# What the user can do where no image can be trained on.
LARGER_OR_CROPS = "give it readable, larger images or train on smaller crops"


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
    keep_bits: bool = False,
    remedy: str = LARGER_OR_CROPS,
) -> list[ImagePair]:
    """Return every usable image of `source` with its LR image, in the source's order.

    Where the source has no LR images of its own, they are the exact bicubic of the whole HR image.

    Args:
        source: where the images are.
        min_size: smallest height and width of an HR image in pixels, the side of a training crop.
        warn: called with one line for each skipped image, and a last one that counts them.
        most: read the first so many only; None for all.
        keep_bits: whether images of files with more than 8 bits are uint16.
        remedy: what the user can do where none is usable.

    Raises:
        UserError: no usable image is left.
    """
    count = len(source) if most is None else min(most, len(source))
    photos, errors = load_some(source, range(count), min_size=min_size, keep_bits=keep_bits)
    if not photos:
        raise no_usable_image(source, errors[0], tried=count, remedy=remedy)
    for error in (*source.faults, *errors):
        warn(f"skipped {error}")
    if errors:
        warn(f"{source.name}: skipped {len(errors)} of {count} images")
    return [*photos.values()]


def load_some(
    source: Source, numbers: Iterable[int], *, min_size: int, keep_bits: bool
) -> tuple[dict[int, ImagePair], list[UnusableImageError]]:
    """Return the usable images of some numbers, as `load_all` does, and why others are not.

    Args:
        source: where the images are.
        numbers: which of them.
        min_size: as for `load_all`.
        keep_bits: whether images of files with more than 8 bits are uint16.
    """

    def load(i: int) -> ImagePair | UnusableImageError:
        try:
            photo = load_usable(source, i, min_size=min_size)
        except UnusableImageError as error:
            return error
        hr, own = photo.hr, photo.lr
        lr = shrink(hr, scale=source.scale) if own is None else own
        pair = ImagePair(photo.name, hr, lr, own is not None)
        return pair if keep_bits else in_8_bits(pair, scale=source.scale)

    # Decoding and NumPy both release the interpreter lock, so threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        results = dict(zip(numbers, executor.map(load, numbers), strict=True))
    photos = {i: result for i, result in results.items() if isinstance(result, ImagePair)}
    errors = [result for result in results.values() if isinstance(result, UnusableImageError)]
    return photos, errors


def no_usable_image(
    source: Source,
    first: UnusableImageError | None,
    *,
    tried: int | None = None,
    remedy: str = LARGER_OR_CROPS,
) -> UserError:
    """Return the error for a source without usable images.

    Args:
        source: where they are.
        first: why the first is not usable.
        tried: how many were read; None for all.
        remedy: what the user can do.
    """
    some = tried is not None and tried < len(source)
    which = f"the first {tried} of its {len(source)}" if some else f"its {len(source)}"
    reason = f" (first, {first})" if first else ""
    return UserError(f"{source.name}: none of {which} images can be used{reason}: {remedy}")
