"""What a network costs: its size, its parameters, and the multiply-adds of one picture."""

from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gel_lightning.models.backbones import num_features
from gel_lightning.models.network import Network, structure

UNCOUNTED = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.GELU)
"""Layers that keep the shape and of which no operation is counted: leaving them out halves the time of counting."""


class Cost(NamedTuple):
    """The cost of a whole network: frozen trunk, trained tail and head.

    Attributes:
        size_mb: megabytes (10^6 bytes) of its parameters and buffers in 32 bits.
        parameters: how many there are.
        trainable_parameters: how many of these are trained.
        multiply_adds: of convolutions and matrix products for one picture: half of the floating point operations that
            :class:`torch.utils.flop_counter.FlopCounterMode` counts. Normalisation, activations and pooling are left
            out, as is usual.
    """

    size_mb: float
    parameters: int
    trainable_parameters: int
    multiply_adds: int


def cost(network: Network, image_size: int) -> Cost:
    """Finds out what a network costs. Its trunk is not loaded for that.

    Args:
        network: the network.
        image_size: side of its square pictures in pixels.
    """
    parameters, buffers, operations = _of_backbone(network.backbone, image_size)
    head = _numbers(network.head.parameters())
    return Cost(
        4e-6 * (parameters + buffers + head + _numbers(network.head.buffers())),
        parameters + head,
        _numbers(network.tail.parameters()) + head,
        operations + _of_head(network.head, num_features(network.backbone)),
    )


@cache
def _of_backbone(backbone: str, image_size: int) -> tuple[int, int, int]:
    """Parameters, values of buffers, and multiply-adds of a backbone without its last linear layer."""
    layers = structure(backbone, 0).eval()
    sizes = _numbers(layers.parameters()), _numbers(layers.buffers())
    for name, module in list(layers.named_modules()):
        if isinstance(module, UNCOUNTED):
            layers.set_submodule(name, nn.Identity())
    return (*sizes, _multiply_adds(layers, torch.empty(1, 3, image_size, image_size, device="meta")))


def _of_head(head: nn.Module, features: int) -> int:
    """Multiply-adds of a head, counted with a copy on the CPU: one of the user's may not know the meta device."""
    copy = deepcopy(head).cpu().float().eval()
    return _multiply_adds(copy, torch.zeros(1, features))


def _multiply_adds(module: nn.Module, values: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(values)
    return int(counter.get_total_flops()) // 2


def _numbers(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)
