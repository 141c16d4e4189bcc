"""What ONNX has for the primitives of a trace, and for jitted functions that it has whole.

A rule takes the graph, the equation of the trace and its inputs, and returns the result, or a list
of results. Images stay NCHW where a rule allows; what mixes their axes gets them as traced.
"""

from collections.abc import Callable, Sequence
from math import isqrt, prod
from typing import Any

import flax.linen as nn
import numpy as np
from jax.extend.core import primitives

from isr_jax import images
from isr_jax.export.graph import FIRST, Graph, Value
from isr_jax.models import attention, layers, plksr, rrdbnet

Rule = Callable[..., Value | list[Value]]


class NoRule(Exception):
    """An operation cannot be converted."""


def _shapes(eqn: Any) -> tuple[list[Any], list[Any]]:
    """Return the shapes of inputs and outputs as traced, with symbolic n, h and w."""
    return [x.aval.shape for x in eqn.invars], [x.aval.shape for x in eqn.outvars]


def _elementwise(kind: str) -> Rule:
    """Return the rule of an ONNX operator on elements."""
    return _computed(lambda graph, *operands: graph(kind, operands))


def _computed(compute: Callable[..., str]) -> Rule:
    """Return the rule of a function of elements, from one of the graph and operands."""

    def rule(graph: Graph, eqn: Any, *values: Value) -> Value:
        first = any(value.channels_first for value in values)
        operands = [
            graph.operand(value, channels_first=first and x.aval.ndim == 4)
            for x, value in zip(eqn.invars, values, strict=False)
        ]
        shapes, (shape,) = _shapes(eqn)
        whole = any(
            own == shape and value.spread is None
            for own, value in zip(shapes, values, strict=False)
        )
        return Value(compute(graph, *operands), first, None if whole else shape)

    return rule


def _gelu(graph: Graph, x: Any) -> str:
    half = graph("Mul", [x, np.float32(0.5)])
    error = graph("Erf", [graph("Mul", [x, np.float32(0.5**0.5)])])
    return graph("Mul", [half, graph("Add", [error, np.float32(1)])])


def _cast(graph: Graph, eqn: Any, x: Value) -> Value | list[Value]:
    dtype = eqn.params["new_dtype"]
    return _computed(lambda graph, x: graph.cast(x, dtype))(graph, eqn, x)


def _select(graph: Graph, eqn: Any, which: Value, *cases: Value) -> Value | list[Value]:
    if len(cases) != 2 or eqn.invars[0].aval.dtype != bool:
        raise NoRule("a choice among several")
    where = _computed(lambda graph, which, no, yes: graph("Where", [which, yes, no]))
    return where(graph, eqn, which, *cases)


def _broadcast(graph: Graph, eqn: Any, x: Value) -> Value:
    """Add axes; sides are repeated only where something needs them."""
    (own,), (shape,) = _shapes(eqn)
    kept = eqn.params["broadcast_dimensions"]
    if len(own) == len(shape):
        return x._replace(spread=x.spread if own == shape else shape)
    added = [i for i in range(len(shape)) if i not in kept]
    data = graph.operand(x, channels_first=False)
    if isinstance(data, str):
        data = graph("Unsqueeze", [data, np.array(added)])
    else:
        data = np.expand_dims(np.asarray(data), tuple(added))
    return Value(data, False, shape)


def _reshape(graph: Graph, eqn: Any, x: Value) -> Value:
    (own,), (shape,) = _shapes(eqn)
    if own == shape:
        return x
    unknown = [i for i, side in enumerate(shape) if not isinstance(side, int)]
    if len(unknown) == 1:
        shape = [-1 if i == unknown[0] else side for i, side in enumerate(shape)]
    return Value(graph("Reshape", [graph.plain(x), graph.shape(shape)]))


def _transpose(graph: Graph, eqn: Any, x: Value) -> Value:
    return Value(_permuted(graph, graph.plain(x), list(eqn.params["permutation"])))


def _axes(x: Value, axes: Sequence[int]) -> list[int]:
    """Return where axes of the trace are in a value's own layout."""
    return [FIRST.index(axis) for axis in axes] if x.channels_first else list(axes)


def _reduce(kind: str) -> Rule:
    def rule(graph: Graph, eqn: Any, x: Value) -> Value:
        axes = eqn.params["axes"]
        if x.channels_first and axes not in ((3,), (1, 2)):
            x = Value(graph.plain(x))
        data = graph.whole(x)
        if kind == "ReduceSum":  # the first whose axes are an input
            return Value(graph(kind, [data, np.array(_axes(x, axes))], attributes={"keepdims": 0}))
        return Value(graph(kind, [data], attributes={"axes": _axes(x, axes), "keepdims": 0}))

    return rule


