"""Every training image in device memory, and batches of crops cut from it inside jit.

`make_pool` packs decoded images once; `sample` is a pure function of a key, so there are no loader
threads, no loader state to save, and no step that waits for the host.

A pool is on every device as a whole, or is sharded: each image is in one part, and each device has
one. What is sampled does not depend on that.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int, Int32, Int64, Key, UInt8, UInt16

from isr_jax.data.examples import ImagePair
from isr_jax.errors import UserError
from isr_jax.images import dihedral, to_float
from isr_jax.photo.pixels import to_16_bits


class Pool(NamedTuple):
    """The pixels of n images, row by row, in pages; an image never straddles two pages.

    Pages keep every index within int32: DIV2K has 6.6 GB. They are uint16 where an image is.

    Attributes:
        hr, lr: the pages.
        hr_page, hr_offset, lr_page, lr_offset: where an image is: its page, and where it starts in
            it. Two images can have one HR image.
        height, width: of the HR image in pixels.
        part: of a sharded pool, in which an image is; the pages of its parts follow each other.
        chances: cumulative, of an image to be drawn; empty where all are equally likely.
        own: whether LR is the data set's own, where that makes a difference; else empty.
    """

    hr: UInt8[Array, "hr_pages hr_length"] | UInt16[Array, "hr_pages hr_length"]
    lr: UInt8[Array, "lr_pages lr_length"] | UInt16[Array, "lr_pages lr_length"]
    hr_page: Int32[Array, " n"]
    hr_offset: Int32[Array, " n"]
    lr_page: Int32[Array, " n"]
    lr_offset: Int32[Array, " n"]
    height: Int32[Array, " n"]
    width: Int32[Array, " n"]
    part: Int32[Array, " n"]
    chances: Float32[Array, " _"]
    own: Bool[Array, " _"]


PAGES = ("hr", "lr")  # the fields of a pool that are sharded


class Table(NamedTuple):
    """What is known of all n images of a pool, whichever process decodes them.

    Attributes:
        size: height and width of the HR images.
        part: in which each is.
        image: the number of the HR image, which two can share; ascending.
        chances, own: as of a pool.
    """

    size: Int32[np.ndarray, "n 2"]
    part: Int32[np.ndarray, " n"]
    image: Int32[np.ndarray, " n"]
    chances: Float32[np.ndarray, " _"]
    own: Bool[np.ndarray, " _"]


def make_pool(photos: Sequence[ImagePair], *, page_length: int = 2**30) -> Pool:
    """Pack images, each with its LR image (see `loading.load_all`), for `sample`.

    Args:
        photos: at least one.
        page_length: of a page, at most 2**31 - 1. Pages come out smaller where less is enough,
            and larger where a single image is.

    Raises:
        UserError: if an image takes 2 GiB or more.
    """
    size = np.array([photo.hr.shape[:2] for photo in photos], np.int32)
    number = np.arange(len(photos), dtype=np.int32)
    table = Table(size, 0 * number, number, np.zeros(0, np.float32), np.zeros(0, bool))
    packed = make_parts(
        dict(enumerate(photos)),
        table,
        scale=photos[0].hr.shape[0] // photos[0].lr.shape[0],
        parts=1,
        mine=[0],
        channels=photos[0].hr.shape[2],
        deep=any(x.dtype == np.uint16 for photo in photos for x in (photo.hr, photo.lr)),
        page_length=page_length,
    )
    return jax.tree.map(jnp.asarray, packed)


def make_parts(
    photos: Mapping[int, ImagePair],
    table: Table,
    *,
    scale: int,
    parts: int,
    mine: Sequence[int],
    deep: bool,
    channels: int = 3,
    page_length: int = 2**30,
) -> Pool:
    """Pack those parts of a sharded pool that are this process's, as NumPy arrays.

    Its pages are those of the process; the rest describes the whole pool.

    Args:
        photos: the images of these parts, by their place in the table.
        table: of all images.
        scale: the factor between HR and LR.
        parts: how many there are.
        mine: those of this process.
        deep: whether pages are uint16.
        channels: of the images: 3, or 1 of gray ones.
        page_length: as for `make_pool`.

    Raises:
        UserError: if an image takes 2 GiB or more.
    """
    layout = partial(_pack, part=table.part, parts=parts, mine=mine, length=page_length, deep=deep)
    values = channels * table.size.prod(axis=1, dtype=np.int64)
    hr = layout({i: photo.hr for i, photo in photos.items()}, values, image=table.image)
    lr = layout(
        {i: photo.lr for i, photo in photos.items()},
        channels * (table.size // scale).prod(axis=1, dtype=np.int64),
        image=np.arange(len(values)),
    )
    height, width = table.size.T
    places = (*hr[1:], *lr[1:], height, width)
    return Pool._make((hr[0], lr[0], *places, table.part, table.chances, table.own))


def sample(
    key: Key[Array, ""],
    pool: Pool,
    *,
    batch: int,
    crop: int,
    scale: int,
    channels: int = 3,
    first: int | Int[Array, ""] = 0,
    axis_name: str | None = None,
) -> dict[str, Array]:
    """Draw random crops: {"lr": [batch, crop/scale, crop/scale, c], "hr": [batch, crop, crop, c]}.

    Each is cut from a random image, by its chance, at a uniformly random position (a multiple of
    `scale` in HR pixels), and both are turned by one of the eight symmetries of the square. Values
    are float32 in [0, 1]. Where the pool says so, "own" is there too, [batch]: whether LR is the
    data set's own.

    Example i depends on `key` and `first + i` alone: n devices which sample `batch / n` examples
    each, device d with `first = d * batch / n`, together have the batch that one device samples.

    Args:
        key: randomness for this batch.
        pool: images no smaller than `crop`, packed with LR images of this `scale`.
        batch: number of examples (static).
        crop: side of the HR crop in pixels, a multiple of `scale` (static).
        scale: the factor between HR and LR (static).
        channels: c, of the images: 3, or 1 of gray ones (static).
        first: number of the first example within the whole batch; may be traced.
        axis_name: of the devices that each have a part of a sharded pool. Each then cuts what it
            has of the batch, and returns its share of the whole: [batch/devices ...].

    Source: random crops and the eight symmetries as in EDSR (Lim et al. 2017), section 4.2.
    """
    cut = partial(_cut, channels=channels)

    def example(i: Int[Array, ""]) -> dict[str, Array]:
        keys = jax.random.split(jax.random.fold_in(key, i), 4)
        if pool.chances.size:
            n = jnp.searchsorted(pool.chances, jax.random.uniform(keys[0]), side="right")
            n = jnp.minimum(n, pool.height.size - 1)  # the last chance may round to less than 1
        else:
            n = jax.random.randint(keys[0], (), 0, pool.height.size)
        h, w = pool.height[n] // scale, pool.width[n] // scale  # of the LR image
        y = jax.random.randint(keys[1], (), 0, h - crop // scale + 1)
        x = jax.random.randint(keys[2], (), 0, w - crop // scale + 1)
        lr = cut(pool.lr, pool.lr_page[n], pool.lr_offset[n], w, y, x, crop // scale)
        hr = cut(pool.hr, pool.hr_page[n], pool.hr_offset[n], w * scale, y * scale, x * scale, crop)
        k = jax.random.randint(keys[3], (), 0, 8)
        drawn = {"lr": lr, "hr": hr, "k": k}
        if pool.own.size:
            drawn["own"] = pool.own[n].astype(jnp.int32)
        if axis_name is None:
            return drawn
        here = pool.part[n] == lax.axis_index(axis_name)
        return {name: jnp.where(here, x, 0).astype(x.dtype) for name, x in drawn.items()}

    drawn = jax.vmap(example)(first + jnp.arange(batch))
    if axis_name:
        drawn = {name: _shared(x, axis_name) for name, x in drawn.items()}
    k = drawn.pop("k")
    batch_ = {name: to_float(dihedral(drawn[name], k)) for name in ("lr", "hr")}
    return batch_ | ({"own": drawn["own"] > 0} if "own" in drawn else {})


def _shared(x: Array, axis_name: str) -> Array:
    """Return this device's share of a batch of which each device has some examples, else zeros."""
    return lax.psum_scatter(x, axis_name, scatter_dimension=0, tiled=True)


