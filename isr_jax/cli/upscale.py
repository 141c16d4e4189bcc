"""`isr upscale`."""

import argparse
import sys
import traceback
from pathlib import Path

from isr_jax.cli.options import (
    MAX_PIXELS,
    add_model,
    bands,
    box,
    decimal,
    integer,
    shard,
    share,
    split_models,
)
from isr_jax.errors import UsageError, UserError
from isr_jax.files import expanded
from isr_jax.video.names import CODECS, Inputs, is_video, split_inputs

FILE_FORMATS = ("png", "jpeg", "webp", "tiff", "bmp", "gif", "avif", "jxl")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `isr upscale`."""
    parser.description = (
        "Upscale photos and videos. PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, JPEG XL and, with pip "
        "install 'isr-jax[heic]', HEIC files: orientation, EXIF, ICC profile, transparency, 10 to "
        "16 bits, pages and frames are kept where the output format supports them. MP4, MOV, MKV, "
        "WebM and other video files, which need pip install 'isr-jax[video]': audio, subtitles, "
        "chapters, colour tags, rotation, pixel aspect, frame times and 10 bits are kept; videos "
        "are upscaled where they are named or match a pattern, and skipped in a folder. "
        "Existing outputs are skipped, so rerunning continues where it stopped. A file that "
        "cannot be upscaled is reported on standard error, and the exit code is then 1."
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="IN",
        help="image and video files, folders of photos (searched at any depth), and patterns such "
        "as 'photos/**/*.jpg'",
    )
    add_model(
        parser,
        default="the smallest compact model, or two in turn, that reach the size",
        several=True,
    )
    parser.add_argument(
        "--strength",
        type=share,
        default=1.0,
        metavar="A",
        help="how much of a GAN to use, 0 to 1: its parameters are mixed with those of the model "
        "that it was made from; 0 is that model; default: 1",
    )
    add_sizes(parser)
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="output folder, which keeps the layout of an input folder, or output file for a "
        "single image or video; default: beside each input",
    )
    parser.add_argument(
        "--suffix",
        help="appended to each file name; default: _xS, where S is the scale, or _wN, _hN, _WxH, "
        "_Mmp; with several models, _ and the model's name follow",
    )
    parser.add_argument(
        "--format",
        choices=("same", *FILE_FORMATS),
        default="same",
        help="output format of photos; default: same, that of each file, and png for GIF and HEIC",
    )
    parser.add_argument(
        "--quality",
        type=integer(1, most=100),
        metavar="Q",
        help="JPEG, WebP, AVIF and JPEG XL quality, 1 to 100; 100 is lossless in all but JPEG; "
        "default: 95, or lossless where the input is lossless",
    )
    parser.add_argument(
        "--codec",
        choices=("same", *CODECS),
        default="same",
        help="video codec; ffv1 is lossless RGB in a .mkv file; default: same, that of each video "
        "if it is one of these, else h264 (h265 for 10 bits, av1 for WebM)",
    )
    parser.add_argument(
        "--crf",
        type=integer(0, most=51),
        metavar="N",
        help="video quality, 0 to 51, lower is better and larger; default: "
        + ", ".join(f"{codec.crf} for {name}" for name, codec in CODECS.items() if codec.crf),
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep what is done of a video when it is interrupted, and continue there",
    )
    parser.add_argument(
        "--report",
        metavar="FILE.html",
        help="write a page of before/after sliders of the photos and what each model made of them",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="replace the inputs themselves where an output has the same name; do not rerun the "
        "command: it would upscale them again",
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
        "--bands",
        type=bands,
        metavar="R,G,B",
        help="of multispectral TIFF files, the bands that are red, green and blue, counted from 1, "
        "such as 3,2,1; or one band, for gray",
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
    """Upscale every photo and video, report the failures and a count; return the exit code."""
    options.model, options.inputs = split_models(options.model, options.inputs)
    inputs = split_inputs(options.inputs)
    _check(options, inputs)
    if inputs.videos:
        try:
            import av  # noqa: F401 (here, so that what is missing is said before a model is loaded)
        except ModuleNotFoundError as error:
            raise UserError("videos need PyAV: run pip install 'isr-jax[video]'") from error
    from isr_jax.distributed import place, take_own_device
    from isr_jax.upscaling.folders import upscale_files
    from isr_jax.upscaling.several import load_models
    from isr_jax.upscaling.sizes import make_target
    from isr_jax.upscaling.tasks import Outcome, suffix_of

    if options.report:
        from isr_jax.upscaling.report import add_report, check_report

        check_report(options.report, overwrite=options.overwrite)
        if options.shard or place()[1] > 1:
            raise UsageError("--report is of all files: run it without shards when they are done")
    take_own_device()
    names = ("weights", "tile", "ensemble", "dtype", "strength")
    given = {name: getattr(options, name) for name in names}
    sizes = ("scale", "width", "height", "fit", "megapixels")
    target = make_target(**{name: getattr(options, name) for name in sizes})
    upscalers = load_models(options.model, target=target, options=given)
    common = {
        "out": options.out,
        "overwrite": options.overwrite,
        "shard": options.shard,
        "in_place": options.in_place,
        "max_pixels": options.max_pixels,
        "progress": True,
    }
    outcomes: list[Outcome] = []
    if inputs.photos:
        outcomes.append(
            upscale_files(
                upscalers,
                inputs.photos,
                suffix=options.suffix,
                format=options.format,
                quality=options.quality,
                bands=options.bands,
                jobs=options.jobs,
                **common,
            )
        )
        if options.report:
            models = {name: name or Path(one.title).name for name, one in upscalers.items()}
            add_report(options.report, outcomes[0], models=models, max_pixels=options.max_pixels)
    if inputs.videos:
        from isr_jax.video.jobs import Options, upscale_videos

        how = Options(options.codec, options.crf, options.resume, given)
        for name, upscaler in upscalers.items():
            suffix = suffix_of(upscaler.label, given=options.suffix, model=name)
            outcomes.append(
                upscale_videos(upscaler, inputs.videos, options=how, suffix=suffix, **common)
            )
    upscaled, skipped = (sum(counts) for counts in zip(*(o[:2] for o in outcomes), strict=True))
    failed = [line for outcome in outcomes for line in outcome.failed]
    notices = [line for outcome in outcomes for line in outcome.notices]
    again = " (already exist; --overwrite replaces them)" if skipped else ""
    total = f"{upscaled} upscaled, {skipped} skipped{again}, {len(failed)} failed"
    for outcome in outcomes:
        for bug in outcome.bugs:
            traceback.print_exception(bug)
    # A photo that cannot be read fails by each model.
    for line in (*inputs.left, *notices, *dict.fromkeys(failed), total):
        print(f"isr upscale: {line}", file=sys.stderr)
    return 1 if failed else 0


def _check(options: argparse.Namespace, inputs: Inputs) -> None:
    """Raise a UsageError for options that do not go with the inputs."""
    if not options.inputs:
        raise UsageError("the following arguments are required: IN")
    if options.report and not inputs.photos:
        raise UsageError("--report is for photos, and there are none")
    out = options.out and expanded(options.out)
    if out and inputs.photos and inputs.videos and out.suffix and not out.is_dir():
        raise UsageError(f"--out {out} is not a folder, but there are photos and videos: name one")
    if out and inputs.photos and is_video(out) and not out.is_dir():
        raise UsageError(f"--out {out} is a video, but the input is not: name an image or a folder")
    if out and inputs.videos and len(options.model) > 1 and out.suffix and not out.is_dir():
        raise UsageError(f"--out {out} is one file, but there are several models: name a folder")
    if inputs.videos and not inputs.photos and options.format != "same":
        raise UsageError(f"--format {options.format} is for photos: videos have --codec")
    if inputs.photos and not inputs.videos:
        given = {
            "--codec": options.codec != "same",
            "--crf": options.crf is not None,
            "--resume": options.resume,
        }
        if named := [name for name, is_given in given.items() if is_given]:
            raise UsageError(f"{', '.join(named)}: for videos, and there are none")
    if options.codec != "same" and CODECS[options.codec].crf is None and options.crf is not None:
        raise UsageError(f"--crf does not go with --codec {options.codec}, which is lossless")
