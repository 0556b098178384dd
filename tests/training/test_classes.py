import sys
from functools import partial
from typing import Any

import pytest
import torch
from conftest import refused
from torch import nn

from gel_lightning import GelClassifier, LinearHead, MultiLayerHead
from gel_lightning.training import classes
from gel_lightning.training.classes import check_description, find_class, name_import_path, public_name
from gel_lightning.training.classifier import plain_description


@pytest.mark.parametrize(
    ("kind", "path", "found"),
    [
        ("head", "gel_lightning.LinearHead", LinearHead),
        ("head", "gel_lightning.heads.LinearHead", LinearHead),
        ("head", "gel_lightning.models.heads.MultiLayerHead", MultiLayerHead),
        ("head", "torch.nn.Linear", nn.Linear),
        ("head", "torch.nn.modules.linear.Linear", nn.Linear),
        ("optimizer", "torch.optim.SGD", torch.optim.SGD),
        ("optimizer", "torch.optim.sgd.SGD", torch.optim.SGD),
        ("lr_scheduler", "torch.optim.lr_scheduler.StepLR", torch.optim.lr_scheduler.StepLR),
    ],
)
def test_stable_and_former_names_are_found(kind: str, path: str, found: type) -> None:
    assert find_class(kind, path) is found
    assert find_class(kind, public_name(path)) is found


def test_lightnings_scheduler_is_found() -> None:
    found = find_class("lr_scheduler", "lightning.pytorch.cli.ReduceLROnPlateau")
    assert found.__module__ == "lightning.pytorch.cli"


@pytest.mark.parametrize(
    ("value", "kind", "name"),
    [
        (LinearHead, "head", "gel_lightning.LinearHead"),
        (partial(torch.optim.Adam, lr=0.1), "optimizer", "torch.optim.Adam"),
        ({"class_path": "gel_lightning.models.heads.LinearHead"}, "head", "gel_lightning.LinearHead"),
    ],
)
def test_checkpoints_store_stable_names(value: Any, kind: str, name: str) -> None:
    assert plain_description(kind, value)["class_path"] == name


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("head", "os.system"),
        ("head", "antigravity.Head"),
        ("head", "torch.nn.functional.linear"),
        ("head", "torch.nn._reduction"),
        ("head", "torch.optim.SGD"),
        ("head", "torch.nn.Module"),
        ("optimizer", "subprocess.Popen"),
        ("optimizer", "torch.nn.Linear"),
        ("lr_scheduler", "torch.optim.SGD"),
        ("lr_scheduler", "gel_lightning.LinearHead"),
    ],
)
def test_anything_else_is_refused_and_not_imported(kind: str, path: str) -> None:
    text = refused(lambda: find_class(kind, path))
    assert text.startswith(f"{kind} '{path}' is no class of torch.")
    assert f"--model.{kind}" in text
    assert "antigravity" not in sys.modules


class Own(nn.Linear):
    """A head that somebody else has written."""


def test_a_class_counts_once_the_person_has_named_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "_named", {})
    path = f"{__name__}.Own"
    assert "name it yourself" in refused(lambda: find_class("head", path))
    GelClassifier("resnet18", "none", Own)
    assert find_class("head", path) is Own
    assert "is no class" in refused(lambda: find_class("optimizer", path))
    monkeypatch.setattr(classes, "_named", {})
    name_import_path("head", path)
    assert find_class("head", path) is Own


@pytest.mark.parametrize(("path", "said"), [("no_such.Head", "cannot be imported"), ("os.getcwd", "is no Module")])
def test_a_name_of_the_person_that_is_no_class_is_refused(path: str, said: str) -> None:
    assert said in refused(lambda: name_import_path("head", path))


GOOD: list[dict[str, Any]] = [
    {},
    {"hidden": [512, 256], "dropout": [0.25, 0.5]},
    {"bias": False, "device": "cpu", "dtype": None},
    {"hidden": []},
]


@pytest.mark.parametrize("arguments", GOOD)
def test_plain_arguments_are_taken(arguments: dict[str, Any]) -> None:
    check_description("head", {"class_path": "gel_lightning.MultiLayerHead", "init_args": arguments})


@pytest.mark.parametrize(
    "arguments",
    [
        {"activation": "os.system"},
        {"activation": "ReLU"},
        {"device": "x/y"},
        {"device": "\x1b[0m"},
        {"hidden": [10**9]},
        {"hidden": [1] * 1000},
        {"hidden": [[[["os.system"]]]]},
        {"hidden": {"class_path": "os.system"}},
        {"dropout": float("nan")},
        {"monitor\n": 1},
        {3: 1},
        [1],
    ],
)
def test_other_arguments_are_refused(arguments: Any) -> None:
    described = {"class_path": "gel_lightning.MultiLayerHead", "init_args": arguments}
    assert refused(lambda: check_description("head", described)).startswith("head")
    check_description("head", {"class_path": "gel_lightning.LinearHead", "init_args": {}})


def test_arguments_that_the_person_has_given_are_taken() -> None:
    described = {"class_path": "torch.nn.Linear", "init_args": {"device": "X.y"}}
    check_description("head", described, own=described)


@pytest.mark.parametrize(
    "described",
    [None, "os.system", [], {"class_path": 3}, {"init_args": {}}, {"class_path": "torch.nn.Linear", "x": 1}],
)
def test_what_describes_no_class_is_refused(described: Any) -> None:
    assert "no class_path" in refused(lambda: check_description("head", described))
