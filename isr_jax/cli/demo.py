"""`isr demo`."""

import argparse
from pathlib import Path

from isr_jax.cli.options import port, positive
from isr_jax.errors import UserError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `isr demo`."""
    parser.description = (
        "Serve a page that upscales photos in the browser. It offers the pretrained models of the "
        "package, the run folders in ./runs, the models named here and the interpolations. It "
        "makes no network requests, and keeps a photo only while its page is open. Ctrl-C stops "
        "it."
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
        help="address to listen on; the default, 127.0.0.1, is reachable from this machine only",
    )
    parser.add_argument("--port", type=port, default=7860, help="0 picks a free one; default: 7860")
    parser.add_argument(
        "--max-megapixels",
        type=positive,
        default=16,
        metavar="N",
        help="largest photo accepted; a result can have 16 times as many; default: 16",
    )
    parser.add_argument(
        "--max-upload",
        type=positive,
        default=100,
        metavar="MB",
        help="largest file accepted; default: 100",
    )
    parser.add_argument(
        "--max-seconds",
        type=positive,
        default=600,
        metavar="S",
        help="longest that one photo may take; default: 600",
    )
    parser.add_argument(
        "--max-disk",
        type=positive,
        default=10_000,
        metavar="MB",
        help="most that the photos and results of all visitors may take; default: 10000",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; return the exit code."""
    try:
        from isr_jax.demo.server import listen, serve
    except ModuleNotFoundError as error:
        if error.name not in ("anyio", "starlette", "uvicorn"):
            raise
        raise UserError(f"the page needs {error.name}: run pip install 'isr-jax[demo]'") from error
    from isr_jax.demo.models import Limits, find_models

    limits = Limits(
        options.max_megapixels, options.max_upload, options.max_seconds, options.max_disk
    )
    with listen(options.host, options.port) as socket:
        return serve(socket, find_models(options.model, Path("runs")), limits)
