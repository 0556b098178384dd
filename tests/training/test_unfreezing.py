"""Training the last layers of the backbone with the head."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import refused, save_picture
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn, optim

from gel_lightning import GelClassifier, GelDataModule, LinearHead
from gel_lightning.cli.console import print_stores
from gel_lightning.core.store import list_stores
from gel_lightning.data import images
from gel_lightning.data.datasets import Features

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's, of few workers and of modules in eval mode
ADAM = partial(optim.Adam, lr=0.001)


class Record(Callback):
    """Keeps the losses, what batches held, and the states of the tail after each epoch."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.stored: set[bool] = set()
        self.tails: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.keep(pl_module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, _: int) -> None:
        self.losses.append(outputs["loss"].item())
        self.stored.add(isinstance(batch[0], Features))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.keep(pl_module)

    def keep(self, module: LightningModule) -> None:
        self.tails.append({name: value.clone() for name, value in module.network.tail.state_dict().items()})


def data_of(train_dir: Path, folder: Path, **options: Any) -> GelDataModule:
    settings: dict[str, Any] = {"image_size": 32, "num_workers": 0, "batch_size": 5, "cache_dir": folder / "cache"}
    return GelDataModule(train_dir, **(settings | options))


def trainer_of(folder: Path, epochs: int, *callbacks: Callback, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


def fit(data: GelDataModule, folder: Path, epochs: int = 2, backbone: str = "resnet18", **options: Any) -> Any:
    torch.manual_seed(0)
    record = Record()
    settings: dict[str, Any] = {"unfreeze": 0.1, "head": LinearHead, "optimizer": ADAM}
    model = GelClassifier(backbone, "none", **(settings | options))
    trainer = trainer_of(folder, epochs, record, enable_checkpointing=False)
    trainer.fit(model, datamodule=data)
    return record, model, trainer


@pytest.mark.parametrize(("backbone", "unfreeze"), [("resnet18", 0.1), ("mobilenet_v2", 0.02)])
def test_training_on_stored_maps_is_training_through_the_whole_network(
    backbone: str, unfreeze: float, train_dir: Path, tmp_path: Path
) -> None:
    losses = []
    for stored in (True, False):
        data = data_of(train_dir, tmp_path, cache_features=stored)
        record, model, _ = fit(data, tmp_path, backbone=backbone, unfreeze=unfreeze)
        assert record.stored == {stored}
        assert model.network.trunk_is_loaded != stored
        losses.append(record.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert min(losses[0]) < losses[0][0]


def test_batchnorm_above_the_cut_moves_and_below_it_does_not(train_dir: Path, tmp_path: Path) -> None:
    model = GelClassifier("resnet18", "none", LinearHead, ADAM, unfreeze=0.1)
    frozen = {name: value.clone() for name, value in model.network.trunk.state_dict().items()}
    before = {name: value.clone() for name, value in model.network.tail.state_dict().items()}
    trainer_of(tmp_path, 1, enable_checkpointing=False).fit(model, datamodule=data_of(train_dir, tmp_path))
    assert all(value.equal(frozen[name]) for name, value in model.network.trunk.state_dict().items())
    assert not any(value.equal(before[name]) for name, value in model.network.tail.state_dict().items())


def test_everything_is_trained_on_pictures(train_dir: Path, tmp_path: Path) -> None:
    record, model, _ = fit(data_of(train_dir, tmp_path), tmp_path, 1, unfreeze=1.0)
    assert record.stored == {False}
    assert not [contents for contents in list_stores(tmp_path / "cache") if contents.key.get("kind") == "features"]
    assert not list(model.network.trunk.parameters())


def test_two_stages_share_the_cut(train_dir: Path, tmp_path: Path) -> None:
    record, _, _ = fit(data_of(train_dir, tmp_path), tmp_path, 4, unfreeze_at_epoch=2)
    assert record.stored == {True}
    first, *_ = record.tails
    same = [all(tail[name].equal(first[name]) for name in first) for tail in record.tails]
    assert same == [True, True, True, False, False]


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_resumed_run_equals_one_that_was_never_stopped(at: int, train_dir: Path, tmp_path: Path) -> None:
    states = []
    for epochs in ((4,), (2, 4)):
        for number, until in enumerate(epochs):
            torch.manual_seed(0)
            model = GelClassifier("resnet18", "none", LinearHead, ADAM, unfreeze=0.1, unfreeze_at_epoch=at)
            trainer = trainer_of(tmp_path / str(len(epochs)), until, enable_checkpointing=False)
            path = str(tmp_path / "2/first.ckpt") if number else None
            trainer.fit(model, datamodule=data_of(train_dir, tmp_path), ckpt_path=path)
            if len(epochs) == 2 and not number:
                trainer.save_checkpoint(tmp_path / "2/first.ckpt")
        states.append(model.network.state_dict())
    assert all(value.equal(states[1][name]) for name, value in states[0].items())


def test_a_checkpoint_holds_what_was_trained(train_dir: Path, tmp_path: Path) -> None:
    _, model, trainer = fit(data_of(train_dir, tmp_path), tmp_path, 1)
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    again = GelClassifier.load_from_checkpoint(tmp_path / "c.ckpt").eval()
    assert again.hparams["unfreeze"] == 0.1
    pictures = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        assert again(pictures).equal(model.eval()(pictures))
    checkpoint = torch.load(tmp_path / "c.ckpt", weights_only=True)
    assert {name.split(".")[1] for name in checkpoint["state_dict"]} == {"tail", "head"}
    for field, value in (
        ("unfreeze", 2.0),
        ("unfreeze", "x"),
        ("unfreeze_at_epoch", -1),
        ("backbone_lr", float("nan")),
    ):
        torch.save(checkpoint | {"hyper_parameters": checkpoint["hyper_parameters"] | {field: value}}, tmp_path / "d")
        assert field in refused(lambda: GelClassifier.load_from_checkpoint(tmp_path / "d"))
    torch.save(checkpoint | {"hyper_parameters": checkpoint["hyper_parameters"] | {"unfreeze": 0.0}}, tmp_path / "d")
    assert "network.tail." in refused(lambda: GelClassifier.load_from_checkpoint(tmp_path / "d"))


def test_the_tail_has_a_learning_rate_of_its_own() -> None:
    model = GelClassifier("resnet18", "none", LinearHead, ADAM, unfreeze=0.1, backbone_lr=1e-5)
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, optim.Adam)
    assert [group["lr"] for group in optimizer.param_groups] == [0.001, 1e-5]
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    trained = nn.ModuleList([model.network.head, model.network.tail])
    assert held == [*map(id, trained.parameters())]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"unfreeze": 1.5}, "--model.unfreeze"),
        ({"unfreeze_at_epoch": -1}, "--model.unfreeze_at_epoch"),
        ({"unfreeze_at_epoch": 1}, "--model.unfreeze_at_epoch is 1, but no layers of the backbone are to be trained"),
        ({"backbone_lr": -0.1}, "--model.backbone_lr"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], word: str) -> None:
    assert word in refused(lambda: GelClassifier("resnet18", "none", **options))


