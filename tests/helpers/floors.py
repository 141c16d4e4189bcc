"""The import floors of the package: python -m tests.helpers.floors

A module stands one floor above the highest that it imports. Imports inside functions count, those
under TYPE_CHECKING and the lazy names of isr_jax/__init__.py do not make floors of their own.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Each room imports from its own tier and those before it.
TIERS = (
    (
        "errors",
        "files",
        "progress",
        "console",
        "pages",
        "images",
        "resize",
        "tensor_files",
        "processes",
        "distributed",
        "pretrained",
    ),
    ("losses", "metrics", "protocols", "scoring", "state"),
    ("models",),
    ("config", "pytorch", "perceptual", "data", "degrade", "photo"),
    ("recipes", "checkpoints", "tiling"),
    ("training", "upscaling"),
    ("video",),
    ("evaluation",),
    ("loss_study",),
    ("export", "cli", "demo"),
)


def modules() -> dict[str, Path]:
    """Return the file of every module of isr_jax, by dotted name."""
    found = {}
    for file in sorted((ROOT / "isr_jax").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports() -> dict[str, set[str]]:
    """Return the modules of isr_jax that each module imports, anywhere in it."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, file in known.items():
        targets = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isr_jax"):
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    targets.add(full if full in known else node.module)
            elif isinstance(node, ast.Import):
                targets |= {a.name for a in node.names if a.name.startswith("isr_jax")}
        # The root is a list of names: importing a module through it does not import them.
        found[name] = (targets & known.keys()) - {name, "isr_jax"}
    return found


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one import cycle, or an empty list."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph[name]):
            if found := visit(target, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in graph if (found := visit(name, []))), [])


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """Return the floor of every module of a graph without cycles; the lowest is 1."""
    known: dict[str, int] = {}

    def floor(name: str) -> int:
        if name not in known:
            known[name] = 1 + max((floor(target) for target in graph[name]), default=0)
        return known[name]

    return {name: floor(name) for name in graph}


def reached(graph: dict[str, set[str]], start: str, *, without: str = "") -> set[str]:
    """Return the modules reached from those of a room, not going through `without`."""
    todo = [name for name in graph if room(name) == start]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in seen and name != without:
            seen.add(name)
            todo += graph[name]
    return seen


def room(name: str) -> str:
    """Return the room of a module: isr_jax.training.loop is in training."""
    return name.split(".")[1] if "." in name else ""


def tier(name: str) -> int:
    """Return the tier of a module's room; the root stands above all."""
    places = [i for i, rooms in enumerate(TIERS) if room(name) in rooms]
    return places[0] if places else len(TIERS)


if __name__ == "__main__":
    graph = imports()
    if loop := cycle(graph):
        raise SystemExit(f"import cycle: {' -> '.join(loop)}")
    for name, number in sorted(floors(graph).items(), key=lambda item: (item[1], item[0])):
        print(f"{number:2} {name:40} {' '.join(sorted(t[8:] for t in graph[name]))}")
