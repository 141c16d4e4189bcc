"""How models do on LR images as photographs have them: blurred, noisy and compressed.

    python -m benchmarks.photos [--models compact-x4 runs/photo] [--data PHOTOGRAPHS]

PSNR-Y in dB by the vdsr protocol, means over the images of a folder, whose LR images are made

    clean    by bicubic interpolation
    blur     from HR images blurred by a Gaussian, whose sigma is half an LR pixel
    noise    with Gaussian noise of sigma 5 of 255 levels, always the same
    JPEG     compressed by Pillow with quality 40 (--quality), its chroma subsampled
    all      by these three in turn

None of it is the code that degrades images in training. With --save the LR images of `all` and
their HR images become a set for `isr evaluate`.
"""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from scipy.ndimage import gaussian_filter

import isr_jax
from benchmarks import timing
from benchmarks.texture import Image, read_photos
from isr_jax import protocols
from isr_jax.photo.finding import image_files
from isr_jax.pretrained import PRETRAINED, describe
from isr_jax.resize import resize_uint8

SIGMA_BLUR = 0.5  # in LR pixels
SIGMA_NOISE = 5.0  # in levels of 255
# Whether each is blurred, noisy and compressed.
DEGRADATIONS = {
    "clean": (False, False, False),
    "blur": (True, False, False),
    "noise": (False, True, False),
    "JPEG": (False, False, True),
    "all": (True, True, True),
}


def main() -> None:
    """Print a Markdown table of bicubic interpolation and each model."""
    parser = timing.parser(__doc__)
    default = Path(os.environ.get("ISR_DATA", "data"), "benchmarks/Set14/x4/hr")
    parser.add_argument("--data", type=Path, default=default, help=f"default: {default}")
    parser.add_argument("--scale", type=int, default=4, help="default: 4")
    parser.add_argument("--quality", type=int, default=40, help="of JPEG; default: 40")
    parser.add_argument("--models", nargs="+", help="default: every shipped one of the scale")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write a set for isr evaluate")
    options = parser.parse_args()
    scale = options.scale
    shipped = [name for name in PRETRAINED if describe(name).scale == scale]
    timing.print_machine()
    photos = read_photos(image_files(options.data), scale=scale)
    lowered = {
        name: [
            degrade(hr, scale=scale, seed=i, how=how, quality=options.quality)
            for i, hr in enumerate(photos)
        ]
        for name, how in DEGRADATIONS.items()
    }
    if options.save:
        save(options.save, image_files(options.data), photos, lowered["all"])
    print(f"| PSNR-Y, dB | {' | '.join(DEGRADATIONS)} |\n|---|{'---:|' * len(DEGRADATIONS)}")

    def show(name: str, upscale: Callable[[Image], Image]) -> None:
        means = (mean_psnr(upscale, lrs, photos, scale=scale) for lrs in lowered.values())
        print(f"| {name} | {' | '.join(f'{mean:.2f}' for mean in means)} |", flush=True)

    show("bicubic", lambda lr: resize_uint8(lr, scale=scale))
    for name in options.models or shipped:
        show(name, isr_jax.load(name, scale=scale))


def degrade(
    hr: Image, *, scale: int, seed: int, how: tuple[bool, bool, bool], quality: int = 40
) -> Image:
    """Return the LR image of an HR image.

    Args:
        hr: sides divisible by scale.
        scale: HR pixels per LR pixel.
        seed: of the noise.
        how: whether it is blurred, noisy and compressed.
        quality: of JPEG, from 1 to 100.
    """
    blurred, noisy, compressed = how
    if blurred:
        sigma = (SIGMA_BLUR * scale, SIGMA_BLUR * scale, 0)
        hr = np.round(gaussian_filter(hr.astype(float), sigma, mode="mirror")).astype(np.uint8)
    lr = resize_uint8(hr, scale=1 / scale)
    if noisy:
        noise = np.random.default_rng(seed).normal(0, SIGMA_NOISE, lr.shape)
        lr = np.clip(np.round(lr + noise), 0, 255).astype(np.uint8)
    if compressed:
        file = io.BytesIO()
        PillowImage.fromarray(lr).save(file, "JPEG", quality=quality)
        lr = np.asarray(PillowImage.open(file, formats=("JPEG",)))
    return lr


def mean_psnr(
    upscale: Callable[[Image], Image], lrs: Sequence[Image], hrs: Sequence[Image], *, scale: int
) -> float:
    """Return the mean PSNR-Y of upscaled images in dB."""
    pairs = zip(lrs, hrs, strict=True)
    return float(np.mean([protocols.measure(upscale(a), b, crop=scale).psnr for a, b in pairs]))


def save(folder: Path, files: Sequence[Path], hrs: Sequence[Image], lrs: Sequence[Image]) -> None:
    """Write HR and LR images as a set that `isr evaluate` reads."""
    for kind, images in (("hr", hrs), ("lr", lrs)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for file, image in zip(files, images, strict=True):
            PillowImage.fromarray(image).save(folder / kind / f"{file.stem}.png")


if __name__ == "__main__":
    main()
