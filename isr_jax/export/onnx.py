"""Generators as ONNX: a trace of `apply` is converted by a rule per primitive or function."""

from collections.abc import Callable
from math import isqrt
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, primitives
from jax.extend.core import Literal as Constant

from isr_jax import images
from isr_jax.errors import UserError, one_line
from isr_jax.export.stablehlo import any_images
from isr_jax.models import Generator, attention, layers, plksr, rrdbnet

OPSET = 17  # read by ONNX Runtime since 1.12


def to_onnx(network: Generator, params: Any, stats: Any) -> bytes:
    """Return a generator with its parameters as the bytes of an ONNX model of opset 17.

    If an RRDBNet folds its input, sides must be longer than their padding, because ONNX reflects
    only once: at least 3 pixels at scale 1, 2 at scale 2.

    Raises:
        UserError: the onnx package is not installed, or the network has an operation that has no
            rule here, as attention.
    """
    onnx = _onnx()
    traced = jax.make_jaxpr(lambda lr: network.apply(params, stats, lr, train=False)[0])(
        any_images(network.channels)
    )
    graph = _Graph(onnx)
    try:
        _convert(graph, traced, ["input"])
    except _NoRule as error:
        name = type(network.module).__name__
        raise UserError(
            f"{name} cannot be written as ONNX ({one_line(error, limit=100)}); StableHLO can hold "
            "it: --format stablehlo"
        ) from error
    graph.nodes[-1].output[0] = "output"
    opset = [onnx.helper.make_opsetid("", OPSET)]
    (lr,), (sr,) = traced.in_avals, traced.out_avals
    ends = [graph.end("input", lr.shape)], [graph.end("output", sr.shape)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "generator", *ends, graph.constants),
        opset_imports=opset,
        ir_version=onnx.helper.find_min_ir_version_for(opset),
        producer_name="isr_jax",
        doc_string=f"Images in [0, 1], upscaled {network.scale} times; not clipped.",
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _onnx() -> ModuleType:
    try:
        import onnx
    except ImportError as error:
        raise UserError("ONNX needs a package: pip install 'isr-jax[onnx]'") from error
    return onnx


class _NoRule(Exception):
    """An operation cannot be converted."""


