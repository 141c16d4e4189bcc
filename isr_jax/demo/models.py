"""The models that the page of `isr demo` offers."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from isr_jax.checkpoints.restore import INTERPOLATIONS, is_run_folder, saved_scale
from isr_jax.errors import UserError
from isr_jax.files import expanded
from isr_jax.pretrained import PRETRAINED, card_of

MEGA = 10**6


class Choice(NamedTuple):
    """A model that the page offers.

    Attributes:
        model: what `load` takes; None for the pretrained models, of which those that
            reach a size are taken.
        scale: a generator's own; None for an interpolation.
        words: what its card says that it is for, and that it invents.
    """

    model: str | None
    scale: int | None
    words: str = ""


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


def _words(model: str) -> str:
    """Return two sentences of a model's card; "" where it has none."""
    card = card_of(model)
    invents = card.get("invents", "")
    sentences = (card.get("purpose", ""), invents and f"it invents {invents}")
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences if text)


def find_models(named: Sequence[str], runs: Path) -> list[Choice]:
    """List the models named, the pretrained ones, the run folders in `runs` and the interpolations.

    Raises:
        UserError: a named model cannot be loaded.
    """
    # Imported here: it takes long to load, and readers of photos do without.
    from isr_jax.upscaling.upscaler import load

    networks = dict.fromkeys(
        [*(name for name in named if name not in INTERPOLATIONS), *reversed(PRETRAINED)]
    )
    choices = [Choice(name, load(name).scale, _words(name)) for name in networks]
    known = {expanded(name).resolve() for name in networks}
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
