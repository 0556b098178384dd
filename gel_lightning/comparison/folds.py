"""The fits of a cross-validation: many, short, and with nothing left on disk."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from lightning import seed_everything
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor

from gel_lightning.comparison.predictions import Outcome
from gel_lightning.data.datamodule import GelDataModule
from gel_lightning.data.folders import LabelledPictures
from gel_lightning.data.named_sets import MAIN
from gel_lightning.training.callbacks import derived_seed
from gel_lightning.training.checkpoint_files import with_checkpoint_files
from gel_lightning.training.classifier import GelClassifier
from gel_lightning.training.runs import listed, training_callbacks

LOSSES = {"train/loss", "val/loss"}


class BestHead(Checkpoint):
    """Keeps the best head in memory and puts it back at the end, where ModelCheckpoint writes files.

    Args:
        monitor: the metric; None takes the last head.
        mode: ``min`` or ``max``.
    """

    def __init__(self, monitor: str | None, mode: str) -> None:
        self.monitor = monitor
        self._sign = 1 if mode == "min" else -1
        self._least = float("inf")
        self._state: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the head if it is the best so far."""
        if not _of_training(self.monitor):
            self._keep(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the head likewise, by a metric of training: only now that is of this epoch."""
        if _of_training(self.monitor):
            self._keep(trainer, pl_module)

    def _keep(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = trainer.callback_metrics.get(self.monitor or "")
        if value is not None and self._sign * value.item() < self._least:
            self._least = self._sign * value.item()
            self._state = deepcopy(_network(pl_module).state_dict())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the best head back."""
        if self._state:
            _network(pl_module).load_state_dict(self._state)


def fit_fold(
    model: GelClassifier,
    data: GelDataModule,
    parts: dict[str, LabelledPictures],
    place: tuple[int, int],
    settings: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    seed: int | bool,
) -> Outcome:
    """Trains a model like another one from the start and tests it, as ``gel-fit fit`` does.

    Args:
        model: the other one, which is left alone.
        data: the data module, which gets other parts.
        parts: what it is trained, validated and tested on.
        place: repeat and fold.
        settings: of the trainer.
        checkpoint: by which metric the best epoch is chosen: ``monitor`` and ``mode``.
        seed: of the comparison; that of this fit follows from it and the place. False seeds nothing.
    """
    own: int | bool = False
    if seed is not False:
        own = derived_seed(seed, *place)
        seed_everything(own, workers=True, verbose=False)
    fitted = GelClassifier(**model.hparams, runtime=model.runtime.chosen)
    options: dict[str, Any] = deepcopy(dict(settings))
    asked = [callback for callback in listed(options.pop("callbacks", None)) if not isinstance(callback, Checkpoint)]
    best = BestHead(checkpoint["monitor"], checkpoint["mode"])
    options |= {
        "logger": DummyLogger() if asked else False,  # some callbacks will not work without one
        "enable_checkpointing": True,
        "enable_progress_bar": False,
        "callbacks": [*asked, *training_callbacks(own), best],
        "plugins": with_checkpoint_files(options.get("plugins")),
    }
    trainer = Trainer(**options)
    # Nobody knows what callbacks of others look at.
    watched = {best.monitor, ((fitted.hparams["lr_scheduler"] or {}).get("init_args") or {}).get("monitor")}
    fitted.logs_metrics = bool(asked) or not watched - {None} <= LOSSES
    data.parts = parts
    trainer.fit(fitted, datamodule=data)
    trainer.test(fitted, datamodule=data, verbose=False)
    return outcome(fitted, data, place)


def outcome(model: GelClassifier, data: GelDataModule, place: tuple[int, int] = (0, 0), part: str = MAIN) -> Outcome:
    """What a model has made of the test pictures that it was last tested on."""
    probabilities = model.probabilities[part].to("cpu", torch.float64).numpy()
    test = data.parts[part]
    tested = len(probabilities)
    return Outcome(*place, tuple(map(str, test.paths[:tested])), np.array(test.labels[:tested]), probabilities)


def _of_training(monitor: str | None) -> bool:
    return (monitor or "").startswith("train/")


def _network(module: LightningModule) -> torch.nn.Module:
    assert isinstance(module, GelClassifier)
    return module.network
