"""The peers of benchmarks.cases in PyTorch: the same networks, losses and sizes."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_msssim import ms_ssim
from torch import nn
from torch.nn import functional

from benchmarks.cases import SHAPE, SIDE, Case, photo
from benchmarks.upscale import usual_tiles
from tests.helpers.torch_generators import (
    MSRResNet,
    Residual,
    RRDBNet,
    SRResNet,
    SRVGGNet,
    conv,
)
from tests.helpers.torch_networks import Classifier, UNet, VGGStyle


class Compact(nn.Module):
    """isr_jax's small generator: residual blocks, one sub-pixel layer, a bicubic global skip."""

    def __init__(self, *, width: int, blocks: int) -> None:
        super().__init__()
        self.first = conv(3, width, bias=False)
        self.body = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.body_last = conv(width, width, bias=False)
        self.last = conv(width, 48, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Upscale a batch."""
        x = self.first(images)
        x = functional.pixel_shuffle(self.last(x + self.body_last(self.body(x))), 4)
        return x + functional.interpolate(images, scale_factor=4, mode="bicubic")


def generator(name: str) -> nn.Module:
    """Return a generator by the name that benchmarks.cases gives it."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "SRVGG-16": lambda: SRVGGNet(None, scale=4, width=64, layers=16),
        "compact-x4": lambda: Compact(width=32, blocks=8),
        "msssim": lambda: Compact(width=32, blocks=5),
        "MSRResNet": lambda: MSRResNet("msrresnet_basicsr", scale=4, width=64, blocks=16),
        "RRDBNet-6": lambda: RRDBNet("rrdbnet_basicsr", scale=4, width=64, growth=32, blocks=6),
        "RRDBNet-23": lambda: RRDBNet("rrdbnet_basicsr", scale=4, width=64, growth=32, blocks=23),
    }
    return makers[name]()


