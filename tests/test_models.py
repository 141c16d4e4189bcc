"""Networks: published parameter counts, shapes at every scale, what they start as, precision."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isr_jax import config as base
from isr_jax import resize
from isr_jax.errors import UserError
from isr_jax.models import count_params, generator
from isr_jax.models.rrdbnet import folded

KEY = jax.random.key(0)
SMALL = {"width": 8, "blocks": 1}


def abstract_count(network):
    params, _ = jax.eval_shape(network.init, KEY)
    return count_params(params)


@pytest.mark.parametrize("scale, expected", [(2, 1_369_859), (3, 1_554_499), (4, 1_517_571)])
def test_edsr_baseline_has_its_published_parameters(scale, expected):
    """Lim et al. 2017: 1.4, 1.6 and 1.5 M; to the digit, those of the authors' implementation."""
    assert abstract_count(generator(base.GENERATORS["edsr_baseline"], scale=scale)) == expected


def test_edsr_has_its_published_parameters():
    network = generator(base.GENERATORS["edsr"], scale=4)
    assert abstract_count(network) == 43_089_923


def test_srresnet_counts_as_by_hand():
    network = generator(base.GENERATORS["srresnet"], scale=4)
    conv64, norm, slope = 64 * 64 * 9, 2 * 64, 64
    head = 3 * 64 * 81 + 64 + slope
    trunk = 16 * (2 * conv64 + 2 * norm + slope) + conv64 + norm
    tail = 2 * (64 * 256 * 9 + 256 + slope) + 64 * 3 * 81 + 3
    assert abstract_count(network) == head + trunk + tail


@pytest.mark.parametrize(
    "published, scale, changed, expected",
    [
        # Real-ESRGAN: x4plus, x2plus, x4plus_anime_6B; general-x4v3, animevideov3
        ("rrdbnet", 4, {}, 16_697_987),
        ("rrdbnet", 2, {}, 16_703_171),
        ("rrdbnet", 4, {"blocks": 6}, 4_467_779),
        ("srvggnet", 4, {}, 1_213_296),
        ("srvggnet", 4, {"layers": 16}, 621_424),
        ("msrresnet", 4, {}, 1_517_571),
    ],
)
def test_published_generators_have_their_published_parameters(published, scale, changed, expected):
    """ESRGAN has 16.70 M; to the digit, those of the authors' implementations."""
    network = generator({**base.GENERATORS[published], **changed}, scale=scale)
    assert abstract_count(network) == expected


@pytest.mark.parametrize("tail", ["direct", "hr_conv", "progressive"])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_every_scale_enlarges_odd_sizes(scale, tail):
    network = generator({**SMALL, "tail": tail}, scale=scale)
    sr, _ = network.apply(*network.init(KEY), jnp.ones((2, 5, 7, 3)), train=False)
    assert sr.shape == (2, 5 * scale, 7 * scale, 3)
    assert sr.dtype == jnp.float32


DEEP = {"name": "rrdbnet", "width": 8, "growth": 4, "blocks": 2}
COMPACT = {"name": "srvggnet", "width": 8, "layers": 2}
EQUIVARIANT = {**SMALL, "blocks": 2, "global_skip": "bicubic", "equivariant": True}


@pytest.mark.parametrize(
    "options, scale",
    [
        *((DEEP, scale) for scale in (1, 2, 4)),
        ({**DEEP, "doublings": 3}, 8),
        *((COMPACT, scale) for scale in (1, 2, 3, 4, 8)),
        *(({"name": "msrresnet", **SMALL}, scale) for scale in (2, 3, 4)),
    ],
)
def test_every_architecture_enlarges_odd_sizes_at_every_scale(options, scale):
    network = generator(options, scale=scale)
    params, stats = network.init(KEY)
    assert stats == {}
    sr, _ = network.apply(params, stats, jnp.ones((2, 5, 7, 3)), train=False)
    assert (sr.shape, sr.dtype) == ((2, 5 * scale, 7 * scale, 3), jnp.float32)


