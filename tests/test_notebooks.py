"""Test that `notebooks/execute.py` sets the repository; `make notebooks` executes them."""

import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs pip install isr-jax[notebooks]")
pytest.importorskip("nbclient", reason="needs pip install isr-jax[notebooks]")

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
COLAB = "https://colab.research.google.com"


@pytest.fixture
def execute(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import execute

    yield execute
    del sys.modules["execute"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_repository_is_set_and_unset(execute, file):
    """The badge opens the notebook, the first cell has the address, and nothing else changes."""
    notebook = nbformat.read(file, 4)
    committed = nbformat.writes(notebook)
    for repository in ("an-owner/isr_jax", "another/fork.2"):
        execute.set_repository(notebook, file.name, repository)
        badge = f"]({COLAB}/github/{repository}/blob/main/notebooks/{file.name})"
        assert notebook.cells[0].source.count("colab-badge.svg") == 1
        assert badge in notebook.cells[0].source.splitlines()[2]
        line = f'REPOSITORY = "https://github.com/{repository}"  # @param {{type:"string"}}'
        assert line in notebook.cells[1].source.splitlines()
    execute.set_repository(notebook, file.name, "")
    assert nbformat.writes(notebook) == committed
    assert f"]({COLAB}/github)" in notebook.cells[0].source
