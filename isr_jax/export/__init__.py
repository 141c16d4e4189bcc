"""Generators as files: for other programs StableHLO, which JAX runs without isr_jax, and ONNX.

    isr export runs/msssim x4.stablehlo
    isr export runs/msssim x4.onnx
    isr export runs/msssim x4.safetensors

The last is for isr_jax itself: the averaged parameters and the architecture, without a run folder.
In the others batch, height and width stay open; the computation is in float32, whatever it was in
training, and the result is not clipped. StableHLO, for CPU, CUDA and TPU, keeps our NHWC:

    exported = jax.export.deserialize(bytearray(Path("x4.stablehlo").read_bytes()))
    sr = exported.call(lr)  # float32 [n h w 3] in [0, 1] -> float32 [n 4h 4w 3]

ONNX has NCHW, as its runtimes expect, and names its ends "input" and "output":

    session = onnxruntime.InferenceSession("x4.onnx")
    (sr,) = session.run(["output"], {"input": lr})  # float32 [n 3 h w] -> float32 [n 3 4h 4w]
"""

from collections.abc import Callable
from functools import partial
from math import isqrt
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend.core import ClosedJaxpr
from jax.extend.core import Literal as Constant

from isr_jax.checkpoints import single_files as model_files
from isr_jax.checkpoints.restore import Restored, restore_generator
from isr_jax.errors import UserError, one_line
from isr_jax.files import replacing
from isr_jax.models import Generator, generator
from isr_jax.resize import METHODS

SUFFIXES = {
    ".onnx": "onnx",
    ".stablehlo": "stablehlo",
    ".bin": "stablehlo",
    ".safetensors": "safetensors",
}
PLATFORMS = ("cpu", "cuda", "tpu")
OPSET = 17  # read by ONNX Runtime since 1.12


def to_stablehlo(network: Generator, params: Any, stats: Any) -> bytes:
    """A generator with its parameters as the bytes of a `jax.export` artifact.

    JAX reads it with later versions for half a year at least.
    """
    enlarge = jax.jit(lambda lr: network.apply(params, stats, lr, train=False)[0])
    return bytes(export.export(enlarge, platforms=PLATFORMS)(_any_images()).serialize())


def to_onnx(network: Generator, params: Any, stats: Any) -> bytes:
    """A generator with its parameters as the bytes of an ONNX model of opset 17.

    Where an RRDBNet folds its input, the sides must be longer than what they are padded by, as ONNX
    reflects only once: any side of 3 pixels or more at scale 1, or 2 at scale 2, is.

    Raises:
        UserError: where the onnx package is not installed.
    """
    onnx = _onnx()
    traced = jax.make_jaxpr(lambda lr: network.apply(params, stats, lr, train=False)[0])(
        _any_images()
    )
    graph = _Graph(onnx)
    _convert(graph, traced, ["input"])
    graph.nodes[-1].output[0] = "output"
    opset = [onnx.helper.make_opsetid("", OPSET)]
    (lr,), (sr,) = traced.in_avals, traced.out_avals
    ends = [graph.end("input", lr.shape)], [graph.end("output", sr.shape)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "generator", *ends, graph.constants),
        opset_imports=opset,
        ir_version=onnx.helper.find_min_ir_version_for(opset),
        producer_name="isr_jax",
        doc_string=f"RGB in [0, 1], enlarged {network.scale} times; not clipped.",
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _in_float32(form: Callable[[Generator, Any, Any], bytes], restored: Restored) -> bytes:
    # bfloat16 would save nothing here, and few ONNX runtimes convolve in it.
    options = {**restored.config.generator.to_dict(), "dtype": "float32"}
    network = generator(options, scale=restored.config.scale)
    return form(network, restored.params, restored.stats)


def to_safetensors(restored: Restored) -> bytes:
    """A generator as `model_files` keeps it."""
    options = restored.config.generator.to_dict()
    config = {"scale": restored.config.scale, "generator": options}
    return model_files.to_bytes(restored.params, restored.stats, config)


FORMATS: dict[str, Callable[[Restored], bytes]] = {
    "onnx": partial(_in_float32, to_onnx),
    "stablehlo": partial(_in_float32, to_stablehlo),
    "safetensors": to_safetensors,
}