def upscaler(name: str, *, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """Return a function: uint8 image -> upscaled uint8 image."""
    network = generator(name).eval().to(device)

    @torch.inference_mode()
    def upscale(lr: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(lr.transpose(2, 0, 1).astype(np.float32) / 255)[None].to(device)
        sr = network(x)[0].clamp(0, 1).cpu().numpy().transpose(1, 2, 0)
        return (sr * 255.0).round().astype(np.uint8)

    return upscale


def tiles(name: str) -> Case:
    """Upscale the photograph in tiles of 256 pixels with 10 of padding, as is usual."""
    return partial(usual_tiles, photo(), upscaler(name), tile=256)


def whole(name: str) -> Case:
    """Upscale the photograph as a whole."""
    return partial(upscaler(name), photo())


class Gan(NamedTuple):
    """The parts of a GAN: networks, crops, batch, losses; see `update`."""

    generator: Callable[[], nn.Module]
    discriminator: Callable[[], nn.Module] | None
    crop: int
    batch: int
    content: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    judged: int = 0  # side of the crop that the discriminator sees, 0 for all
    relativistic: bool = False


def lost_ms_ssim(sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
    """Return 1 - MS-SSIM."""
    return 1 - ms_ssim(sr, hr, data_range=1.0)


UPDATED: dict[str, Gan] = {
    "MSRResNet": Gan(lambda: generator("MSRResNet"), None, 96, 16, functional.l1_loss),
    "msssim": Gan(
        lambda: generator("msssim"),
        lambda: Classifier(64, widths=(16, 32, 64), dense=64, batch_norm=False),
        176,
        4,
        lost_ms_ssim,
        judged=64,
    ),
    "SRGAN": Gan(
        lambda: SRResNet("srresnet", scale=4, width=64, blocks=16),
        lambda: Classifier(96),
        96,
        16,
        functional.mse_loss,
    ),
    "ESRGAN-23": Gan(
        lambda: generator("RRDBNet-23"),
        lambda: VGGStyle(128, width=64, dense=100),
        128,
        16,
        functional.l1_loss,
        relativistic=True,
    ),
    "Real-ESRGAN": Gan(
        lambda: generator("RRDBNet-23"), lambda: UNet(256, width=64), 256, 12, functional.l1_loss
    ),
}


def update(
    name: str,
    *,
    channels_last: bool = False,
    device: str = "cpu",
    mixed: bool = False,
    compiled: bool = False,
    batch: int | None = None,
    crop: int | None = None,
) -> Case:
    """Do an update, in PyTorch's usual order, on a batch already in memory.

    Args:
        name: of UPDATED.
        channels_last: memory format of networks and images.
        device: where.
        mixed: compute in bfloat16 by autocast.
        compiled: by torch.compile.
        batch, crop: instead of the published ones.
    """
    gan = UPDATED[name]
    n, side = batch or gan.batch, crop or gan.crop
    layout: Any = {"memory_format": torch.channels_last} if channels_last else {}
    g = gan.generator().to(device, **layout)
    d = gan.discriminator().to(device, **layout) if gan.discriminator else None
    run_g, run_d = (torch.compile(x) if compiled and x else x for x in (g, d))
    fused = {"fused": True} if device == "cuda" else {}
    g_optimizer = torch.optim.Adam(g.parameters(), lr=1e-4, **fused)
    d_optimizer = torch.optim.Adam(d.parameters(), lr=1e-4, **fused) if d else None
    images = (torch.rand(n, 3, length, length, device=device) for length in (side // 4, side))
    lr, hr = (x.to(**layout) for x in images)
    ema = [p.detach().clone() for p in g.parameters()]
    places = itertools.cycle([0, (side - gan.judged) // 2 if gan.judged else 0])

    def told(logits: torch.Tensor, other: torch.Tensor, label: float) -> torch.Tensor:
        against = logits - other.mean() if gan.relativistic else logits
        target = torch.full_like(against, label)
        return functional.binary_cross_entropy_with_logits(against.float(), target.float())

    def step() -> None:
        at = next(places)
        window = (..., slice(at, at + gan.judged), slice(at, at + gan.judged))
        window = window if gan.judged else (...,)
        g_optimizer.zero_grad()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=mixed):
            sr = run_g(lr)
            loss = gan.content(sr.float(), hr)
            if d and run_d:
                d.requires_grad_(False)
                fake = run_d(sr[window])
                real = run_d(hr[window]).detach() if gan.relativistic else fake.detach()
                loss = loss + 1e-3 * told(fake, real, 1.0)
        loss.backward()
        g_optimizer.step()
        if d and run_d and d_optimizer:
            d.requires_grad_(True)
            d_optimizer.zero_grad()
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=mixed):
                real, fake = run_d(hr[window]), run_d(sr.detach()[window])
                loss = told(real, fake, 1.0) + told(fake, real, 0.0)
            loss.backward()
            d_optimizer.step()
        torch._foreach_lerp_(ema, [p.detach() for p in g.parameters()], 1e-3)
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def convolution(part: str) -> Case:
    """Convolve features by 3x3 kernels: the output, or a gradient by the input or the kernel."""
    n, h, w, c = SHAPE
    layout: Any = {"memory_format": torch.channels_last}
    x, dy = (torch.randn(n, c, h, w).to(**layout) for _ in range(2))
    kernel = torch.randn(c, c, 3, 3).to(**layout)
    wanted = [part == "input gradient", part == "weight gradient", False]
    settings = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted)

    def run() -> Any:
        if part == "forward":
            return functional.conv2d(x, kernel, padding=1)
        return torch.ops.aten.convolution_backward(dy, x, kernel, *settings)

    return lambda: [run() for _ in range(10)]


def product(name: str) -> Case:
    """Multiply two square matrices."""
    a = torch.ones(SIDE, SIDE)
    return lambda: a @ a


CASES: dict[str, Callable[[str], Case]] = {
    "tiles": tiles,
    "whole": whole,
    "update": update,
    "update, channels_last": partial(update, channels_last=True),
    "convolution": convolution,
    "product": product,
}
