"""Published networks in PyTorch, written from their papers, with the key names of their own code.

Images are NCHW.
"""

import torch
from torch import nn
from torch.nn import functional


def conv(channels, width, kernel=3, *, stride=1, bias=True):
    return nn.Conv2d(channels, width, kernel, stride, (kernel - 1) // 2, bias=bias)


def doubled(x):
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def leaky(x, slope=0.2):
    return functional.leaky_relu(x, slope)


def shuffles(scale):
    """Factors of the sub-pixel layers."""
    return {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]


class Dense(nn.Module):
    """Five convolutions conv1..conv5, each of which sees everything before it."""

    def __init__(self, width, growth, *, in_sequence):
        super().__init__()
        for i in range(5):
            layer = conv(width + i * growth, growth if i < 4 else width)
            self.add_module(f"conv{i + 1}", nn.Sequential(layer) if in_sequence else layer)

    def forward(self, x):
        *inner, last = self.children()
        seen = [x]
        for layer in inner:
            seen.append(leaky(layer(torch.cat(seen, 1))))
        return x + 0.2 * last(torch.cat(seen, 1))


class RRDB(nn.Module):
    def __init__(self, width, growth, *, name, in_sequence=False):
        super().__init__()
        for i in range(3):
            self.add_module(f"{name}{i + 1}", Dense(width, growth, in_sequence=in_sequence))

    def forward(self, x):
        y = x
        for dense in self.children():
            y = dense(y)
        return x + 0.2 * y


RRDB_NAMES = {
    "rrdbnet_basicsr": ("conv_first", "body", "rdb", "conv_body", "conv_up", "conv_hr"),
    "rrdbnet_esrgan": ("conv_first", "RRDB_trunk", "RDB", "trunk_conv", "upconv", "HRconv"),
}


class RRDBNet(nn.Module):
    """ESRGAN's and Real-ESRGAN's generator in its newer namings."""

    def __init__(self, naming, *, scale, width, growth, blocks, doublings=2):
        super().__init__()
        self.fold = 2**doublings // scale
        first, body, dense, trunk, up, hr = RRDB_NAMES[naming]
        self.order = [first, body, trunk, *(f"{up}{i + 1}" for i in range(doublings)), hr]
        self.add_module(first, conv(3 * self.fold**2, width))
        self.add_module(
            body, nn.Sequential(*(RRDB(width, growth, name=dense) for _ in range(blocks)))
        )
        for name in self.order[2:]:
            self.add_module(name, conv(width, width))
        self.conv_last = conv(width, 3)

    def forward(self, x):
        first, body, trunk, *ups, hr = (self.get_submodule(name) for name in self.order)
        x = first(functional.pixel_unshuffle(x, self.fold))
        x = x + trunk(body(x))
        for up in ups:
            x = leaky(up(doubled(x)))
        return self.conv_last(leaky(hr(x)))


class Shortcut(nn.Module):
    def __init__(self, *members):
        super().__init__()
        self.sub = nn.Sequential(*members)

    def forward(self, x):
        return x + self.sub(x)


class FirstRRDBNet(nn.Module):
    """ESRGAN's generator as it was first published, one long sequence."""

    def __init__(self, naming, *, scale, width, growth, blocks, doublings=2):
        super().__init__()
        self.fold = 2**doublings // scale
        options = {"name": "RDB", "in_sequence": True}
        trunk = (RRDB(width, growth, **options) for _ in range(blocks))
        members = [conv(3 * self.fold**2, width), Shortcut(*trunk, conv(width, width))]
        for _ in range(doublings):
            members += [nn.Upsample(scale_factor=2), conv(width, width), nn.LeakyReLU(0.2)]
        members += [conv(width, width), nn.LeakyReLU(0.2), conv(width, 3)]
        self.model = nn.Sequential(*members)

    def forward(self, x):
        return self.model(functional.pixel_unshuffle(x, self.fold))


class Residual(nn.Module):
    def __init__(self, width, scale=1.0):
        super().__init__()
        self.conv1, self.conv2, self.scale = conv(width, width), conv(width, width), scale

    def forward(self, x):
        return x + self.scale * self.conv2(functional.relu(self.conv1(x)))


class EDSR(nn.Module):
    """In BasicSR, which has the mean as a constant."""

    mean = torch.tensor([0.4488, 0.4371, 0.4040]).reshape(1, 3, 1, 1)

    def __init__(self, naming, *, scale, width, blocks, residual_scale=1.0):
        super().__init__()
        self.conv_first = conv(3, width)
        self.body = nn.Sequential(*(Residual(width, residual_scale) for _ in range(blocks)))
        self.conv_after_body = conv(width, width)
        self.upsample = nn.Sequential()
        for factor in shuffles(scale):
            self.upsample.append(conv(width, width * factor**2))
            self.upsample.append(nn.PixelShuffle(factor))
        self.conv_last = conv(width, 3)

    def forward(self, x):
        x = self.conv_first((x - self.mean) * 255)
        x = x + self.conv_after_body(self.body(x))
        return self.conv_last(self.upsample(x)) / 255 + self.mean


class OriginalResidual(nn.Module):
    def __init__(self, width, scale):
        super().__init__()
        self.body = nn.Sequential(conv(width, width), nn.ReLU(), conv(width, width))
        self.scale = scale

    def forward(self, x):
        return x + self.scale * self.body(x)


class OriginalEDSR(nn.Module):
    """Its authors', which takes and gives images in 0..255; here it is given [0, 1]."""

    def __init__(self, naming, *, scale, width, blocks, residual_scale=1.0):
        super().__init__()
        self.sub_mean, self.add_mean = conv(3, 3, 1), conv(3, 3, 1)
        for layer, sign in ((self.sub_mean, -255), (self.add_mean, 255)):
            layer.weight.data = torch.eye(3)[..., None, None]
            layer.bias.data = sign * torch.tensor([0.4488, 0.4371, 0.4040])
            layer.requires_grad_(False)
        self.head = nn.Sequential(conv(3, width))
        residuals = (OriginalResidual(width, residual_scale) for _ in range(blocks))
        self.body = nn.Sequential(*residuals, conv(width, width))
        upsampler = []
        for factor in shuffles(scale):
            upsampler += [conv(width, width * factor**2), nn.PixelShuffle(factor)]
        self.tail = nn.Sequential(nn.Sequential(*upsampler), conv(width, 3))

    def forward(self, x):
        x = self.head(self.sub_mean(255 * x))
        return self.add_mean(self.tail(x + self.body(x))) / 255


class MSRResNet(nn.Module):
    """BasicSR's, or MMSR's, which has other names for two members."""

    def __init__(self, naming, *, scale, width, blocks):
        super().__init__()
        self.factors = shuffles(scale)
        body, hr = {
            "msrresnet_basicsr": ("body", "conv_hr"),
            "msrresnet_mmsr": ("recon_trunk", "HRconv"),
        }[naming]
        self.conv_first = conv(3, width)
        self.add_module(body, nn.Sequential(*(Residual(width) for _ in range(blocks))))
        for i, factor in enumerate(self.factors):
            self.add_module(f"upconv{i + 1}", conv(width, width * factor**2))
        self.add_module(hr, conv(width, width))
        self.conv_last = conv(width, 3)

    def forward(self, images):
        first, body, *ups, hr, last = self.children()
        x = body(leaky(first(images), 0.1))
        for factor, up in zip(self.factors, ups, strict=True):
            x = leaky(functional.pixel_shuffle(up(x), factor), 0.1)
        x = last(leaky(hr(x), 0.1))
        size = x.shape[2:]
        return x + functional.interpolate(images, size, mode="bilinear", align_corners=False)


class Block(nn.Module):
    def __init__(self, name, members, *, residual):
        super().__init__()
        self.add_module(name, nn.Sequential(*members))
        self.residual = residual

    def forward(self, x):
        (sequence,) = self.children()
        return x + sequence(x) if self.residual else sequence(x)


class SRResNet(nn.Module):
    """Ledig et al. 2017, figure 4, as SRGAN-PyTorch names it; one slope for all channels."""

    def __init__(self, naming, *, scale, width, blocks, kernel=9, batch_norm=True):
        super().__init__()
        name = {"srresnet": "conv", "srresnet_first": "conv_block"}[naming]

        def normalised():
            layer = conv(width, width, bias=not batch_norm)
            return [layer, nn.BatchNorm2d(width)] if batch_norm else [layer]

        def block():
            return Block("rcb", [*normalised(), nn.PReLU(), *normalised()], residual=True)

        def up(factor):
            layers = [conv(width, width * factor**2), nn.PixelShuffle(factor), nn.PReLU()]
            return Block("upsample_block", layers, residual=False)

        self.add_module(f"{name}1", nn.Sequential(conv(3, width, kernel), nn.PReLU()))
        self.trunk = nn.Sequential(*(block() for _ in range(blocks)))
        self.add_module(f"{name}2", nn.Sequential(*normalised()))
        self.upsampling = nn.Sequential(*(up(factor) for factor in shuffles(scale)))
        self.add_module(f"{name}3", conv(width, 3, kernel))

    def forward(self, x):
        first, trunk, second, upsampling, third = self.children()
        x = first(x)
        return third(upsampling(x + second(trunk(x))))


class SRVGGNet(nn.Module):
    """Real-ESRGAN's compact generator."""

    def __init__(self, naming, *, scale, width, layers):
        super().__init__()
        self.scale = scale
        self.body = nn.ModuleList()
        for i in range(1 + layers):
            self.body.append(conv(width if i else 3, width))
            self.body.append(nn.PReLU(width))
        self.body.append(conv(width, 3 * scale**2))

    def forward(self, images):
        x = images
        for layer in self.body:
            x = layer(x)
        nearest = functional.interpolate(images, scale_factor=self.scale, mode="nearest")
        return functional.pixel_shuffle(x, self.scale) + nearest


class VGGStyle(nn.Module):
    """ESRGAN's discriminator in BasicSR."""

    def __init__(self, naming, *, crop, width, dense):
        super().__init__()
        self.stages, channels = 0, 3
        while crop > 4:
            wide, i = width * min(8, 2**self.stages), self.stages
            self.add_module(f"conv{i}_0", conv(channels, wide, bias=i == 0))
            if i:
                self.add_module(f"bn{i}_0", nn.BatchNorm2d(wide))
            self.add_module(f"conv{i}_1", conv(wide, wide, 4, stride=2, bias=False))
            self.add_module(f"bn{i}_1", nn.BatchNorm2d(wide))
            channels, self.stages, crop = wide, self.stages + 1, crop // 2
        self.linear1, self.linear2 = nn.Linear(channels * crop**2, dense), nn.Linear(dense, 1)

    def forward(self, x):
        for name, layer in self.named_children():
            if name == "linear1":
                x = x.flatten(1)
            x = layer(x)
            if name == "conv0_0" or name[:2] == "bn" or name == "linear1":
                x = leaky(x)
        return x[:, 0]


class UNet(nn.Module):
    """Real-ESRGAN's discriminator."""

    def __init__(self, naming, *, width):
        super().__init__()
        self.conv0 = conv(3, width)
        widths = [1, 2, 4, 8, 4, 2, 1, 1, 1]
        for i in range(1, 9):
            kernel, stride = (4, 2) if i < 4 else (3, 1)
            layer = conv(
                widths[i - 1] * width, widths[i] * width, kernel, stride=stride, bias=False
            )
            self.add_module(f"conv{i}", nn.utils.spectral_norm(layer))
        self.conv9 = conv(width, 1)

    def forward(self, x):
        first, *inner, last = self.children()
        sides = [leaky(first(x))]
        for layer in inner[:3]:
            sides.append(leaky(layer(sides[-1])))
        x = sides.pop()
        for layer in inner[3:6]:
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = leaky(layer(x)) + sides.pop()
        for layer in inner[6:]:
            x = leaky(layer(x))
        return last(x)[:, 0]
