"""The contract of every public function: options by name, shapes in the signature, a docstring.

Read off the source, so that decorators and lazy imports do not hide a signature.
"""

import ast

import pytest

from tests.helpers import floors as house

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
# The entry point of the `isr` command, which setuptools calls without arguments.
ENTRY_POINTS = {"isr_jax.cli.main"}
ARRAYS = {"Array", "ndarray", "jax.Array", "np.ndarray"}


def public(body, prefix):
    """Public functions of a module or class body, with a dotted name each."""
    for node in body:
        if isinstance(node, FUNCTION) and not node.name.startswith("_"):
            yield f"{prefix}.{node.name}", node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{prefix}.{node.name}")
            for method in node.body:
                if isinstance(method, FUNCTION) and method.name == "__call__":
                    yield f"{prefix}.{node.name}.__call__", method


def functions():
    return dict(
        found
        for name, file in house.modules().items()
        for found in public(ast.parse(file.read_text()).body, name)
    )


FUNCTIONS = functions()


def positional(node):
    """Arguments that can be given by position, each with its default or None."""
    arguments = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(arguments) - len(node.args.defaults)) + node.args.defaults
    return [
        (argument, default)
        for argument, default in zip(arguments, defaults, strict=True)
        if argument.arg not in ("self", "cls")
    ]


def test_the_package_has_functions_to_check():
    assert {"isr_jax.metrics.psnr", "isr_jax.upscaling.upscaler.load"} <= FUNCTIONS.keys()
    assert len(FUNCTIONS) > 250


def test_options_are_keyword_only():
    options = {
        name: [argument.arg for argument, default in positional(node) if default is not None]
        for name, node in FUNCTIONS.items()
        if name not in ENTRY_POINTS
    }
    assert {name: found for name, found in options.items() if found} == {}


def test_booleans_are_never_positional():
    booleans = {
        name: [
            argument.arg
            for argument, _ in positional(node)
            if argument.annotation and ast.unparse(argument.annotation) == "bool"
        ]
        for name, node in FUNCTIONS.items()
    }
    assert {name: found for name, found in booleans.items() if found} == {}


def test_no_function_takes_whatever_comes():
    loose = {name for name, node in FUNCTIONS.items() if node.args.vararg or node.args.kwarg}
    assert loose == set()


def test_every_argument_and_result_is_annotated():
    bare = {
        name
        for name, node in FUNCTIONS.items()
        if node.returns is None
        or any(
            argument.annotation is None
            for argument in [*node.args.args, *node.args.kwonlyargs]
            if argument.arg not in ("self", "cls")
        )
    }
    assert bare == set()


def test_arrays_have_shapes():
    """A bare array type says nothing of shapes; jaxtyping's says it in the signature."""
    shapeless = {
        f"{name}({argument.arg})"
        for name, node in FUNCTIONS.items()
        for argument in [*node.args.args, *node.args.kwonlyargs]
        if argument.annotation and ast.unparse(argument.annotation) in ARRAYS
    }
    assert shapeless == set()


@pytest.mark.parametrize("module", sorted(house.modules()))
def test_public_names_have_docstrings_of_one_line_first(module):
    tree = ast.parse(house.modules()[module].read_text())
    places = [(module, tree), *public(tree.body, module)]
    places += [
        (f"{module}.{node.name}", node)
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    for name, node in places:
        text = ast.get_docstring(node)
        assert text, f"{name} has no docstring"
        first, *rest = text.split("\n")
        assert first.rstrip().endswith((".", ":", "?")) or not rest, f"{name}: {first}"
        assert not rest or not rest[0].strip(), f"{name}: the first line is a paragraph of its own"
