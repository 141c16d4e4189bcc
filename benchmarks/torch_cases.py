"""The peers of benchmarks.cases in PyTorch: the same networks, losses and sizes."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from pytorch_msssim import ms_ssim
from torch import nn
from torch.nn import functional

from benchmarks.cases import SHAPE, SIDE, Case, photo
from benchmarks.upscale import usual_tiles
from tests.helpers.torch_generators import MSRResNet, Residual, RRDBNet, SRVGGNet, conv
from tests.helpers.torch_networks import Classifier


class Compact(nn.Module):
    """isr_jax's small generator: residual blocks, one sub-pixel layer, a bicubic global skip."""

    def __init__(self, *, width: int, blocks: int) -> None:
        super().__init__()
        self.first = conv(3, width, bias=False)
        self.body = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.body_last = conv(width, width, bias=False)
        self.last = conv(width, 48, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
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
    }
    return makers[name]()


def upscaler(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function: uint8 image -> upscaled uint8 image."""
    network = generator(name).eval()

    @torch.inference_mode()
    def upscale(lr: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(lr.transpose(2, 0, 1).astype(np.float32) / 255)[None]
        sr = network(x)[0].clamp(0, 1).numpy().transpose(1, 2, 0)
        return (sr * 255.0).round().astype(np.uint8)

    return upscale


def tiles(name: str) -> Case:
    """Upscale the photograph in tiles of 256 pixels with 10 of padding, as is usual."""
    return partial(usual_tiles, photo(), upscaler(name), tile=256)


def whole(name: str) -> Case:
    """Upscale the photograph as a whole."""
    return partial(upscaler(name), photo())


def update(name: str, *, channels_last: bool = False) -> Case:
    """Do an update on a batch that is there already."""
    if name == "msssim":
        return gan_update()
    g = generator(name)
    layout: Any = {"memory_format": torch.channels_last} if channels_last else {}
    g = g.to(**layout)
    optimizer = torch.optim.Adam(g.parameters(), lr=1e-4)
    lr, hr = torch.rand(16, 3, 24, 24).to(**layout), torch.rand(16, 3, 96, 96).to(**layout)
    ema = [p.detach().clone() for p in g.parameters()]

    def step() -> None:
        optimizer.zero_grad()
        functional.l1_loss(g(lr), hr).backward()
        optimizer.step()
        torch._foreach_lerp_(ema, [p.detach() for p in g.parameters()], 1e-3)

    return step


def gan_update() -> Case:
    """Do an update of configs/msssim.py's GAN in PyTorch's usual order."""
    g, d = generator("msssim"), Classifier(64, widths=(16, 32, 64), dense=64, batch_norm=False)
    g_optimizer = torch.optim.Adam(g.parameters(), lr=1e-3)
    d_optimizer = torch.optim.Adam(d.parameters(), lr=1e-4)
    lr, hr = torch.rand(4, 3, 44, 44), torch.rand(4, 3, 176, 176)
    ema = [p.detach().clone() for p in g.parameters()]
    judged = functional.binary_cross_entropy_with_logits
    places = itertools.cycle([(0, 0), (50, 30), (112, 112)])

    def step() -> None:
        y, x = next(places)
        window = (..., slice(y, y + 64), slice(x, x + 64))
        g_optimizer.zero_grad()
        sr = g(lr)
        d.requires_grad_(False)
        fake = d(sr[window])
        loss = 1 - ms_ssim(sr, hr, data_range=1.0) + 1e-3 * judged(fake, torch.ones_like(fake))
        loss.backward()
        g_optimizer.step()
        d.requires_grad_(True)
        d_optimizer.zero_grad()
        real, fake = d(hr[window]), d(sr.detach()[window])
        loss = judged(real, torch.ones_like(real)) + judged(fake, torch.zeros_like(fake))
        loss.backward()
        d_optimizer.step()
        torch._foreach_lerp_(ema, [p.detach() for p in g.parameters()], 1e-3)

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