def test_half_precision_takes_half_the_space(train_dir: Path, tmp_path: Path) -> None:
    sizes, losses = [], []
    for half in (False, True):
        record, _, _ = fit(data_of(train_dir, tmp_path / str(half), half_features=half), tmp_path, 1)
        (contents,) = [c for c in list_stores(tmp_path / str(half) / "cache") if c.key.get("kind") == "features"]
        sizes.append(contents.size)
        losses.append(record.losses)
    assert 0.4 < sizes[1] / sizes[0] < 0.6
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_what_would_take_more_than_the_limit_is_not_kept(train_dir: Path, tmp_path: Path) -> None:
    data = data_of(train_dir, tmp_path, cache_limit=1e-6)
    record, _, _ = fit(data, tmp_path, 1)
    assert record.stored == {False}
    (note,) = [note for note in data.notes if "--data.cache_limit" in note]
    assert "GB" in note
    assert not [contents for contents in list_stores(tmp_path / "cache") if contents.key.get("kind") == "features"]


def test_the_cache_names_where_the_network_was_cut(
    train_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(data_of(train_dir, tmp_path), tmp_path, 1)
    capsys.readouterr()
    print_stores(tmp_path / "cache", list_stores(tmp_path / "cache"))
    assert "before" in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, each time that one is."""
    names: list[str] = []
    whole, part = Path.read_bytes, Path.open

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def note(path: Path, *args: Any, **options: Any) -> Any:
            if path.suffix == ".png":
                names.append(str(path))
            return function(path, *args, **options)

        return note

    monkeypatch.setattr(Path, "read_bytes", noting(whole))
    monkeypatch.setattr(Path, "open", noting(part))
    return names


def test_a_cold_fit_opens_and_decodes_each_picture_once(
    train_dir: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    opening = images._opened

    def counted(path: Path, *args: Any) -> Any:
        decoded.append(str(path))
        return opening(path, *args)

    monkeypatch.setattr(images, "_opened", counted)
    data = data_of(train_dir, tmp_path)
    _, model, trainer = fit(data, tmp_path, 1, unfreeze=0.0)
    trainer.test(model, datamodule=data, verbose=False)
    paths = sorted(str(path) for pictures in data.parts.values() for path in pictures.paths)
    assert sorted(decoded) == paths
    listed = sorted(name for name in opened if opened.count(name) > 2)
    assert not listed  # once to see by its first bytes that it is a picture, and once to read it
    assert sorted(set(opened)) == paths


def test_ten_more_pictures_to_classify_are_ten_more_features(train_dir: Path, tmp_path: Path) -> None:
    model = GelClassifier("resnet18", "none", LinearHead, unfreeze=0.1)
    folder = tmp_path / "pictures"
    for number in range(6):
        save_picture(folder / f"{number}.png", number, striped=bool(number % 2))
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])
    computed, answers = [], []
    for stored in (True, True, False):
        data = data_of(train_dir, tmp_path, predict_dir=folder, cache_features=stored)
        probabilities = trainer_of(tmp_path, 1).predict(model, datamodule=data)
        answers.append(torch.cat(probabilities))  # type: ignore[arg-type]
        computed.append(data.cache.computed if data.cache else 0)
        if len(answers) == 1:
            for number in range(10, 20):
                save_picture(folder / f"{number}.png", 100 + number, striped=False)
    assert computed == [6, 10, 0]
    assert len(answers[1]) == len(answers[2]) == 18
    rows = np.array([path.suffix == ".png" and path.stem not in ("bad", "cut") for path in data.predict_paths])
    torch.testing.assert_close(answers[1][rows], answers[2][rows], rtol=1e-3, atol=1e-4)


def test_a_batch_of_one_picture_is_one_line_where_batchnorm_cannot_train_on_it(train_dir: Path, tmp_path: Path) -> None:
    """Its feature map is of one pixel."""
    data = data_of(train_dir, tmp_path, batch_size=1)
    text = refused(lambda: fit(data, tmp_path, 1, unfreeze=0.1))
    assert "BatchNorm" in text
    assert "--data.batch_size" in text
