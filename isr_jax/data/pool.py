"""Every training image in device memory, and batches of crops cut from it inside jit.

`make_pool` packs decoded images once; `sample` is a pure function of a key, so there are no loader
threads, no loader state to save, and no step that waits for the host.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32, Key, UInt8

from isr_jax.data.examples import ImagePair
from isr_jax.errors import UserError
from isr_jax.images import dihedral, to_float


class Pool(NamedTuple):
    """The pixels of n images, row by row, in pages of bytes; an image never straddles two pages.

    Pages keep every index within int32: DIV2K has 6.6 GB. `height` and `width` are of the HR image
    in pixels; an offset is where in its page an image starts, in bytes.
    """

    hr: UInt8[Array, "hr_pages hr_bytes"]
    lr: UInt8[Array, "lr_pages lr_bytes"]
    hr_page: Int32[Array, " n"]
    hr_offset: Int32[Array, " n"]
    lr_page: Int32[Array, " n"]
    lr_offset: Int32[Array, " n"]
    height: Int32[Array, " n"]
    width: Int32[Array, " n"]


def make_pool(photos: Sequence[ImagePair], *, page_bytes: int = 2**30) -> Pool:
    """Packs images, each with its LR image (see `sources.load_all`), for `sample`.

    Args:
        photos: at least one.
        page_bytes: size of a page, at most 2**31 - 1. Pages come out smaller where less is enough,
            and larger where a single image is.

    Raises:
        UserError: if an image takes 2 GiB or more.
    """
    hr, hr_page, hr_offset = _pack([photo.hr for photo in photos], page_bytes)
    lr, lr_page, lr_offset = _pack([photo.lr for photo in photos], page_bytes)
    height, width = np.array([photo.hr.shape[:2] for photo in photos], np.int32).T
    return Pool(
        *(jnp.asarray(x) for x in (hr, lr, hr_page, hr_offset, lr_page, lr_offset, height, width))
    )


def sample(
    key: Key[Array, ""],
    pool: Pool,
    *,
    batch: int,
    crop: int,
    scale: int,
    first: int | Int[Array, ""] = 0,
) -> dict[str, Float[Array, "batch _ _ 3"]]:
    """Random crops: {"lr": [batch, crop/scale, crop/scale, 3], "hr": [batch, crop, crop, 3]}.

    Each is cut from a uniformly random image at a uniformly random position (a multiple of `scale`
    in HR pixels), and both are turned by one of the eight symmetries of the square. Values are
    float32 in [0, 1].

    Example i depends on `key` and `first + i` alone: n devices which sample `batch / n` examples
    each, device d with `first = d * batch / n`, together have the batch that one device samples.

    Args:
        key: randomness for this batch.
        pool: images no smaller than `crop`, packed with LR images of this `scale`.
        batch: number of examples (static).
        crop: side of the HR crop in pixels, a multiple of `scale` (static).
        scale: the factor between HR and LR (static).
        first: number of the first example within the whole batch; may be traced.

    Source: random crops and the eight symmetries as in EDSR (Lim et al. 2017), section 4.2.
    """

    def example(i: Int[Array, ""]) -> tuple:
        keys = jax.random.split(jax.random.fold_in(key, i), 4)
        n = jax.random.randint(keys[0], (), 0, pool.height.size)
        h, w = pool.height[n] // scale, pool.width[n] // scale  # of the LR image
        y = jax.random.randint(keys[1], (), 0, h - crop // scale + 1)
        x = jax.random.randint(keys[2], (), 0, w - crop // scale + 1)
        lr = _cut(pool.lr, pool.lr_page[n], pool.lr_offset[n], w, y, x, crop // scale)
        hr = _cut(
            pool.hr, pool.hr_page[n], pool.hr_offset[n], w * scale, y * scale, x * scale, crop
        )
        return lr, hr, jax.random.randint(keys[3], (), 0, 8)

    lr, hr, k = jax.vmap(example)(first + jnp.arange(batch))
    return {"lr": to_float(dihedral(lr, k)), "hr": to_float(dihedral(hr, k))}


def _pack(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], page_bytes: int
) -> tuple[UInt8[np.ndarray, "pages bytes"], Int32[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
    """Images in order, a new page whenever the next does not fit -> pages, page and offset."""
    limit = max(page_bytes, *(image.size for image in images))
    if limit >= 2**31:
        raise UserError("an image takes 2 GiB or more: cut it into smaller ones")
    page, end, pages, offsets, used = 0, 0, [], [], [0]
    for image in images:
        if end + image.size > limit:
            page, end = page + 1, 0
            used.append(0)
        pages.append(page)
        offsets.append(end)
        end += image.size
        used[page] = end
    out = np.zeros((len(used), max(used)), np.uint8)
    for image, page, offset in zip(images, pages, offsets, strict=True):
        out[page, offset : offset + image.size] = image.reshape(-1)
    return out, np.array(pages, np.int32), np.array(offsets, np.int32)


def _cut(
    pages: UInt8[Array, "pages bytes"],
    page: Int32[Array, ""],
    offset: Int32[Array, ""],
    width: Int32[Array, ""],
    y: Int32[Array, ""],
    x: Int32[Array, ""],
    size: int,
) -> UInt8[Array, "size size 3"]:
    # One slice of contiguous bytes per row: under vmap a gather of rows, not of single elements.
    starts = offset + 3 * ((y + jnp.arange(size)) * width + x)
    rows = jax.vmap(lambda start: lax.dynamic_slice(pages, (page, start), (1, 3 * size)))(starts)
    return rows.reshape(size, size, 3)