def _concatenate(graph: Graph, eqn: Any, *values: Value) -> Value:
    axis = eqn.params["dimension"]
    if any(value.channels_first for value in values):
        parts = [graph.images(value) for value in values]
        return Value(graph("Concat", parts, attributes={"axis": FIRST.index(axis)}), True)
    return Value(
        graph("Concat", [graph.plain(value) for value in values], attributes={"axis": axis})
    )


def _cut(graph: Graph, x: Value, cuts: Sequence[tuple[int, Any, Any, int]]) -> Value:
    """Slice: (axis, start, end, step) for each axis that is not taken whole."""
    if not cuts:
        return x
    axes, starts, ends, steps = zip(*cuts, strict=True)
    numbers = [graph.shape(starts), graph.shape(ends), np.array(_axes(x, axes)), np.array(steps)]
    return Value(graph("Slice", [graph.whole(x), *numbers]), x.channels_first)


def _slice(graph: Graph, eqn: Any, x: Value) -> Value:
    (shape,), _ = _shapes(eqn)
    starts, ends = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or (1,) * len(shape)
    cuts = zip(range(len(shape)), starts, ends, steps, strict=True)
    return _cut(graph, x, [cut for cut in cuts if cut[1:] != (0, shape[cut[0]], 1)])


def _split(graph: Graph, eqn: Any, x: Value) -> list[Value]:
    axis, ends = eqn.params["axis"], np.cumsum(eqn.params["sizes"]).tolist()
    starts = [0, *ends[:-1]]
    return [
        _cut(graph, x, [(axis, start, end, 1)]) for start, end in zip(starts, ends, strict=True)
    ]


def _reversed(graph: Graph, eqn: Any, x: Value) -> Value:
    end = np.iinfo(np.int64).min
    return _cut(graph, x, [(axis, -1, end, -1) for axis in eqn.params["dimensions"]])


def _pad(graph: Graph, eqn: Any, x: Value, value: Value) -> Value:
    config = eqn.params["padding_config"]
    pads = [config[i] for i in FIRST] if x.channels_first else config
    if any(inner != 0 or (isinstance(low, int) and low < 0) for low, _, inner in pads):
        raise NoRule("padding within")
    widths = graph.shape([low for low, _, _ in pads] + [high for _, high, _ in pads])
    return Value(graph("Pad", [graph.whole(x), widths, value.data]), x.channels_first)


def _gather(graph: Graph, eqn: Any, x: Value, indices: Value) -> Value:
    """Convert indexing: by numbers and slices, `jnp.take`, and by arrays for the first axes."""
    (shape, _), (result,) = _shapes(eqn)
    how, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    axes = how.start_index_map
    if indices.constant and np.ndim(indices.data) == 1:
        starts = dict(zip(axes, np.asarray(indices.data).tolist(), strict=True))
        cuts = [(i, start, start + sizes[i], 1) for i, start in starts.items()]
        part = _cut(graph, x, [cut for cut in cuts if cut[1:3] != (0, shape[cut[0]])])
        if not how.collapsed_slice_dims:
            return part
        return Value(graph("Squeeze", [graph.plain(part), np.array(how.collapsed_slice_dims)]))
    taken = tuple(1 if i in axes else side for i, side in enumerate(shape))
    if how.collapsed_slice_dims != axes or tuple(sizes) != taken or how.operand_batching_dims:
        raise NoRule("gathering parts of rows")
    batch, inner = len(result) - len(how.offset_dims), len(shape) - len(axes)
    at = graph.cast(graph.plain(indices), np.int64)
    if len(axes) == 1 and how.offset_dims == (
        *range(axes[0]),
        *range(axes[0] + batch, len(result)),
    ):
        at = graph("Squeeze", [at, np.array([-1])])
        return Value(graph("Gather", [graph.plain(x), at], attributes={"axis": axes[0]}))
    if axes == tuple(range(len(axes))) and how.offset_dims == tuple(range(batch, batch + inner)):
        return Value(graph("GatherND", [graph.plain(x), at]))
    raise NoRule("gathering along inner axes")


def _iota(graph: Graph, eqn: Any, *_: Value) -> Value:
    shape, axis = eqn.params["shape"], eqn.params["dimension"]
    length = graph("Squeeze", [graph.side(shape[axis])])
    numbers = graph.cast(graph("Range", [np.int64(0), length, np.int64(1)]), eqn.params["dtype"])
    others = [i for i in range(len(shape)) if i != axis]
    if not others:
        return Value(numbers)
    return Value(graph("Unsqueeze", [numbers, np.array(others)]), False, shape)


def _dim_as_value(graph: Graph, eqn: Any) -> Value:
    side = graph("Squeeze", [graph.side(eqn.params["dim"])])
    return Value(graph.cast(side, eqn.outvars[0].aval.dtype))


