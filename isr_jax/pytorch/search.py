"""Find the state dict of a known network among a file's tensors, nested and prefixed as they are.

A file may hold several networks, each raw and as EMA, below any entries ("params_ema",
"state_dict") and with any prefix of their keys ("module.", "netG.", "generator_ema."). A prefix is
taken off where a key map's required keys all have it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from isr_jax.pytorch.key_map import KeyMap, StateDict

_EMA = re.compile(r"(?<![a-z])ema(?![a-z])")
_DISCRIMINATOR = re.compile(r"net_?d(?![a-z])|discriminator")


class Found(NamedTuple):
    """A state dict in a file.

    Attributes:
        key_map: the name of the key map whose required keys it has.
        place: the entries that hold it and the prefix of its keys, such as "state_dict/netG."
        state: key without prefix -> array.
        left_out: what the file holds besides it, such as "state_dict/netD. (24 tensors)".
    """

    key_map: str
    place: str
    state: dict[str, np.ndarray]
    left_out: tuple[str, ...]


def find(tree: Mapping[str, Any], key_maps: Mapping[str, KeyMap]) -> Found | None:
    """Find the best state dict: a generator's before a discriminator's, an EMA, the largest.

    Args:
        tree: a file's tensors, in dictionaries of any depth.
        key_maps: the known networks.

    Returns:
        It, or None where there is none of a known network.
    """
    dicts = dict(dictionaries(tree))
    found = [
        Found(name, label + prefix, _below(state, prefix), ())
        for label, state in dicts.items()
        for prefix, name in _prefixes(state, key_maps).items()
    ]
    if not found:
        return None

    def rank(found: Found) -> tuple[bool, bool, int, int]:
        generates = key_maps[found.key_map].part == "generator"
        place = _words(found.place)
        # Of two within an entry called ema, the one whose own name says so.
        return (
            generates,
            not _DISCRIMINATOR.search(place),
            len(_EMA.findall(place)),
            len(found.state),
        )

    best = max(found, key=rank)
    return best._replace(left_out=tuple(_left_out(dicts, best.place)))


def _words(place: str) -> str:
    """Return a place in lower case, with generatorEMA as generator_ema."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", place).lower()


def dictionaries(
    tree: Mapping[str, Any], *, label: str = ""
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield each dictionary that holds arrays itself, by the entries that lead to it."""
    arrays = {key: np.asarray(x) for key, x in tree.items() if hasattr(x, "shape")}
    if arrays:
        yield label, arrays
    for key, inner in tree.items():
        if isinstance(inner, Mapping):
            yield from dictionaries(inner, label=f"{label}{key}/")


def _prefixes(state: StateDict, key_maps: Mapping[str, KeyMap]) -> dict[str, str]:
    """Return the prefixes before which a state dict has a key map's required keys, and which."""
    prefixes: dict[str, str] = {}
    for name, key_map in key_maps.items():
        first = key_map.required[0]
        for key in state:
            prefix = key.removesuffix(first)
            whole = key.endswith(first) and (not prefix or prefix.endswith("."))
            if whole and all(prefix + required in state for required in key_map.required):
                prefixes.setdefault(prefix, name)
    return prefixes


def _below(state: StateDict, prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _left_out(dicts: Mapping[str, StateDict], place: str) -> Iterator[str]:
    """Name what is not at a place, by the first part of its keys, and count it."""
    counts: dict[str, int] = {}
    for label, state in dicts.items():
        for key in state:
            if not (label + key).startswith(place):
                # Entries are left out whole; beside the state dict, keys by their first part.
                inside = place.startswith(label) if label else "/" not in place
                part = key.partition(".")[0] + "." if inside else ""
                counts[label + part] = counts.get(label + part, 0) + 1
    for part, count in counts.items():
        yield f"{part.removesuffix('/')} ({count} tensor{'s' * (count > 1)})"
