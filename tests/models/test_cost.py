import pytest
import torch
from test_backbones import ALL, side_of
from torch import nn

from gel_lightning import LinearHead, MultiLayerHead, Network
from gel_lightning.models.backbones import whole_network
from gel_lightning.models.cost import cost
from gel_lightning.models.network import structure
from gel_lightning.models.scratch import SCRATCH

# As torchvision documents them for its weights: parameters, and multiply-adds in units of 10^9.
PUBLISHED = {
    "resnet18": (11_689_512, 1.814),
    "resnet50": (25_557_032, 4.089),
    "vgg16": (138_357_544, 15.470),
    "mobilenet_v2": (3_504_872, 0.301),
    "efficientnet_b0": (5_288_548, 0.386),
    "convnext_tiny": (28_589_128, 4.456),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_cost_is_what_torchvision_publishes(name: str) -> None:
    found = cost(Network(name, "none", LinearHead, 1000), 224)
    parameters, multiply_adds = PUBLISHED[name]
    assert found.parameters == parameters
    assert found.multiply_adds / 1e9 == pytest.approx(multiply_adds, abs=0.002)


@pytest.mark.parametrize("name", ALL)
def test_cost_of_each_family(name: str) -> None:
    network = Network(name, "none", LinearHead, 1000, 1.0 if name in SCRATCH else 0.0)
    found = cost(network, side_of(name))
    with torch.device("meta"):
        whole = whole_network(name)
    values = [*whole.parameters(), *whole.buffers()]
    assert found.parameters == sum(value.numel() for value in whole.parameters())
    assert found.size_mb == pytest.approx(4e-6 * sum(value.numel() for value in values))
    trained = found.parameters if name in SCRATCH else sum(value.numel() for value in network.head.parameters())
    assert found.trainable_parameters == trained
    assert found.multiply_adds > 1e6
    assert not network.trunk_is_loaded


@pytest.mark.parametrize("unfreeze", [0, 0.2, 1])
def test_what_is_trained_is_counted(unfreeze: float) -> None:
    network = Network("resnet18", "none", MultiLayerHead, 51, unfreeze)
    found = cost(network, 64)
    assert found.trainable_parameters == sum(parameter.numel() for parameter in network.parameters())
    assert found.parameters == cost(Network("resnet18", "none", MultiLayerHead, 51), 64).parameters
    assert found.multiply_adds == cost(Network("resnet18", "none", MultiLayerHead, 51), 64).multiply_adds


def test_a_head_of_ones_own_is_counted_and_left_as_it_is() -> None:
    class Own(nn.Module):
        def __init__(self, features: int, classes: int) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(features)
            self.layer = nn.Linear(features, classes)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            assert values.abs().sum().item() >= 0  # which the meta device cannot say
            return self.layer(self.norm(values))

    network = Network("resnet18", "none", Own, 3).double().train()
    before = cost(Network("resnet18", "none", LinearHead, 3), 64)
    assert cost(network, 64).multiply_adds == before.multiply_adds == before.multiply_adds
    assert cost(network, 64).parameters == before.parameters + 2 * 512
    assert network.head.training
    assert next(network.head.parameters()).dtype == torch.float64
    assert network.head.norm.num_batches_tracked == 0


def test_a_backbone_is_counted_once_for_each_size_of_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []

    def counting(backbone: str, start: int) -> nn.Sequential:
        counted.append(backbone)
        return structure(backbone, start)

    monkeypatch.setattr("gel_lightning.models.cost.structure", counting)
    sides = (311, 317)  # that no other test asks for
    found = [
        cost(Network("resnet18", "none", head, 2), side) for head in (LinearHead, MultiLayerHead) for side in sides
    ]
    assert counted == ["resnet18", "resnet18"]
    assert len({row.multiply_adds for row in found}) == 4
