"""The pretrained networks in PyTorch, with random weights, to compare with."""

import numpy as np
import torch
from torch import nn


class Fire(nn.Module):
    """SqueezeNet's module, its submodules called as torchvision calls them."""

    def __init__(self, channels, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1).relu()


def alexnet():
    return [
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    ]


def vgg(depths):
    layers, channels = [], 3
    for width, depth in zip((64, 128, 256, 512, 512), depths, strict=True):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return layers


def squeezenet():
    return [
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    ]


LAYERS = {
    "alexnet": alexnet,
    "vgg16": lambda: vgg((2, 2, 3, 3, 3)),
    "vgg19": lambda: vgg((2, 2, 4, 4, 4)),
    "squeezenet": squeezenet,
}


def random_trunk(network, *, length=None):
    """The first layers, all by default; He's weights keep activations near 1 at any depth."""
    torch.manual_seed(0)
    trunk = nn.Sequential(*LAYERS[network]()[:length])
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
    return trunk.requires_grad_(False)


def state_dict(trunk):
    """Its tensors under torchvision's names."""
    return {f"features.{name}": tensor for name, tensor in trunk.state_dict().items()}


def arrays(trunk):
    return {name: tensor.numpy() for name, tensor in state_dict(trunk).items()}


def to_torch(images):
    """[n h w c] -> [n c h w]."""
    return torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)


def imagenet_normalised(images):
    """[n 3 h w] in [0, 1] as torchvision's weights want them."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (images - mean) / std


def outputs(trunk, x):
    """What each layer gives, as [n h w c]."""
    every = []
    for layer in trunk:
        x = layer(x)
        every.append(x.permute(0, 2, 3, 1))
    return every