class _Graph:
    """The nodes and constants of an ONNX graph under construction."""

    def __init__(self, onnx: ModuleType) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node and its constants, and return the name of its result."""
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        name = f"{kind}_{len(self.nodes)}"
        node = self.onnx.helper.make_node(kind, names, [name], name=name, **attributes)
        self.nodes.append(node)
        return name

    def _constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def end(self, name: str, nhwc: Any) -> Any:
        """Return the description of an input or an output."""
        n, h, w, c = nhwc
        shape = [str(n), c, str(h), str(w)]
        return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)


def _convert(graph: _Graph, traced: ClosedJaxpr, inputs: list[Any]) -> list[Any]:
    """Add the operations of a trace to a graph, and return its results.

    Constants are arrays, NHWC as traced, and computed at once; values that depend on the input are
    names in the graph, NCHW.
    """
    jaxpr = traced.jaxpr
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*traced.consts, *inputs], strict=True))

    def value(x: Any) -> Any:
        return x.val if isinstance(x, Constant) else known[x]

    for eqn in jaxpr.eqns:
        values, called = [value(x) for x in eqn.invars], eqn.params.get("name")
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        rule = _BY_NAME.get(called if inner else eqn.primitive.name)
        if rule and any(isinstance(x, str) for x in values):
            results = [rule(graph, eqn, *values)]
        elif inner:
            results = _convert(graph, inner, values)
        elif any(isinstance(x, str) for x in values):
            raise _NoRule(f"RULES has none for {eqn.primitive.name}")
        elif any(not isinstance(side, int) for x in eqn.outvars for side in x.aval.shape):
            raise _NoRule("an array depends on the image's size")
        else:
            results = [eqn.primitive.bind(*values, **eqn.params)]
        known.update(zip(eqn.outvars, results, strict=True))
    return [value(x) for x in jaxpr.outvars]


def _elementwise(kind: str) -> Callable[..., str]:
    def rule(graph: _Graph, eqn: Any, *values: Any) -> str:
        constant = [not isinstance(x, str) and np.ndim(x) == 4 for x in values]
        nchw = [
            np.transpose(x, (0, 3, 1, 2)) if c else x for x, c in zip(values, constant, strict=True)
        ]
        return graph(kind, *nchw)

    return rule


def _conv(graph: _Graph, eqn: Any, x: str, kernel: Any) -> str:
    (top, bottom), (left, right) = eqn.params["padding"]
    kernel = np.transpose(kernel, eqn.params["dimension_numbers"].rhs_spec)
    return graph("Conv", x, kernel, pads=[top, left, bottom, right])


def _gelu(graph: _Graph, eqn: Any, x: str) -> str:
    half = graph("Mul", x, np.float32(0.5))
    error = graph("Erf", graph("Mul", x, np.float32(0.5**0.5)))
    return graph("Mul", half, graph("Add", error, np.float32(1)))


def _slice(graph: _Graph, eqn: Any, x: str) -> str:
    """Cut some of the channels out."""
    (shape,), _ = _shapes(eqn)
    start, stop = eqn.params["start_indices"][3], eqn.params["limit_indices"][3]
    whole = all(
        begin == 0 and end == side
        for begin, end, side in zip(
            eqn.params["start_indices"][:3], eqn.params["limit_indices"][:3], shape, strict=False
        )
    )
    if not whole or set(eqn.params["strides"] or [1]) != {1}:
        raise _NoRule("RULES has none for slices of images")
    return graph("Slice", x, *(np.array([value]) for value in (start, stop, 1)))


def _prelu(graph: _Graph, eqn: Any, x: str, slope: Any) -> str:
    return graph("PRelu", x, np.reshape(slope, (-1, 1, 1)))


def _depth_to_space(graph: _Graph, eqn: Any, x: str) -> str:
    (deep,), (flat,) = _shapes(eqn)
    return graph("DepthToSpace", x, blocksize=isqrt(deep[3] // flat[3]))


def _pad_edge(graph: _Graph, eqn: Any, x: str) -> str:
    (small,), (large,) = _shapes(eqn)
    reach = (large[1] - small[1]) // 2
    return graph("Pad", x, np.array([0, 0, reach, reach] * 2), mode="edge")


def _upsample_nearest(graph: _Graph, eqn: Any, x: str) -> str:
    (small,), (large,) = _shapes(eqn)
    factors = np.array([1, 1, large[1] // small[1], large[2] // small[2]], np.float32)
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph("Resize", x, np.zeros(0, np.float32), factors, mode="nearest", **how)


def _folded(graph: _Graph, eqn: Any, lr: str) -> str:
    (flat,), (deep,) = _shapes(eqn)
    factor = isqrt(deep[3] // flat[3])
    missing = graph("Mod", graph("Neg", graph("Shape", lr, start=2, end=4)), np.int64(factor))
    pads = graph("Concat", np.zeros(6, np.int64), missing, axis=0)
    return graph("SpaceToDepth", graph("Pad", lr, pads, mode="reflect"), blocksize=factor)


def _cropped(graph: _Graph, eqn: Any, sr: str, lr: str) -> str:
    (_, small), (large,) = _shapes(eqn)
    size = graph("Mul", graph("Shape", lr, start=2, end=4), np.int64(large[1] // small[1]))
    return graph("Slice", sr, np.zeros(2, np.int64), size, np.array([2, 3]))


def _shapes(eqn: Any) -> tuple[list[Any], list[Any]]:
    """Return the NHWC shapes of inputs and outputs, with symbolic n, h and w."""
    return [x.aval.shape for x in eqn.invars], [x.aval.shape for x in eqn.outvars]


# Rules by JAX's primitives, and by jitted functions, which stay one call in a trace. A trace has
# only their names, so the names are taken from the objects.
RULES: dict[Any, Callable[..., str]] = {
    primitives.add_p: _elementwise("Add"),
    primitives.sub_p: _elementwise("Sub"),
    primitives.mul_p: _elementwise("Mul"),
    primitives.div_p: _elementwise("Div"),
    primitives.concatenate_p: lambda graph, eqn, *x: graph("Concat", *x, axis=1),
    primitives.conv_general_dilated_p: _conv,
    primitives.logistic_p: lambda graph, eqn, x: graph("Sigmoid", x),
    primitives.slice_p: _slice,
    attention.gelu: _gelu,
    plksr.mish: lambda graph, eqn, x: graph("Mul", x, graph("Tanh", graph("Softplus", x))),
    layers.image_mean: lambda graph, eqn, x: graph("GlobalAveragePool", x),
    nn.relu: lambda graph, eqn, x: graph("Relu", x),
    nn.leaky_relu: lambda graph, eqn, x, slope: graph("LeakyRelu", x, alpha=float(slope)),
    layers.prelu: _prelu,
    images.depth_to_space: _depth_to_space,
    images.pad_edge: _pad_edge,
    layers.upsample_nearest: _upsample_nearest,
    rrdbnet.folded: _folded,
    rrdbnet.cropped: _cropped,
}
_BY_NAME = {getattr(key, "__name__", None) or key.name: rule for key, rule in RULES.items()}
