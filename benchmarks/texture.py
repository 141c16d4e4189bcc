"""How the texture of upscaled photographs compares with that of the originals.

    python -m benchmarks.texture PHOTOGRAPHS [--models compact-x4 runs/gan] [--most 40]

The LR images are made by bicubic interpolation. Means over the photographs, the last of the folder:

    PSNR-Y    in dB, by the vdsr protocol
    NIQE      MATLAB's form; nearer to that of HR is better, and below it is too sharp or noisy
    gradients distance between the distributions of the luma's gradient magnitude in SR and in HR
              (Wasserstein's first, in levels of 255), and the mean magnitude beside that of HR
    lattice   checkerboard: power of the spectrum at the frequencies of a grid as wide as the scale,
              beside that of the frequencies around each; the largest, and 1 without a grid
    colour    the largest mean difference from the LR image in a channel, in levels of 255
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from scipy.stats import wasserstein_distance

import isr_jax
from benchmarks import timing
from isr_jax import protocols
from isr_jax.perceptual.niqe import at_hand, load_niqe
from isr_jax.photo.finding import image_files
from isr_jax.photo.reading import decode_rgb
from isr_jax.pretrained import PRETRAINED, describe
from isr_jax.resize import resize_uint8

Image = UInt8[np.ndarray, "h w 3"]
HEADER = """\
| | PSNR-Y, dB | NIQE | gradients | mean gradient | lattice | colour |
|---|---:|---:|---:|---:|---:|---:|"""
NEAR, FAR = 2, 5  # bins around a frequency that it is compared with; nearer ones hold its leakage


class Texture(NamedTuple):
    """Of an upscaled photograph, or a mean over some; NaN for what was not measured."""

    psnr: float
    niqe: float
    gradients: float
    sharpness: float
    lattice: float
    colour: float


def main() -> None:
    """Print a Markdown table: bicubic, each model, and HR."""
    parser = timing.parser(__doc__)
    parser.add_argument("photographs", type=Path, help="a folder")
    parser.add_argument("--most", type=int, default=40, help="photographs; default: 40")
    shipped = [name for name in PRETRAINED if describe(name).scale == 4]
    parser.add_argument("--models", nargs="+", default=shipped, help=f"default: {shipped}")
    options = parser.parse_args()
    timing.print_machine()
    photos = read_photos(image_files(options.photographs)[-options.most :], scale=4)
    print(HEADER)
    print(row("bicubic", measure_all(photos, lambda lr: resize_uint8(lr, scale=4), scale=4)))
    for name in options.models:
        print(row(name, measure_all(photos, isr_jax.load(name, scale=4), scale=4)), flush=True)
    print(row("HR", mean([measure(hr, hr, scale=4) for hr in photos])))


def read_photos(files: Sequence[Path], *, scale: int) -> list[Image]:
    """Read photographs, cut so that the scale divides their sides."""
    photos = []
    for file in files:
        with file.open("rb") as opened:
            photo = decode_rgb(opened, name=str(file))
        h, w = (n // scale * scale for n in photo.shape[:2])
        photos.append(photo[:h, :w])
    return photos


def measure_all(
    photos: Sequence[Image], upscale: Callable[[Image], Image], *, scale: int
) -> Texture:
    """Upscale the reduced photographs; return means over them."""
    return mean(
        [measure(upscale(resize_uint8(hr, scale=1 / scale)), hr, scale=scale) for hr in photos]
    )


def measure(sr: Image, hr: Image, *, scale: int) -> Texture:
    """Compare an upscaled photograph with the original."""
    a, b = (protocols.luma_uint8(x).astype(float) for x in (sr, hr))
    slope, true = gradient_magnitude(a), gradient_magnitude(b)
    lr = resize_uint8(hr, scale=1 / scale)
    return Texture(
        psnr=protocols.measure(sr, hr, crop=scale).psnr,
        niqe=load_niqe("matlab")(sr) if at_hand() else np.nan,
        gradients=float(wasserstein_distance(slope.ravel(), true.ravel())),
        sharpness=float(slope.mean() / max(true.mean(), 1e-9)),
        lattice=lattice(a, scale=scale),
        colour=float(np.abs(sr.mean((0, 1)) - lr.mean((0, 1))).max()),
    )


def gradient_magnitude(luma: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h-1 w-1"]:
    """Return the length of the forward differences."""
    return np.hypot(np.diff(luma, axis=1)[:-1], np.diff(luma, axis=0)[:, :-1])


def lattice(luma: Float[np.ndarray, "h w"], *, scale: int) -> float:
    """Return how far the spectrum stands out at the frequencies of a grid of `scale` pixels.

    The largest ratio of the power at such a frequency to the mean of those around it: about 1 to 4
    for a photograph, whose spectrum is smooth but for chance, and hundreds for a visible grid.
    """
    h, w = (n // scale * scale for n in luma.shape)
    window = np.outer(np.hanning(h + 1)[:-1], np.hanning(w + 1)[:-1])
    power = np.abs(np.fft.fft2((luma[:h, :w] - luma.mean()) * window)) ** 2
    ratios = []
    for i in range(scale):
        for j in range(scale):
            if i or j:
                around = np.roll(power, (FAR - i * h // scale, FAR - j * w // scale), (0, 1))
                around = around[: 2 * FAR + 1, : 2 * FAR + 1]
                ring = np.ones_like(around, bool)
                ring[FAR - NEAR + 1 : FAR + NEAR, FAR - NEAR + 1 : FAR + NEAR] = False
                ratios.append(around[FAR, FAR] / max(around[ring].mean(), 1e-9))
    return float(max(ratios))


def row(name: str, texture: Texture) -> str:
    """Return a row of the table."""
    psnr, niqe, gradients, sharpness, grid, colour = texture
    cells = [f"{psnr:.2f}", f"{niqe:.2f}", f"{gradients:.2f}", f"{sharpness:.2f}"]
    return f"| {name} | {' | '.join([*cells, f'{grid:.1f}', f'{colour:.2f}'])} |"


def mean(textures: Sequence[Texture]) -> Texture:
    """Return the means over some photographs."""
    return Texture(*map(float, np.mean(textures, axis=0)))


if __name__ == "__main__":
    main()
