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

Levels = UInt8[Array, "n h w _"] | UInt16[Array, "n h w _"]


class Programs(NamedTuple):
    """What is computed on devices.

    Attributes:
        devices: of which each takes a window.
        upscale: (windows, one for each device, way, piece) -> sr, float [n scale*t scale*u c], of
            which the tail of a split generator computes one piece at a time.
        finish: (sr of each symmetry, corners of the tiles in each) -> the mean over the symmetries,
            placed as in the first and rounded, and whether each was finite.
    """

    devices: int
    upscale: Callable[..., Array]
    finish: Callable[..., tuple[Array, Array]]


def make_programs(
    network: Windowed, params: Any, stats: Any, symmetries: Sequence[int]
) -> Programs:
    """Return the programs of a generator.

    Args:
        network: the generator.
        params, stats: its arrays.
        symmetries: over which the output is averaged, numbered as `images.dihedral`.
    """
    mesh = Mesh(np.array(jax.local_devices()), ("tiles",))
    each, same = PartitionSpec("tiles"), PartitionSpec()
    sharding = NamedSharding(mesh, each)
    params, stats = jax.device_put((params, stats), NamedSharding(mesh, same))
    # One window per device: a window is large enough to keep it busy.
    on_devices = partial(jax.shard_map, mesh=mesh, out_specs=each)

    def put(windows: Sequence[Window]) -> Window:
        return jax.device_put(Window(*map(np.stack, zip(*windows, strict=True))), sharding)

    @partial(jax.jit, static_argnames="way")
    def in_one(params: Any, stats: Any, windows: Any, *, way: Way) -> Array:
        @partial(on_devices, in_specs=(same, same, each))
        def upscale(params: Any, stats: Any, windows: Any) -> Array:
            (planes,) = windows.pixels
            if way == "exact":
                return _joined(network.apply(params, stats, planes, _insides(windows)))
            return _joined(network.whole(params, stats, planes))

        return upscale(params, stats, windows)

    @jax.jit
    def head(params: Any, stats: Any, windows: Any) -> Array:
        @partial(on_devices, in_specs=(same, same, each))
        def compute(params: Any, stats: Any, windows: Any) -> Array:
            assert network.split
            return network.split.head(params, stats, windows.pixels[0], _insides(windows))[None]

        return compute(params, stats, windows)

    @partial(jax.jit, static_argnames="piece", donate_argnames="sr")
    def tail(
        params: Any, stats: Any, windows: Any, features: Any, start: Any, sr: Any, *, piece: Sides
    ) -> Array:
        @partial(on_devices, in_specs=(same, same, each, each, each, each))
        def compute(
            params: Any, stats: Any, windows: Any, features: Any, start: Any, sr: Any
        ) -> Array:
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
                sr,
                piece=piece,
            )

        return compute(params, stats, windows, features, start, sr)

    @partial(jax.jit, static_argnames="shape")
    def empty(*, shape: tuple[int, ...]) -> Array:
        return jax.lax.with_sharding_constraint(jnp.zeros(shape, jnp.float32), sharding)

    def in_two(windows: Window, tiles: Sequence[Window], piece: Sides) -> Array:
        assert network.split
        n, planes, height, width, channels = windows.pixels.shape
        corners = np.stack([tile.corner for tile in tiles])
        sides = np.stack([tile.sides for tile in tiles])
        features = head(params, stats, windows)
        outputs = planes if planes > 1 else channels
        sr = empty(shape=(n, height * network.scale, width * network.scale, outputs))
        for place in np.ndindex(*-(-sides.max(axis=0) // piece)):
            start = corners + np.minimum(np.multiply(place, piece), np.maximum(sides - piece, 0))
            start = np.minimum(start, np.array((height, width)) - piece)
            start = jax.device_put(start.astype(np.int32), sharding)
            sr = tail(params, stats, windows, features, start, sr, piece=piece)
        return sr

    def upscale(windows: Sequence[Window], *, way: Way, piece: Sides) -> Array:
        if way == "exact" and network.split:
            return in_two(put(windows), windows, piece)
        return in_one(params, stats, put(windows), way=way)

    @partial(jax.jit, static_argnames=("dtype", "gray", "alpha"))
    def finish(
        views: Sequence[Array],
        corners: Sequence[Int32[Array, "n 2"]],
        *,
        dtype: np.dtype,
        gray: bool,
        alpha: bool,
    ) -> tuple[Levels, Bool[Array, " n"]]:
        upright = [_upright(view, k) for k, view in zip(symmetries, views, strict=True)]
        shift = jax.vmap(partial(jnp.roll, axis=(0, 1)))
        placed = [
            shift(view, network.scale * (corners[0] - corner))
            for view, corner in zip(upright[1:], corners[1:], strict=True)
        ]
        mean = jnp.stack([upright[0], *placed]).mean(axis=0) if placed else upright[0]
        finite = jnp.isfinite(mean).all(axis=(1, 2, 3))
        return _as(images.to_unsigned(mean, dtype), gray=gray, alpha=alpha), finite

    return Programs(mesh.size, upscale, finish)


def _insides(windows: Any) -> Int32[Array, "planes 4"]:
    """Return what is inside the image, of each plane of a device's window."""
    return jnp.broadcast_to(windows.inside, (windows.pixels.shape[1], 4))


def _joined(sr: Float[Array, "planes h w c"]) -> Float[Array, "1 h w _"]:
    """Return the planes of an image as its channels."""
    return jnp.moveaxis(sr, 0, -1)[None, ..., 0, :] if len(sr) > 1 else sr


def _add_piece(
    tail: Callable[..., Float[Array, "planes h w c"]],
    network: Windowed,
    split: Split,
    planes: Float[Array, "planes t u c"],
    features: Float[Array, "planes _ _ d"],
    inside: Int32[Array, "4"],
    start: Int32[Array, "2"],
    sr: Float[Array, "1 st su e"],
    *,
    piece: Sides,
) -> Float[Array, "1 st su e"]:
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
    out = jax.lax.dynamic_slice(out, (0, row, column, 0), shape)
    row, column = start * scale
    return jax.lax.dynamic_update_slice(sr, out, (0, row, column, 0))


def _upright(views: Float[Array, "n h w c"], symmetry: int) -> Float[Array, "n _ _ c"]:
    """Undo `images.dihedral`; sides may differ."""
    views = views.swapaxes(1, 2) if symmetry & 4 else views
    views = views[:, :, ::-1] if symmetry & 2 else views
    return views[:, ::-1] if symmetry & 1 else views


def _as(sr: Levels, *, gray: bool, alpha: bool) -> Levels:
    """Return those channels of a generator's output that its input has."""
    if sr.shape[-1] < 3:  # of gray planes
        return sr
    colours = images.rgb_to_gray(sr[..., :3]) if gray else sr[..., :3]
    return jnp.concatenate([colours, sr[..., 3:]], axis=-1) if alpha else colours
