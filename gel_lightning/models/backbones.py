"""The pretrained networks: their names, their stages, and what pictures they take."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models

from gel_lightning.core.errors import GelError, missing_package

Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each colour channel, of values in [0, 1]."""


class Architecture(NamedTuple):
    """How a network is made and where it can be cut.

    Attributes:
        last_linear: name of its last linear layer, which is left out.
        chain: names of the modules that its forward calls, one after the other; ``name.*`` are all children of
            ``name``, and ``pool`` and ``flatten`` stand for the functions of those names.
        timm: timm's name of it, if it is not torchvision's.
        min_size: the smallest side of a picture in pixels.
        options: arguments of the function that makes it.
        normalised: what it was trained with, where that is not what torchvision's weights say.
        auxiliary: how the names of parameters begin that weights have for training alone; empty if there are none.
    """

    last_linear: str
    chain: str
    timm: str = ""
    min_size: int = 1
    options: Mapping[str, Any] = MappingProxyType({})
    normalised: Normalisation | None = None
    auxiliary: str = ""


RESNET = Architecture("fc", "conv1 bn1 relu maxpool layer1.* layer2.* layer3.* layer4.* avgpool flatten")
FEATURES_AND_CLASSIFIER = "features.* avgpool flatten classifier.*"
INCEPTION = (
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2 Mixed_5b Mixed_5c "
    "Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c avgpool dropout flatten"
)
FAMILIES = {
    r"(wide_)?resne(x)?t\d+.*": RESNET,
    r"vgg\d+(_bn)?": Architecture("classifier.6", FEATURES_AND_CLASSIFIER, min_size=32),
    r"alexnet": Architecture("classifier.6", FEATURES_AND_CLASSIFIER, min_size=63),
    r"mobilenet_v3_.*": Architecture("classifier.3", FEATURES_AND_CLASSIFIER),
    r"mobilenet_v2": Architecture("classifier.1", "features.* pool flatten classifier.*"),
    r"efficientnet_.*": Architecture("classifier.1", FEATURES_AND_CLASSIFIER),
    r"convnext_.*": Architecture("classifier.2", "features.* avgpool classifier.*", min_size=32),
    r"shufflenet_.*": Architecture("fc", "conv1 maxpool stage2.* stage3.* stage4.* conv5 pool flatten"),
    # Without its auxiliary head. Google's weights take values from -1 to 1.
    r"inception_v3": Architecture(
        *("fc", INCEPTION, "", 75),
        options={"aux_logits": False, "init_weights": False, "transform_input": False},
        normalised=((0.5,) * 3, (0.5,) * 3),
        auxiliary="AuxLogits.",
    ),
}
"""Networks of torchvision, by a pattern of their names. One entry adds a family."""
ARCHITECTURES = {
    **{
        name: architecture
        for pattern, architecture in FAMILIES.items()
        for name in list_models(module=torchvision.models)
        if re.fullmatch(pattern, name)
    },
    "efficientnet_lite0": Architecture(
        *("classifier", "conv_stem bn1 blocks.*.* conv_head bn2 global_pool", "tf_efficientnet_lite0"),
        normalised=((127 / 255,) * 3, (128 / 255,) * 3),  # (value - 127) / 128
    ),
}

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
        alike = ", ".join(get_close_matches(name, ARCHITECTURES, 4)) or "resnet18, vgg16 or mobilenet_v3_large"
        raise GelError(
            f"no backbone {name!r}; choose {alike}, or another of these families of torchvision: "
            f"{', '.join(dict.fromkeys(re.split('[0-9_]', name)[0] for name in ARCHITECTURES))} (--model.backbone)"
        )
    return ARCHITECTURES[name]


def whole_network(name: str) -> nn.Module:
    """Builds a backbone with random weights, with its last linear layer."""
    timm_name, options = architecture(name).timm, architecture(name).options
    if not timm_name:
        network: nn.Module = get_model(name, weights=None, **options)
        return network
    try:
        import timm  # a second that the other networks need not wait for
    except ImportError as error:
        raise missing_package("timm", "packaged") from error
    network = timm.create_model(timm_name, **options)
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


def normalisation(name: str) -> Normalisation:
    """What a network's pictures were normalised with when it was trained."""
    if normalised := ARCHITECTURES[name].normalised:
        return normalised
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
    own = dict(network.named_children())
    modules: list[tuple[str, nn.Module]] = []
    for pattern in architecture(name).chain.split():
        path, *levels = pattern.split(".*")
        found = [(path, own.get(path) or functions[path])]
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
