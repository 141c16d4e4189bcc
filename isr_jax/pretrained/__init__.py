"""The pretrained models, and their cards.

    isr models
    isr models compact-x4 --json

A card says what a model is for and how it was made. It travels in the metadata of the model's file,
where `isr export RUN FILE --card CARD.json` puts it; docs/models.md prints it.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from isr_jax.errors import UserError, one_line, unknown
from isr_jax.files import expanded

# By the name of a MODEL.
PRETRAINED = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.safetensors"))}
CARD_ENTRY = "isr_jax.card"  # of a card, in the metadata


class Card(TypedDict, total=False):
    """What a model is; a card of your own may leave out what does not apply.

    `strength` mixes the model with `base`, the model that its parameters were initialised from.
    """

    purpose: str  # in a few words
    base: str
    data: str  # that it was trained on
    commands: list[str]  # that made it, in turn
    beginning: dict[str, float]  # loss of the last training, means of the updates up to these
    updates: int
    hours: float  # of training
    machine: str
    scores: dict[str, list[float]]  # PSNR-Y in dB and SSIM-Y by set, protocol vdsr
    licence: str  # of the weights
    invents: str  # what it adds that the photo may not have had


class Model(NamedTuple):
    """A model's file in a few figures, and its card, {} without one."""

    name: str
    scale: int
    architecture: str
    parameters: int
    size: int  # bytes
    card: Card


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _are_losses(value: Any) -> bool:
    """Return whether a value is a loss by update."""
    return isinstance(value, dict) and all(
        step.isdecimal() and _is_number(loss) for step, loss in value.items()
    )


def _are_scores(value: Any) -> bool:
    """Return whether a value is [PSNR, SSIM] by set."""
    return isinstance(value, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))
        for pair in value.values()
    )


# Fields that are no text.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "commands": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "beginning": _are_losses,
    "updates": lambda value: isinstance(value, int) and _is_number(value),
    "hours": _is_number,
    "scores": _are_scores,
}


def check_card(card: Any) -> Card:
    """Return a card whose fields have the right names and types.

    Raises:
        UserError: for the first that has not.
    """
    if not isinstance(card, dict):
        raise UserError("a card is a JSON object")
    for name, value in card.items():
        if name not in Card.__annotations__:
            raise unknown("field of a card", name, Card.__annotations__)
        if not _KINDS.get(name, _is_text)(value):
            what = "is not [PSNR, SSIM] by set" if name == "scores" else "is of the wrong type"
            raise UserError(f"{name} of a card is {value!r}, which {what}")
    return Card(**card)


def read_card(file: str | Path) -> Card:
    """Read a card from a JSON file.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        return check_card(json.loads(expanded(file).read_text("utf-8-sig")))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be used as a card: {one_line(error)}") from error


def card_of(model: str | Path) -> Card:
    """Return the card in a model's file, {} for a model without one."""
    try:
        return describe(model).card
    except UserError:
        return Card()


def describe(model: str | Path) -> Model:
    """Describe a pretrained model, or a file that `isr export` wrote, without reading its arrays.

    Raises:
        UserError: there is no such file, or it is another kind of file.
    """
    from isr_jax import tensor_files

    file = PRETRAINED.get(str(model), expanded(model))
    if not file.exists():
        raise UserError(
            f"there is no model {model}: give a file written by isr export, or one of "
            f"{', '.join(PRETRAINED)}"
        )
    try:
        header = tensor_files.read_header(file)
        if "isr_jax" not in header.metadata:
            raise UserError("its metadata has no entry isr_jax")
        saved = json.loads(header.metadata["isr_jax"])
        card = check_card(json.loads(header.metadata.get(CARD_ENTRY, "{}")))
        scale, architecture = int(saved["scale"]), str(saved["generator"]["name"])
    except (ArithmeticError, OSError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{model} is not a file written by isr export: {one_line(error)}") from None
    parameters = sum(map(math.prod, header.shapes.values()))
    return Model(file.stem, scale, architecture, parameters, file.stat().st_size, card)
