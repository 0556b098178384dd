"""The row that a run adds to a results file: what was trained, how long it took, and how it was measured."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import Accelerator, CPUAccelerator, XLAAccelerator
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from gel_lightning.core.files import regular_file
from gel_lightning.core.xla import device_name
from gel_lightning.data.builtin import BUILTIN
from gel_lightning.data.named_sets import name_of
from gel_lightning.models.cost import Cost, cost
from gel_lightning.models.spec import ModelSpec, class_name
from gel_lightning.training.checkpoint_files import best_model_path
from gel_lightning.training.classifier import GelClassifier
from gel_lightning.training.outcomes import by_stage
from gel_lightning.training.results import VAL_METRICS, add_result, has_result, read_results

MEASURED = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "roc_auc": "auroc"}
"""Columns of the metrics of a test set, with their names."""


class ResultsFile(Callback):
    """Adds a row to a results file when a trained model has been tested.

    The times in it are wall times of the fit loop and of predicting the test pictures, decoding included. Where
    vectors were kept, the time that computing them took is added, whenever that was.
    Precision and recall are weighted by class, rows of ``conf_mat`` are the actual class, and ``roc_auc``
    comes from probabilities. The validation metrics are those of the last ``trainer.validate``, else of the
    last epoch.

    Args:
        path: the CSV file; runs at once may share it.
        seed: of the run.
        config: name of the config file by which a comparison calls the model.

    Raises:
        GelError: the path is of a folder, a device or a pipe.
    """

    def __init__(self, path: str | Path, seed: int | None = None, config: str = "") -> None:
        self.path = regular_file(path, "--results_file")
        self.seed, self.config = seed, config
        self._step: int | None = None  # with which the training begins
        # Not a base class: with a Timer among its callbacks Lightning ignores Trainer(max_time).
        self._timer = Timer()
        self._fit: dict[str, Any] = {}
        self._val: dict[str, float] = {}
        self._first_set: float | None = None  # seconds

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks at the file before the work, so that a run is not lost to a file of another kind."""
        if stage == "fit":  # in each process, so that none waits for one that has ended
            read_results(self.path)

    def state_dict(self) -> dict[str, Any]:
        """The time of training so far, to which that of a resumed run is added."""
        return self._timer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the time of training before the run was resumed."""
        self._timer.load_state_dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of training, unless the run was finished before."""
        self._timer.on_train_start(trainer, pl_module)
        self._step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock of training."""
        self._timer.on_train_end(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of testing."""
        self._timer.on_test_start(trainer, pl_module)
        self._first_set = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what a later test no longer knows of the training."""
        self._fit = {
            "training_time_mins": self._seconds("train", trainer.train_dataloader, trainer.val_dataloaders) / 60,
            "epochs": trainer.current_epoch,
            "train_pictures": _pictures(trainer.train_dataloader),
            "version": _version(trainer),
            "learning_rate": trainer.optimizers[0].defaults.get("lr", ""),
        }
        self._trained = self._step is not None and trainer.global_step > self._step
        self._keep_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the validation metrics, unless this validation is a part of a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._keep_validation(trainer)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Notes how long the first test set took, when the second one begins."""
        if dataloader_idx == 1 and batch_idx == 0:
            self._first_set = self._timer.time_elapsed("test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the row, unless nothing was trained, or the run was finished before and has its row."""
        self._timer.on_test_end(trainer, pl_module)
        measured = self._fit and trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)
        if not measured or not isinstance(pl_module, GelClassifier):
            return
        checkpoint = best_model_path(trainer)
        if not self._trained and has_result(self.path, self._fit["version"], checkpoint):
            return
        tested = by_stage("test", trainer.test_dataloaders)
        model = hyperparameters(trainer, pl_module)
        add_result(
            self.path,
            {
                **replace(ModelSpec.of_settings(pl_module.hparams, model["hardware"]), config=self.config).columns,
                **self._fit,
                "inference_time_secs": self._seconds("test", next(iter(tested.values()))),
                "weights": model["weights"],
                "seed": self.seed,
                **{
                    name: value for stage, loader in tested.items() for name, value in _of_set(pl_module, stage, loader)
                },
                **self._val,
                "checkpoint": checkpoint,
                "device": device_name(trainer.strategy.root_device),
                **_settings(trainer, pl_module),
            },
        )

    def _keep_validation(self, trainer: Trainer) -> None:
        values = trainer.callback_metrics
        if "val/loss" in values:
            metrics = {f"val_{name}": values[f"val/{name}"].item() for name in VAL_METRICS}
            self._val = {"val_pictures": _pictures(trainer.val_dataloaders), **metrics}

    def _seconds(self, stage: str, *loaders: Any) -> float:
        """The wall time of a stage, with the time it took to compute the vectors of its pictures."""
        datasets = [loader.dataset for loader in loaders if loader is not None]
        elapsed = self._timer.time_elapsed(stage)
        if stage == "test" and self._first_set is not None:
            elapsed = self._first_set
        return elapsed + sum(getattr(dataset, "seconds", 0.0) for dataset in datasets)


