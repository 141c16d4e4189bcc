"""The compiled programs that upscale windows, one on each device."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int32, UInt8, UInt16

from isr_jax import images
from isr_jax.tiling.cutting import Sides, Way, Window
from isr_jax.tiling.windows import Split, Windowed

Levels = UInt8[Array, "n _ _ _"] | UInt16[Array, "n _ _ _"]
View = tuple[Levels | Float[Array, "n _ _ _"], Bool[Array, " n"]]


class Programs(NamedTuple):
    """What is computed on devices.

    Attributes:
        devices: of which each takes a window.
        place: (params, stats) -> the same on all devices.
        upscale: (params, stats, windows, one for each device, way, piece, dtype) -> a view: sr, [n
            scale*t scale*u c], and whether each was finite. The tail of a split generator computes
            one piece at a time. Where there is one symmetry, sr has integers already, so that no
            float copy of a large window is kept, unless dtype is float32.
        finish: (view of each symmetry, corners of the tiles in each, dtype) -> the mean over the
            symmetries, placed as in the first and rounded, unless dtype is float32; and whether
            each was finite.
    """

    devices: int
    place: Callable[[Any, Any], tuple[Any, Any]]
    upscale: Callable[..., View]
    finish: Callable[..., View]


def make_programs(network: Windowed, devices: Sequence[Any], symmetries: Sequence[int]) -> Programs:
    """Return the programs of a generator.

    Args:
        network: the generator.
        devices: of this process.
        symmetries: over which the output is averaged, numbered as `images.dihedral`.
    """
    mesh = Mesh(np.array(devices), ("tiles",))
    each, same = PartitionSpec("tiles"), PartitionSpec()
    sharding = NamedSharding(mesh, each)
    # One window per device: a window is large enough to keep it busy.
    on_devices = partial(jax.shard_map, mesh=mesh, out_specs=each)

    def place(params: Any, stats: Any) -> tuple[Any, Any]:
        return jax.device_put((params, stats), NamedSharding(mesh, same))

    def put(windows: Sequence[Window]) -> Window:
        return jax.device_put(Window(*map(np.stack, zip(*windows, strict=True))), sharding)

    @partial(jax.jit, static_argnames=("way", "dtype"))
    def in_one(params: Any, stats: Any, windows: Any, *, way: Way, dtype: np.dtype) -> View:
        @partial(on_devices, in_specs=(same, same, each))
        def upscale(params: Any, stats: Any, windows: Any) -> View:
            (planes,) = windows.pixels
            if way == "exact":
                sr = network.apply(params, stats, planes, _insides(windows))
            else:
                sr = network.whole(params, stats, planes)
            return _rounded(_joined(sr), dtype)

        return upscale(params, stats, windows)

    @jax.jit
    def head(params: Any, stats: Any, windows: Any) -> Array:
        @partial(on_devices, in_specs=(same, same, each))
        def compute(params: Any, stats: Any, windows: Any) -> Array:
            assert network.split
            return network.split.head(params, stats, windows.pixels[0], _insides(windows))[None]

        return compute(params, stats, windows)

    @partial(jax.jit, static_argnames="piece", donate_argnames="view")
    def tail(
        params: Any, stats: Any, windows: Any, features: Any, start: Any, view: Any, *, piece: Sides
    ) -> View:
        @partial(on_devices, in_specs=(same, same, each, each, each, each))
        def compute(
            params: Any, stats: Any, windows: Any, features: Any, start: Any, view: Any
        ) -> View:
            assert network.split
            run = partial(network.split.tail, params, stats)
            return _add_piece(
                run,
                network,
                network.split,
                windows.pixels[0],
                features[0],
                windows.inside[0],
                start[0],
                view,
                piece=piece,
            )

        return compute(params, stats, windows, features, start, view)

    @partial(jax.jit, static_argnames=("shape", "dtype"))
    def empty(*, shape: tuple[int, ...], dtype: np.dtype) -> View:
        view = jnp.zeros(shape, dtype), jnp.ones(shape[0], bool)
        return jax.lax.with_sharding_constraint(view, sharding)

    def in_two(
        params: Any,
        stats: Any,
        windows: Window,
        tiles: Sequence[Window],
        piece: Sides,
        dtype: np.dtype,
    ) -> View:
        assert network.split
        n, planes, height, width, channels = windows.pixels.shape
        corners = np.stack([tile.corner for tile in tiles])
        sides = np.stack([tile.sides for tile in tiles])
        features = head(params, stats, windows)
        outputs = planes if planes > 1 else channels
        shape = (n, height * network.scale, width * network.scale, outputs)
        view = empty(shape=shape, dtype=dtype)
        for place in np.ndindex(*-(-sides.max(axis=0) // piece)):
            start = corners + np.minimum(np.multiply(place, piece), np.maximum(sides - piece, 0))
            start = np.minimum(start, np.array((height, width)) - piece)
            start = jax.device_put(start.astype(np.int32), sharding)
            view = tail(params, stats, windows, features, start, view, piece=piece)
        return view

    def upscale(
        params: Any,
        stats: Any,
        windows: Sequence[Window],
        *,
        way: Way,
        piece: Sides,
        dtype: np.dtype,
    ) -> View:
        dtype = dtype if len(symmetries) == 1 else np.dtype(np.float32)
        if way == "exact" and network.split:
            return in_two(params, stats, put(windows), windows, piece, dtype)
        return in_one(params, stats, put(windows), way=way, dtype=dtype)

    @partial(jax.jit, static_argnames=("dtype", "gray", "alpha"))
    def finish(
        views: Sequence[View],
        corners: Sequence[Int32[Array, "n 2"]],
        *,
        dtype: np.dtype,
        gray: bool,
        alpha: bool,
    ) -> View:
        if len(views) == 1:
            ((levels, finite),) = views
            return _as(levels, gray=gray, alpha=alpha), finite
        upright = [_upright(sr, k) for k, (sr, _) in zip(symmetries, views, strict=True)]
        shift = jax.vmap(partial(jnp.roll, axis=(0, 1)))
        placed = [
            shift(view, network.scale * (corners[0] - corner))
            for view, corner in zip(upright[1:], corners[1:], strict=True)
        ]
        levels, finite = _rounded(jnp.stack([upright[0], *placed]).mean(axis=0), dtype)
        return _as(levels, gray=gray, alpha=alpha), finite

    return Programs(mesh.size, place, upscale, finish)


def _insides(windows: Any) -> Int32[Array, "planes 4"]:
    """Return what is inside the image, of each plane of a device's window."""
    return jnp.broadcast_to(windows.inside, (windows.pixels.shape[1], 4))


