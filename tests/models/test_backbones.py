import re
import sys
from copy import deepcopy

import pytest
import torch
from conftest import refused
from torch import nn

from gel_lightning.models.architectures import FAMILIES
from gel_lightning.models.backbones import (
    architecture,
    chain,
    check_image_size,
    cut_at,
    num_features,
    stages,
    without_last_linear,
)
from gel_lightning.models.folding import fold_batch_norm
from gel_lightning.models.scratch import SCRATCH

ONE_OF_EACH = (
    *("resnet18", "vgg11_bn", "alexnet", "mobilenet_v3_large", "mobilenet_v2", "efficientnet_b0", "efficientnet_lite0"),
    *("convnext_tiny", "shufflenet_v2_x0_5", "inception_v3"),
)
OF_TIMM = tuple(
    f"timm/{name}"
    for name in ("resnet18", "densenet121", "regnety_002", "convnext_atto", "lcnet_050", "swin_tiny_patch4_window7_224")
)
ALL = (*ONE_OF_EACH, *SCRATCH, *OF_TIMM)


def side_of(name: str) -> int:
    """A small size in pixels of pictures that a backbone takes."""
    described = architecture(name)
    return described.min_size if described.one_size else max(64, described.min_size)


def test_every_family_is_tried() -> None:
    assert all(any(re.fullmatch(pattern, name) for name in ONE_OF_EACH) for pattern in FAMILIES)


@pytest.mark.parametrize("name", ALL)
def test_the_chain_is_the_network(name: str) -> None:
    torch.manual_seed(0)
    network = without_last_linear(name)[0].eval()
    pictures = torch.rand(2, 3, side_of(name), side_of(name))
    with torch.no_grad():
        assert nn.Sequential(*(module for _, module in chain(name, network)))(pictures).equal(network(pictures))


@pytest.mark.parametrize("name", ALL)
def test_batchnorm_is_folded_where_that_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    network = without_last_linear(name)[0].eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 0.1 * torch.rand(module.num_features)
    pictures = torch.rand(2, 3, side_of(name), side_of(name))

    def folded() -> torch.Tensor:
        return fold_batch_norm(deepcopy(network))(pictures)

    with torch.no_grad():
        if architecture(name).folds:
            torch.testing.assert_close(folded(), network(pictures), rtol=1e-3, atol=1e-3)
        else:
            with pytest.raises(RuntimeError):
                folded()


@pytest.mark.parametrize("name", ALL)
def test_stages_hold_every_layer_and_no_batchnorm_begins_one(name: str) -> None:
    network = without_last_linear(name)[0]
    with_parameters = [module for module in network.modules() if any(True for _ in module.parameters(recurse=False))]
    assert sum(stage.layers for stage in stages(name)) == len(with_parameters)
    modules = dict(chain(name, network))
    for stage in stages(name):
        assert list(modules)[stage.start] == stage.name
        assert not isinstance(modules[stage.name], nn.BatchNorm2d)
    assert stages(name)[0].start == 0


@pytest.mark.parametrize("name", ALL)
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


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "timm/mixer_s16_224", "timm/hrnet_w18_small"])
def test_a_network_of_timm_that_is_no_chain_is_refused(name: str) -> None:
    assert "cannot be cut" in refused(lambda: num_features(name))


@pytest.mark.parametrize("name", ["timm/deit_tiny_distilled_patch16_224", "timm/dla34"])
def test_a_network_of_timm_without_one_linear_layer_at_its_end_is_refused(name: str) -> None:
    assert "one linear layer" in refused(lambda: num_features(name))


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("timm/resnet18x", "timm/resnet18"),
        ("timm/resnet18.nobody_in1k", "timm/resnet18.a1_in1k"),
        ("timm/hf-hub:timm/resnet18", "timm.list_models()"),
        ("timm/", "timm.list_models()"),
    ],
)
def test_an_unknown_name_of_timm_is_refused_with_others(name: str, choice: str) -> None:
    assert choice in refused(lambda: num_features(name))


def test_a_name_of_timm_may_have_that_of_its_weights() -> None:
    assert num_features("timm/resnet18.a1_in1k") == num_features("timm/resnet18") == 512


def test_without_timm_its_networks_are_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'gel-lightning[packaged]'" in refused(lambda: num_features("timm/resnet26"))


def test_a_network_that_takes_one_size_alone_refuses_others() -> None:
    check_image_size(name := "timm/swin_tiny_patch4_window7_224", 224)
    for size in (192, 256):
        assert "--data.image_size 224" in refused(lambda size=size: check_image_size(name, size))
