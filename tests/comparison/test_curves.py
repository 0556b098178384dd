import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import read_rows
from lightning.pytorch import Callback, LightningModule, Trainer

from gel_lightning import GelClassifier, GelDataModule, LinearHead
from gel_lightning.comparison.curves import CurvesFile
from gel_lightning.comparison.folder import CURVES

torch.set_num_threads(1)  # on tiny pictures several threads mostly wait for each other
pytestmark = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec")  # Lightning's own


class Kept(Callback):
    """What Lightning says of each epoch, once all callbacks and the module have logged."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.validated: list[int] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated.append(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch:
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epochs.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def fit_with_curves(path: Path, train_dir: Path, **options: Any) -> Kept:
    data = GelDataModule(train_dir, image_size=32, num_workers=0, batch_size=5)
    model, kept = GelClassifier("resnet18", "none", LinearHead), Kept()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[CurvesFile(path), kept],
        **options,
    )
    trainer.fit(model, datamodule=data)
    return kept


def curves_of(path: Path) -> dict[str, list[float]]:
    rows = read_rows(path)
    assert [row["epoch"] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
    return {name: [float(row[name] or "nan") for row in rows] for name in rows[0] if name != "epoch"}


def test_curves_are_the_metrics_of_each_epoch(tmp_path: Path, train_dir: Path) -> None:
    path = tmp_path / "new/folder" / CURVES
    kept = fit_with_curves(path, train_dir, max_epochs=4)
    curves = curves_of(path)
    assert len(kept.epochs) == 4
    assert curves.keys() == kept.epochs[0].keys()
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/auroc"} <= curves.keys()
    for name, values in curves.items():
        assert values == [metrics[name] for metrics in kept.epochs]
    assert len(set(curves["train/loss"])) == len(set(curves["val/loss"])) == 4


def test_an_epoch_without_validation_has_no_validation_metrics(tmp_path: Path, train_dir: Path) -> None:
    path = tmp_path / CURVES
    kept = fit_with_curves(path, train_dir, max_epochs=5, check_val_every_n_epoch=2)
    curves = curves_of(path)
    assert kept.validated == [1, 3]
    for name, values in curves.items():
        own = range(5) if name.startswith("train/") else kept.validated
        expected = [kept.epochs[epoch][name] if epoch in own else math.nan for epoch in range(5)]
        np.testing.assert_equal(values, expected, err_msg=name)
    assert not math.isnan(kept.epochs[2]["val/loss"]), "Lightning would not keep them, and nothing were to be tested"


def test_epochs_that_validate_often_have_the_last_metrics(tmp_path: Path, train_dir: Path) -> None:
    kept = fit_with_curves(tmp_path / CURVES, train_dir, max_epochs=2, val_check_interval=0.5)
    assert kept.validated == [0, 0, 0, 1, 1, 1]
    assert curves_of(tmp_path / CURVES)["val/loss"] == [metrics["val/loss"] for metrics in kept.epochs]


def test_a_run_of_no_epochs_leaves_no_file(tmp_path: Path, train_dir: Path) -> None:
    fit_with_curves(tmp_path / CURVES, train_dir, max_epochs=0)
    assert list(tmp_path.iterdir()) == []
