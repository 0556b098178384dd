"""Backbones by name: building them, their stages, and what pictures they take."""

import re
from difflib import get_close_matches
from functools import cache
from typing import NamedTuple

import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from gel_lightning.core.errors import GelError
from gel_lightning.models.architectures import ARCHITECTURES, Architecture, Normalisation, modules_of
from gel_lightning.models.scratch import SCRATCH
from gel_lightning.models.timm_networks import TIMM, make_timm, remove_linear, timm_architecture

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
        GelError: there is no such backbone, or timm, which has it, is not installed.
    """
    if name.startswith(TIMM):
        return timm_architecture(name.removeprefix(TIMM))
    if name not in ARCHITECTURES:
        alike = ", ".join(get_close_matches(name, ARCHITECTURES, 4)) or "resnet18, vgg16 or mobilenet_v3_large"
        families = dict.fromkeys(re.split("[0-9_]", name)[0] for name, one in ARCHITECTURES.items() if not one.scratch)
        raise GelError(
            f"no backbone {name!r}; choose {alike}, or another of these families of torchvision: "
            f"{', '.join(families)}; {', '.join(SCRATCH)} are trained from scratch, and {TIMM}NAME is any model of "
            "timm (--model.backbone)"
        )
    return ARCHITECTURES[name]


def whole_network(name: str) -> nn.Module:
    """Builds a backbone with random weights, with its last linear layer."""
    described = architecture(name)
    if described.timm:
        return make_timm(described.timm)
    if described.scratch:
        return SCRATCH[name].make()
    network: nn.Module = get_model(name, weights=None, **described.options)
    return network


def without_last_linear(name: str) -> tuple[nn.Module, int]:
    """Builds a backbone with random weights and without its last linear layer, whose input length it returns."""
    return remove_linear(whole_network(name), architecture(name).last_linear)


@cache
def num_features(name: str) -> int:
    """The length of a backbone's feature vectors.

    Raises:
        GelError: there is no such backbone.
    """
    with torch.device("meta"):
        return without_last_linear(name)[1]


def normalisation(name: str) -> Normalisation:
    """What a network's pictures were normalised with when it was trained."""
    if normalised := architecture(name).normalised:
        return normalised
    preset = get_model_weights(name)[IMAGENET_VERSION].transforms()
    return preset.mean, preset.std


def check_image_size(name: str, image_size: int) -> None:
    """Refuses pictures that are too small for a backbone, whose layers halve them several times, or of another size.

    Raises:
        GelError: names the smallest, or the only, size that the backbone takes.
    """
    least = architecture(name).min_size
    if architecture(name).one_size and image_size != least:
        raise GelError(f"{name} takes pictures of {least} pixels alone; give --data.image_size {least}")
    if image_size < least:
        raise GelError(
            f"pictures of {image_size} pixels are too small for {name}; give --data.image_size {least} or more"
        )


def check_trained_whole(name: str, unfreeze: float) -> None:
    """Refuses to freeze any part of a network that has no pretrained weights.

    Args:
        name: of the backbone.
        unfreeze: share of the layers to train, as for :func:`cut_at`.

    Raises:
        GelError: not all of it is trained.
    """
    if architecture(name).scratch and cut_at(name, unfreeze).place:
        raise GelError(
            f"{name} has no pretrained weights, and frozen it would be random; train all of it with --model.unfreeze 1"
        )


def chain(name: str, network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Lists the modules that a network calls one after the other, with their names.

    Args:
        name: of the backbone.
        network: as :func:`without_last_linear` builds it.
    """
    return modules_of(architecture(name).chain, network)


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