def _pack(
    images: Mapping[int, UInt8[np.ndarray, "_ _ _"] | UInt16[np.ndarray, "_ _ _"]],
    sizes: Int64[np.ndarray, " n"],
    *,
    image: Int[np.ndarray, " n"],
    part: Int32[np.ndarray, " n"],
    parts: int,
    mine: Sequence[int],
    length: int,
    deep: bool,
) -> tuple[np.ndarray, Int32[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
    """Return pages, and the page and offset of each image in its part.

    In each part they are in order, with a new page whenever the next does not fit. All parts have
    the number and length of pages that the largest needs.
    """
    dtype = np.uint16 if deep else np.uint8
    limit = max(length, *sizes.tolist())
    if limit >= 2**31:
        raise UserError("an image takes 2 GiB or more: cut it into smaller ones")
    pages, offsets = np.zeros((2, len(sizes)), np.int32)
    most, count = 0, 0
    for one in range(parts):
        page = end = 0
        for i in np.flatnonzero(part == one):
            if i and image[i] == image[i - 1]:
                pages[i], offsets[i] = pages[i - 1], offsets[i - 1]
                continue
            if end + sizes[i] > limit:
                page, end = page + 1, 0
            pages[i], offsets[i] = page, end
            end += int(sizes[i])
            most = max(most, end)
        count = max(count, page + 1)
    out = np.zeros((len(mine), count, most), dtype)
    for i, pixels in images.items():
        values = to_16_bits(pixels) if deep else pixels
        out[mine.index(part[i]), pages[i], offsets[i] : offsets[i] + pixels.size] = values.ravel()
    return out.reshape(-1, most), pages, offsets


def _cut(
    pages: UInt8[Array, "pages length"] | UInt16[Array, "pages length"],
    page: Int32[Array, ""],
    offset: Int32[Array, ""],
    width: Int32[Array, ""],
    y: Int32[Array, ""],
    x: Int32[Array, ""],
    size: int,
    *,
    channels: int,
) -> UInt8[Array, "size size c"] | UInt16[Array, "size size c"]:
    # One slice of contiguous values per row: under vmap a gather of rows, not of single elements.
    starts = offset + channels * ((y + jnp.arange(size)) * width + x)
    row = (1, channels * size)
    rows = jax.vmap(lambda start: lax.dynamic_slice(pages, (page, start), row))(starts)
    return rows.reshape(size, size, channels)
