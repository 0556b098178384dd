"""Small networks for small colour pictures, trained from scratch: a frozen trunk of theirs would be random."""

from collections.abc import Callable
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor, nn


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


def small_cnn() -> ScratchNetwork:
    """Three blocks of convolution, BatchNorm, ReLU and pooling: the network that tutorials on CIFAR-10 begin with."""
    widths = (3, 64, 128, 256)
    blocks = [
        [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        for channels, width in pairwise(widths)
    ]
    return ScratchNetwork(*blocks, pool=nn.AdaptiveAvgPool2d(1), features=widths[-1])


def deep_cnn() -> ScratchNetwork:
    """Seven convolutions, the first of 2 x 2 pixels, with BatchNorm, GELU and early pooling.

    Source: the network of K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498, 2024,
    without its training method.
    """
    widths = (24, 64, 256, 256)
    blocks = [
        [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.GELU(),
        ]
        for channels, width in pairwise(widths)
    ]
    first: list[nn.Module] = [nn.Conv2d(3, widths[0], 2), nn.GELU()]
    return ScratchNetwork(first, *blocks, pool=nn.AdaptiveMaxPool2d(1), features=widths[-1])


class Scratch(NamedTuple):
    """A network without pretrained weights.

    Attributes:
        make: builds it.
        min_size: the smallest side of a picture in pixels, of which its pooling leaves one.
    """

    make: Callable[[], ScratchNetwork]
    min_size: int


SCRATCH = MappingProxyType({"small_cnn": Scratch(small_cnn, 8), "deep_cnn": Scratch(deep_cnn, 9)})
"""Networks without pretrained weights, by name."""
