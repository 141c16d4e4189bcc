"""Small discriminators of every kind with random weights, for the tests of them."""

import jax
import jax.numpy as jnp
import numpy as np

from isr_jax.models import discriminator

# (options, crop, shape of the logits of one image)
CASES = {
    "classifier": ({"widths": (4, 8, 8), "dense": 8}, 24, ()),
    "classifier, odd": ({"widths": (4, 8, 8), "dense": 8, "batch_norm": False}, 17, ()),
    "vgg to 3": ({"name": "vgg", "width": 3, "dense": 5}, 24, ()),
    "vgg to 4": ({"name": "vgg", "width": 3, "dense": 5}, 32, ()),
    "vgg of five stages": ({"name": "vgg", "width": 2, "dense": 5}, 96, ()),
    "unet": ({"name": "unet", "width": 4}, 40, (40, 40)),
    "unet without skips": ({"name": "unet", "width": 4, "skip": False}, 16, (16, 16)),
    "patch": ({"name": "patch", "width": 4}, 37, (2, 2)),
    "patch of five layers": ({"name": "patch", "width": 2, "layers": 5}, 100, (1, 1)),
}


def random_like(tree):
    """Arrays of these shapes: He's kernels, scales near 1, biases near 0, vectors of length 1."""
    rng = np.random.default_rng(0)
    centres = {"scale": 1.0, "slope": 0.25}

    def draw(path, like):
        x, name = rng.normal(size=like.shape), path[-1].key
        if name == "kernel":
            x *= np.sqrt(2 / np.prod(like.shape[:-1]))
        elif name in ("u", "v"):
            x /= np.linalg.norm(x)
        else:
            x = 0.1 * x + centres.get(name, 0.0)
        return jnp.asarray(x, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, tree)


def make(case, **options):
    """The discriminator of a case, random parameters and statistics, and three images."""
    own, crop, _ = CASES[case]
    network = discriminator({**own, **options}, crop=crop)
    # Compiling `init` would take longer than all that is tested with it.
    params, stats = random_like(jax.eval_shape(network.init, jax.random.key(0)))
    # With this key no activation is so near its kink that rounding could tip it: moving every
    # weight by 1e-6 of itself moved no gradient by more than 3e-5, forty times.
    images = jax.random.uniform(jax.random.key(5), (3, crop, crop, 3))
    return network, params, stats, images