def test_dense_blocks_start_at_a_tenth_of_he():
    """Every block with other values, of variance 0.02 / fan_in, and biases of 0."""
    network = generator({**DEEP, "width": 32, "growth": 16, "blocks": 3}, scale=4)
    params, _ = network.init(KEY)
    kernels = [
        dense[f"Conv_{i}"]["kernel"]
        for block in range(3)
        for dense in params[f"RRDB_{block}"].values()
        for i in range(5)
    ]
    for kernel in kernels:
        assert np.var(kernel) * math.prod(kernel.shape[:3]) == pytest.approx(0.02, rel=0.1)
    firsts = [kernel.ravel() for kernel in kernels[::5]]
    assert np.abs(np.corrcoef(firsts) - np.eye(9)).max() < 0.1
    biases = [
        leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if "bias" in str(path)
    ]
    assert len(biases) == 51
    assert not any(np.any(bias) for bias in biases)


def test_the_other_published_generators_start_as_documented():
    lr = jax.random.uniform(KEY, (1, 6, 5, 3))
    compact = generator(COMPACT, scale=3)
    sr, _ = compact.apply(*compact.init(KEY), lr, train=True)
    np.testing.assert_array_equal(sr, np.repeat(np.repeat(lr, 3, 1), 3, 2))
    params, _ = generator({"name": "msrresnet", "width": 32, "blocks": 1}, scale=2).init(KEY)
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 4]
    assert len(kernels) == 6
    for kernel in kernels[1:]:
        assert np.var(kernel) * math.prod(kernel.shape[:3]) == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize(
    "options, scale, said",
    [
        ({"name": "srgan"}, 4, r"name 'srgan'; choose one of resnet, msrresnet, rrdbnet, srvggnet"),
        ({**DEEP, "layers": 3}, 4, r"field of generator rrdbnet 'layers'; choose one of channels"),
        ({"grow": 3, "name": "rrdbnet"}, 4, r"generator rrdbnet 'grow'; .* did you mean growth\?"),
        ({"scale": 2}, 4, r"unknown field of generator resnet 'scale'"),
        (DEEP, 3, r"scale is 3; rrdbnet supports 1, 2, 4, 8"),
        ({"name": "msrresnet"}, 8, r"scale is 8; msrresnet supports 2, 3, 4"),
        (
            {"equivariant": True},
            4,
            r"equivariant needs a global_skip, such as bicubic, and neither",
        ),
        ({**EQUIVARIANT, "batch_norm": True}, 4, r"equivariant .* neither batch_norm nor rgb_mean"),
        ({**EQUIVARIANT, "rgb_mean": (0.0, 0.1, 0.0)}, 4, r"equivariant .* nor rgb_mean"),
    ],
)
def test_what_an_architecture_does_not_have_is_refused(options, scale, said):
    with pytest.raises(UserError, match=said):
        generator(options, scale=scale)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_sides_that_do_not_divide_are_reflected_before_folding(factor):
    for h, w in ((1, 2), (3, 8), (5, 6)):
        lr = np.random.default_rng(0).random((2, h, w, 3), np.float32)
        sides = ((0, 0), (0, -h % factor), (0, -w % factor), (0, 0))
        padded = np.pad(lr, sides, mode="reflect")
        deep = folded(jnp.asarray(lr), factor)
        for i, j in np.ndindex(factor, factor):
            channels = np.arange(3) + 3 * (factor * i + j)
            np.testing.assert_array_equal(deep[..., channels], padded[:, i::factor, j::factor])


def test_doublings_must_reach_the_scale():
    with pytest.raises(UserError, match=r"doublings=2 cannot upscale by 8; it must be 3"):
        generator(DEEP, scale=8).init(KEY)


@pytest.mark.parametrize("options", [DEEP, COMPACT, {"name": "msrresnet", **SMALL}])
def test_every_architecture_computes_in_bfloat16_on_float32_params(options):
    full, half = (generator({**options, "dtype": d}, scale=2) for d in ("float32", "bfloat16"))
    params, stats = jax.eval_shape(half.init, KEY)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape, scale=0.1).astype("float32"), params)
    lr = jax.random.uniform(KEY, (1, 8, 8, 3))
    exact, near = (
        jax.jit(n.apply, static_argnames="train")(params, stats, lr, train=False)[0]
        for n in (full, half)
    )
    assert near.dtype == jnp.float32
    assert 0 < np.abs(exact - near).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("tail", ["direct", "hr_conv", "progressive"])
def test_global_skip_starts_as_its_interpolation(method, tail):
    network = generator({**SMALL, "tail": tail, "global_skip": method}, scale=4)
    lr = jax.random.uniform(KEY, (2, 9, 6, 3))
    sr, _ = network.apply(*network.init(KEY), lr, train=True)
    np.testing.assert_allclose(sr, resize.resize(lr, scale=4, method=method), atol=1e-6)


