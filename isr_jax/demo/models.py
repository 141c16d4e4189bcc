"""The models that the page of `isr demo` offers."""

import json
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from isr_jax.checkpoints.restore import INTERPOLATIONS, PRETRAINED
from isr_jax.upscaling.upscaler import Upscaler, load

MEGA = 10**6


class Choice(NamedTuple):
    """A model that the page offers: what `load` takes, and a generator's own scale."""

    model: str
    scale: int | None


class Limits(NamedTuple):
    """What the page accepts.

    Attributes:
        pixels: the largest photo, in megapixels.
        upload: the largest file, in MB of 10^6 bytes.
    """

    pixels: float
    upload: float


@lru_cache(maxsize=8)
def cached(model: str, scale: int | None, tile: int | None) -> Upscaler:
    """Load a model, once for each scale and tile size."""
    return load(model, scale=scale, tile=tile)


def find_models(named: Sequence[str], runs: Path) -> list[Choice]:
    """List the models named, the shipped ones, the run folders in `runs` and the interpolations.

    Raises:
        UserError: a named model cannot be loaded.
    """
    networks = dict.fromkeys(
        [*(name for name in named if name not in INTERPOLATIONS), *reversed(PRETRAINED)]
    )
    choices = [Choice(name, cached(name, None, None).scale) for name in networks]
    known = {Path(choice.model).expanduser().resolve() for choice in choices}
    for run in sorted(runs.glob("*/")):
        if run.resolve() not in known and any(run.glob("checkpoints/[0-9]*/")):
            try:
                scale = int(json.loads((run / "config.json").read_text())["scale"])
            except (OSError, ValueError, KeyError, TypeError):
                print(f"isr demo: skipping {run}: its config.json has no scale", file=sys.stderr)
                continue
            choices.append(Choice(str(run), scale))
    ordered = dict.fromkeys(
        [*(name for name in named if name in INTERPOLATIONS), "bicubic", *INTERPOLATIONS]
    )
    return choices + [Choice(name, None) for name in ordered]
