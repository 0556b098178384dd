import re

import pytest
import torch
from conftest import refused
from torch import nn

from gel_lightning.models.backbones import (
    ARCHITECTURES,
    FAMILIES,
    chain,
    cut_at,
    num_features,
    stages,
    without_last_linear,
)

ONE_OF_EACH = (
    *("resnet18", "vgg11_bn", "alexnet", "mobilenet_v3_large", "mobilenet_v2", "efficientnet_b0", "efficientnet_lite0"),
    *("convnext_tiny", "shufflenet_v2_x0_5", "inception_v3"),
)


def test_every_family_is_tried() -> None:
    assert all(any(re.fullmatch(pattern, name) for name in ONE_OF_EACH) for pattern in FAMILIES)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_chain_is_the_network(name: str) -> None:
    torch.manual_seed(0)
    network = without_last_linear(name)[0].eval()
    side = max(64, ARCHITECTURES[name].min_size)
    pictures = torch.rand(2, 3, side, side)
    with torch.no_grad():
        assert nn.Sequential(*(module for _, module in chain(name, network)))(pictures).equal(network(pictures))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_stages_hold_every_layer_and_no_batchnorm_begins_one(name: str) -> None:
    network = without_last_linear(name)[0]
    with_parameters = [module for module in network.modules() if any(True for _ in module.parameters(recurse=False))]
    assert sum(stage.layers for stage in stages(name)) == len(with_parameters)
    modules = dict(chain(name, network))
    for stage in stages(name):
        assert list(modules)[stage.start] == stage.name
        assert not isinstance(modules[stage.name], nn.BatchNorm2d)
    assert stages(name)[0].start == 0


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_share_of_the_layers_is_rounded_up_to_the_next_stage(name: str) -> None:
    assert cut_at(name, 0).trained == 0
    assert cut_at(name, 1).place == 0
    places = []
    for share in torch.linspace(0, 1, 30).tolist():
        cut = cut_at(name, share)
        above = [stage for stage in stages(name) if stage.start >= cut.place]
        assert cut.trained == sum(stage.layers for stage in above) >= share * cut.layers
        assert not above or cut.trained - above[0].layers < share * cut.layers
        assert cut.name == (above[0].name if above else "")
        places.append(cut.place)
    assert places == sorted(places, reverse=True)


def test_resnet18_is_cut_where_the_field_cuts_it() -> None:
    assert cut_at("resnet18", 0.2)[1:] == ("layer4.0", 10, 40)
    assert cut_at("resnet18", 0.1).name == "layer4.1"
    assert num_features("resnet18") == 512


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_no_share(share: float) -> None:
    assert "--model.unfreeze" in refused(lambda: cut_at("resnet18", share))
