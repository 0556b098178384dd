"""Folding BatchNorm into convolutions, for networks that only compute."""

from itertools import pairwise
from typing import cast

from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_weights


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Folds each BatchNorm into its convolution, which is the one defined before it.

    Args:
        network: in eval mode; it is changed.
    """
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    for (_, convolution), (name, norm) in pairwise(layers):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
            convolution.weight, bias = fuse_conv_bn_weights(
                convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
            )
            convolution.bias = bias
            network.set_submodule(name, getattr(norm, "act", nn.Identity()))  # timm's has the activation in it
    return network
