from typing import Any

import onnx
import pytest
import torch
from torch import nn

from gel_lightning.features.runtime import Runtime
from gel_lightning.models.backbones import ARCHITECTURES, cut_at
from gel_lightning.models.network import Trunk, load_trunk
from gel_lightning.models.onnx_graph import UnknownLayer, onnx_graph


def trunk_of(*layers: nn.Module) -> Trunk:
    torch.manual_seed(0)
    return Trunk([(str(place), layer) for place, layer in enumerate(layers)], [0.5] * 3, [0.2] * 3, "")


def features(trunk: Trunk, pictures: torch.Tensor) -> torch.Tensor:
    """As ONNX Runtime gives them; it compares them with torch's."""
    runtime = Runtime("onnx")
    runtime.onnx = True
    found = runtime(trunk, pictures)
    assert runtime._sessions
    return found


@pytest.mark.parametrize(
    ("backbone", "size", "unfreeze"),
    [
        ("resnet18", 32, 0.0),
        ("resnext50_32x4d", 32, 0.0),
        ("mobilenet_v2", 32, 0.0),
        ("mobilenet_v3_small", 48, 0.0),
        ("mobilenet_v3_large", 64, 0.2),
        ("efficientnet_b0", 32, 0.9),
        ("efficientnet_v2_s", 32, 0.9),
        ("efficientnet_lite0", 33, 0.0),
        ("alexnet", 63, 0.0),
        ("vgg11_bn", 32, 0.3),
    ],
)
def test_backbones_of_each_family(backbone: str, size: int, unfreeze: float) -> None:
    """Of some only the first layers: random networks with many squashing layers multiply rounding errors."""
    if backbone == "efficientnet_lite0":
        pytest.importorskip("timm")
    assert ARCHITECTURES[backbone].onnx
    trunk = load_trunk(backbone, "none", cut_at(backbone, unfreeze).place)
    pictures = torch.rand(3, 1, size, size)
    expected = trunk(pictures)
    torch.testing.assert_close(features(trunk, pictures), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("backbone", [name for name, one in ARCHITECTURES.items() if one.onnx])
def test_every_layer_of_the_known_backbones_is_known(backbone: str) -> None:
    """On the meta device, where there is nothing to compute."""
    if backbone == "efficientnet_lite0":
        pytest.importorskip("timm")
    from gel_lightning.models.backbones import chain, without_last_linear

    with torch.device("meta"):
        trunk = Trunk(chain(backbone, without_last_linear(backbone)[0]), [0.5] * 3, [0.2] * 3, "")
        graph = onnx_graph(trunk, torch.rand(1, 1, 64, 64))
    model = onnx.load_from_string(graph.content)
    assert {tensor.name for tensor in model.graph.initializer} >= set(graph.weights)
    assert len(graph.content) < 300_000, "weights are in the graph"


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=1, bias=False), nn.SiLU()],
        [nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.ReLU6(), nn.MaxPool2d(3, 2, 1, ceil_mode=True)],
        [nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d((7, 3)), nn.Flatten()],
        [nn.AdaptiveAvgPool2d(50), nn.Hardsigmoid()],
        [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5), nn.Dropout(), nn.Sigmoid()],
    ],
)
def test_layers(layers: Any) -> None:
    trunk, pictures = trunk_of(*layers), torch.rand(3, 3, 23, 31)
    torch.testing.assert_close(features(trunk, pictures), trunk(pictures), rtol=0, atol=1e-5)


class Own(nn.Conv2d):
    """Somebody's convolution, which may do anything."""


class Doubling(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + 2


@pytest.mark.parametrize(
    "layer",
    [nn.GELU(), Own(3, 3, 3), Doubling(), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), nn.AvgPool2d(2)],
)
def test_what_is_not_known_is_no_graph(layer: nn.Module) -> None:
    with pytest.raises(UnknownLayer):
        onnx_graph(trunk_of(layer), torch.rand(1, 3, 16, 16))