def _of_set(model: GelClassifier, stage: str, loader: Any) -> Iterator[tuple[str, Any]]:
    """The columns of a test set, which end in its name if it has one."""
    name = re.sub(r"\W", "_", name_of(stage))  # a data module of others may give its loaders any names
    metrics = {
        column: model.trainer.callback_metrics[f"{stage}/{metric}"].item() for column, metric in MEASURED.items()
    }
    columns = metrics | {
        "conf_mat": model.confusion_matrices[stage].tolist(),
        "test_pictures": _pictures(loader),
    }
    yield from ((f"{column}_{name}" if name else column, value) for column, value in columns.items())


def _settings(trainer: Trainer, model: GelClassifier) -> dict[str, Any]:
    """What else makes two runs differ: batch size, loss, scheduler, pictures and their size."""
    data = getattr(trainer, "datamodule", None)
    weights, scheduler = model.hparams["class_weights"], model.hparams["lr_scheduler"]
    return {
        "batch_size": getattr(data, "batch_size", ""),
        "class_weights": weights if isinstance(weights, str) else json.dumps(weights) if weights else "",
        "label_smoothing": model.hparams["label_smoothing"] or "",
        "mixup": model.hparams["mixup"] or "",
        "lr_scheduler": _described(scheduler) if scheduler else "",
        "data_folder": os.pathsep.join(map(str, getattr(data, "train_dirs", ()))),
        "image_size": getattr(data, "image_size", ""),
        "dataset": dataset if (dataset := getattr(data, "dataset", "")) in BUILTIN else "",
        "colour": "RGB" if getattr(data, "colour", False) else "",
        **(found._asdict() if (found := model_cost(trainer, model)) else {}),
    }


def model_cost(trainer: Trainer, model: GelClassifier) -> Cost | None:
    """What the trainer's model costs; None if its data module does not say how large pictures are."""
    size = getattr(getattr(trainer, "datamodule", None), "image_size", None)
    return cost(model.network, size) if isinstance(size, int) else None


def _described(scheduler: Mapping[str, Any]) -> str:
    """A class with its arguments, such as ``StepLR(step_size=5)``."""
    arguments = scheduler.get("init_args") or {}
    return f"{class_name(scheduler)}({', '.join(f'{name}={value}' for name, value in arguments.items())})"


def hyperparameters(trainer: Trainer, model: GelClassifier) -> dict[str, Any]:
    """What makes a run: what is compared, then weights, batch size, epochs and hardware."""
    hardware = _hardware(trainer.accelerator)
    levels = ModelSpec.of_settings(model.hparams, hardware).levels
    settings = model.hparams["optimizer"].get("init_args") or {}
    return {
        **{name: levels[name] for name in ("optimizer", "head", "backbone")},
        "lr": settings.get("lr", "default"),
        "weights": model.hparams["weights"],
        "batch_size": getattr(getattr(trainer, "datamodule", None), "batch_size", ""),
        "max_epochs": trainer.max_epochs,
        "hardware": hardware,
        **({"unfreeze": model.hparams["unfreeze"]} if model.hparams.get("unfreeze") else {}),
    }


def _pictures(loader: Any) -> int:
    return len(loader.dataset) if loader is not None else 0


def _hardware(accelerator: Accelerator) -> str:
    if isinstance(accelerator, CPUAccelerator):
        return "cpu"
    return "tpu" if isinstance(accelerator, XLAAccelerator) else "gpu"


def _version(trainer: Trainer) -> str:
    return Path(trainer.logger.log_dir).name if isinstance(trainer.logger, TensorBoardLogger) else ""
