"""The models that the page of `isr demo` offers."""

import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from isr_jax.checkpoints.restore import INTERPOLATIONS, PRETRAINED, is_run_folder, saved_scale
from isr_jax.errors import UserError

if TYPE_CHECKING:
    from isr_jax.upscaling.any_size import AnySizeUpscaler

MEGA = 10**6


class Choice(NamedTuple):
    """A model that the page offers: what `load` takes, and a generator's own scale.

    None is for the models shipped with the package, of which those that reach a size are taken.
    """

    model: str | None
    scale: int | None


AUTOMATIC = Choice(None, 4)


class Limits(NamedTuple):
    """What the page accepts.

    Attributes:
        pixels: the largest photo, in megapixels.
        upload: the largest file, in MB of 10^6 bytes.
        seconds: the most that one photo may take.
        disk: the most that all photos and results may take, in MB.
    """

    pixels: float
    upload: float
    seconds: float = 600.0
    disk: float = 10_000.0


@lru_cache(maxsize=8)
def cached(model: str | None, tile: int | None) -> "AnySizeUpscaler":
    """Load a model, once for each tile size."""
    from isr_jax.upscaling.any_size import load_any_size

    return load_any_size(model=model, tile=tile)


def find_models(named: Sequence[str], runs: Path) -> list[Choice]:
    """List the models named, the shipped ones, the run folders in `runs` and the interpolations.

    Raises:
        UserError: a named model cannot be loaded.
    """
    networks = dict.fromkeys(
        [*(name for name in named if name not in INTERPOLATIONS), *reversed(PRETRAINED)]
    )
    choices = [Choice(name, cached(name, None).scales[0]) for name in networks]
    known = {Path(choice.model).expanduser().resolve() for choice in choices}
    for run in sorted(runs.glob("*/")):
        if run.resolve() not in known and is_run_folder(run):
            try:
                choices.append(Choice(str(run), saved_scale(run)))
            except UserError as error:
                print(f"isr demo: skipping {error}", file=sys.stderr)
    ordered = dict.fromkeys(
        [*(name for name in named if name in INTERPOLATIONS), "bicubic", *INTERPOLATIONS]
    )
    return choices + [Choice(name, None) for name in ordered]
