"""The `isr` command."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import logging
from rich.console import Console

from isr_jax.checkpoints.restore import interpolate, restore_generator
from isr_jax.checkpoints.runs import architecture, write_generator
from isr_jax.checkpoints.single_files import PRETRAINED
from isr_jax.demo import add_demo
from isr_jax.errors import UsageError, UserError, one_line
from isr_jax.evaluation import tables
from isr_jax.evaluation.evaluator import Evaluation, evaluate
from isr_jax.export import FORMATS as EXPORTS
from isr_jax.export import SUFFIXES as EXPORT_SUFFIXES
from isr_jax.export import export_model
from isr_jax.perceptual.lpips import NETWORKS
from isr_jax.photo.reading import MAX_PIXELS
from isr_jax.photo.writing import FORMATS as FILE_FORMATS
from isr_jax.protocols import PROTOCOLS
from isr_jax.pytorch.files import SUFFIXES
from isr_jax.pytorch.namings import NAMINGS
from isr_jax.pytorch.weights import export_torch, import_torch
from isr_jax.resize import METHODS
from isr_jax.upscaling.folders import upscale_files
from isr_jax.upscaling.upscaler import load

DATA = "ISR_DATA"
FORMATS: dict[str, Callable[[Evaluation], str]] = {
    "json": lambda result: json.dumps(result, indent=2) + "\n",
    "csv": tables.evaluation_csv,
    "markdown": tables.evaluation_markdown,
}


class Parser(argparse.ArgumentParser):
    """argparse, with wrong usage told in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def factor(text: str) -> int:
    """A scale on the command line: an integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no factor of enlargement, such as 4")
    return int(text)


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an option that is an integer from least to most."""
    bounds = f"{least} or more" if most is None else f"{least} to {most}"

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of {bounds}")
        return int(text)

    return parse


def shard(text: str) -> tuple[int, int]:
    """I/N with 1 <= I <= N."""
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part such as 3/8")
    return int(i), int(n)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="isr", description="Image super-resolution: use and measure models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add, what) in COMMANDS.items():
        add(commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}."))
    return parser


