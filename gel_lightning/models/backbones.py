"""The pretrained networks: their names, their stages, and what pictures they take."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from gel_lightning.core.errors import GelError, missing_package


class Architecture(NamedTuple):
    """How a network is made and where it can be cut.

    Attributes:
        last_linear: name of its last linear layer, which is left out.
        chain: names of the modules that its forward calls, one after the other; ``name.*`` are all children of
            ``name``, and ``pool`` and ``flatten`` stand for the functions of those names.
        timm: timm's name of it, if it is not torchvision's.
        min_size: the smallest side of a picture in pixels.
    """

    last_linear: str
    chain: str
    timm: str = ""
    min_size: int = 1


ARCHITECTURES = {
    "resnet18": Architecture("fc", "conv1 bn1 relu maxpool layer1.* layer2.* layer3.* layer4.* avgpool flatten"),
    "vgg16": Architecture("classifier.6", "features.* avgpool flatten classifier.*", min_size=32),
    "mobilenet_v3_large": Architecture("classifier.3", "features.* avgpool flatten classifier.*"),
    "mobilenet_v2": Architecture("classifier.1", "features.* pool flatten classifier.*"),
    "efficientnet_lite0": Architecture(
        "classifier", "conv_stem bn1 blocks.*.* conv_head bn2 global_pool", "tf_efficientnet_lite0"
    ),
}
"""One entry adds a backbone."""

TIMM_MEAN, TIMM_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Normalisation that EfficientNet-Lite was trained with: (value - 127) / 128."""

IMAGENET_VERSION = "IMAGENET1K_V1"  # the weights of the original study, for every network


class Stage(NamedTuple):
    """A part of a network that is frozen or trained as a whole.

    Attributes:
        name: of its first module.
        start: place of that in :func:`chain`.
        layers: how many of its layers have parameters.
    """

    name: str
    start: int
    layers: int


class Cut(NamedTuple):
    """Where a network is cut in two: the trunk, which is frozen, and the tail, which is trained.

    Attributes:
        place: number of modules of the :func:`chain` that belong to the trunk.
        name: of the first module of the tail; empty if the tail is.
        trained: how many layers of the tail have parameters.
        layers: how many layers of the network have parameters, without the last linear layer.
    """

    place: int
    name: str
    trained: int
    layers: int


def architecture(name: str) -> Architecture:
    """Finds a backbone.

    Raises:
        GelError: there is no such backbone.
    """
    if name not in ARCHITECTURES:
        raise GelError(f"no backbone {name!r}; choose one of {', '.join(ARCHITECTURES)} (--model.backbone)")
    return ARCHITECTURES[name]


def whole_network(name: str) -> nn.Module:
    """Builds a backbone with random weights, with its last linear layer."""
    timm_name = architecture(name).timm
    if not timm_name:
        network: nn.Module = get_model(name, weights=None)
        return network
    try:
        import timm  # a second that the other networks need not wait for
    except ImportError as error:
        raise missing_package("timm", "packaged") from error
    network = timm.create_model(timm_name)
    return network


def without_last_linear(name: str) -> tuple[nn.Module, int]:
    """Builds a backbone with random weights and without its last linear layer, whose input length it returns."""
    network = whole_network(name)
    last = network.get_submodule(ARCHITECTURES[name].last_linear)
    assert isinstance(last, nn.Linear)
    network.set_submodule(ARCHITECTURES[name].last_linear, nn.Identity())
    return network, last.in_features


@cache
def num_features(name: str) -> int:
    """The length of a backbone's feature vectors.

    Raises:
        GelError: there is no such backbone.
    """
    with torch.device("meta"):
        return without_last_linear(name)[1]


def normalisation(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of each colour channel that a network was trained with, of values in [0, 1]."""
    if ARCHITECTURES[name].timm:
        return TIMM_MEAN, TIMM_STD
    preset = get_model_weights(name)[IMAGENET_VERSION].transforms()
    return preset.mean, preset.std


def check_image_size(name: str, image_size: int) -> None:
    """Refuses pictures that are too small for a backbone, whose layers halve them several times.

    Raises:
        GelError: names the smallest size that the backbone takes.
    """
    least = ARCHITECTURES[name].min_size
    if image_size < least:
        raise GelError(
            f"pictures of {image_size} pixels are too small for {name}; give --data.image_size {least} or more"
        )


def chain(name: str, network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Lists the modules that a network calls one after the other, with their names.

    Args:
        name: of the backbone.
        network: as :func:`without_last_linear` builds it.
    """
    functions = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    modules: list[tuple[str, nn.Module]] = []
    for pattern in architecture(name).chain.split():
        path, *levels = pattern.split(".*")
        found = [(path, functions.get(path) or network.get_submodule(path))]
        for _ in levels:
            found = [(f"{path}.{child}", module) for path, parent in found for child, module in parent.named_children()]
        modules += found
    return modules


@cache
def stages(name: str) -> tuple[Stage, ...]:
    """Lists where a backbone can be cut.

    A stage begins with a module that has parameters and is no BatchNorm, which belongs to the convolution before it.
    Activations and pooling belong to the stage before them.
    """
    with torch.device("meta"):
        modules = chain(name, without_last_linear(name)[0])
    found: list[Stage] = []
    for place, (path, module) in enumerate(modules):
        layers = sum(1 for layer in module.modules() if any(True for _ in layer.parameters(recurse=False)))
        if layers and not isinstance(module, nn.BatchNorm2d):
            found.append(Stage(path, place, layers))
        else:
            found[-1] = found[-1]._replace(layers=found[-1].layers + layers)
    return tuple(found)


@cache
def cut_at(name: str, unfreeze: float) -> Cut:
    """Finds where to cut a backbone to train a share of its layers.

    Args:
        name: of the backbone.
        unfreeze: share of the layers with parameters, counted from the top, in [0, 1]. It is rounded up to the next
            stage: 0 trains none of them, and any larger share at least the last stage.

    Raises:
        GelError: there is no such backbone; the share is not in [0, 1].
    """
    with torch.device("meta"):
        length = len(chain(name, without_last_linear(name)[0]))
    if not 0 <= unfreeze <= 1:
        raise GelError(f"--model.unfreeze is {unfreeze}; give the share of the layers to train, from 0 to 1")
    layers = sum(stage.layers for stage in stages(name))
    cut = Cut(length, "", 0, layers)
    for stage in reversed(stages(name)):
        if cut.trained >= unfreeze * layers:
            break
        cut = Cut(stage.start, stage.name, cut.trained + stage.layers, layers)
    return cut
