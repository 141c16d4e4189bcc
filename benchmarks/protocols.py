"""How PSNR and SSIM change with one detail of the measurement.

    ISR_DATA=FOLDER python -m benchmarks.protocols

Bicubic interpolation of the benchmark sets in FOLDER/benchmarks: first by the three protocols of
`isr evaluate`, then with one detail changed at a time, as in other code in use.
"""

import os
import sys
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

from benchmarks import timing
from isr_jax.data.pairs import find_sets, load_pair
from isr_jax.protocols import Scores, luma_uint8, measure, measure_interpolation
from isr_jax.resize import resize_uint8

Row = Callable[[np.ndarray, np.ndarray, int], tuple[float, float]]


def pillow(image: np.ndarray, scale: Fraction | int) -> np.ndarray:
    """Resize by Pillow's bicubic."""
    size = [int(n * scale) for n in image.shape[1::-1]]
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def in_luma(lr: np.ndarray, hr: np.ndarray, scale: int, *, crop: int | None = None) -> Scores:
    """Score the bicubic image of the LR file, upscaled in RGB, by vdsr."""
    return measure(resize_uint8(lr, scale=scale), hr, crop=scale if crop is None else crop)


def uniform_ssim(lr: np.ndarray, hr: np.ndarray, scale: int) -> tuple[float, float]:
    """Return PSNR, and SSIM by scikit-image's defaults: a 7x7 box and the sample covariance."""
    sr, truth = (
        luma_uint8(x)[scale:-scale, scale:-scale] for x in (resize_uint8(lr, scale=scale), hr)
    )
    return in_luma(lr, hr, scale).psnr, float(structural_similarity(sr, truth, data_range=255))


def full_range(image: np.ndarray) -> np.ndarray:
    """Return full-range BT.601 luma, 0 to 255, as in JPEG, Pillow and OpenCV."""
    return np.array(Image.fromarray(image).convert("L"))


def as_colour(lr: np.ndarray, hr: np.ndarray, scale: int) -> Scores:
    """Score a gray file read as RGB, as BasicSR reads Set14's 003."""
    lr, hr = (np.stack([x] * 3, -1) if x.ndim == 2 else x for x in (lr, hr))
    return measure_interpolation(lr, hr, scale=scale, protocol="basicsr")


ROWS: dict[str, Row] = {
    "`vdsr`": lambda lr, hr, s: measure_interpolation(lr, hr, scale=s)[:2],
    "`basicsr`": lambda lr, hr, s: measure_interpolation(lr, hr, scale=s, protocol="basicsr")[:2],
    "`rgb`": lambda lr, hr, s: measure_interpolation(lr, hr, scale=s, protocol="rgb")[:2],
    "`basicsr`, gray files read as RGB": lambda lr, hr, s: as_colour(lr, hr, s)[:2],
    "`vdsr`, from the 8-bit LR file": lambda lr, hr, s: in_luma(lr, hr, s)[:2],
    "... no border cropped": lambda lr, hr, s: in_luma(lr, hr, s, crop=0)[:2],
    "... luma of 0..255, not 16..235": lambda lr, hr, s: in_luma(
        *(full_range(x) if x.ndim == 3 else x for x in (lr, hr)), s
    )[:2],
    "... upscaled by Pillow": lambda lr, hr, s: measure(pillow(lr, s), hr, crop=s)[:2],
    "... downscaled and upscaled by Pillow": lambda lr, hr, s: measure(
        pillow(pillow(hr, Fraction(1, s)), s), hr, crop=s
    )[:2],
    "... SSIM by scikit-image's default": uniform_ssim,
}


def main() -> None:
    """Print a Markdown table for each set."""
    timing.parser(__doc__).parse_args()
    if "ISR_DATA" not in os.environ:
        sys.exit("set ISR_DATA to the folder that contains benchmarks/")
    timing.print_machine()
    sets = find_sets(os.path.join(os.environ["ISR_DATA"], "benchmarks"), scales=(2, 3, 4))
    for name in dict.fromkeys(found.name for found in sets):
        print(f"| {name}, bicubic | x2 | x3 | x4 |\n|---|---|---|---|")
        scales = [found for found in sets if found.name == name]
        pairs = [[load_pair(pair, scale=s.scale) for pair in s.pairs] for s in scales]
        for label, row in ROWS.items():
            means = [
                np.mean([row(lr, hr, found.scale) for lr, hr in images], axis=0)
                for found, images in zip(scales, pairs, strict=True)
            ]
            print(f"| {label} | {' | '.join(f'{p:.2f}/{s:.4f}' for p, s in means)} |")
        print()


if __name__ == "__main__":
    main()
