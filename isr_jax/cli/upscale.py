"""`isr upscale`."""

import argparse
import sys
import traceback

from isr_jax.cli.options import MAX_PIXELS, add_model, box, decimal, integer, shard

FILE_FORMATS = ("png", "jpeg", "webp", "tiff", "bmp")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `isr upscale`."""
    parser.description = (
        "Upscale photos: PNG, JPEG, WebP, TIFF and BMP files. Orientation, EXIF, ICC profile, "
        "transparency, 16 bits, pages and frames are kept where the output format supports them. "
        "Existing outputs are skipped, so rerunning continues where it stopped. A file that "
        "cannot be upscaled is reported on standard error, and the exit code is then 1."
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help="image files, folders (searched at any depth), and patterns such as 'photos/**/*.jpg'",
    )
    add_model(parser, default="the smallest compact model, or two in turn, that reach the size")
    add_sizes(parser)
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="output folder, which keeps the layout of an input folder, or output file for a "
        "single image; default: beside each image",
    )
    parser.add_argument(
        "--suffix",
        help="appended to each file name; default: _xS, where S is the scale, or _wN, _hN, _WxH, "
        "_Mmp",
    )
    parser.add_argument(
        "--format",
        choices=("same", *FILE_FORMATS),
        default="same",
        help="output format; default: same, that of each file",
    )
    parser.add_argument(
        "--quality",
        type=integer(1, most=100),
        default=95,
        metavar="Q",
        help="JPEG and WebP quality, 1 to 100; 100 makes WebP lossless; default: 95",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="replace the photos themselves where an output has the same name",
    )
    parser.add_argument(
        "--tile",
        type=integer(0),
        metavar="N",
        help="tile size in input pixels; 0: the image as a whole; default: fits the device",
    )
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="self-ensemble: average over the 8 flips and rotations of each image",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="dtype of the computation; default: the model's own",
    )
    parser.add_argument(
        "--jobs",
        type=integer(1),
        default=2,
        metavar="N",
        help="threads that read and write while the device computes; default: 2",
    )
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="process the Ith of N parts of the files, to share them among N machines; processes "
        "that srun or mpirun starts share them without it",
    )
    parser.add_argument(
        "--max-pixels",
        type=integer(1),
        default=MAX_PIXELS,
        metavar="N",
        help="refuse larger images, which can be made to exhaust the memory; "
        f"default: {MAX_PIXELS}",
    )
    parser.set_defaults(run=run)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Add the options of the result's size, of which one can be given."""
    group = parser.add_argument_group(
        "size",
        "The aspect ratio is kept, and the other side rounded half up. Between the scales of the "
        "models, the output of the next larger one is resized by antialiased bicubic "
        "interpolation. Default: the scale of the model; without a model, 4.",
    ).add_mutually_exclusive_group()
    group.add_argument("--scale", type=decimal, metavar="S", help="scale factor, such as 2.5; or 8")
    group.add_argument("--width", type=integer(1), metavar="N", help="width in pixels, upright")
    group.add_argument("--height", type=integer(1), metavar="N", help="height in pixels, upright")
    group.add_argument("--fit", type=box, metavar="WxH", help="as large as fits into W by H pixels")
    group.add_argument("--megapixels", type=decimal, metavar="M", help="so many times 10^6 pixels")


def run(options: argparse.Namespace) -> int:
    """Upscale every image, report the failures and a count; return the exit code."""
    from isr_jax.distributed import take_own_device
    from isr_jax.upscaling.any_size import load_any_size
    from isr_jax.upscaling.folders import upscale_files
    from isr_jax.upscaling.sizes import make_target
    from isr_jax.upscaling.upscaler import load

    take_own_device()
    given = {name: getattr(options, name) for name in ("weights", "tile", "ensemble", "dtype")}
    sizes = ("scale", "width", "height", "fit", "megapixels")
    if target := make_target(**{name: getattr(options, name) for name in sizes}):
        upscaler = load_any_size(model=options.model, **given).at(target)
    else:
        upscaler = load(options.model or "compact-x4", **given)
    outcome = upscale_files(
        upscaler,
        options.inputs,
        out=options.out,
        format=options.format,
        suffix=options.suffix,
        quality=options.quality,
        overwrite=options.overwrite,
        jobs=options.jobs,
        shard=options.shard,
        in_place=options.in_place,
        max_pixels=options.max_pixels,
        progress=True,
    )
    skipped = f"{outcome.skipped} skipped"
    skipped += " (already exist; --overwrite replaces them)" if outcome.skipped else ""
    total = f"{outcome.upscaled} upscaled, {skipped}, {len(outcome.failed)} failed"
    for bug in outcome.bugs:
        traceback.print_exception(bug)
    for line in (*outcome.notices, *outcome.failed, total):
        print(f"isr upscale: {line}", file=sys.stderr)
    return 1 if outcome.failed else 0
