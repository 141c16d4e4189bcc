"""`isr evaluate`."""

import argparse
import json
import os
import sys
from pathlib import Path

from isr_jax.cli.options import add_model, integer, scale_factor
from isr_jax.errors import UsageError, UserError

DATA = "ISR_DATA"
PROTOCOLS = ("vdsr", "basicsr", "basicsr-color", "rgb", "ntire-sr", "ntire-esr")
LPIPS_NETWORKS = ("alex", "vgg", "squeeze")
NIQE_FORMS = ("matlab", "pyiqa")
TABLE_FORMATS = ("json", "csv", "markdown")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `isr evaluate`."""
    parser.description = (
        "Score a model, or finished pictures of other programs, on every benchmark set in a "
        "folder: PSNR, SSIM and MS-SSIM per image and on average, with SCALE pixels cropped from "
        "each side (NTIRE's protocols crop 4). LR images are read where the set has them, and are "
        "otherwise the exact bicubic of the HR images. A file that cannot be scored is reported "
        "on standard error, and the exit code is then 1."
    )
    add_model(parser, needed=False)
    parser.add_argument(
        "--against",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="also score, or without --model only, the pictures in one or more folders that other "
        "programs made: NAME.png, or NAME with x4, _SR or one ending behind it, in DIR, DIR/SET or "
        "DIR/SET/x4",
    )
    default = os.environ.get(DATA) or None
    parser.add_argument(
        "--data",
        required=default is None,
        default=default and os.path.join(default, "benchmarks"),
        metavar="DIR",
        help="a benchmark set (hr/NAME.png, optionally with lr/NAME.png) or a tree of sets; the "
        f"layouts of EDSR and BasicSR work too; default: ${DATA}/benchmarks if that is set",
    )
    parser.add_argument(
        "--scale",
        type=scale_factor,
        nargs="+",
        default=(),
        metavar="S",
        help="one or more scale factors; default: the generator's own, or every one that the set "
        "has LR images for",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="vdsr",
        help="vdsr: Y rounded to 8 bits (default); basicsr: Y not rounded; basicsr-color: the "
        "same, of gray files too, as BasicSR does; rgb: all channels; ntire-sr and ntire-esr: of "
        "NTIRE's challenges of x4 and of efficient super-resolution, Y and all channels, with 4 "
        "pixels cropped at every scale",
    )
    parser.add_argument(
        "--lpips", choices=LPIPS_NETWORKS, help="also measure LPIPS, with the published weights"
    )
    parser.add_argument(
        "--lpips-folder",
        metavar="DIR",
        help="folder searched for the LPIPS weights before $ISR_WEIGHTS",
    )
    parser.add_argument(
        "--dists", action="store_true", help="also measure DISTS, with the published weights"
    )
    parser.add_argument(
        "--dists-folder",
        metavar="DIR",
        help="folder searched for the DISTS weights before $ISR_WEIGHTS",
    )
    parser.add_argument(
        "--niqe",
        choices=NIQE_FORMS,
        help="also measure NIQE of the upscaled images, as the authors' MATLAB code or pyiqa does",
    )
    parser.add_argument(
        "--niqe-folder",
        metavar="DIR",
        help="folder searched for NIQE's parameters before $ISR_WEIGHTS, or their file",
    )
    parser.add_argument(
        "--tile",
        type=integer(0),
        metavar="N",
        help="tile size in input pixels; 0: images as a whole; default: as a whole where tiles "
        "would change the result",
    )
    for kind in TABLE_FORMATS:
        parser.add_argument(
            f"--{kind}", metavar="FILE", help=f"also write {kind}; - for standard output"
        )
    parser.add_argument("--save", metavar="DIR", help="new folder for the upscaled images")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evaluate, print the tables and write the files; return the exit code."""
    if options.model is None and not options.against:
        raise UsageError("the following arguments are required: --model or --against")
    if options.model is None and options.save:
        raise UsageError("--save needs --model: the pictures of --against exist already")
    files = {kind: file for kind in TABLE_FORMATS if (file := getattr(options, kind))}
    if list(files.values()).count("-") > 1:
        raise UsageError("only one of --json, --csv and --markdown can be -")
    if len({*files.values()}) < len(files):
        raise UsageError("--json, --csv and --markdown need a file each")
    for file in files.values():
        if file != "-" and (Path(file).is_dir() or not Path(file).absolute().parent.is_dir()):
            raise UserError(f"{file} cannot be written: name a file in an existing folder")

    from isr_jax.console import make_console, print_table
    from isr_jax.evaluation import tables
    from isr_jax.evaluation.evaluator import evaluate

    writers = {
        "json": lambda result: json.dumps(result, indent=2) + "\n",
        "csv": tables.evaluation_csv,
        "markdown": tables.evaluation_markdown,
    }
    result = evaluate(
        options.model,
        options.data,
        against=options.against,
        scale=options.scale,
        protocol=options.protocol,
        weights=options.weights,
        lpips=options.lpips,
        lpips_folder=options.lpips_folder,
        dists=options.dists,
        dists_folder=options.dists_folder,
        niqe=options.niqe,
        niqe_folder=options.niqe_folder,
        save=options.save,
        tile=options.tile,
        progress=True,
    )
    for kind, file in files.items():
        text = writers[kind](result)
        # A file name that is not UTF-8 keeps its bytes.
        content = text.encode("utf-8", "surrogateescape")
        if file == "-":
            sys.stdout.buffer.write(content)
        else:
            Path(file).write_bytes(content)
    console = make_console(stderr="-" in files.values())
    for title, table in tables.evaluation_tables(result).items():
        console.print(title, style="bold", highlight=False, markup=False, soft_wrap=True)
        print_table(console, table)
    failed = [line for one in tables.methods_of(result) for line in one["failed"]]
    notices = [line for one in tables.methods_of(result) for line in one["notices"]]
    for line in (*notices, *failed):
        print(f"isr evaluate: {line}", file=sys.stderr)
    return 1 if failed else 0