def _joined(sr: Float[Array, "planes h w c"]) -> Float[Array, "1 h w _"]:
    """Return the planes of an image as its channels."""
    return jnp.moveaxis(sr, 0, -1)[None, ..., 0, :] if len(sr) > 1 else sr


def _rounded(sr: Float[Array, "n h w c"], dtype: np.dtype) -> View:
    """Return integers, or floats as they are, and whether each image was finite."""
    finite = jnp.isfinite(sr).all(axis=(1, 2, 3))
    return (sr if dtype == np.float32 else images.to_unsigned(sr, dtype)), finite


def _add_piece(
    tail: Callable[..., Float[Array, "planes h w c"]],
    network: Windowed,
    split: Split,
    planes: Float[Array, "planes t u c"],
    features: Float[Array, "planes _ _ d"],
    inside: Int32[Array, "4"],
    start: Int32[Array, "2"],
    view: View,
    *,
    piece: Sides,
) -> View:
    """Compute a piece of a window from its features, and put it into the window's output."""
    scale, fold, radius = network.scale, network.multiple, split.radius
    sides = [
        min(-(-(side + 2 * radius + fold - 1) // fold) * fold, all_)
        for side, all_ in zip(piece, planes.shape[1:3], strict=True)
    ]
    room = jnp.array(planes.shape[1:3], jnp.int32) - jnp.array(sides, jnp.int32)
    first = jnp.clip((start - radius) // fold * fold, 0, room)

    def part(x: Array, resolution: Any) -> Array:
        row, column = first * resolution.numerator // resolution.denominator
        height, width = (int(side * resolution) for side in sides)
        return jax.lax.dynamic_slice(x, (0, row, column, 0), (len(x), height, width, x.shape[-1]))

    shifted = inside - jnp.repeat(first, 2)
    out = _joined(
        tail(
            part(planes, Fraction(1)),
            part(features, split.resolution),
            jnp.broadcast_to(shifted, (len(planes), 4)),
        )
    )
    row, column = (start - first) * scale
    shape = (1, piece[0] * scale, piece[1] * scale, out.shape[-1])
    sr, finite = view
    out, piece_finite = _rounded(jax.lax.dynamic_slice(out, (0, row, column, 0), shape), sr.dtype)
    row, column = start * scale
    return jax.lax.dynamic_update_slice(sr, out, (0, row, column, 0)), finite & piece_finite


def _upright(views: Float[Array, "n h w c"], symmetry: int) -> Float[Array, "n _ _ c"]:
    """Undo `images.dihedral`; sides may differ."""
    views = views.swapaxes(1, 2) if symmetry & 4 else views
    views = views[:, :, ::-1] if symmetry & 2 else views
    return views[:, ::-1] if symmetry & 1 else views


def _as(
    sr: Levels | Float[Array, "n _ _ _"], *, gray: bool, alpha: bool
) -> Levels | Float[Array, "n _ _ _"]:
    """Return those channels of a generator's output that its input has."""
    if sr.shape[-1] < 3:  # of gray planes
        return sr
    colours = images.rgb_to_gray(sr[..., :3]) if gray else sr[..., :3]
    return jnp.concatenate([colours, sr[..., 3:]], axis=-1) if alpha else colours