@pytest.mark.parametrize(
    "options, ratio",
    [({"convs": 1}, None), ({"skip": "concat"}, None), ({"residual_scale": 0.0}, 0.0)],
)
def test_block_settings_are_heard(options, ratio):
    """Each setting changes the output; a block whose residual is scaled to 0 is the identity."""
    lr = jax.random.uniform(KEY, (1, 8, 8, 3))
    plain = generator(SMALL, scale=2)
    other = generator({**SMALL, **options}, scale=2)
    sr, _ = other.apply(*other.init(KEY), lr, train=False)
    assert not np.allclose(plain.apply(*plain.init(KEY), lr, train=False)[0], sr)
    if ratio == 0.0:
        without = generator({"width": 8, "blocks": 0}, scale=2)
        params, stats = other.init(KEY)
        rest = {name: value for name, value in params.items() if "ResidualBlock" not in name}
        np.testing.assert_allclose(without.apply(rest, stats, lr, train=False)[0], sr, rtol=1e-6)


def test_concat_can_be_addition():
    """The 1x1 convolution of [x, f(x)] with two identity halves adds them."""
    add = generator(SMALL, scale=2)
    concat = generator({**SMALL, "skip": "concat"}, scale=2)
    params, stats = add.init(KEY)
    own, _ = concat.init(KEY)
    fuse = own["ResidualBlock_0"]["Conv_2"]
    assert fuse["kernel"].shape == (1, 1, 16, 8)
    eye = jnp.eye(8)
    block = {
        **params["ResidualBlock_0"],
        "Conv_2": {"kernel": jnp.concatenate([eye, eye])[None, None], "bias": jnp.zeros(8)},
    }
    lr = jax.random.uniform(KEY, (1, 8, 8, 3))
    np.testing.assert_allclose(
        concat.apply({**params, "ResidualBlock_0": block}, stats, lr, train=False)[0],
        add.apply(params, stats, lr, train=False)[0],
        atol=1e-5,
    )


def test_batch_norm_learns_its_statistics_only_when_training():
    network = generator({**SMALL, "batch_norm": True}, scale=2)
    params, stats = network.init(KEY)
    lr = jax.random.uniform(KEY, (4, 8, 8, 3))
    _, same = network.apply(params, stats, lr, train=False)
    _, updated = network.apply(params, stats, lr, train=True)
    assert jax.tree.all(jax.tree.map(np.array_equal, stats, same))
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, stats, updated)))


def test_bfloat16_computes_near_float32_on_float32_params():
    options = {"activation": "prelu", **SMALL}
    full, half = (generator({**options, "dtype": d}, scale=2) for d in ("float32", "bfloat16"))
    params, stats = half.init(KEY)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    lr = jax.random.uniform(KEY, (1, 8, 8, 3))
    exact, near = (n.apply(params, stats, lr, train=False)[0] for n in (full, half))
    assert near.dtype == jnp.float32
    error = np.abs(exact - near).max()
    assert 0 < error < 0.05 * np.abs(exact).max()


def test_img_range_is_the_value_of_white_inside():
    """A network of ReLUs is homogeneous: 255 times input and biases give 255 times the output."""
    plain, wide = (generator({**SMALL, "img_range": r}, scale=2) for r in (1.0, 255.0))
    params, stats = plain.init(KEY)
    small, large = (
        jax.tree.map(lambda x, b=b: x + b if x.ndim == 1 else x, params) for b in (0.1, 25.5)
    )
    lr = jax.random.uniform(KEY, (1, 6, 6, 3))
    sr = plain.apply(small, stats, lr, train=False)[0]
    np.testing.assert_allclose(
        wide.apply(large, stats, lr, train=False)[0], sr, rtol=1e-4, atol=1e-4
    )
    assert np.abs(wide.apply(small, stats, lr, train=False)[0] - sr).max() > 0.1


def perturbed(network):
    """Parameters with something in every one."""
    leaves, tree = jax.tree.flatten(network.init(KEY)[0])
    keys = jax.random.split(KEY, len(leaves))
    noise = [0.2 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, [x + y for x, y in zip(leaves, noise, strict=True)])


