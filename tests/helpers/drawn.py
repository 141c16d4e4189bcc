"""Small generators with random parameters, and photos of noise, for tests of tiles."""

from functools import cache

import jax
import numpy as np

from isr_jax.models import GENERATORS, generator
from isr_jax.models.generators import make_upscale
from isr_jax.tiling.tiles import make_tiled, plan
from isr_jax.tiling.windows import windowed

DEEP = {"name": "rrdbnet", "width": 6, "growth": 4, "blocks": 1}
ATTENTION = {"width": 8, "depths": (2,), "heads": (2,), "mlp_ratio": 1.0}
CASES = {
    "small": ({"width": 6, "blocks": 1, "tail": "direct", "global_skip": "bicubic"}, 4),
    "equivariant": (
        {"width": 6, "blocks": 1, "global_skip": "bicubic", "equivariant": True, "kernel": 5},
        3,
    ),
    "srresnet": ({**GENERATORS["srresnet"], "width": 6, "blocks": 1}, 3),
    "edsr": (
        {**GENERATORS["edsr_baseline"], "width": 6, "blocks": 1, "residual_scale": 0.1},
        4,
    ),
    "hr_conv": ({"width": 6, "blocks": 1, "tail": "hr_conv", "global_skip": "bicubic"}, 4),
    "concat": (
        {"width": 6, "blocks": 2, "convs": 1, "skip": "concat", "global_skip": "bilinear"},
        2,
    ),
    "msrresnet": ({"name": "msrresnet", "width": 6, "blocks": 1}, 3),
    "rrdbnet x4": (DEEP, 4),
    "rrdbnet x2": (DEEP, 2),
    "rrdbnet x1": (DEEP, 1),
    "srvggnet": ({"name": "srvggnet", "width": 6, "layers": 2}, 4),
    "span": ({"name": "span", "width": 4, "norm": False}, 2),
    "realplksr": (
        {"name": "realplksr", "width": 8, "blocks": 1, "kernel": 7, "partial": 3, "norm": "layer"},
        2,
    ),
}
# Whose tiles are approximate.
BEYOND = {
    "swinir": ({"name": "swinir", **ATTENTION, "window": 4, "features": 4}, 2),
    "dat": ({"name": "dat", **ATTENTION, "width": 32, "split": (4, 8), "features": 4}, 2),
    "plksr": ({"name": "realplksr", "width": 4, "blocks": 1, "kernel": 3, "partial": 2}, 2),
}
# Of gray images, and of ones with alpha.
CHANNELS = {
    "gray": ({**DEEP, "blocks": 1, "channels": 1}, 2),
    "alpha": ({**DEEP, "blocks": 1, "channels": 4}, 2),
}


@cache
def drawn(case):
    """A generator with parameters, biases too, that make an image of much contrast."""
    options, scale = {**CASES, **BEYOND, **CHANNELS}[case]
    network = generator(options, scale=scale)
    rng = np.random.default_rng(0)

    def draw(path, x):
        name = path[-1].key
        if name in ("slope", "var", "scale"):
            return rng.uniform(0.1, 1.0, x.shape).astype(np.float32)
        deviation = 1.3 / np.prod(x.shape[:-1]) ** 0.5 if name == "kernel" else 0.1
        return rng.normal(0, deviation, x.shape).astype(np.float32)

    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return network, windowed(network), *jax.tree_util.tree_map_with_path(draw, shapes)


@cache
def whole(case):
    return make_upscale(drawn(case)[0])


@cache
def tiled(case, tile, ensemble=False):
    _, network, params, stats = drawn(case)
    return make_tiled(network, plan(network, tile=tile), ensemble=ensemble)(params, stats)


def photo(*shape, dtype=np.uint8):
    """Noise from black to white."""
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def soft(*shape, dtype):
    """Noise far from black and white, so that an interpolation clips nothing; none is hidden."""
    most = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(most // 3, most // 3 * 2, shape, dtype)


def assert_same(tiles, expected):
    """Equal, but for a pixel in a thousand whose sums round to the next level."""
    difference = np.abs(tiles.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert np.mean(difference > 0) <= 1e-3
