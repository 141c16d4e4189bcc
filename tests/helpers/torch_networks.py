"""The networks in PyTorch, written from their papers, to compare with.

Each keeps its layers under the paths of the Flax module's, so that parameters and gradients go from
one to the other by name.
"""

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

LEAVES = {"kernel": "weight", "scale": "weight", "slope": "weight", "bias": "bias"}


class Network(nn.Module):
    """Layers by path; every convolution pads by `(kernel - 1) // 2`."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict()

    def conv(self, path, channels, width, kernel=3, *, stride=1, bias=True):
        self.layers[path] = nn.Conv2d(
            channels, width, kernel, stride=stride, padding=(kernel - 1) // 2, bias=bias
        )

    def spectral(self, path, channels, width, kernel=3, *, stride=1):
        self.conv(path, channels, width, kernel, stride=stride, bias=False)
        nn.utils.spectral_norm(self.layers[path])

    def norm(self, path, width):
        self.layers[f"{path}/BatchNorm_0"] = nn.BatchNorm2d(width)

    def tensor(self, path):
        """The parameter at a path of the Flax tree."""
        *modules, leaf = (entry.key for entry in path)
        layer, name = self.layers["/".join(modules)], LEAVES[leaf]
        return (
            layer.weight_orig
            if f"{name}_orig" in dict(layer.named_parameters())
            else (getattr(layer, name))
        )


def leaky(x):
    return functional.leaky_relu(x, 0.2)


class Classifier(Network):
    """Ledig et al. 2017, figure 4; images to [-1, 1], features flattened row by row."""

    def __init__(self, crop, *, widths=(64, 128, 256, 512), dense=1024, batch_norm=True):
        super().__init__()
        channels, self.count, self.batch_norm = 3, 2 * len(widths), batch_norm
        for i in range(self.count):
            width, normed = widths[i // 2], batch_norm and i > 0
            self.conv(f"Conv_{i}", channels, width, stride=1 + i % 2, bias=not normed)
            if normed:
                self.norm(f"Normaliser_{i}", width)
            channels = width
            crop = crop if i % 2 == 0 else (crop + 1) // 2
        self.layers["Dense_0"] = nn.Linear(crop * crop * channels, dense)
        self.layers["Dense_1"] = nn.Linear(dense, 1)

    def forward(self, images):
        x = 2 * images - 1
        for i in range(self.count):
            x = self.layers[f"Conv_{i}"](x)
            if self.batch_norm and i > 0:
                x = self.layers[f"Normaliser_{i}/BatchNorm_0"](x)
            x = leaky(x)
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.layers["Dense_1"](leaky(self.layers["Dense_0"](x)))[:, 0]


class VGGStyle(Network):
    """ESRGAN's discriminator: 3x3 and strided 4x4 convolutions down to 3 or 4 pixels."""

    def __init__(self, crop, *, width=64, dense=100):
        super().__init__()
        channels, self.count = 3, 0
        while crop > 4:
            wide = width * [1, 2, 4, 8, 8, 8][self.count // 2]
            for kernel, stride in ((3, 1), (4, 2)):
                first = self.count == 0
                self.conv(f"Conv_{self.count}", channels, wide, kernel, stride=stride, bias=first)
                if not first:
                    self.norm(f"Normaliser_{self.count}", wide)
                channels, self.count = wide, self.count + 1
            crop //= 2
        self.layers["Dense_0"] = nn.Linear(crop * crop * channels, dense)
        self.layers["Dense_1"] = nn.Linear(dense, 1)

    def forward(self, x):
        for i in range(self.count):
            x = self.layers[f"Conv_{i}"](x)
            x = leaky(self.layers[f"Normaliser_{i}/BatchNorm_0"](x) if i else x)
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.layers["Dense_1"](leaky(self.layers["Dense_0"](x)))[:, 0]


class UNet(Network):
    """Real-ESRGAN's discriminator: a U-Net with spectral normalisation."""

    def __init__(self, crop, *, width=64, skip=True):
        super().__init__()
        self.skip = skip
        self.conv("Conv_0", 3, width)
        for i in range(3):
            self.spectral(f"SpectralConv_{i}", width << i, width << (i + 1), 4, stride=2)
        for i in range(3):
            self.spectral(f"SpectralConv_{3 + i}", (8 * width) >> i, (4 * width) >> i)
        self.spectral("SpectralConv_6", width, width)
        self.spectral("SpectralConv_7", width, width)
        self.conv("Conv_1", width, 1)

    def forward(self, images):
        below = [leaky(self.layers["Conv_0"](images))]
        for i in range(3):
            below.append(leaky(self.layers[f"SpectralConv_{i}"](below[-1])))
        x = below.pop()
        for i in range(3, 6):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = leaky(self.layers[f"SpectralConv_{i}"](x))
            beside = below.pop()
            x = x + beside if self.skip else x
        x = leaky(self.layers["SpectralConv_6"](x))
        x = leaky(self.layers["SpectralConv_7"](x))
        return self.layers["Conv_1"](x)[:, 0]


class Patch(Network):
    """Isola et al. 2017, section 6.1.2: C64-C128-C256-C512 and a convolution to one channel."""

    def __init__(self, crop, *, width=64, layers=3):
        super().__init__()
        channels, self.count = 3, layers + 1
        for i in range(self.count):
            wide = width * min(8, 2**i)
            self.conv(f"Conv_{i}", channels, wide, 4, stride=1 if i == layers else 2, bias=i == 0)
            if i:
                self.norm(f"Normaliser_{i}", wide)
            channels = wide
        self.conv(f"Conv_{self.count}", channels, 1, 4)

    def forward(self, images):
        x = 2 * images - 1
        for i in range(self.count):
            x = self.layers[f"Conv_{i}"](x)
            x = leaky(self.layers[f"Normaliser_{i}/BatchNorm_0"](x) if i else x)
        return self.layers[f"Conv_{self.count}"](x)[:, 0]


DISCRIMINATORS = {"classifier": Classifier, "vgg": VGGStyle, "unet": UNet, "patch": Patch}


def shuffle(x):
    """[n 4c h w] -> [n c 2h 2w]; channel (2i + j)c + k goes to row i, column j of a block."""
    n, c, h, w = x.shape
    x = x.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // 4, 2 * h, 2 * w)


class SRResNet(Network):
    """Ledig et al. 2017, figure 4, at 4x."""

    def __init__(self, *, width, blocks):
        super().__init__()
        self.blocks = [f"ResidualBlock_{i}" for i in range(blocks)]
        self.conv("Conv_0", 3, width, 9)
        for block in self.blocks:
            for i in range(2):
                self.conv(f"{block}/Conv_{i}", width, width, bias=False)
                self.norm(f"{block}/Normaliser_{i}", width)
            self.layers[f"{block}/PReLU_0"] = nn.PReLU(width)
        self.conv("Conv_1", width, width, bias=False)
        self.norm("Normaliser_0", width)
        for i in range(2):
            self.conv(f"SubPixel_{i}/Conv_0", width, 4 * width)
        for i in range(3):
            self.layers[f"PReLU_{i}"] = nn.PReLU(width)
        self.conv("Conv_2", width, 3, 9)

    def forward(self, lr):
        x = head = self.layers["PReLU_0"](self.layers["Conv_0"](lr))
        for block in self.blocks:
            y = x
            for layer in ("Conv_0", "Normaliser_0/BatchNorm_0", "PReLU_0", "Conv_1"):
                y = self.layers[f"{block}/{layer}"](y)
            x = x + self.layers[f"{block}/Normaliser_1/BatchNorm_0"](y)
        x = head + self.layers["Normaliser_0/BatchNorm_0"](self.layers["Conv_1"](x))
        for i in range(2):
            x = self.layers[f"PReLU_{i + 1}"](shuffle(self.layers[f"SubPixel_{i}/Conv_0"](x)))
        return self.layers["Conv_2"](x)


class RRDBNet(Network):
    """Wang et al. 2018 (ESRGAN), section 3.1 and figure 4, at 4x."""

    def __init__(self, *, width, growth, blocks):
        super().__init__()
        self.blocks = [f"RRDB_{i}" for i in range(blocks)]
        self.conv("Conv_0", 3, width)
        for block in self.blocks:
            for k in range(3):
                for i in range(5):
                    out = growth if i < 4 else width
                    self.conv(f"{block}/DenseBlock_{k}/Conv_{i}", width + i * growth, out)
        for i in range(1, 5):
            self.conv(f"Conv_{i}", width, width)
        self.conv("Conv_5", width, 3)

    def dense(self, path, x):
        seen = x
        for i in range(4):
            seen = torch.cat([seen, leaky(self.layers[f"{path}/Conv_{i}"](seen))], dim=1)
        return x + 0.2 * self.layers[f"{path}/Conv_4"](seen)

    def forward(self, lr):
        x = head = self.layers["Conv_0"](lr)
        for block in self.blocks:
            y = x
            for k in range(3):
                y = self.dense(f"{block}/DenseBlock_{k}", y)
            x = x + 0.2 * y
        x = head + self.layers["Conv_1"](x)
        for i in (2, 3):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = leaky(self.layers[f"Conv_{i}"](x))
        return self.layers["Conv_5"](leaky(self.layers["Conv_4"](x)))


def as_torch(array):
    """HWIO kernels to OIHW, matrices transposed."""
    tensor = torch.tensor(np.asarray(array))
    if tensor.ndim == 4:
        tensor = tensor.permute(3, 2, 0, 1)
    return (tensor.T if tensor.ndim == 2 else tensor).contiguous()


def as_flax(tensor):
    array = tensor.detach().numpy()
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T


def load(network, params, stats=None):
    """Copy Flax trees into a network, and see that the parameters are all it has."""
    seen = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        tensor = network.tensor(path)
        tensor.data.copy_(as_torch(leaf))
        seen.add(id(tensor))
    assert seen == {id(parameter) for parameter in network.parameters()}
    for path, vectors in (stats or {}).items():
        layer, kernel = network.layers[path], params[path]["kernel"]
        layer.weight_u.copy_(as_torch(vectors["u"]))
        layer.weight_v.copy_(as_torch(in_torch_order(vectors["v"], kernel)))
    return network


def in_torch_order(v, kernel):
    """Entries by row, column and input channel to entries by input channel, row and column."""
    return np.asarray(v).reshape(kernel.shape[:3]).transpose(2, 0, 1).ravel()


def gradients(network, params):
    """The network's gradients as a tree like `params`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: as_flax(network.tensor(path).grad), params
    )


def spectral_layers(network):
    return [layer for layer in network.layers.values() if hasattr(layer, "weight_u")]


def spectral_vectors(network):
    """Copies of spectral norm's u and v."""
    return [(x.weight_u.clone(), x.weight_v.clone()) for x in spectral_layers(network)]


def set_spectral_vectors(network, vectors):
    for layer, (u, v) in zip(spectral_layers(network), vectors, strict=True):
        layer.weight_u.copy_(u)
        layer.weight_v.copy_(v)


def without_power_iteration(network, images):
    """What it gives by the u and v that it has."""
    for layer in spectral_layers(network):
        layer.eval()
    result = network(images)
    for layer in spectral_layers(network):
        layer.train()
    return result