def departure(options, scale):
    """From equivariance, relative to what the network adds to the global skip."""
    network = generator(options, scale=scale)
    params = perturbed(network)
    lr = jax.random.uniform(KEY, (2, 7, 9, 3))
    contrast, colour = 0.3, jnp.array([0.9, -0.2, 0.4])
    sr, other = (
        network.apply(params, {}, x, train=False)[0].astype(jnp.float32)
        for x in (lr, contrast * lr + colour)
    )
    skip = resize.upsample(lr, scale=scale, method=options["global_skip"])
    learnt = jnp.abs(sr - skip).max()
    assert learnt > 0.05
    return float(jnp.abs(other - (contrast * sr + colour)).max() / (contrast * learnt))


@pytest.mark.parametrize(
    "changed, scale",
    [
        ({}, 4),
        ({"tail": "direct", "long_skip": False}, 3),
        ({"tail": "hr_conv", "tail_width": 5, "tail_activation": True}, 4),
        ({"activation": "prelu", "head_activation": True, "tail_activation": True}, 2),
        ({"activation": "leaky_relu", "skip": "concat", "convs": 1, "kernel": 9}, 4),
        ({"global_skip": "nearest", "img_range": 255.0, "residual_scale": 0.1}, 2),
    ],
)
def test_an_equivariant_generator_commutes_with_contrast_and_colour(changed, scale):
    """f(a lr + b) = a f(lr) + b up to the border, for every part that it can be made of."""
    options = EQUIVARIANT | changed
    assert departure(options, scale) < 1e-5
    assert departure({**options, "equivariant": False}, scale) > 1e-2


def test_an_equivariant_generator_keeps_flat_colours_in_bfloat16_too():
    network = generator({**EQUIVARIANT, "dtype": "bfloat16"}, scale=4)
    lr = jnp.broadcast_to(jnp.array([0.001, 0.5, 0.999]), (1, 6, 5, 3))
    sr, _ = network.apply(perturbed(network), {}, lr, train=False)
    np.testing.assert_allclose(sr, np.broadcast_to(lr[0, 0, 0], sr.shape), atol=1e-4)


def test_rgb_mean_is_taken_off_and_put_back():
    mean = (0.4, 0.5, 0.6)
    network = generator({**SMALL, "rgb_mean": mean}, scale=2)
    params, stats = network.init(KEY)
    flat = jnp.broadcast_to(jnp.array(mean), (1, 6, 6, 3))
    # At the mean the network's input is 0, and so is its output, biases being 0 at first.
    np.testing.assert_allclose(
        network.apply(params, stats, flat, train=False)[0],
        np.broadcast_to(mean, (1, 12, 12, 3)),
        1e-6,
    )


def test_an_hr_convolution_follows_a_single_sub_pixel_layer():
    """As many parameters, and the output, as by hand: convolve, rearrange, convolve."""
    options = {**SMALL, "tail": "hr_conv", "tail_width": 5, "blocks": 0, "long_skip": False}
    network = generator(options, scale=3)
    width = SMALL["width"]
    assert abstract_count(network) == (27 * width + width) + (9 * width * 45 + 45 + 9 * 5 * 3 + 3)
    params, stats = network.init(KEY)
    lr = jax.random.uniform(KEY, (2, 6, 5, 3))
    x, (first, wide, last) = lr, [params[name] for name in ("Conv_0", "SubPixel_0", "Conv_1")]

    def convolved(x, layer):
        how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return (
            jax.lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", **how) + layer["bias"]
        )

    x = convolved(convolved(x, first), wide["Conv_0"])
    n, h, w, _ = x.shape
    x = x.reshape(n, h, w, 3, 3, 5).transpose(0, 1, 3, 2, 4, 5).reshape(n, 3 * h, 3 * w, 5)
    expected = convolved(x, last)
    np.testing.assert_allclose(
        network.apply(params, stats, lr, train=False)[0], expected, atol=1e-5
    )


def test_generator_sees_no_further_than_its_receptive_field():
    """By gradient: with one block of two 3x3 convolutions, head and tail, an LR pixel reaches 5."""
    network = generator({**SMALL, "tail": "direct", "long_skip": False}, scale=2)
    params, stats = network.init(KEY)
    lr = jax.random.uniform(KEY, (1, 15, 15, 3))
    seen = jax.grad(lambda x: network.apply(params, stats, x, train=False)[0][0, 14, 14].sum())(lr)
    rows = np.flatnonzero(np.abs(seen[0]).sum((1, 2)))
    assert (rows.min(), rows.max()) == (7 - 4, 7 + 4)
