"""Execute the notebooks from top to bottom, each in a copy of this clone, and check their outputs.

    python notebooks/execute.py [--out FOLDER] [NAME ...]   write executed copies to FOLDER
    python notebooks/execute.py --write [NAME ...]          overwrite the committed notebooks
    python notebooks/execute.py --repository OWNER/NAME     set the GitHub repository
    python notebooks/execute.py --repository ""             unset it: the badge opens Colab's list

NAME is the file name of a notebook or its beginning; the default is all notebooks. Each copy has
its own `runs/`, so every notebook starts as on a fresh machine and leaves nothing behind. The exit
code is 1 if a cell failed, wrote to standard error, or produced an output too large to commit.
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
PARTS = ("isr_jax", "configs", "notebooks", "pyproject.toml")  # copied for each notebook
MAX_BYTES = 700_000  # of a notebook
MAX_PNG_BYTES = 150_000  # in base64
TIMEOUT = 600  # seconds per cell
ADDRESS = re.compile(r'^REPOSITORY = "[^"]*"', re.MULTILINE)
BADGE = re.compile(r"^\[!\[Open in Colab\].*\n\n", re.MULTILINE)


def execute(file: Path) -> NotebookNode:
    """Return the notebook with the outputs of a fresh run.

    Raises:
        CellExecutionError: A cell failed.
        CellTimeoutError: A cell took longer than `TIMEOUT`.
        DeadKernelError: A cell killed its kernel.
    """
    notebook = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            source, target = HERE.parent / part, Path(folder) / part
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        NotebookClient(
            notebook,
            timeout=TIMEOUT,
            kernel_name="python3",
            resources={"metadata": {"path": str(Path(folder) / "notebooks")}},
            record_timing=False,
        ).execute()
    return tidy(notebook)


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Remove what varies between runs without meaning: metadata, and the splitting of outputs."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "colab": {"provenance": []},
    }
    for cell in _code_cells(notebook):
        cell.metadata = {}
        merged: list[NotebookNode] = []
        for output in cell.outputs:
            last = merged[-1] if merged else None
            streams = last and output.output_type == last.output_type == "stream"
            if last and streams and output.name == last.name:
                last.text += output.text
                continue
            merged.append(output)
        cell.outputs = merged
    return notebook


def faults(notebook: NotebookNode) -> Iterator[str]:
    """Yield a line for each reason not to commit an executed notebook."""
    size = len(nbformat.writes(notebook))
    if size > MAX_BYTES:
        yield f"{size:,} bytes, more than {MAX_BYTES:,}"
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                yield f"cell {number} wrote to standard error: {output.text.strip()[:300]}"
            if len(output.get("data", {}).get("image/png", "")) > MAX_PNG_BYTES:
                yield f"cell {number} shows a PNG of more than {MAX_PNG_BYTES:,} bytes"
            text = nbformat.v4.writes_json(nbformat.v4.new_notebook(cells=[cell]))
            for folder in {str(HERE.parent), str(Path.home()), tempfile.gettempdir()}:
                if f"{folder}/" in text:
                    yield f"cell {number} contains {folder}, a path on this machine"


def set_repository(notebook: NotebookNode, name: str, repository: str) -> None:
    """Write the Git address into the first code cell, and a Colab badge below the title.

    Args:
        notebook: The notebook, changed in place.
        name: Its file name.
        repository: OWNER/NAME on GitHub. The badge opens the notebook in Colab; if the repository
            is unknown (""), it opens Colab's list of repositories.
    """
    path = f"/{repository}/blob/main/notebooks/{name}" if repository else ""
    badge = (
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"(https://colab.research.google.com/github{path})"
    )
    title, *rest = BADGE.sub("", notebook.cells[0].source).split("\n\n", 1)
    notebook.cells[0].source = "\n\n".join([title, badge, *rest])
    first = next(_code_cells(notebook))
    address = f"https://github.com/{repository}" if repository else ""
    first.source, count = ADDRESS.subn(f'REPOSITORY = "{address}"', first.source)
    assert count == 1, f"{name}: the first code cell does not set REPOSITORY"


def _code_cells(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="notebooks (default: all)")
    parser.add_argument("--out", type=Path, help="folder for the executed copies")
    parser.add_argument("--write", action="store_true", help="overwrite the notebooks")
    parser.add_argument("--repository", metavar="OWNER/NAME", help="set the repository and exit")
    options = parser.parse_args()
    files = sorted(
        file
        for file in HERE.glob("*.ipynb")
        if not options.names or any(file.name.startswith(Path(n).name) for n in options.names)
    )
    if not files:
        parser.error(f"no notebook matches {' or '.join(options.names)}")
    if options.repository and not re.fullmatch(r"[\w.-]+/[\w.-]+", options.repository):
        parser.error(f"--repository must be OWNER/NAME, not {options.repository!r}")

    succeeded = True
    for file in files:
        if options.repository is not None:
            notebook = nbformat.read(file, as_version=4)
            set_repository(notebook, file.name, options.repository)
            nbformat.write(notebook, file)
            continue
        began = time.perf_counter()
        try:
            notebook = execute(file)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"{file.name}: {error}", file=sys.stderr)
            succeeded = False
            continue
        found = list(faults(notebook))
        succeeded = succeeded and not found
        size = len(nbformat.writes(notebook)) / 1000
        print(f"{file.name}: {time.perf_counter() - began:.0f} s, {size:.0f} kB", flush=True)
        for fault in found:
            print(f"{file.name}: {fault}", file=sys.stderr)
        folder = HERE if options.write else options.out
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, folder / file.name)
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
