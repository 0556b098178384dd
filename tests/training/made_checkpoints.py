"""A tiny model that was fitted on vectors, with its checkpoints."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset, default_collate

from gel_lightning import GelClassifier, LinearHead
from gel_lightning.data.datasets import Features
from gel_lightning.training.callbacks import LastCheckpoint
from gel_lightning.training.checkpoint_files import BestCheckpoint, CheckpointFiles


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(20) % 2
    features = torch.randn(20, 512, generator=generator) + labels[:, None]
    return DataLoader(TensorDataset(features, labels), batch_size=10, collate_fn=collate)


def collate(items: Any) -> tuple[Features, torch.Tensor]:
    features, labels = default_collate(items)
    return Features(features), labels


def make_model(head: Any = LinearHead, **options: Any) -> GelClassifier:
    settings: dict[str, Any] = {
        "optimizer": partial(SGD, lr=0.001, momentum=0.9),
        "lr_scheduler": partial(StepLR, step_size=2),
        "class_names": ["gel", "not_gel"],
    }
    torch.manual_seed(0)
    return GelClassifier("resnet18", "none", head, **(settings | options))


def make_trainer(folder: Path, epochs: int = 2, *callbacks: Callback, **options: Any) -> Trainer:
    best = BestCheckpoint(folder, "best", monitor="val/loss", enable_version_counter=False)
    settings: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[*callbacks, best, LastCheckpoint(folder)],
        plugins=[CheckpointFiles()],
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **(settings | options),
    )


def fit(folder: Path, epochs: int = 2, *callbacks: Callback, ckpt_path: Path | None = None, **options: Any) -> Trainer:
    """Fits a tiny model; its checkpoints are in the folder."""
    trainer = make_trainer(folder, epochs, *callbacks)
    trainer.fit(make_model(**options), loader(), loader(), ckpt_path=ckpt_path)
    return trainer


def change(path: Path, **fields: Any) -> None:
    """Replaces fields of a checkpoint; ``a__b`` is the field ``b`` of ``a``."""
    checkpoint = torch.load(path, weights_only=True)
    for name, value in fields.items():
        *parents, last = name.split("__")
        owner = checkpoint
        for parent in parents:
            owner = owner[parent]
        owner[last] = value
    torch.save(checkpoint, path)
