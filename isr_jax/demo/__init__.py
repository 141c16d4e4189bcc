"""`isr demo`: its options, and the models that the page offers."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from isr_jax.checkpoints.single_files import PRETRAINED
from isr_jax.errors import UserError
from isr_jax.resize import METHODS
from isr_jax.upscaling.upscaler import Upscaler, load

MEGA = 10**6


class Choice(NamedTuple):
    """A model that the page offers: what `load` takes, and a generator's own scale."""

    model: str
    scale: int | None


class Limits(NamedTuple):
    """What the page takes.

    Attributes:
        pixels: the most that a photo may have, in megapixels.
        upload: the largest file, in MB of 10^6 bytes.
    """

    pixels: float
    upload: float


@lru_cache(maxsize=8)
def cached(model: str, scale: int | None, tile: int | None) -> Upscaler:
    """`load`, once for each model and tile."""
    return load(model, scale=scale, tile=tile)


def find_models(named: Sequence[str], runs: Path) -> list[Choice]:
    """The models named, the package's, those of a folder of run folders, and the interpolations.

    Raises:
        UserError: where one that is named cannot be loaded.
    """
    networks = dict.fromkeys(
        [*(name for name in named if name not in METHODS), *reversed(PRETRAINED)]
    )
    choices = [Choice(name, cached(name, None, None).scale) for name in networks]
    known = {Path(choice.model).expanduser().resolve() for choice in choices}
    for run in sorted(runs.glob("*/")):
        if run.resolve() not in known and any(run.glob("checkpoints/[0-9]*/")):
            try:
                scale = int(json.loads((run / "config.json").read_text())["scale"])
            except (OSError, ValueError, KeyError, TypeError):
                print(f"isr demo: {run} left out: its config.json tells no scale", file=sys.stderr)
                continue
            choices.append(Choice(str(run), scale))
    ordered = dict.fromkeys([*(name for name in named if name in METHODS), "bicubic", *METHODS])
    return choices + [Choice(name, None) for name in ordered]


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def port(text: str) -> int:
    """A TCP port, or 0 for any that is free."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return int(text)


def add_demo(parser: argparse.ArgumentParser) -> None:
    """The options of `isr demo`."""
    parser.description = (
        "Open a page that enlarges photos in the browser. It offers the package's own models, the "
        "run folders in ./runs, the models named here and the interpolations, asks nothing of the "
        "network, and keeps a photo only while its page is open. Ctrl-C ends it."
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        help="a run folder, one of its checkpoints/STEP, or a PyTorch file; may be repeated",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on; the default, 127.0.0.1, is reached from this machine only",
    )
    parser.add_argument("--port", type=port, default=7860, help="default: 7860; 0 for a free one")
    parser.add_argument(
        "--max-megapixels",
        type=positive,
        default=16,
        metavar="N",
        help="the largest photo that is taken; default: 16. A result can have 16 times as many",
    )
    parser.add_argument(
        "--max-upload",
        type=positive,
        default=100,
        metavar="MB",
        help="the largest file that is taken; default: 100",
    )
    parser.set_defaults(run=run_demo)


def run_demo(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    try:
        from isr_jax.demo.server import listen, serve
    except ModuleNotFoundError as error:
        if error.name not in ("anyio", "starlette", "uvicorn"):
            raise
        raise UserError(f"the page needs {error.name}: run pip install 'isr-jax[demo]'") from error
    limits = Limits(options.max_megapixels, options.max_upload)
    with listen(options.host, options.port) as socket:
        return serve(socket, find_models(options.model, Path("runs")), limits)
