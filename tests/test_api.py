"""The contract of every public function: options by name, shapes in the signature, a docstring.

Read off the source, so that decorators and lazy imports do not hide a signature.
"""

import ast
import subprocess
import sys

import pytest

from tests.helpers import floors as house
from tests.helpers.command import ROOT
from tests.helpers.tiny_runs import environment

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


# Calls with what users may have, where shapes and types are not checked as in the tests, and words
# of the line that each gets.
WRONG = {
    "isr_jax.load('bicubic', scale='2')": "scale is '2'; give a whole number",
    "isr_jax.load('bicubic', scale=2.5)": "scale is 2.5; give a whole number",
    "isr_jax.load('bicubic', scale=0)": "scale is 0; give a whole number",
    "isr_jax.load('compact-x4', scale='4')": "scale is '4'; give a whole number",
    "isr_jax.load('compact-x4', strength='x')": "strength is x; it must be from 0 to 1",
    "isr_jax.load('compact-x4', tile='x')": "tile is 'x'; give a number of pixels",
    "isr_jax.load('compact-x4', tile=10**9)": "tile is 1000000000; give 16384 or less",
    "isr_jax.load('compact-x4', overlap=2.5)": "overlap is 2.5; give a number of pixels",
    "isr_jax.load('a' * 5000)": "there is no model aaa",
    "isr_jax.load('~no_user/a.pth')": "~no_user/a.pth: there is no home folder ~no_user",
    "isr_jax.evaluate('bicubic', '.', scale=2.5)": "scale is 2.5; give a whole number",
    "isr_jax.evaluate('bicubic', '.', scale='2')": "scale is '2'; give a whole number",
    "isr_jax.evaluate('bicubic', '.', protocol=['rgb'])": "unknown protocol",
    "isr_jax.train({}, 'run')": "config is dict; give what get_config() returns",
    "isr_jax.study(isr_jax.config.get_config(), 'run')": "the config has no study",
    "measure(np.zeros((9, 9), int), np.zeros((9, 9), int), crop=0)": "cannot score int64 pixels",
    "Upscaler('mine', 2, lambda x: x)(image)": "mine returned uint8 [4, 5, 3] for uint8 [4, 5, 3]",
    "Upscaler('mine', 1, lambda x: x / 255)(image)": "must return uint8 [4, 5, 3]",
    "Upscaler('mine', 1, lambda x: None)(image)": "mine returned object []",
}


def test_wrong_arguments_are_one_line(tmp_path):
    program = """
import sys
import numpy as np
import isr_jax, isr_jax.config
from isr_jax.protocols import measure
from isr_jax.upscaling.upscaler import Upscaler

image = np.zeros((4, 5, 3), np.uint8)
for call in sys.argv[1:]:
    try:
        eval(call)
        print("nothing")
    except isr_jax.UserError as error:
        print(error)
    except Exception as error:
        print(repr(error))
assert isr_jax.load("bicubic", scale=np.int64(2)).scale == 2
assert Upscaler("mine", 1, lambda x: x.__setitem__(0, 9) or x)(image).max() == 9
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *WRONG],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    for call, said, expected in zip(WRONG, done.stdout.splitlines(), WRONG.values(), strict=True):
        assert expected in said, call
