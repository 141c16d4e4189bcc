"""`isr import-torch`, `export-torch`, `export` and `interpolate`: generators as files."""

import argparse
import sys

from isr_jax.cli.options import add_weights, field, number
from isr_jax.errors import UsageError, UserError, unknown
from isr_jax.files import expanded

EXPORT_FORMATS = ("onnx", "stablehlo", "safetensors")
EXPORT_SUFFIXES = (".onnx", ".stablehlo", ".bin", ".safetensors")


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add the options of `isr import-torch`."""
    parser.add_argument(
        "file", metavar="FILE", help="a generator's file, .pth, .safetensors, or ncnn's .param"
    )
    parser.add_argument("out", metavar="OUT", help="a new run folder")
    parser.add_argument(
        "--set",
        type=field,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a field that the file does not determine, such as residual_scale=0.1",
    )
    parser.set_defaults(run=run_import)


def run_import(options: argparse.Namespace) -> int:
    """Write a run folder and print its architecture; return the exit code."""
    from isr_jax.checkpoints import single_files
    from isr_jax.checkpoints.runs import write_generator
    from isr_jax.pytorch.state_dicts import import_torch

    file = expanded(options.file)
    if file.is_file() and single_files.read(file):
        raise UserError(f"{options.file} is a file of isr export; give it to --model as it is")
    imported = import_torch(file, options=dict(options.set))
    config = imported.config
    if "generator" not in config:
        raise UserError(f"{options.file} holds a discriminator ({imported.key_map})")
    write_generator(options.out, imported.params, imported.stats, config)
    fields = ", ".join(f"{name}={value}" for name, value in config["generator"].items())
    print(f"{options.out}: {config['scale']}x generator, {fields}")
    if imported.left_out:
        print(f"left out: {', '.join(imported.left_out)}", file=sys.stderr)
    if imported.undetected:
        fields = ", ".join(imported.undetected)
        print(
            f"not determined by the file: {fields}; set them with --set NAME=VALUE",
            file=sys.stderr,
        )
    return 0


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the options of `isr export`."""
    parser.description = (
        "Write a generator with its parameters to one file: safetensors for isr_jax, or for other "
        "programs StableHLO, which JAX runs without isr_jax, or ONNX. StableHLO and ONNX take "
        "batches of any number and size of images, compute in float32 and do not clip."
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a generator: anything --model accepts except interpolations"
    )
    parser.add_argument("file", metavar="FILE", help=f"output file, {', '.join(EXPORT_SUFFIXES)}")
    parser.add_argument(
        "--format",
        choices=EXPORT_FORMATS,
        help="onnx: NCHW, needs isr-jax[onnx]; stablehlo: NHWC; safetensors: for --model; "
        "default: by FILE's suffix",
    )
    add_weights(parser)
    parser.add_argument(
        "--card",
        metavar="FILE",
        help="a JSON file that says what the model is, which isr models shows; safetensors only; "
        "default: the model's own card",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="of the parameters in safetensors; float16 halves the file, which computes in float32 "
        "all the same; default: float32",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    """Write the file and print what it holds; return the exit code."""
    from isr_jax.export import export_model

    written = export_model(
        options.model,
        options.file,
        format=options.format,
        weights=options.weights,
        card=options.card,
        dtype=options.dtype,
        overwrite=options.overwrite,
    )
    print(written)
    return 0


def add_export_torch(parser: argparse.ArgumentParser) -> None:
    """Add the options of `isr export-torch`."""
    parser.add_argument(
        "model", metavar="MODEL", help="anything --model accepts except interpolations"
    )
    parser.add_argument("file", metavar="FILE", help="output file, .pth or .safetensors")
    add_weights(parser)
    parser.add_argument(
        "--naming",
        metavar="NAME",
        help="key map that names the layers; default: the architecture's usual one",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(run=run_export_torch)


def run_export_torch(options: argparse.Namespace) -> int:
    """Write the file; return the exit code."""
    file = expanded(options.file)
    if file.exists() and not options.overwrite:
        raise UserError(f"{options.file} already exists; name another file or add --overwrite")

    from isr_jax.checkpoints.restore import restore_generator
    from isr_jax.pytorch.files import SUFFIXES
    from isr_jax.pytorch.key_maps import KEY_MAPS
    from isr_jax.pytorch.state_dicts import export_torch

    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"{options.file} must end in one of {', '.join(SUFFIXES)}")
    if options.naming is not None and options.naming not in KEY_MAPS:
        raise UsageError(str(unknown("--naming", options.naming, KEY_MAPS)))
    restored = restore_generator(options.model, weights=options.weights)
    export_torch(
        file,
        restored.params,
        restored.stats,
        options=restored.config.generator.to_dict(),
        size=restored.config.scale,
        key_map=options.naming,
    )
    return 0


def add_interpolate(parser: argparse.ArgumentParser) -> None:
    """Add the options of `isr interpolate`."""
    parser.add_argument(
        "a", metavar="A", help="a model, as --model takes, such as a generator trained for PSNR"
    )
    parser.add_argument(
        "b", metavar="B", help="another, such as the GAN that was initialized from A"
    )
    parser.add_argument("out", metavar="OUT", help="a new run folder")
    parser.add_argument(
        "--alpha", type=number, required=True, help="(1 - ALPHA) A + ALPHA B for every parameter"
    )
    parser.set_defaults(run=run_interpolate)


def run_interpolate(options: argparse.Namespace) -> int:
    """Write the run folder; return the exit code."""
    import numpy as np
    from flax.traverse_util import flatten_dict

    from isr_jax.checkpoints.restore import architecture, interpolate, restore_generator
    from isr_jax.checkpoints.runs import write_generator
    from isr_jax.tensor_files import check_weights

    a, b = restore_generator(options.a), restore_generator(options.b)
    params, stats = interpolate(a, b, alpha=options.alpha)
    flat = flatten_dict({"params": params, "stats": stats}, sep="/")
    try:
        check_weights({path: np.asarray(x) for path, x in flat.items()})
    except UserError as error:
        raise UserError(f"--alpha {options.alpha:g}: {error}") from None
    write_generator(options.out, params, stats, architecture(a.config))
    return 0
