"""JSON files of a study, from which it resumes."""

import json
from pathlib import Path
from typing import Any

from isr_jax.files import replacing


def read_json(file: Path) -> Any:
    """Return a JSON file of a dictionary, or None if it is missing or damaged.

    What it held is done again.
    """
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    with replacing(file) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n")
