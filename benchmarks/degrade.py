"""Time second-order degradation beside the same process in PyTorch and OpenCV.

    python -m benchmarks.degrade [--rounds N] [--picture docs/degraded.jpg]

Batches of 12 HR crops of 256 px to LR crops of 64 px by Real-ESRGAN's settings, including
sharpening. isr_jax uses one compiled program, in which each example has its own factors, methods
and noise. The PyTorch code is written as is usual: kernels are drawn by NumPy and SciPy on the
host, and there is one factor, method and kind of noise per batch. Needs PyTorch and
opencv-python-headless. With --picture, instead writes an image of HR crops above their LR crops
by each degradation, and needs neither.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean, median

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from benchmarks import timing
from isr_jax.data.loading import load_all
from isr_jax.data.sources import open_source
from isr_jax.degrade import REAL_ESRGAN, PassSettings, make_degradation, sharpen
from isr_jax.degrade.jpeg import CHROMA_TABLE, LUMA_TABLE
from isr_jax.images import busiest, to_float

BATCH, CROP, SCALE = 12, 256, 4


def crops() -> np.ndarray:
    """Return the most detailed crop of each of 12 embedded photographs, in [0, 1]."""
    batch = []
    for split in ("train", "validation"):
        source = open_source("samples", split, scale=SCALE)
        for photo in load_all(source, min_size=CROP, warn=lambda message: None):
            y, x = busiest(photo.hr, sides=(CROP, CROP))
            batch.append(photo.hr[y : y + CROP, x : x + CROP])
    return to_float(np.stack(batch[:BATCH]))


def make_ours(hr: np.ndarray) -> Callable[[int], object]:
    """Return a function from the number of a batch to LR and sharpened HR, on the device."""
    degrade = make_degradation("second_order", scale=SCALE)

    @jax.jit
    def run(key: jax.Array, hr: jax.Array) -> tuple[jax.Array, jax.Array]:
        sharp = sharpen(hr)
        return degrade(key, sharp), sharp

    images, key = jnp.asarray(hr), jax.random.key(0)
    return lambda i: jax.block_until_ready(run(jax.random.fold_in(key, i), images))


def draw_kernel(rng: np.random.Generator, settings: PassSettings) -> np.ndarray:
    """Draw a kernel of 21x21 by NumPy and SciPy."""
    from scipy.special import j1

    half = rng.choice(settings.sizes) // 2
    x, y = np.meshgrid(*[np.arange(-half, half + 1.0)] * 2)
    if rng.random() < settings.sinc:
        w, r = rng.uniform(np.pi / (3 if half < 6 else 5), np.pi), np.maximum(np.hypot(x, y), 1e-9)
        kernel = w * j1(w * r) / (2 * np.pi * r)
    else:
        kind = rng.choice(6, p=settings.kernels)
        sigma = rng.uniform(*settings.sigma, 2) if kind % 2 else [rng.uniform(*settings.sigma)] * 2
        angle = rng.uniform(-np.pi, np.pi)
        along, across = (
            x * np.cos(angle) + y * np.sin(angle),
            y * np.cos(angle) - x * np.sin(angle),
        )
        q = (along / sigma[0]) ** 2 + (across / sigma[1]) ** 2
        low, high = settings.generalised_beta if kind < 4 else settings.plateau_beta
        beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
        kernel = 1 / (1 + q**beta) if kind > 3 else np.exp(-0.5 * q ** (1 if kind < 2 else beta))
    return np.pad(kernel / kernel.sum(), 10 - half).astype(np.float32)


def draw_kernels(rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the kernels of the two passes and of the final filter, for a batch."""
    settings = REAL_ESRGAN
    only_sinc = PassSettings(sinc=1.0)
    pulse = np.pad(np.ones((1, 1), np.float32), 10)
    last = [
        draw_kernel(rng, only_sinc) if rng.random() < settings.sinc else pulse for _ in range(BATCH)
    ]
    passes = [
        [draw_kernel(rng, one) for _ in range(BATCH)] for one in (settings.first, settings.second)
    ]
    return [np.stack(kernels) for kernels in (*passes, last)]


