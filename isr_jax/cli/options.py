"""Options that several commands share, and the types of their values.

A command line is parsed before JAX is loaded, so that help and wrong usage are answered at once.
The names below therefore repeat the keys of tables that only load with JAX; a test compares them.
"""

import argparse
import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from isr_jax.files import expanded
from isr_jax.pretrained import PRETRAINED

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
MAX_PIXELS = 10**9
MODEL_SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt", ".bin", ".param")


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports wrong usage in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line on standard error and exit with code 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def scale_factor(text: str) -> int:
    """Parse a scale factor, an integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a scale factor such as 4")
    return int(text)


def decimal(text: str) -> Fraction:
    """Parse a number from 10^-6 to 10^6, such as 2.5, exactly."""
    plain = re.fullmatch(r"\d{0,40}(\.\d{1,40})?", text, re.ASCII) and text
    if not plain or not Fraction(1, 10**6) <= Fraction(text) <= 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 2.5")
    return Fraction(text)


def box(text: str) -> tuple[int, int]:
    """Parse WxH, two numbers of pixels."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size WxH such as 1920x1080")
    return int(width), int(height)


def bands(text: str) -> tuple[int, ...]:
    """Parse one band, or three with commas, counted from 1."""
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a band, or three such as 3,2,1")
    return tuple(int(part) for part in parts)


def integer(least: int, *, most: int | None = None) -> Callable[[str], int]:
    """Return the type of an option that is an integer from `least` to `most`."""
    bounds = f"{least} or more" if most is None else f"{least} to {most}"

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of {bounds}")
        return int(text)

    return parse


def number(text: str) -> float:
    """Parse a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def positive(text: str) -> float:
    """Parse a number above 0 and below 10^6."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def port(text: str) -> int:
    """Parse a TCP port, or 0 for any free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def shard(text: str) -> tuple[int, int]:
    """Parse I/N with 1 <= I <= N."""
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shard I/N such as 3/8")
    return int(i), int(n)


def field(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE, where VALUE is JSON."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE such as width=64") from None


def add_model(
    parser: argparse.ArgumentParser,
    *,
    default: str | None = None,
    needed: bool = True,
    several: bool = False,
) -> None:
    """Add --model and --weights; --model is required where it has no default and is needed."""
    parser.add_argument(
        "--model",
        **({"nargs": "+", "action": "extend", "default": []} if several else {}),
        required=needed and default is None,
        help=f"a pretrained model ({', '.join(PRETRAINED)}); a run folder or one of "
        "its checkpoints/STEP; a file written by isr export (.safetensors), by PyTorch (.pth, "
        f".safetensors) or for ncnn (.param); or {', '.join(INTERPOLATIONS)}"
        + ("; several, --model A B, upscale each photo once each" if several else "")
        + (f"; default: {default}" if default else ""),
    )
    add_weights(parser)


def split_models(models: list[str], inputs: list[str]) -> tuple[list[str], list[str]]:
    """Return the models and inputs of a command line, where inputs may follow --model A [B ...].

    They begin behind the first model with what does not look like one; where there are inputs
    elsewhere, with what looks like a photo or video.
    """
    ends = _is_input if inputs else lambda text: not _is_model(text)
    count = next((i for i, text in enumerate(models) if i and ends(text)), len(models))
    return models[:count], inputs + models[count:]


def _is_input(text: str) -> bool:
    """Return whether a word is named like a photo or video."""
    from isr_jax.photo.formats import is_named_like_a_photo  # here: help does without Pillow
    from isr_jax.video.names import is_video

    return is_named_like_a_photo(Path(text)) or is_video(Path(text))


def _is_model(text: str) -> bool:
    """Return whether a word is the name of a model, a file of one or a run folder."""
    path = expanded(text)
    if text in PRETRAINED or text in INTERPOLATIONS or path.suffix.lower() in MODEL_SUFFIXES:
        return True
    return (path / "config.json").is_file() or path.parent.name == "checkpoints"


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add --weights."""
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        default="ema",
        help="a run's EMA parameters, or the raw ones; default: ema",
    )
