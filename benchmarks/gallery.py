"""A picture that compares models: LR, bicubic, each model and HR, and a detail of each.

    python -m benchmarks.gallery PHOTOS docs/gallery.jpg
    python -m benchmarks.gallery PHOTOS real.jpg --as-they-are --models compact-x4 runs/photo

A row is a photo. Its LR image is made by bicubic interpolation, or it is the LR image itself. The
detail is where the bicubic image has most edges.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

import isr_jax
from benchmarks import timing
from isr_jax.errors import UserError
from isr_jax.photo.finding import image_files
from isr_jax.photo.reading import decode_rgb
from isr_jax.pretrained import PRETRAINED, describe
from isr_jax.resize import resize_uint8
from isr_jax.training.pictures import Image, strip, upscaled_plainly
from isr_jax.upscaling.upscaler import Upscaler

SCALE = 4


def main() -> None:
    """Write the picture."""
    parser = timing.parser(__doc__)
    parser.add_argument("photos", type=Path, nargs="+", help="photos, or folders of them")
    parser.add_argument("out", type=Path, help="a JPEG or PNG file")
    shipped = [name for name in PRETRAINED if describe(name).scale == SCALE]
    parser.add_argument("--models", nargs="+", default=shipped, help=f"default: {shipped}")
    parser.add_argument("--as-they-are", action="store_true", help="the photos are LR images")
    parser.add_argument("--most", type=int, default=4, help="photos; default: 4")
    parser.add_argument("--crop", type=int, default=320, help="largest side in HR pixels")
    options = parser.parse_args()
    upscalers = [isr_jax.load(model, scale=SCALE) for model in options.models]
    rows = [_row(file, upscalers, options) for file in _files(options.photos)[: options.most]]
    width = max(row.shape[1] for row in rows)
    page = [np.pad(x, ((0, 0), (0, width - x.shape[1]), (0, 0)), constant_values=255) for x in rows]
    PillowImage.fromarray(np.concatenate(page)).save(options.out, quality=90)


def _files(named: Sequence[Path]) -> list[Path]:
    files = [file for path in named for file in (image_files(path) if path.is_dir() else [path])]
    if not files:
        raise UserError(f"there is no photo in {', '.join(map(str, named))}")
    return files


def _row(file: Path, upscalers: Sequence[Upscaler], options: argparse.Namespace) -> Image:
    with file.open("rb") as opened:
        photo = decode_rgb(opened, name=str(file))
    side = options.crop // SCALE if options.as_they_are else options.crop
    height, width = (min(n, side) // SCALE * SCALE for n in photo.shape[:2])
    top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
    photo = photo[top : top + height, left : left + width]
    lr = photo if options.as_they_are else resize_uint8(photo, scale=1 / SCALE)
    versions = upscaled_plainly(lr, scale=SCALE)
    versions |= {Path(upscaler.name).name: upscaler(lr) for upscaler in upscalers}
    if not options.as_they_are:
        versions["HR"] = photo
    return strip(versions, title=file.stem, scale=SCALE)


if __name__ == "__main__":
    main()
