"""One row for each run in one CSV file that all runs share."""

import csv
import io
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import Accelerator, CPUAccelerator, XLAAccelerator
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from gel_lightning.core.errors import GelError
from gel_lightning.core.files import replacing
from gel_lightning.core.xla import device_name
from gel_lightning.training.checkpoint_files import best_model_path
from gel_lightning.training.classifier import GelClassifier

HARDWARE = ("cpu", "gpu", "tpu")
HEADS = {"LinearHead": "single", "MultiLayerHead": "multi"}
MODEL_IDS = {
    model: number
    for number, model in enumerate(
        product(HARDWARE, ("resnet18", "vgg16", "mobilenet_v3_large"), HEADS.values(), ("adam", "sgd")),
        start=1,
    )
}
"""The numbers of the original study: 1 to 12 on the CPU, 13 to 24 on the GPU; 25 to 36 on the TPU likewise."""

VAL_METRICS = ("loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc")
COLUMNS = (
    # The original study's twelve, under its names and in its order.
    *("model_id", "hardware_type", "pretrained_model", "classifier_head", "opt_alg", "training_time_mins"),
    *("inference_time_secs", "accuracy", "precision", "recall", "conf_mat", "roc_auc"),
    *("weights", "seed", "epochs", "train_pictures", "val_pictures", "test_pictures"),
    *(f"val_{name}" for name in VAL_METRICS),
    *("version", "checkpoint", "device", "error"),
)


class ResultsFile(Timer):
    """Adds a row to a results file when a trained model has been tested.

    The times in it are wall times of the fit loop and of predicting the test pictures, decoding included. Where
    vectors were kept, the time that computing them took is added, whenever that was.
    Precision and recall are weighted by class, rows of ``conf_mat`` are the actual class, and ``roc_auc``
    comes from probabilities. The validation metrics are those of the last ``trainer.validate``, else of the
    last epoch.

    Args:
        path: the CSV file; runs at once may share it.
        seed: of the run.
    """

    def __init__(self, path: str | Path, seed: int | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.seed = seed
        self._fit: dict[str, Any] = {}
        self._val: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks at the file before the work, so that a run is not lost to a file of another kind."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":  # in each process, so that none waits for one that has ended
            read_results(self.path)

    def on_fit_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Keeps what a later test no longer knows of the training."""
        super().on_fit_end(trainer, *args, **kwargs)
        self._fit = {
            "training_time_mins": self._seconds("train", trainer.train_dataloader, trainer.val_dataloaders) / 60,
            "epochs": trainer.current_epoch,
            "train_pictures": _pictures(trainer.train_dataloader),
            "version": _version(trainer),
        }
        self._keep_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the validation metrics, unless this validation is a part of a fit."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._keep_validation(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the row, if the model was trained in this process."""
        super().on_test_end(trainer, pl_module)
        measured = self._fit and trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)
        if not measured or not isinstance(pl_module, GelClassifier):
            return
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        model = hyperparameters(trainer, pl_module)
        add_result(
            self.path,
            {
                **model_columns(model["hardware"], model["backbone"], model["head"], model["optimizer"]),
                **self._fit,
                "inference_time_secs": self._seconds("test", trainer.test_dataloaders),
                **{name: metrics[f"test/{name}"] for name in ("accuracy", "precision", "recall")},
                "conf_mat": pl_module.confusion_matrices["test"].tolist(),
                "roc_auc": metrics["test/auroc"],
                "weights": model["weights"],
                "seed": self.seed,
                "test_pictures": _pictures(trainer.test_dataloaders),
                **self._val,
                "checkpoint": best_model_path(trainer),
                "device": device_name(trainer.strategy.root_device),
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
        return (self.time_elapsed(stage) or 0.0) + sum(getattr(dataset, "seconds", 0.0) for dataset in datasets)


def model_columns(hardware: str, backbone: str, head: str, optimizer: str) -> dict[str, Any]:
    """The columns that say which model a row is of."""
    return {
        "model_id": MODEL_IDS.get((hardware, backbone, head, optimizer), ""),
        "hardware_type": hardware,
        "pretrained_model": backbone,
        "classifier_head": head,
        "opt_alg": optimizer,
    }


def add_result(path: Path, row: dict[str, Any]) -> None:
    """Adds a row to a results file, or begins one.

    Args:
        path: the CSV file.
        row: a value for each of :data:`COLUMNS`; absent ones are left empty.

    Raises:
        GelError: the file is there and is not a results file.
        OSError: the file cannot be written; it is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        text = read_results(path)
        with replacing(path, newline="") as file:
            file.write(text + _lines([row], header=not text))


def rewrite_results(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Puts a results file of these rows in the place of another."""
    with replacing(path, newline="") as file:
        file.write(_lines(rows, header=True))


def read_results(path: Path) -> str:
    """Reads a results file, whole lines of it; empty if there is none.

    Raises:
        GelError: the file is there and is not a results file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return ""
    except (UnicodeDecodeError, IsADirectoryError):
        text = "not text"
    if text and text.splitlines()[0] != ",".join(COLUMNS):
        raise GelError(f"{path}: not a results file of this version; move it away, or name another file")
    return text if not text or text.endswith("\n") else text + "\n"


def _lines(rows: Iterable[Mapping[str, Any]], header: bool) -> str:
    lines = io.StringIO()
    writer = csv.DictWriter(lines, COLUMNS, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()


def hyperparameters(trainer: Trainer, model: GelClassifier) -> dict[str, Any]:
    """What makes a run: hardware, backbone, weights, head, optimizer and its settings, batch size, epochs."""
    backbone, head, optimizer = short_names(model.hparams)
    settings = model.hparams["optimizer"].get("init_args") or {}
    return {
        "hardware": _hardware(trainer.accelerator),
        "backbone": backbone,
        "weights": model.hparams["weights"],
        "head": head,
        "optimizer": optimizer,
        "lr": settings.get("lr", "default"),
        "batch_size": getattr(getattr(trainer, "datamodule", None), "batch_size", ""),
        "max_epochs": trainer.max_epochs,
    }


def short_names(model: Mapping[str, Any]) -> tuple[str, str, str]:
    """Backbone, head and optimizer of a model's plain hyper-parameters, as the results file names them."""
    head = class_name(model["head"])
    return model["backbone"], HEADS.get(head, head), class_name(model["optimizer"]).lower()


def class_name(described: Any) -> str:
    """The bare name of a class that is described by its import path, alone or with arguments."""
    path = described if isinstance(described, str) else described["class_path"]
    return str(path).rsplit(".", 1)[-1]


def _pictures(loader: Any) -> int:
    return len(loader.dataset) if loader is not None else 0


def _hardware(accelerator: Accelerator) -> str:
    if isinstance(accelerator, CPUAccelerator):
        return "cpu"
    return "tpu" if isinstance(accelerator, XLAAccelerator) else "gpu"


def _version(trainer: Trainer) -> str:
    return Path(trainer.logger.log_dir).name if isinstance(trainer.logger, TensorBoardLogger) else ""