def export_model(
    model: str | Path,
    file: str | Path,
    *,
    format: str | None = None,
    weights: Literal["ema", "raw"] = "ema",
    overwrite: bool = False,
) -> str:
    """Write a generator to a file that is there whole or not at all.

    Args:
        model: a run folder, or what else `restore_generator` takes.
        file: to write; the folders above it are made.
        format: one of FORMATS; told by the file's suffix (SUFFIXES) by default.
        weights: the moving average (default), or the parameters as they were last updated.
        overwrite: replace a file that is there.

    Returns:
        A line that says what was written.

    Raises:
        UserError: where the model is none or an interpolation, the format is not known, the file
            is there or cannot be written, or a package is missing.
    """
    file = Path(file).expanduser()
    format = format or SUFFIXES.get(file.suffix.lower())
    if format not in FORMATS:
        raise UserError(
            f"{file} ends in none of {', '.join(SUFFIXES)}: rename it, or add --format "
            + " or ".join(FORMATS)
        )
    if str(model) in METHODS:
        raise UserError(f"{model} is an interpolation and has no network to export")
    if file.is_dir():
        raise UserError(f"{file} is a folder; name a file")
    if file.exists() and not overwrite:
        raise UserError(f"{file} is there already; name another file, or add --overwrite")
    restored = restore_generator(model, weights=weights)
    content, scale = FORMATS[format](restored), restored.config.scale
    _write(file, content)
    written = f"{file}: {format}, {len(content) / 1e6:.1f} MB"
    if format == "safetensors":
        return f"{written}, a {scale}x generator for isr_jax"
    ends = ["n, 3, {0}h, {0}w" if format == "onnx" else "n, {0}h, {0}w, 3"] * 2
    lr, sr = ends[0].format(""), ends[1].format(scale if scale > 1 else "")
    return f"{written}, input float32 [{lr}] in [0, 1], output float32 [{sr}]"


def _write(file: Path, content: bytes) -> None:
    try:
        with replacing(file) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {one_line(error)}") from error


def _any_images() -> jax.ShapeDtypeStruct:
    """RGB images of any number, height and width."""
    return jax.ShapeDtypeStruct((*export.symbolic_shape("n, h, w"), 3), jnp.float32)


def _onnx() -> ModuleType:
    try:
        import onnx
    except ImportError as error:
        raise UserError("ONNX needs a package: pip install 'isr-jax[onnx]'") from error
    return onnx


class _Graph:
    """The nodes and constants of an ONNX graph in the making."""

    def __init__(self, onnx: ModuleType) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node, and its constants; returns the name of its result."""
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
        """The description of an input or an output."""
        n, h, w, c = nhwc
        shape = [str(n), c, str(h), str(w)]
        return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)


def _convert(graph: _Graph, traced: ClosedJaxpr, inputs: list[Any]) -> list[Any]:
    """Add the operations of a trace to a graph.

    Values are arrays, NHWC as traced, where they are constant, and names of the graph's, NCHW,
    where they depend on its input. Constants are computed on the way.
    """
    jaxpr = traced.jaxpr
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*traced.consts, *inputs], strict=True))

    def value(x: Any) -> Any:
        return x.val if isinstance(x, Constant) else known[x]

    for eqn in jaxpr.eqns:
        values, called = [value(x) for x in eqn.invars], eqn.params.get("name")
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        operation = OPERATIONS.get(called if inner else eqn.primitive.name)
        if operation and any(isinstance(x, str) for x in values):
            results = [operation(graph, eqn, *values)]
        elif inner:
            results = _convert(graph, inner, values)
        elif any(isinstance(x, str) for x in values):
            raise NotImplementedError(f"{eqn.primitive.name} is not in export.OPERATIONS")
        else:
            results = [eqn.primitive.bind(*values, **eqn.params)]
        known.update(zip(eqn.outvars, results, strict=True))
    return [value(x) for x in jaxpr.outvars]


def _elementwise(kind: str) -> Callable[..., str]:
    def operation(graph: _Graph, eqn: Any, *values: Any) -> str:
        constant = [not isinstance(x, str) and np.ndim(x) == 4 for x in values]
        nchw = [
            np.transpose(x, (0, 3, 1, 2)) if c else x for x, c in zip(values, constant, strict=True)
        ]
        return graph(kind, *nchw)

    return operation


def _conv(graph: _Graph, eqn: Any, x: str, kernel: Any) -> str:
    (top, bottom), (left, right) = eqn.params["padding"]
    kernel = np.transpose(kernel, eqn.params["dimension_numbers"].rhs_spec)
    return graph("Conv", x, kernel, pads=[top, left, bottom, right])


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
    """NHWC of what goes in and of what comes out, where n, h and w stand for themselves."""
    return [x.aval.shape for x in eqn.invars], [x.aval.shape for x in eqn.outvars]


# What generators are made of: JAX's primitives, and functions that are jitted to be found by name.
OPERATIONS: dict[str | None, Callable[..., str]] = {
    "add": _elementwise("Add"),
    "sub": _elementwise("Sub"),
    "mul": _elementwise("Mul"),
    "div": _elementwise("Div"),
    "concatenate": lambda graph, eqn, *x: graph("Concat", *x, axis=1),
    "conv_general_dilated": _conv,
    "relu": lambda graph, eqn, x: graph("Relu", x),
    "leaky_relu": lambda graph, eqn, x, slope: graph("LeakyRelu", x, alpha=float(slope)),
    "prelu": _prelu,
    "depth_to_space": _depth_to_space,
    "pad_edge": _pad_edge,
    "upsample_nearest": _upsample_nearest,
    "folded": _folded,
    "cropped": _cropped,
}
