"""The scorer of a run's validation, with the metrics of `config.train.validation_metrics`.

    config.train.validation_metrics = ("niqe:pyiqa", "lpips")

PSNR, SSIM and MS-SSIM are always among them. EXTRAS is the table of the others: a line there, and
those that `isr_jax.scoring` asks for, add one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from isr_jax import errors
from isr_jax.errors import UserError
from isr_jax.perceptual import dists, lpips, niqe
from isr_jax.scoring import Scorer, make_scorer

FIELD = "config.train.validation_metrics"


class Extra(NamedTuple):
    """A metric that validation may add.

    Attributes:
        forms: of the metric, of which the first is the default; () where it has just one.
        load: form -> the function, for the argument of `make_scorer` of that name. It raises a
            UserError where its file cannot be had.
    """

    forms: tuple[str, ...]
    load: Callable[[str], Any]


EXTRAS: dict[str, Extra] = {
    "niqe": Extra(tuple(niqe.FORMS), niqe.load_niqe),
    "lpips": Extra(tuple(lpips.NETWORKS), lpips.load_lpips),
    "dists": Extra((), lambda form: dists.load_dists()),
}


def chosen(names: Sequence[str]) -> dict[str, str]:
    """Return the form of each metric of `config.train.validation_metrics`, such as niqe:pyiqa.

    Raises:
        UserError: an unknown metric or form, or a metric that is named twice.
    """
    forms: dict[str, str] = {}
    for given in names:
        name, colon, form = given.partition(":")
        if name not in EXTRAS:
            raise errors.unknown(FIELD, name, EXTRAS)
        if name in forms:
            raise UserError(f"{FIELD} names {name} twice; give it once")
        if colon and form not in EXTRAS[name].forms:
            choices = [f"{name}:{other}" for other in EXTRAS[name].forms] or [name]
            raise errors.unknown(FIELD, given, choices)
        forms[name] = form or "".join(EXTRAS[name].forms[:1])
    return forms


def load_scorer(names: Sequence[str], *, scale: int) -> Scorer:
    """Return the scorer of a validation set, by the vdsr protocol.

    Args:
        names: as for `chosen`.
        scale: the scale factor.

    Raises:
        UserError: as for `chosen`, or for weights that cannot be had.
    """
    functions = {}
    for name, form in chosen(names).items():
        try:
            functions[name] = EXTRAS[name].load(form)
        except UserError as error:
            raise UserError(f"{FIELD} names {name}: {error}") from error
    return make_scorer(scale=scale, **functions)
