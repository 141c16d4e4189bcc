"""The fields of an architecture: read, checked and completed from the class that has them.

A field is declared once, in its class: its type, default and meaning; `Literal[...]` lists its
choices and `Annotated[int, Bound(low, high)]` its limits.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, get_args, get_origin

from isr_jax import errors

DType = Literal["float32", "bfloat16"]

# What is not a field of a configuration: set by the caller, or by Flax.
_OTHER_FIELDS = ("scale", "axis_name", "name", "parent")


class Bound(NamedTuple):
    """The limits of a field, both included."""

    low: float
    high: float


class Architecture(Protocol):
    """What a network class declares besides its fields.

    Attributes:
        variants: the published networks: name -> the fields that differ from the defaults.
        check: fields -> None; raises a UserError for combinations that cannot work.
    """

    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    check: Callable[..., None]


def defaults(architecture: type) -> dict[str, Any]:
    """Return the default of each field of a network class."""
    return {f.name: f.default for f in fields(architecture) if f.name not in _OTHER_FIELDS}


def complete(
    options: Mapping[str, Any], architectures: Mapping[str, Any], *, part: str
) -> dict[str, Any]:
    """Return a network's name and all its fields: those given, and the defaults of the others.

    Args:
        options: "name", a key of `architectures` (the first where it is missing), and fields.
        architectures: the network classes by name.
        part: "generator" or "discriminator", for messages.

    Raises:
        errors.UserError: an unknown architecture or field, or a value that a field cannot have.
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
    """Raise a UserError where a value is not one of a field's choices, or is out of bounds."""
    if get_origin(annotation) is Literal and value not in get_args(annotation):
        raise errors.unknown(name, value, get_args(annotation))
    for bound in getattr(annotation, "__metadata__", ()):
        if isinstance(bound, Bound) and not bound.low <= value <= bound.high:
            raise errors.UserError(
                f"{name} is {value}; it must be in [{bound.low:g}, {bound.high:g}]"
            )
