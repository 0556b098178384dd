"""Small networks for small colour pictures, trained from scratch: a frozen trunk of theirs would be random."""

from collections.abc import Callable
from itertools import pairwise
from types import MappingProxyType

from torch import Tensor, nn


class Residual(nn.Module):
    """Adds what two convolutions make of a feature map to it.

    Args:
        channels: of the feature map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*convolution(channels, channels), *convolution(channels, channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps feature maps, shape ``[N, channels, H, W]``, to others of this shape."""
        added: Tensor = maps + self.layers(maps)
        return added


class ScratchNetwork(nn.Module):
    """Blocks of convolutions, adaptive pooling and a linear layer.

    Args:
        blocks: modules that are called one after the other, each a list.
        pool: the pooling that makes one value of each channel, so that pictures of any size will do.
        features: number of channels that the last block gives.
    """

    def __init__(self, *blocks: list[nn.Module], pool: nn.Module, features: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Sequential(*block) for block in blocks))
        self.pool = pool
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(features, 1000)  # is left out; the head takes its place

    def forward(self, pictures: Tensor) -> Tensor:
        """Maps normalised pictures, shape ``[N, 3, H, W]``, to logits."""
        logits: Tensor = self.fc(self.flatten(self.pool(self.blocks(pictures))))
        return logits


def convolution(channels: int, width: int) -> list[nn.Module]:
    """A convolution of 3 x 3 pixels with BatchNorm and ReLU.

    Args:
        channels: of its input.
        width: channels of its output.
    """
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def small_cnn() -> ScratchNetwork:
    """Three blocks of convolution, BatchNorm, ReLU and pooling: the network that tutorials on CIFAR-10 begin with."""
    widths = (3, 64, 128, 256)
    blocks = [[*convolution(*pair), nn.MaxPool2d(2)] for pair in pairwise(widths)]
    return ScratchNetwork(*blocks, pool=nn.AdaptiveAvgPool2d(1), features=widths[-1])


def deep_cnn() -> ScratchNetwork:
    """ResNet-9: eight convolutions, four of them in two residual blocks, and the head.

    Source: D. Page, "How to train your ResNet", 2018: 94 % on CIFAR-10 in 24 epochs on one GPU, with crops and flips.
    """
    return ScratchNetwork(
        convolution(3, 64),
        [*convolution(64, 128), nn.MaxPool2d(2), Residual(128)],
        [*convolution(128, 256), nn.MaxPool2d(2)],
        [*convolution(256, 512), nn.MaxPool2d(2), Residual(512)],
        pool=nn.AdaptiveMaxPool2d(1),
        features=512,
    )


SCRATCH: MappingProxyType[str, Callable[[], ScratchNetwork]] = MappingProxyType(
    {"small_cnn": small_cnn, "deep_cnn": deep_cnn}
)
"""Networks without pretrained weights, by name."""
