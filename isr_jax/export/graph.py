"""An ONNX graph under construction, whose values are described as JAX's trace describes them."""

import ast
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # permutations NHWC -> NCHW and back


class Value(NamedTuple):
    """A value of a trace.

    Attributes:
        data: an array, if it does not depend on the images; otherwise the name of a node's result.
        channels_first: the node has it as NCHW, the trace as NHWC.
        spread: its shape in the trace, where `data` has sides of 1 that are yet to be repeated.
    """

    data: Any
    channels_first: bool = False
    spread: Sequence[Any] | None = None

    @property
    def constant(self) -> bool:
        """Whether it is an array as in the trace."""
        return not isinstance(self.data, str) and self.spread is None


class Graph:
    """The nodes and constants of a graph whose input is images, [n c h w]."""

    def __init__(self, onnx: ModuleType) -> None:
        """Begin a graph; `onnx` is the package."""
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._known: dict[Any, str] = {}

    def __call__(
        self, kind: str, inputs: Sequence[Any], *, attributes: Mapping[str, Any] | None = None
    ) -> str:
        """Add a node with an operator's inputs and attributes, and return the name of its result.

        If there is one like it already, that is taken.
        """
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        given = dict(attributes or {})
        return self._once((kind, *names, str(given)), lambda: self._node(kind, names, given))

    def _once(self, key: Any, make: Any) -> str:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _node(self, kind: str, names: list[str], attributes: dict[str, Any]) -> str:
        name = f"{kind}_{len(self.nodes)}"
        node = self.onnx.helper.make_node(kind, names, [name], name=name, **attributes)
        self.nodes.append(node)
        return name

    def _constant(self, value: Any) -> str:
        array = np.asarray(value)

        def make() -> str:
            name = f"constant_{len(self.constants)}"
            self.constants.append(self.onnx.numpy_helper.from_array(array, name))
            return name

        if array.size > 64:  # weights
            return make()
        return self._once((array.dtype.str, array.shape, array.tobytes()), make)

    def end(self, name: str, nhwc: Any) -> Any:
        """Return the description of an input or an output."""
        n, h, w, c = nhwc
        shape = [str(n), c, str(h), str(w)]
        return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)

    def cast(self, x: Any, dtype: Any) -> str:
        """Convert to a dtype of NumPy."""
        to = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self("Cast", [x], attributes={"to": to})

    def operand(self, value: Value, *, channels_first: bool) -> Any:
        """Return a value's data in a layout; sides of 1 may be yet to be repeated."""
        if value.channels_first == channels_first:
            return value.data
        order = FIRST if channels_first else LAST
        if not isinstance(value.data, str):
            return np.transpose(value.data, order)
        return self("Transpose", [value.data], attributes={"perm": order})

    def plain(self, value: Value) -> Any:
        """Return a value's data as the trace has it."""
        data = self.operand(value, channels_first=False)
        return data if value.spread is None else self("Expand", [data, self.shape(value.spread)])

    def images(self, value: Value) -> Any:
        """Return a value's data as NCHW."""
        data = self.operand(value, channels_first=True)
        if value.spread is None:
            return data
        return self("Expand", [data, self.shape([value.spread[i] for i in FIRST])])

    def whole(self, value: Value) -> Any:
        """Return a value's data in the layout that it has."""
        return self.images(value) if value.channels_first else self.plain(value)

    def shape(self, sides: Sequence[Any]) -> Any:
        """Return sides, some of which depend on the image's, as a vector."""
        if all(isinstance(side, int) for side in sides):
            return np.array(sides, np.int64)
        return self("Concat", [*(self.side(side) for side in sides)], attributes={"axis": 0})

    def side(self, side: Any) -> Any:
        """Return a side in pixels, an integer or an expression of n, h and w, as one integer."""
        if isinstance(side, int):
            return np.array([side], np.int64)
        # The text is the grammar of `jax.export.symbolic_shape`.
        return self._expression(ast.parse(str(side).replace("^", "**"), mode="eval").body)

    def _expression(self, node: Any) -> Any:
        match node:
            case ast.Constant(value=value):
                return np.array([value], np.int64)
            case ast.Name(id=name):
                at = {"n": 0, "h": 2, "w": 3}[name]
                return self("Shape", ["input"], attributes={"start": at, "end": at + 1})
            case ast.UnaryOp(op=ast.USub(), operand=x):
                return self("Neg", [self._expression(x)])
            case ast.BinOp(left=x, op=op, right=y):
                kinds = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Pow: "Pow"}
                return self(kinds[type(op)], [self._expression(x), self._expression(y)])
            case ast.Call(func=ast.Name(id=name), args=[x, y]):
                a, b = self._expression(x), self._expression(y)
                if name == "floordiv":  # a division in ONNX rounds towards 0
                    return self("Div", [self("Sub", [a, self("Mod", [a, b])]), b])
                return self({"mod": "Mod", "max": "Max", "min": "Min"}[name], [a, b])
        raise AssertionError(ast.dump(node))