def add_model(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """The options that name a model."""
    parser.add_argument(
        "--model",
        required=default is None,
        help=f"{', '.join(PRETRAINED)}, which come with the package; a run folder, one of its "
        "checkpoints/STEP; a file of isr export (.safetensors) or of PyTorch's (.pth, "
        f".safetensors); or {', '.join(METHODS)}" + (f"; default: {default}" if default else ""),
    )
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="default: ema")


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The options of `isr evaluate`."""
    parser.description = (
        "Score a model over every benchmark set below a folder: per image and mean, PSNR, SSIM and "
        "MS-SSIM, with SCALE pixels cropped from each side. LR images are read where there are "
        "any, and are the exact bicubic of the HR images otherwise. A file that cannot be scored "
        "is named on standard error, and the exit code is then 1."
    )
    add_model(parser)
    default = os.environ.get(DATA)
    parser.add_argument(
        "--data",
        required=default is None,
        default=default and os.path.join(default, "benchmarks"),
        metavar="DIR",
        help="a set, hr/NAME.png with lr/NAME.png, or a tree of sets; also EDSR's and BasicSR's "
        f"folders; ${DATA}/benchmarks where that is set",
    )
    parser.add_argument(
        "--scale",
        type=factor,
        nargs="+",
        default=(),
        metavar="S",
        help="one or more; a generator's own, or all those of the LR images, by default",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="vdsr",
        help="vdsr: luma rounded to 8 bits (default); basicsr: luma not rounded; rgb",
    )
    parser.add_argument(
        "--lpips", choices=NETWORKS, help="measure LPIPS too, by the published weights"
    )
    parser.add_argument(
        "--lpips-folder", metavar="DIR", help="where to look for them first; then in $ISR_WEIGHTS"
    )
    for kind in FORMATS:
        parser.add_argument(
            f"--{kind}", metavar="FILE", help=f"write {kind} too; - for standard output"
        )
    parser.add_argument("--save", metavar="DIR", help="a new folder for the enlarged images")
    parser.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> int:
    """Evaluate, print the tables, write the files; returns the exit code."""
    files = {kind: file for kind in FORMATS if (file := getattr(options, kind))}
    if list(files.values()).count("-") > 1:
        raise UsageError("only one of --json, --csv and --markdown can be -")
    for file in files.values():
        if file != "-" and (Path(file).is_dir() or not Path(file).absolute().parent.is_dir()):
            raise UserError(f"{file} cannot be written: name a file in a folder that exists")
    result = evaluate(
        options.model,
        options.data,
        scale=options.scale,
        protocol=options.protocol,
        weights=options.weights,
        lpips=options.lpips,
        lpips_folder=options.lpips_folder,
        save=options.save,
        progress=True,
    )
    console = Console(stderr="-" in files.values())
    for title, table in tables.evaluation_tables(result).items() if result["sets"] else ():
        console.print(title, style="bold", highlight=False, soft_wrap=True)
        console.print(table)
    for kind, file in files.items():
        text = FORMATS[kind](result)
        if file == "-":
            sys.stdout.write(text)
        else:
            Path(file).write_text(text)
    for line in result["failed"]:
        print(f"isr evaluate: {line}", file=sys.stderr)
    return 1 if result["failed"] else 0


def add_upscale(parser: argparse.ArgumentParser) -> None:
    """The options of `isr upscale`."""
    parser.description = (
        "Enlarge photographs: PNG, JPEG, WebP, TIFF and BMP files, of which orientation, EXIF, ICC "
        "profile, transparency, 16 bits, pages and frames are kept where the format of the output "
        "can hold them. An output that is there already is skipped, so that the same line again "
        "does what is left. A file that cannot be enlarged is named on standard error, and the "
        "exit code is then 1."
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help="image files, folders of them at any depth, and patterns such as 'photos/**/*.jpg'",
    )
    add_model(parser, default="compact-xS, of the scale S")
    parser.add_argument(
        "--scale",
        type=factor,
        metavar="S",
        help="needed by an interpolation, which has none; default without a model: 4",
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="a folder, in which those of an input folder keep their places, or a file for a "
        "single image; beside each image by default",
    )
    parser.add_argument("--suffix", help="put behind each name; by default _xS, of the scale S")
    parser.add_argument(
        "--format",
        choices=("same", *FILE_FORMATS),
        default="same",
        help="of the outputs; default: same, by each file's own suffix",
    )
    parser.add_argument(
        "--quality",
        type=whole(1, 100),
        default=95,
        metavar="Q",
        help="of JPEG and WebP, 1 to 100, at which WebP is lossless; default: 95",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that are there")
    parser.add_argument(
        "--tile",
        type=whole(1),
        metavar="N",
        help="side of a tile in pixels of the image; by default one that fits the device",
    )
    parser.add_argument(
        "--ensemble", action="store_true", help="the mean over the 8 flips and turns of each image"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="computed in; by default the model's own"
    )
    parser.add_argument(
        "--jobs",
        type=whole(1),
        default=2,
        metavar="N",
        help="threads that read and write while the device computes; default: 2",
    )
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="the Ith of N parts of the files, to share them among N machines",
    )
    parser.add_argument(
        "--max-pixels",
        type=whole(1),
        default=MAX_PIXELS,
        metavar="N",
        help="refuse images that declare more, which may be made to fill the memory; "
        f"default: {MAX_PIXELS}",
    )
    parser.set_defaults(run=run_upscale)


def run_upscale(options: argparse.Namespace) -> int:
    """Enlarge every image, name those that cannot be, and count; returns the exit code."""
    upscaler = load(
        options.model or f"compact-x{options.scale or 4}",
        scale=options.scale,
        weights=options.weights,
        tile=options.tile,
        ensemble=options.ensemble,
        dtype=options.dtype,
    )
    outcome = upscale_files(
        upscaler,
        options.inputs,
        out=options.out,
        form=options.format,
        suffix=options.suffix,
        quality=options.quality,
        overwrite=options.overwrite,
        jobs=options.jobs,
        shard=options.shard,
        max_pixels=options.max_pixels,
        progress=True,
    )
    skipped = f"{outcome.skipped} skipped"
    skipped += " (there already; --overwrite replaces them)" if outcome.skipped else ""
    total = f"{outcome.enlarged} enlarged, {skipped}, {len(outcome.failed)} failed"
    for line in (*outcome.notices, *outcome.failed, total):
        print(f"isr upscale: {line}", file=sys.stderr)
    return 1 if outcome.failed else 0


def field(text: str) -> tuple[str, Any]:
    """NAME=VALUE, with the value as JSON has it."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, as width=64") from None


def add_import(parser: argparse.ArgumentParser) -> None:
    """The options of `isr import-torch`."""
    parser.add_argument("file", metavar="FILE", help=".pth or .safetensors of a generator")
    parser.add_argument("out", metavar="OUT", help="a new run folder")
    parser.add_argument(
        "--set",
        type=field,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field that the file does not tell, as residual_scale=0.1",
    )
    parser.set_defaults(run=run_import)


