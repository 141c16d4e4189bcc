"""Test that what the documentation and notebooks name exists: links, commands, code and so on."""

import argparse
import ast
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

from configs import study
from isr_jax.cli import make_parser

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    file
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "notebooks/*.md")
    for file in ROOT.glob(pattern)
    if file.name != "CHANGELOG.md"  # which names what no longer exists
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CONFIG = re.compile(r"(configs/\w+\.py)(?::(\w+))?")
MODULE = re.compile(r"isr_jax/[\w/]+\.(?:py|html|safetensors)")
SCRIPT = re.compile(r"(?:tests|benchmarks|notebooks)/\w+\.(?:py|ipynb)")
BENCHMARK = re.compile(r"python -m (benchmarks\.\w+)")
IMPORTED = re.compile(r"\bisr_jax((?:\.\w+)+)")
SECTIONS = "data|generator|discriminator|loss|g_optimizer|d_optimizer|train|study"
FIELD = re.compile(rf"(?<![/\w.])(?:config\.)?((?:{SECTIONS})(?:\.[a-z]\w*)+)")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(params=PAGES, ids=lambda file: file.relative_to(ROOT).as_posix())
def page(request):
    return request.param


def anchors(file):
    """Return the anchors that GitHub gives to the headings of a page."""
    text = FENCE.sub("", file.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_resolve(page):
    """Every relative link and image exists, and so does every heading that is linked."""
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(file), f"{target} is not a heading of {file.name}"


def test_no_leftover_of_a_merge(page):
    assert not re.search(r"^(<{7}|={7}|>{7})( |$)", page.read_text(), re.MULTILINE)


def test_configs_exist(page):
    """Every config and every variant exists."""
    for name, variant in CONFIG.findall(page.read_text()):
        if name == "configs/NAME.py":
            continue
        file = ROOT / name
        assert file.is_file(), f"{name} does not exist"
        if variant:
            assert re.search(rf'["\']{variant}["\']|:{variant}\b', file.read_text()), (
                f"{name} has no variant {variant}"
            )


def subcommands(parser):
    """Return the parsers of the commands of a parser, by name."""
    found = (a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return next(found, {})


def test_commands_exist(page):
    """Every `isr` command, and every option given to one, exists."""
    commands = subcommands(make_parser())
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    for name, rest in re.findall(r"(?:^ {4,}|`)isr ([a-z][a-z-]+)([^`#\n]*)", text, re.MULTILINE):
        assert name in commands, f"isr {name} does not exist"
        parser = commands[name]
        if group := subcommands(parser):
            second, *_ = *rest.split(), ""
            assert second in group, f"isr {name} {second} does not exist"
            parser = group[second]
        for option in re.findall(r"(?<!\S)\[?(--[a-z][a-z-]*)", rest):
            assert option in parser._option_string_actions, f"isr {name} has no option {option}"


def test_files_exist(page):
    """Every module, test, benchmark and notebook exists."""
    text = page.read_text()
    for name in (*MODULE.findall(text), *SCRIPT.findall(text)):
        if "NAME" not in name:
            assert (ROOT / name).is_file(), f"{name} does not exist"
    for name in BENCHMARK.findall(text):
        assert (ROOT / f"{name.replace('.', '/')}.py").is_file(), f"python -m {name} does not exist"


def test_names_exist(page):
    """Every dotted name of the package is a module, or is defined in one."""
    for dotted in IMPORTED.findall(page.read_text()):
        path, names = ROOT / "isr_jax", dotted.strip(".").split(".")
        while names and ((path / names[0]).is_dir() or (path / f"{names[0]}.py").is_file()):
            path /= names.pop(0)
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for name in names[:1]:
            assert re.search(rf"\b{name}\b", file.read_text()), f"isr_jax{dotted} does not exist"


def test_fields_exist(page):
    """Every field of a config exists."""
    config = study.get_config()
    for dotted in FIELD.findall(page.read_text()):
        value = config
        if dotted.endswith((".py", ".md", ".png", ".jpg", ".ipynb")):
            continue
        for name in dotted.split("."):
            if name.startswith("my_"):  # an example of what a reader could add
                break
            assert name in value, f"config.{dotted} does not exist"
            value = value[name]


def imported(tree):
    """Return what the names of Python code stand for, of those imported from this package."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "isr_jax":
            for name in node.names:
                found[name.asname or name.name] = found_in(node.module, name.name)
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "isr_jax":
                    importlib.import_module(name.name)
                    found[name.asname or "isr_jax"] = importlib.import_module("isr_jax")
    return found


def found_in(module, name):
    """Return a module's attribute, or its submodule."""
    parent = importlib.import_module(module)
    return (
        getattr(parent, name)
        if hasattr(parent, name)
        else importlib.import_module(f"{module}.{name}")
    )


def resolve(node, names):
    """Return what a dotted name stands for, or None where it isn't of this package.

    Raises:
        AttributeError: A module of this package lacks the name.
    """
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        parent = resolve(node.value, names)
        return getattr(parent, node.attr) if inspect.ismodule(parent) else None
    return None


def check_code(code):
    """Raise where Python code names what the package lacks, or a call's keyword does."""
    tree = ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", code, flags=re.MULTILINE))
    try:
        names = imported(tree)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("isr_jax"):
            raise
        pytest.skip(f"needs the package {error.name}")
    for node in ast.walk(tree):
        resolve(node, names)
        function = resolve(node.func, names) if isinstance(node, ast.Call) else None
        if inspect.isroutine(function) or inspect.isclass(function):
            given = {word.arg: None for word in node.keywords if word.arg}
            whole = len(given) == len(node.keywords)
            if any(isinstance(value, ast.Starred) for value in node.args):
                whole, node.args = False, []
            signature = inspect.signature(function)
            (signature.bind if whole else signature.bind_partial)(*node.args, **given)


@pytest.mark.parametrize("file", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda file: file.stem)
def test_names_of_notebooks_exist(file):
    """Every name that a notebook takes from the package exists, and so do the calls' keywords."""
    cells = json.loads(file.read_text())["cells"]
    check_code("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))


def test_names_of_examples_exist(page):
    """The same of a page's examples in Python, each page read from top to bottom."""
    check_code("\n".join(PYTHON.findall(page.read_text())))


@pytest.mark.parametrize("file", sorted(ROOT.glob("benchmarks/*.py")), ids=lambda file: file.stem)
def test_names_of_benchmarks_exist(file):
    """The same of the benchmarks, which only those with time run."""
    check_code(file.read_text())


@pytest.mark.parametrize(
    "code",
    [
        "from isr_jax.data import sources\nsources.no_such_name()",
        "from isr_jax.data import no_such_name",
        "from isr_jax.resize import imresize\nimresize(1, scael=2)",
    ],
)
def test_a_missing_name_is_found(code):
    with pytest.raises((AttributeError, ImportError, TypeError)):
        check_code(code)
