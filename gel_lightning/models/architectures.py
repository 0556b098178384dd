"""The table of networks: how each is made, where it can be cut, and what pictures it takes."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torchvision
from torch import nn
from torchvision.models import list_models

from gel_lightning.models.scratch import SCRATCH

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
        one_size: whether that is the only one.
        options: arguments of the function that makes it.
        normalised: what it was trained with, where that is not what torchvision's weights say.
        auxiliary: how the names of parameters begin that weights have for training alone; empty if there are none.
        imagenet: who has ImageNet weights of it: torchvision, timm, or nobody.
        scratch: whether it is trained from scratch, since there are no weights of it.
        onnx: whether all of its layers are known to :mod:`~gel_lightning.models.onnx_graph`.
        folds: whether each BatchNorm follows the convolution that is defined before it, into which it can be folded.
    """

    last_linear: str
    chain: str
    timm: str = ""
    min_size: int = 1
    one_size: bool = False
    options: Mapping[str, Any] = MappingProxyType({})
    normalised: Normalisation | None = None
    auxiliary: str = ""
    imagenet: Literal["torchvision", "timm", "nobody"] = "torchvision"
    scratch: bool = False
    onnx: bool = False
    folds: bool = True


RESNET = Architecture("fc", "conv1 bn1 relu maxpool layer1.* layer2.* layer3.* layer4.* avgpool flatten", onnx=True)
FEATURES_AND_CLASSIFIER = "features.* avgpool flatten classifier.*"
INCEPTION = (
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2 Mixed_5b Mixed_5c "
    "Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c avgpool dropout flatten"
)
FAMILIES = {
    r"(wide_)?resne(x)?t\d+.*": RESNET,
    r"vgg\d+(_bn)?": Architecture("classifier.6", FEATURES_AND_CLASSIFIER, min_size=32, onnx=True),
    r"alexnet": Architecture("classifier.6", FEATURES_AND_CLASSIFIER, min_size=63, onnx=True),
    r"mobilenet_v3_.*": Architecture("classifier.3", FEATURES_AND_CLASSIFIER, onnx=True),
    r"mobilenet_v2": Architecture("classifier.1", "features.* pool flatten classifier.*", onnx=True),
    r"efficientnet_.*": Architecture("classifier.1", FEATURES_AND_CLASSIFIER, onnx=True),
    r"convnext_.*": Architecture("classifier.2", "features.* avgpool classifier.*", min_size=32),
    r"shufflenet_.*": Architecture("fc", "conv1 maxpool stage2.* stage3.* stage4.* conv5 pool flatten"),
    # Without its auxiliary head. Google's weights take values from -1 to 1.
    r"inception_v3": Architecture(
        *("fc", INCEPTION),
        min_size=75,
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
        imagenet="nobody",
        onnx=True,
    ),
    **{
        name: Architecture(
            *("fc", "blocks.*.* pool flatten"),
            min_size=network.min_size,
            normalised=((0.5,) * 3, (0.25,) * 3),
            imagenet="nobody",
            scratch=True,
        )
        for name, network in SCRATCH.items()
    },
}
"""All networks but those of timm, by name."""


def modules_of(chain: str, network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Lists the modules that a network calls one after the other, with their names.

    Args:
        chain: as in :class:`Architecture`.
        network: without its last linear layer.
    """
    functions = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    own = dict(network.named_children())
    modules: list[tuple[str, nn.Module]] = []
    for pattern in chain.split():
        path, *levels = pattern.split(".*")
        found = [(path, own.get(path) or functions[path])]
        for _ in levels:
            found = [(f"{path}.{child}", module) for path, parent in found for child, module in parent.named_children()]
        modules += found
    return modules
