"""Generators as ONNX: a trace of `apply` is converted by a rule per primitive or function."""

from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr
from jax.extend.core import Literal as Constant

from isr_jax.errors import UserError, one_line
from isr_jax.export.graph import Graph, Value
from isr_jax.export.rules import BY_NAME, NoRule
from isr_jax.export.stablehlo import any_images
from isr_jax.models import Generator

OPSET = 17  # read by ONNX Runtime since 1.12


def to_onnx(network: Generator, params: Any, stats: Any) -> bytes:
    """Return a generator with its parameters as the bytes of an ONNX model of opset 17.

    If an RRDBNet folds its input, sides must be longer than their padding, because ONNX reflects
    only once: at least 3 pixels at scale 1, 2 at scale 2. OmniSR's sides must be at least 9.

    Raises:
        UserError: the onnx package is not installed, or the network has an operation that has no
            rule here.
    """
    onnx = _onnx()
    traced = jax.make_jaxpr(lambda lr: network.apply(params, stats, lr, train=False)[0])(
        any_images(network.channels)
    )
    graph = Graph(onnx)
    try:
        (result,) = _convert(graph, traced, [Value("input", True)])
    except NoRule as error:
        name = type(network.module).__name__
        raise UserError(
            f"{name} cannot be written as ONNX ({one_line(error, limit=100)}); StableHLO can hold "
            "it: --format stablehlo"
        ) from error
    graph.nodes.append(onnx.helper.make_node("Identity", [graph.images(result)], ["output"]))
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


def _convert(graph: Graph, traced: ClosedJaxpr, inputs: list[Value]) -> list[Value]:
    """Add the operations of a trace to a graph, and return its results.

    What depends neither on the images nor on their size is computed at once.
    """
    jaxpr = traced.jaxpr
    consts = [Value(x) for x in traced.consts]
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

    def value(x: Any) -> Value:
        return (
            Value(np.asarray(x.val, getattr(x.aval, "dtype", None)))
            if isinstance(x, Constant)
            else known[x]
        )

    for eqn in jaxpr.eqns:
        values, called = [value(x) for x in eqn.invars], eqn.params.get("name")
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        sized = any(not isinstance(side, int) for x in eqn.outvars for side in x.aval.shape)
        rule = BY_NAME.get(called if inner else eqn.primitive.name)
        if inner and not rule:
            results = _convert(graph, inner, values)
        elif all(x.constant for x in values) and not sized and eqn.primitive.name != "dim_as_value":
            bound = eqn.primitive.bind(*(x.data for x in values), **eqn.params)
            results = [Value(x) for x in (bound if eqn.primitive.multiple_results else [bound])]
        elif not rule:
            raise NoRule(f"RULES has none for {eqn.primitive.name}")
        else:
            results = rule(graph, eqn, *values)
        known.update(
            zip(eqn.outvars, results if isinstance(results, list) else [results], strict=True)
        )
    return [value(x) for x in jaxpr.outvars]
