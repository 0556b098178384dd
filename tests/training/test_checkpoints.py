import random
from collections import Counter
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_checkpoints import VALUES, damage_attacks, field_attacks, places, replace_field
from conftest import made_once, refused
from made_checkpoints import change, fit, make_model
from torch import nn

from gel_lightning import GelClassifier, MultiLayerHead
from gel_lightning.core.errors import GelError
from gel_lightning.data.datamodule import MAX_SIDE
from gel_lightning.training import classes
from gel_lightning.training.checkpoints import check_fields, read_checkpoint


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with best.ckpt and last.ckpt."""

    def make(folder: Path) -> None:
        fit(folder)

    return made_once(tmp_path_factory, "fitted_on_vectors", make)


@pytest.fixture
def checkpoint(fitted: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may change."""
    path = tmp_path / "c.ckpt"
    path.write_bytes((fitted / "last.ckpt").read_bytes())
    return path


def test_a_whole_checkpoint_is_read(checkpoint: Path) -> None:
    read = read_checkpoint(checkpoint)
    assert read["epoch"] == 1
    assert read["hyper_parameters"]["head"]["class_path"] == "gel_lightning.LinearHead"
    head = GelClassifier.load_from_checkpoint(checkpoint).network.head
    assert head.state_dict().keys() == {"layers.weight", "layers.bias"}


HIDDEN = {"class_path": "gel_lightning.MultiLayerHead", "init_args": {"hidden": [2**30], "dropout": [0.5]}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state_dict": {}}, ["state_dict", "the model has (2, 512)"]),
        ({"state_dict__network.head.layers.bias": torch.full((2,), torch.nan)}, ["state_dict"]),
        ({"state_dict__network.head.layers.bias": torch.zeros(3)}, ["head.layers.bias", "(3,)", "(2,)"]),
        ({"state_dict__network.head.layers.bias": torch.zeros(2).to_sparse()}, ["not a plain one"]),
        ({"state_dict__backbone.x": torch.zeros(3)}, ["backbone.x", "None"]),
        ({"epoch": "3"}, ["epoch is '3'"]),
        ({"epoch": True}, ["epoch is True"]),
        ({"global_step": 10**30}, ["global_step is"]),
        ({"pytorch-lightning_version": "x"}, ["pytorch-lightning_version is 'x'"]),
        ({"pytorch-lightning_version": "0.7.6"}, ["pytorch-lightning_version"]),
        ({"backbone_fingerprint": "0"}, ["backbone_fingerprint"]),
        ({"hyper_parameters__backbone": "resnet19"}, ["backbone is 'resnet19'"]),
        ({"hyper_parameters__weights": "a\0b"}, ["weights is"]),
        ({"hyper_parameters__class_names": ["gel", "gel"]}, ["class_names"]),
        ({"hyper_parameters__class_names": ["a", "b", "c"]}, ["shape (2, 512)", "(3, 512)"]),
        ({"hyper_parameters__class_weights": [1.0]}, ["class_weights"]),
        ({"hyper_parameters__head": HIDDEN}, ["head.'hidden'"]),
        ({"hyper_parameters__head__class_path": "torch.nn.LSTM"}, ["state_dict"]),
        ({"hyper_parameters__head__class_path": "torch.nn.Sequential"}, ["cannot be made"]),
        ({"hyper_parameters__head__class_path": "os.system"}, ["'os.system' is no class of torch.nn"]),
        ({"hyper_parameters__optimizer__class_path": "os.system"}, ["'os.system' is no class of torch.optim"]),
        ({"hyper_parameters__lr_scheduler": {"class_path": "os.system"}}, ["no class of torch.optim.lr_scheduler"]),
        ({"hyper_parameters__optimizer": None, "hyper_parameters__head": None}, ["head is missing"]),
        ({"GelDataModule": {"image_size": 100_000}}, ["image_size is 100000"]),
        ({"GelDataModule": {"image_size": MAX_SIDE + 1}}, ["image_size"]),
        ({"GelDataModule": {"image_size": 32, "seed": -1}}, ["seed is -1"]),
        ({"GelDataModule": {"image_size": 32, "val_fraction": 1.0}}, ["val_fraction is 1.0"]),
        ({"GelDataModule": []}, ["GelDataModule is []"]),
        ({"validation": 3}, ["logits is missing"]),
        ({"validation__logits": torch.zeros(20, 3)}, ["logits is a tensor of shape (20, 3)"]),
        ({"validation__logits": torch.full((20, 2), torch.inf)}, ["not finite"]),
        ({"validation__labels": torch.full((20,), 2)}, ["labels"]),
        ({"validation__labels": torch.zeros(19, dtype=torch.long)}, ["labels is a tensor of shape (19,)"]),
        ({"train_class_counts": [1]}, ["train_class_counts is [1]"]),
        ({"train_class_counts": [-1, 3]}, ["train_class_counts is [-1, 3]"]),
        ({"extra": {"x" * 5000: 1}}, ["too long"]),
        ({"extra": {(1, 2): 1}}, ["not a text or number"]),
        ({"extra": torch.float32}, ["not plain data"]),
    ],
    ids=lambda value: "-".join(value)[:40],
)
def test_each_field_is_checked(fields: dict[str, Any], words: list[str], checkpoint: Path) -> None:
    change(checkpoint, **fields)
    text = refused(lambda: read_checkpoint(checkpoint))
    assert text.startswith(f"{checkpoint}: ")
    assert text.isprintable()
    for word in words:
        assert word in text
    assert refused(lambda: GelClassifier.load_from_checkpoint(checkpoint)) == text