def run_import(options: argparse.Namespace) -> int:
    """Write a run folder, and say what the file was found to hold, and what was assumed."""
    imported = import_torch(options.file, options=dict(options.set))
    config = imported.config
    if "generator" not in config:
        raise UserError(f"{options.file} holds a discriminator ({imported.naming})")
    write_generator(options.out, imported.params, imported.stats, config)
    fields = ", ".join(f"{name}={value}" for name, value in config["generator"].items())
    print(f"{options.out}: {config['scale']}x generator, {fields}")
    if imported.assumed:
        assumed = ", ".join(imported.assumed)
        print(f"not told by the file: {assumed}; --set NAME=VALUE sets one", file=sys.stderr)
    return 0


def add_export(parser: argparse.ArgumentParser) -> None:
    """The options of `isr export`."""
    parser.description = (
        "Write a generator with its parameters as one file: for isr_jax, or for other programs and "
        "images of any number and size as StableHLO, which JAX runs without isr_jax, or ONNX, both "
        "in float32 and not clipped."
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a generator: what --model takes, but no interpolation"
    )
    parser.add_argument("file", metavar="FILE", help=f"to write, {', '.join(EXPORT_SUFFIXES)}")
    parser.add_argument(
        "--format",
        choices=EXPORTS,
        help="onnx: NCHW, needs isr-jax[onnx]; stablehlo: NHWC; safetensors: for --model; by "
        "default what FILE's suffix says",
    )
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="default: ema")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    """Write the file, and say what it holds."""
    written = export_model(
        options.model,
        options.file,
        format=options.format,
        weights=options.weights,
        overwrite=options.overwrite,
    )
    print(written)
    return 0


def add_export_torch(parser: argparse.ArgumentParser) -> None:
    """The options of `isr export-torch`."""
    parser.add_argument("model", metavar="MODEL", help="a run folder or one of its checkpoints")
    parser.add_argument("file", metavar="FILE", help=".pth or .safetensors to write")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="default: ema")
    parser.add_argument(
        "--naming", choices=NAMINGS, help="whose names the layers get; by default the usual one"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.set_defaults(run=run_export_torch)


def run_export_torch(options: argparse.Namespace) -> int:
    """Write the file."""
    if Path(options.file).exists() and not options.overwrite:
        raise UserError(f"{options.file} is there already; name another file, or add --overwrite")
    if Path(options.file).suffix not in SUFFIXES:
        raise UserError(f"{options.file} must end in one of {', '.join(SUFFIXES)}")
    restored = restore_generator(options.model, weights=options.weights)
    export_torch(
        options.file,
        restored.params,
        restored.stats,
        options=restored.config.generator.to_dict(),
        size=restored.config.scale,
        naming=options.naming,
    )
    return 0


def add_interpolate(parser: argparse.ArgumentParser) -> None:
    """The options of `isr interpolate`."""
    parser.add_argument("a", metavar="A", help="a run folder or PyTorch file, as trained for PSNR")
    parser.add_argument("b", metavar="B", help="another, as the GAN that began as A")
    parser.add_argument("out", metavar="OUT", help="a new run folder")
    parser.add_argument(
        "--alpha", type=float, required=True, help="(1 - ALPHA) A + ALPHA B, parameter by parameter"
    )
    parser.set_defaults(run=run_interpolate)


def run_interpolate(options: argparse.Namespace) -> int:
    """Write the run folder."""
    a, b = restore_generator(options.a), restore_generator(options.b)
    params, stats = interpolate(a, b, alpha=options.alpha)
    write_generator(options.out, params, stats, architecture(a.config))
    return 0


COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "upscale": (add_upscale, "enlarge photographs"),
    "evaluate": (add_evaluate, "score a model over benchmark sets"),
    "demo": (add_demo, "open a page that enlarges photos in the browser"),
    "import-torch": (add_import, "make a run folder of a PyTorch generator"),
    "export-torch": (add_export_torch, "write a generator for PyTorch"),
    "export": (add_export, "write a generator as one file, ONNX or StableHLO too"),
    "interpolate": (add_interpolate, "mix two generators of one architecture"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `isr` command; returns the exit code."""
    parser = make_parser()
    options = parser.parse_args(argv)
    logging.set_verbosity(logging.ERROR)  # Orbax tells of its inner life
    # As an exception, so that what has begun is cleared away.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return options.run(options)
    except UsageError as error:
        print(f"isr {options.command}: {error}", file=sys.stderr)
        return 2
    except (UserError, OSError) as error:
        print(f"isr {options.command}: {one_line(error, limit=1000)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"isr {options.command}: interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
