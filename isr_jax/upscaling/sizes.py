"""The size of an upscaled image: what is asked for, what that is for an image, who reaches it.

The aspect ratio is kept: both sides are multiplied by one ratio and rounded half up to whole
pixels, at least 1. A side that is asked for is exact.
"""

import itertools
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from isr_jax.errors import UsageError, UserError, whole_number
from isr_jax.resize import Scale, as_fraction
from isr_jax.tiling.cutting import Sides

MEGA = 10**6

# How names of outputs end, before the suffix of their format; see `Target.label`.
_LABELS = {"scale": ("x", ""), "width": ("w", ""), "height": ("h", ""), "megapixels": ("", "mp")}
LABEL = re.compile(r"_(x\d+(\.\d+)?|[wh]\d+|\d+x\d+|\d+(\.\d+)?mp)(?=_|$)")


class Target(NamedTuple):
    """What is asked for; `make_target` makes one.

    Attributes:
        kind: of the value.
        value: a scale factor; a width or height in pixels; for fit, the width and height that
            the image fits into; or 10^6 pixels.
    """

    kind: Literal["scale", "width", "height", "fit", "megapixels"]
    value: Fraction | int | tuple[int, int]

    @property
    def label(self) -> str:
        """What names of outputs end with: x2.5, w1920, h1080, 1920x1080 or 8mp."""
        if isinstance(self.value, tuple):
            return f"{self.value[0]}x{self.value[1]}"
        before, after = _LABELS[self.kind]
        number = f"{float(self.value):.9f}".rstrip("0").rstrip(".")
        return f"{before}{number}{after}"

    def sideways(self) -> "Target":
        """Return the target of an image that is stored on its side."""
        if isinstance(self.value, tuple):
            return self._replace(value=self.value[::-1])
        turned: dict[str, Literal["width", "height"]] = {"width": "height", "height": "width"}
        return self._replace(kind=turned.get(self.kind, self.kind))


def make_target(
    *,
    scale: Scale | None = None,
    width: int | None = None,
    height: int | None = None,
    fit: tuple[int, int] | None = None,
    megapixels: Scale | None = None,
) -> Target | None:
    """Return the target that is given; None where none is.

    Args:
        scale: the scale factor, which may be fractional.
        width: of the result, pixels.
        height: of the result, pixels.
        fit: width and height that the result fits into, as large as possible.
        megapixels: that the result has, as nearly as whole pixels allow; 10^6 pixels each.

    Raises:
        UsageError: more than one is given.
        UserError: a value is not positive.
    """
    given = {
        "scale": scale,
        "width": width,
        "height": height,
        "fit": fit,
        "megapixels": megapixels,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are given; give one of them")
    if scale is not None:
        return Target("scale", _positive("scale", scale))
    if megapixels is not None:
        return Target("megapixels", _positive("megapixels", megapixels))
    if fit is not None:
        if not isinstance(fit, tuple | list) or len(fit) != 2:
            raise UserError(f"fit is {fit!r}; give a width and a height, such as (1920, 1080)")
        return Target("fit", (_pixels("fit", fit[0]), _pixels("fit", fit[1])))
    if width is not None:
        return Target("width", _pixels("width", width))
    if height is not None:
        return Target("height", _pixels("height", height))
    return None


def target_of(label: str) -> Target:
    """Return the target of a label, such as x2.5; `LABEL` says what labels there are."""
    if label.endswith("mp"):
        return Target("megapixels", Fraction(label[:-2]))
    if label[0].isdigit():
        width, height = map(int, label.split("x"))
        return Target("fit", (width, height))
    if label[0] == "x":
        return Target("scale", Fraction(label[1:]))
    return Target("width" if label[0] == "w" else "height", int(label[1:]))


def size_of(target: Target, size: Sides) -> Sides:
    """Return the height and width that an image gets.

    Args:
        target: what is asked for.
        size: height and width of the image as it is shown, after its EXIF orientation.
    """
    height, width = size
    value = target.value
    if isinstance(value, tuple):
        ratio = min(Fraction(value[0], width), Fraction(value[1], height))
    elif target.kind == "scale":
        ratio = Fraction(value)
    elif target.kind == "megapixels":
        # Of Python's own integers: a square of a whole ratio has an exact root.
        ratio = Fraction(math.sqrt(value * MEGA / (height * width)))
    else:
        ratio = Fraction(value, width if target.kind == "width" else height)
    return _rounded(height * ratio), _rounded(width * ratio)


def choose_scales(
    size: Sides, wanted: Sides, scales: Sequence[int], *, turns: int
) -> tuple[int, ...]:
    """Return the scale factors of the networks, in turn, that reach a size with the least excess.

    Where several products are the same, the fewest networks are taken, and a larger factor comes
    first. Where none reaches the size, they are those that come nearest. No network is needed for
    a size that the image has or exceeds, except by one that keeps the size.

    Args:
        size: height and width of the image.
        wanted: height and width of the result.
        scales: the factors to choose from.
        turns: the most networks in turn.
    """
    ratio = max(Fraction(b, a) for a, b in zip(size, wanted, strict=True))
    if ratio < 1 or (ratio == 1 and 1 not in scales):
        return ()
    products: dict[int, tuple[int, ...]] = {}
    for count in range(1, turns + 1):
        for factors in itertools.combinations_with_replacement(sorted(scales, reverse=True), count):
            products.setdefault(math.prod(factors), factors)
    reaching = [product for product in products if product >= ratio]
    return products[min(reaching, default=max(products))]


def _rounded(side: Fraction) -> int:
    """Round half up, to 1 at least."""
    return max(1, math.floor(side + Fraction(1, 2)))


def _positive(name: str, value: Scale) -> Fraction:
    try:
        number = as_fraction(value)
    except (UserError, TypeError):
        number = Fraction(0)
    if not Fraction(1, MEGA) <= number <= MEGA:
        raise UserError(f"{name} is {value!r}; give a number from 10^-6 to 10^6, such as 2.5")
    return number


def _pixels(name: str, value: int) -> int:
    return whole_number(value, name=name, unit="number of pixels")