@pytest.mark.parametrize(
    "field", ["state_dict", "hyper_parameters", "epoch", "global_step", "pytorch-lightning_version"]
)
def test_a_missing_field_is_named(field: str, checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content[field]
    torch.save(content, checkpoint)
    assert f"{field} is missing" in refused(lambda: read_checkpoint(checkpoint))


def test_lists_that_hold_each_other_end(checkpoint: Path) -> None:
    nested: list[Any] = []
    for _ in range(25):  # 2 ** 25 values, if each is gone through
        nested = [nested, nested]
    itself: list[Any] = []
    itself.append(itself)
    for value in (nested, itself):
        change(checkpoint, extra=value)
        assert "too many values" in refused(lambda: read_checkpoint(checkpoint))


@pytest.mark.parametrize("key", ["hparams", "module_arguments"])
def test_arguments_in_places_of_other_versions_are_left_out(key: str, checkpoint: Path) -> None:
    change(checkpoint, **{key: {"head": {"class_path": "os.system"}}, "hparams_name": "backbone"})
    assert GelClassifier.load_from_checkpoint(checkpoint).network.backbone == "resnet18"


class OwnHead(nn.Linear):
    """A head that somebody has written."""

    def __init__(self, features: int, classes: int, scale: float = 1.0, text: str = "Any.Text") -> None:
        super().__init__(features, classes)
        self.scale = scale


def test_an_own_head_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path, head=partial(OwnHead, scale=2.5))
    path = tmp_path / "best.ckpt"
    monkeypatch.setattr(classes, "_named", {})  # as in another process
    assert "load_from_checkpoint(..., head=...)" in refused(lambda: GelClassifier.load_from_checkpoint(path))
    model = GelClassifier.load_from_checkpoint(path, head=OwnHead)
    assert model.network.head.scale == 2.5
    monkeypatch.setattr(classes, "_named", {})
    assert GelClassifier.load_from_checkpoint(path, head=partial(OwnHead, scale=1.5)).network.head.scale == 1.5


def test_a_head_that_does_not_fit_the_values_is_refused(checkpoint: Path) -> None:
    text = refused(lambda: GelClassifier.load_from_checkpoint(checkpoint, head=MultiLayerHead))
    assert "state_dict" in text
    assert "where the model has" in text


def test_urls_and_open_files_are_refused(checkpoint: Path) -> None:
    assert "no such checkpoint" in refused(lambda: GelClassifier.load_from_checkpoint("http://localhost/x.ckpt"))
    with checkpoint.open("rb") as file:
        assert "the path of a file" in refused(lambda: GelClassifier.load_from_checkpoint(file))


def test_attacks_end_in_a_model_or_one_line(checkpoint: Path) -> None:
    # All of them, through the command: tests/attack_checkpoints.py.
    whole, counts = checkpoint.read_bytes(), Counter[str]()
    content = torch.load(checkpoint, weights_only=True)
    used = {key: value for key, value in content.items() if key not in ("callbacks", "loops", "optimizer_states")}
    attacks = [*field_attacks(used), *damage_attacks(len(whole), 40)]
    expected = make_model().network.head(torch.zeros(1, 512)).shape
    for attack in random.Random(0).sample(attacks, 120):
        checkpoint.write_bytes(attack.make(whole))
        try:
            model = GelClassifier.load_from_checkpoint(checkpoint)
        except GelError as error:
            counts["one line" if str(error).isprintable() else "more"] += 1
        else:
            assert model.network.head(torch.zeros(1, 512)).shape == expected, attack.name
            assert all(value.isfinite().all() for value in model.network.head.state_dict().values()), attack.name
            counts["model"] += 1
    assert counts.keys() == {"one line", "model"}
    assert counts["one line"] > counts["model"]


def test_each_field_of_any_other_type_is_one_line_or_does_not_matter(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content = {key: value for key, value in content.items() if key not in ("callbacks", "loops", "optimizer_states")}
    content |= {
        "GelDataModule": {"image_size": 32, "seed": 1, "val_fraction": 0.2, "test_fraction": 0.2},
        "train_class_counts": [3, 4],
        "validation": {"logits": torch.zeros(2, 2), "labels": torch.tensor([0, 1])},
        "drawn": False,
    }
    check_fields(content)
    counts = Counter[str]()
    for place in places(content):
        for value in VALUES:
            attacked = deepcopy(content)
            replace_field(attacked, place, value)
            try:
                check_fields(attacked)
            except GelError as error:
                counts["one line" if str(error).isprintable() else "more"] += 1
            else:
                counts["taken"] += 1
    assert counts.keys() == {"one line", "taken"}
    assert counts["one line"] > 500


def test_a_checkpoint_whose_pictures_were_resized_in_an_unknown_way_is_refused(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    text = refused(lambda: check_fields(content | {"GelDataModule": {}}))
    assert "image_size is missing" in text
