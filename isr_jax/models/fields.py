"""The fields of an architecture, which its class alone declares: completed, checked and listed.

A network class gives each field its type, default and meaning: `Literal[...]` lists choices, and
`Annotated[int, Bound(low, high)]` sets limits. Besides, it has

    variants  the published networks: name -> the fields that differ from the defaults
    check     optional; a static method of all fields (a generator's also gets the scale) that
              raises a UserError for combinations that cannot work
    scales    of a generator: the scale factors that it supports
    crops     of a discriminator: what `accepts(crop)` accepts, in words
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from isr_jax import errors

DType = Literal["float32", "bfloat16"]

# Fields that are not part of a config: set by the caller, or by Flax.
_OTHER_FIELDS = ("scale", "axis_name", "name", "parent")


class Bound(NamedTuple):
    """The limits of a field, both included."""

    low: float
    high: float


def defaults(architecture: type) -> dict[str, Any]:
    """Return the default of each field of a network class."""
    return {f.name: f.default for f in fields(architecture) if f.name not in _OTHER_FIELDS}


def complete(
    options: Mapping[str, Any], architectures: Mapping[str, Any], *, part: str
) -> dict[str, Any]:
    """Return a network's name and all its fields: those given, and defaults for the others.

    Args:
        options: "name", a key of `architectures` (default: the first), and fields of that class.
        architectures: the network classes by name.
        part: "generator" or "discriminator", for messages.

    Raises:
        errors.UserError: an unknown architecture or field, or a value of another type or out of
            bounds.
    """
    name = options.get("name", next(iter(architectures)))
    if name not in architectures:
        raise errors.unknown(f"{part}.name", name, architectures)
    known = defaults(architectures[name])
    for field in options:
        if field != "name" and field not in known:
            raise errors.unknown(f"field of {part} {name}", field, known)
    for field in fields(architectures[name]):
        if field.name in options and field.name in known:
            _check(options[field.name], field.type, name=f"{part}.{field.name}")
    return {"name": name, **known, **options}


def variants(architectures: Mapping[str, Any], *, part: str) -> dict[str, dict[str, Any]]:
    """Return every published network by its name, with all its fields."""
    return {
        variant: complete({"name": name, **changed}, architectures, part=part)
        for name, architecture in architectures.items()
        for variant, changed in architecture.variants.items()
    }


def _check(value: Any, annotation: Any, *, name: str) -> None:
    """Raise a UserError for a value of another type, not one of the choices or out of bounds."""
    bounds: list[Bound] = []
    if get_origin(annotation) is Annotated:
        annotation, *bounds = get_args(annotation)
    if get_origin(annotation) is tuple:
        if not isinstance(value, list | tuple):
            raise errors.UserError(f"{name} is {value!r}; it must be a list")
        for each in value:
            _check(each, get_args(annotation)[0], name=name)
        return
    if get_origin(annotation) is Literal:
        # 1, 1.0 and True are equal, and not the same choice.
        if not any(value == x and type(value) is type(x) for x in get_args(annotation)):
            raise errors.unknown(name, value, get_args(annotation))
        return
    if not _is_a(value, annotation):
        raise errors.UserError(f"{name} is {value!r}; it must be {_KINDS[annotation]}")
    if annotation is float and not math.isfinite(value):
        raise errors.UserError(f"{name} is {value}; it must be finite")
    for low, high in bounds:
        if not low <= value <= high:
            raise errors.UserError(f"{name} is {value}; it must be in [{low:g}, {high:g}]")


_KINDS: dict[type, str] = {bool: "True or False", int: "an integer", float: "a number"}


def _is_a(value: Any, kind: type) -> bool:
    """Return whether a value is of a kind; an integer is a number, a boolean is neither."""
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def check_mean(fields: Mapping[str, Any]) -> None:
    """Raise a UserError for a mean colour or a range of values that no network can have."""
    if len(fields["rgb_mean"]) != 3:
        raise errors.UserError(f"generator.rgb_mean is {fields['rgb_mean']}; it has 3 values")
    if fields["img_range"] <= 0:
        raise errors.UserError(f"generator.img_range is {fields['img_range']}; it must be above 0")


def check_groups(fields: Mapping[str, Any]) -> None:
    """Raise a UserError for depths and heads of a transformer that cannot work."""
    depths, heads = fields["depths"], fields["heads"]
    if not depths or len(depths) != len(heads):
        raise errors.UserError(
            f"generator.depths={tuple(depths)} and generator.heads={tuple(heads)} have one entry "
            "for each group; give both as many"
        )
    for name, values, high in (("depths", depths, 1024), ("heads", heads, 4096)):
        if not all(1 <= value <= high for value in values):
            raise errors.UserError(f"generator.{name} is {tuple(values)}; each is in [1, {high}]")
    if any(fields["width"] % n for n in heads):
        raise errors.UserError(
            f"generator.width={fields['width']} is not divisible by generator.heads={tuple(heads)}"
        )
