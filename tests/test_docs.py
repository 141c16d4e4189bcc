"""Test that what the documentation names exists: links, anchors, configs, commands and paths."""

import argparse
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