def make_peer(hr: np.ndarray, *, jpeg_by: str) -> Callable[[int], object]:
    """Return the same in PyTorch; JPEG by "torch" (cosine transforms) or "opencv" (real files)."""
    import cv2
    import torch
    from torch.nn import functional

    torch.set_grad_enabled(False)
    images = torch.from_numpy(hr).permute(0, 3, 1, 2).contiguous()
    line = torch.from_numpy(cv2.getGaussianKernel(51, 0)).float()
    u, x = np.arange(8)[:, None], np.arange(8)
    cosine = np.cos(np.pi * u * (2 * x + 1) / 16) * np.where(u, 0.5, np.sqrt(0.125))
    dct = torch.from_numpy(np.kron(cosine, cosine)).float()
    tables = [torch.from_numpy(t).reshape(1, 1, 64) for t in (LUMA_TABLE, CHROMA_TABLE)]
    to_ycc = torch.tensor(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )

    def filter2d(x: "torch.Tensor", kernels: "torch.Tensor") -> "torch.Tensor":
        n, c, h, w = x.shape
        reach = kernels.shape[-1] // 2
        # Crops smaller than a kernel's reach are mirrored only once by PyTorch.
        mode = "reflect" if reach < min(h, w) else "replicate"
        x = functional.pad(x, [reach] * 4, mode=mode).reshape(1, n * c, h + 2 * reach, -1)
        return functional.conv2d(x, kernels[:, None].repeat_interleave(c, 0), groups=n * c).view(
            n, c, h, w
        )

    def smooth(x: "torch.Tensor") -> "torch.Tensor":
        x = functional.pad(x, [25] * 4, mode="reflect")
        x = functional.conv2d(x, line.view(1, 1, 51, 1).expand(3, 1, 51, 1), groups=3)
        return functional.conv2d(x, line.view(1, 1, 1, 51).expand(3, 1, 1, 51), groups=3)

    def sharpened(x: "torch.Tensor") -> "torch.Tensor":
        detail = x - smooth(x)
        mask = smooth((detail.abs() * 255 > 10).float())
        return x + mask * ((x + 0.5 * detail).clamp(0, 1) - x)

    def noisy(
        x: "torch.Tensor", rng: np.random.Generator, settings: PassSettings
    ) -> "torch.Tensor":
        n = len(x)
        gray = (torch.rand(n, 1, 1, 1) < settings.gray).float()

        def uniform(limits: tuple[float, float]) -> "torch.Tensor":
            return limits[0] + torch.rand(n, 1, 1, 1) * (limits[1] - limits[0])

        if rng.random() < settings.gaussian:
            z = torch.randn_like(x)
            z = torch.where(gray > 0, torch.randn_like(x[:, :1]), z)
            return (x + uniform(settings.sigma_noise) / 255 * z).clamp(0, 1)

        def shot(base: "torch.Tensor") -> "torch.Tensor":
            base = (base * 255).round().clamp(0, 255) / 255
            values = torch.tensor([2 ** np.ceil(np.log2(len(torch.unique(b)))) for b in base])
            values = values.view(-1, 1, 1, 1).float()
            return torch.poisson(base * values) / values - base

        luma = (x * torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
        noise = torch.where(gray > 0, shot(luma), shot(x))
        return (x + uniform(settings.poisson_scale) * noise).clamp(0, 1)

    def code(plane: "torch.Tensor", table: "torch.Tensor") -> "torch.Tensor":
        n, h, w = plane.shape
        blocks = plane.view(n, h // 8, 8, w // 8, 8).transpose(2, 3).reshape(n, -1, 64) - 128
        blocks = ((blocks @ dct.T / table).round() * table) @ dct + 128
        return blocks.view(n, h // 8, w // 8, 8, 8).transpose(2, 3).reshape(n, h, w)

    def jpeg(x: "torch.Tensor", rng: np.random.Generator, settings: PassSettings) -> "torch.Tensor":
        n, _, h, w = x.shape
        quality = rng.uniform(*settings.quality, n)
        if jpeg_by == "opencv":
            levels = (x.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
            files = [
                cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(q)])[1]
                for image, q in zip(levels, quality, strict=True)
            ]
            decoded = np.stack([cv2.imdecode(file, cv2.IMREAD_COLOR) for file in files])
            return torch.from_numpy(decoded).permute(0, 3, 1, 2).float() / 255
        percent = np.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
        percent = torch.from_numpy(percent).float().view(n, 1, 1)
        x = functional.pad(x * 255, (0, -w % 16, 0, -h % 16))
        y, cb, cr = torch.einsum("kc,nchw->knhw", to_ycc, x)
        half = functional.avg_pool2d(torch.cat([cb, cr])[:, None] + 128, 2)[:, 0]
        y = code(y.contiguous(), tables[0] * percent)
        half = code(half, tables[1] * percent.repeat(2, 1, 1))
        cb, cr = half.repeat_interleave(2, 1).repeat_interleave(2, 2).sub(128).chunk(2)
        rgb = [y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb]
        return torch.stack(rgb, 1)[:, :, :h, :w].clamp(0, 255) / 255

    def resized(
        x: "torch.Tensor", rng: np.random.Generator, size: tuple[int, int]
    ) -> "torch.Tensor":
        return functional.interpolate(
            x, size=size, mode=str(rng.choice(["area", "bilinear", "bicubic"]))
        )

    def side(base: int, rng: np.random.Generator, settings: PassSettings) -> tuple[int, int]:
        low, high = settings.factor
        factors = rng.uniform(1, high), rng.uniform(low, 1), 1.0
        return (int(base * rng.choice(factors, p=settings.resize)),) * 2

    def run(i: int) -> "tuple[torch.Tensor, torch.Tensor]":
        rng = np.random.default_rng(i)
        torch.manual_seed(i)
        settings, lr = REAL_ESRGAN, CROP // SCALE
        kernels = [torch.from_numpy(k) for k in draw_kernels(rng)]
        sharp = sharpened(images)
        x = filter2d(sharp, kernels[0])
        x = resized(x, rng, side(CROP, rng, settings.first))
        x = jpeg(noisy(x, rng, settings.first), rng, settings.first)
        if rng.random() < settings.second.blur:
            x = filter2d(x, kernels[1])
        x = resized(x, rng, side(lr, rng, settings.second))
        x = noisy(x, rng, settings.second)
        if rng.random() < settings.jpeg_last:
            x = filter2d(resized(x, rng, (lr, lr)), kernels[2])
            x = jpeg(x.clamp(0, 1), rng, settings.second)
        else:
            x = jpeg(x, rng, settings.second)
            x = filter2d(resized(x, rng, (lr, lr)), kernels[2])
        return (x * 255).round().clamp(0, 255) / 255, sharp

    return run


def draw_picture(path: Path) -> None:
    """Write HR crops, and below each its LR crops by name of the degradation, in large pixels."""
    hr = jnp.asarray(crops()[::2])
    rows = {"HR": np.asarray(hr)}
    for name in ("bicubic", "photo", "second_order"):
        lr = jax.jit(make_degradation(name, scale=SCALE))(jax.random.key(0), hr)
        rows[name] = np.repeat(np.repeat(np.asarray(lr), SCALE, axis=1), SCALE, axis=2)
    side, gap, head = hr.shape[1] * 3 // 4, 8, 28
    width, height = len(hr) * (side + gap) - gap, len(rows) * (head + side + gap) - gap
    page = Image.new("RGB", (width, height), "white")
    for i, (name, images) in enumerate(rows.items()):
        top = i * (head + side + gap)
        ImageDraw.Draw(page).text((0, top), name, fill="black", font_size=20)
        for j, image in enumerate(np.round(255 * images).astype(np.uint8)):
            small = Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)
            page.paste(small, (j * (side + gap), top + head))
    page.save(path, quality=85)


def main() -> None:
    """Print a Markdown table, or write the picture."""
    parser = timing.parser(__doc__, rounds=40)
    parser.add_argument("--picture", type=Path, help="image file to write instead of timing")
    options = parser.parse_args()
    if options.picture:
        draw_picture(options.picture)
        return
    import torch

    timing.print_machine(f"PyTorch {torch.__version__}")
    hr = crops()
    rng = np.random.default_rng(0)
    variants = {
        "PyTorch, JPEG by cosine transforms": make_peer(hr, jpeg_by="torch"),
        "PyTorch, JPEG by OpenCV": make_peer(hr, jpeg_by="opencv"),
        "of which kernels, NumPy on the host": lambda i: draw_kernels(rng),
        "isr_jax": make_ours(hr),
    }
    ways = {name: partial(_next, run, itertools.count()) for name, run in variants.items()}
    times = timing.interleaved(ways, rounds=options.rounds, warm_up=3)
    title = f"{BATCH} crops of {CROP} px -> {CROP // SCALE} px"
    print(f"| {title} | ms, mean | ms, median | crops/s | ratio |\n|---|---|---|---|---|")
    first = mean(next(iter(times.values())))
    for name, seconds in times.items():
        average = mean(seconds)
        print(
            f"| {name} | {1e3 * average:.0f} | {1e3 * median(seconds):.0f} "
            f"| {BATCH / average:.0f} | {average / first:.2f} |"
        )


def _next(run: Callable[[int], object], numbers: Iterator[int]) -> object:
    """Run the next batch; all variants see the same numbers."""
    return run(next(numbers))


if __name__ == "__main__":
    main()