def _dot(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    """Convert a product over axes to one of matrices, in batches."""
    (a, b), (result,) = _shapes(eqn)
    (sum_a, sum_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
    free_a = [i for i in range(len(a)) if i not in (*sum_a, *batch_a)]
    free_b = [i for i in range(len(b)) if i not in (*sum_b, *batch_b)]
    left, right = graph.plain(x), graph.plain(y)
    left = _permuted(graph, left, [*batch_a, *free_a, *sum_a])
    right = _permuted(graph, right, [*batch_b, *sum_b, *free_b])
    depth, batch = prod(a[i] for i in sum_a), [a[i] for i in batch_a]
    # Matrices of a single y take any leading axes of x.
    simple = len(sum_a) == len(free_b) == 1 and (len(free_a) == 1 or (free_a and not batch))
    if not simple:
        rows, columns = prod(a[i] for i in free_a), prod(b[i] for i in free_b)
        left = graph("Reshape", [left, graph.shape([*batch, rows, depth])])
        right = graph("Reshape", [right, graph.shape([*batch, depth, columns])])
    product = graph("MatMul", [left, right])
    return Value(product if simple else graph("Reshape", [product, graph.shape(result)]))


def _permuted(graph: Graph, x: Any, order: list[int]) -> Any:
    if order == sorted(order):
        return x
    return (
        graph("Transpose", [x], attributes={"perm": order})
        if isinstance(x, str)
        else np.transpose(x, order)
    )


def _conv(graph: Graph, eqn: Any, x: Value, kernel: Value) -> Value:
    how = eqn.params["dimension_numbers"]
    if not kernel.constant or how.lhs_spec != FIRST or how.out_spec != FIRST:
        raise NoRule("a convolution whose kernel is computed, or not of NHWC")
    if set(eqn.params["lhs_dilation"]) != {1} or eqn.params["batch_group_count"] != 1:
        raise NoRule("a transposed convolution")
    (top, bottom), (left, right) = eqn.params["padding"]
    others = {
        "pads": [top, left, bottom, right],
        "strides": eqn.params["window_strides"],
        "dilations": eqn.params["rhs_dilation"],
        "group": eqn.params["feature_group_count"],
    }
    weights = np.transpose(kernel.data, how.rhs_spec)
    return Value(graph("Conv", [graph.images(x), weights], attributes=others), True)


def _max_pool(graph: Graph, eqn: Any, x: Value) -> Value:
    window, steps = eqn.params["window_dimensions"], eqn.params["window_strides"]
    padded = any(width != 0 for pads in eqn.params["padding"] for width in pads)
    if padded or window[0] != 1 or window[3] != 1:
        raise NoRule("pooling of padded images")
    sides = {"kernel_shape": window[1:3], "strides": steps[1:3]}
    return Value(graph("MaxPool", [graph.images(x)], attributes=sides), True)


def _on_images(compute: Callable[..., str]) -> Rule:
    """Return the rule of a function of images, from one of the graph, the equation and names."""

    def rule(graph: Graph, eqn: Any, x: Value, *others: Value) -> Value:
        return Value(compute(graph, eqn, graph.images(x), *others), True)

    return rule


def _prelu(graph: Graph, eqn: Any, x: str, slope: Value) -> str:
    return graph("PRelu", [x, np.reshape(slope.data, (-1, 1, 1))])


def _weigh_shifted(graph: Graph, eqn: Any, x: str, kernel: Value) -> str:
    if not kernel.constant:
        raise NoRule("a convolution whose kernel is computed")
    weights, reach = np.transpose(kernel.data, (2, 0, 1))[:, None], kernel.data.shape[0] // 2
    return graph("Conv", [x, weights], attributes={"pads": [reach] * 4, "group": len(weights)})


def _depth_to_space(graph: Graph, eqn: Any, x: str) -> str:
    (deep,), (flat,) = _shapes(eqn)
    return graph("DepthToSpace", [x], attributes={"blocksize": isqrt(deep[3] // flat[3])})


def _pad_edge(graph: Graph, eqn: Any, x: str) -> str:
    (small,), (large,) = _shapes(eqn)
    reach = (large[1] - small[1]) // 2
    return graph("Pad", [x, np.array([0, 0, reach, reach] * 2)], attributes={"mode": "edge"})


def _upsample_nearest(graph: Graph, eqn: Any, x: str) -> str:
    (small,), (large,) = _shapes(eqn)
    factors = np.array([1, 1, large[1] // small[1], large[2] // small[2]], np.float32)
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph(
        "Resize", [x, np.zeros(0, np.float32), factors], attributes={"mode": "nearest", **how}
    )


def _folded(graph: Graph, eqn: Any, lr: str) -> str:
    (flat,), (deep,) = _shapes(eqn)
    factor = isqrt(deep[3] // flat[3])
    missing = graph(
        "Mod",
        [graph("Neg", [graph("Shape", [lr], attributes={"start": 2, "end": 4})]), np.int64(factor)],
    )
    pads = graph("Concat", [np.zeros(6, np.int64), missing], attributes={"axis": 0})
    return graph(
        "SpaceToDepth",
        [graph("Pad", [lr, pads], attributes={"mode": "reflect"})],
        attributes={"blocksize": factor},
    )


def _cropped(graph: Graph, eqn: Any, sr: str, lr: Value) -> str:
    (_, small), (large,) = _shapes(eqn)
    own = graph("Shape", [graph.images(lr)], attributes={"start": 2, "end": 4})
    size = graph("Mul", [own, np.int64(large[1] // small[1])])
    return graph("Slice", [sr, np.zeros(2, np.int64), size, np.array([2, 3])])


# By JAX's primitives, and by jitted functions, which stay one call in a trace. A trace has only
# their names, so the names are taken from the objects.
RULES: dict[Any, Rule] = {
    primitives.add_p: _elementwise("Add"),
    primitives.sub_p: _elementwise("Sub"),
    primitives.mul_p: _elementwise("Mul"),
    primitives.div_p: _elementwise("Div"),
    primitives.max_p: _elementwise("Max"),
    primitives.min_p: _elementwise("Min"),
    primitives.rem_p: _computed(lambda graph, x, y: graph("Mod", [x, y], attributes={"fmod": 1})),
    primitives.neg_p: _elementwise("Neg"),
    primitives.abs_p: _elementwise("Abs"),
    primitives.exp_p: _elementwise("Exp"),
    primitives.floor_p: _elementwise("Floor"),
    primitives.sqrt_p: _elementwise("Sqrt"),
    primitives.rsqrt_p: _computed(lambda graph, x: graph("Reciprocal", [graph("Sqrt", [x])])),
    primitives.square_p: _computed(lambda graph, x: graph("Mul", [x, x])),
    primitives.logistic_p: _elementwise("Sigmoid"),
    primitives.eq_p: _elementwise("Equal"),
    primitives.ne_p: _computed(lambda graph, x, y: graph("Not", [graph("Equal", [x, y])])),
    primitives.lt_p: _elementwise("Less"),
    primitives.le_p: _elementwise("LessOrEqual"),
    primitives.gt_p: _elementwise("Greater"),
    primitives.ge_p: _elementwise("GreaterOrEqual"),
    primitives.and_p: _elementwise("And"),
    primitives.or_p: _elementwise("Or"),
    primitives.not_p: _elementwise("Not"),
    primitives.clamp_p: _computed(
        lambda graph, low, x, high: graph("Min", [graph("Max", [x, low]), high])
    ),
    primitives.select_n_p: _select,
    primitives.convert_element_type_p: _cast,
    "stop_gradient": lambda graph, eqn, x: x,
    primitives.broadcast_in_dim_p: _broadcast,
    primitives.reshape_p: _reshape,
    primitives.squeeze_p: _reshape,
    primitives.transpose_p: _transpose,
    primitives.concatenate_p: _concatenate,
    primitives.slice_p: _slice,
    "split": _split,
    primitives.rev_p: _reversed,
    primitives.pad_p: _pad,
    primitives.gather_p: _gather,
    primitives.iota_p: _iota,
    "dim_as_value": _dim_as_value,
    primitives.reduce_sum_p: _reduce("ReduceSum"),
    primitives.reduce_max_p: _reduce("ReduceMax"),
    primitives.dot_general_p: _dot,
    primitives.conv_general_dilated_p: _conv,
    primitives.reduce_window_max_p: _max_pool,
    attention.gelu: _computed(_gelu),
    plksr.mish: _computed(
        lambda graph, x: graph("Mul", [x, graph("Tanh", [graph("Softplus", [x])])])
    ),
    layers.image_mean: _on_images(lambda graph, eqn, x: graph("GlobalAveragePool", [x])),
    nn.relu: _elementwise("Relu"),
    nn.leaky_relu: lambda graph, eqn, x, slope: _computed(
        lambda graph, x: graph("LeakyRelu", [x], attributes={"alpha": float(slope.data)})
    )(graph, eqn, x),
    layers.weigh_shifted: _on_images(_weigh_shifted),
    layers.prelu: _on_images(_prelu),
    images.depth_to_space: _on_images(_depth_to_space),
    images.pad_edge: _on_images(_pad_edge),
    layers.upsample_nearest: _on_images(_upsample_nearest),
    rrdbnet.folded: _on_images(_folded),
    rrdbnet.cropped: _on_images(_cropped),
}
BY_NAME = {
    key if isinstance(key, str) else getattr(key, "__name__", None) or key.name: rule
    for key, rule in RULES.items()
}
