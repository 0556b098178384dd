"""What a run shows in TensorBoard beside its curves: figures, the projector, hyper-parameters."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from gel_lightning.core.text import printable
from gel_lightning.data.named_sets import name_of
from gel_lightning.models.cost import Cost
from gel_lightning.training.classifier import GelClassifier
from gel_lightning.training.figures import (
    MOST,
    RIGHT,
    WRONG,
    Caption,
    class_figure,
    confusion_figure,
    roc_figure,
    sheet_figure,
)
from gel_lightning.training.outcomes import by_stage, gathered
from gel_lightning.training.results_row import hyperparameters, model_cost

CURVES = ("loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc")
COMPARED = ("optimizer", "head", "backbone", "lr")  # hyper-parameters that are shown first
THUMBNAIL = 48  # side of a picture in the projector, pixels
MOST_PROJECTED = 1000  # pictures; TensorBoard's sprite holds 8192 x 8192 pixels


class Seen(NamedTuple):
    """Pictures of one stage: their indices in the data set, and the output of the model for them."""

    dataset: Any
    labels: Tensor
    indices: Tensor
    probabilities: Tensor
    features: Tensor


class TensorBoardPages(Callback):
    """Figures, projector and hyper-parameters in TensorBoard.

    During training: what the model costs, and a sheet of training pictures. After ``trainer.validate`` and
    ``trainer.test``: confusion matrix, precision, recall and F1 of each class, ROC curve, and the wrong and least
    certain pictures, of each test set. After ``trainer.test``: the features of all pictures for the projector, and the
    hyper-parameters with the test metrics. Training and validation curves share a chart on the page CUSTOM SCALARS.
    Does nothing without a TensorBoardLogger.

    Args:
        figures: whether to write figures and the projector.
        shown: names of the :func:`~gel_lightning.training.results.hyperparameters` to show; by default all.
    """

    def __init__(self, figures: bool = True, shown: Sequence[str] | None = None) -> None:
        self._figures = figures
        self._shown = shown
        self._logger: TensorBoardLogger | None = None
        self._batches: list[list[tuple[Any, ...]]] = []  # of each data loader
        self._seen: dict[str, Seen] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keeps the logger, because a trainer may have none when it validates and tests after a fit."""
        if isinstance(trainer.logger, TensorBoardLogger):
            self._logger = trainer.logger

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lays out the charts and shows some training pictures."""
        writer = self._writer(trainer)
        if writer is None or not isinstance(pl_module, GelClassifier):
            return
        # With a RunLogger one tag of two runs, with another logger two tags of one run.
        charts = {name: ["Multiline", [f"^{name}$", f"^(train|val)/{name}$"]] for name in CURVES}
        writer.add_custom_scalars({"training and validation": charts})
        if found := model_cost(trainer, pl_module):
            writer.add_text("what the model costs", cost_table(found))
        if not self._figures:
            return
        loader: Any = trainer.train_dataloader
        dataset = loader.dataset
        places = np.linspace(0, len(dataset) - 1, min(MOST, len(dataset))).astype(int).tolist()
        names = [pl_module.class_names[dataset[place][1]] for place in places]
        captions = [
            Caption(picture, text, name=_name(dataset, place))
            for picture, text, place in zip(_thumbnails(dataset, places), names, places, strict=True)
        ]
        writer.add_figure("pictures/train", sheet_figure(captions, "Training pictures"))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts collecting the features of the training pictures, which are the same in every epoch."""
        self._batches = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collects a batch of the first epoch."""
        if "train" not in self._seen:
            self._collect(trainer, outputs, batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the features of the first epoch."""
        if "train" not in self._seen:
            self._keep("train", pl_module, trainer.train_dataloader)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts collecting, unless this validation is part of a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._batches = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Collects a batch."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._collect(trainer, outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the pages of the validation pictures."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._keep("val", pl_module, trainer.val_dataloaders)
            self._draw("val", "validation pictures", trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts collecting."""
        self._batches = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects a batch."""
        self._collect(trainer, outputs, batch, dataloader_idx)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the pages of the test pictures and the projector, and logs hyper-parameters with the metrics."""
        self._keep("test", pl_module, trainer.test_dataloaders)
        for stage in by_stage("test", trainer.test_dataloaders):
            self._draw(stage, f"test pictures {name_of(stage)}".rstrip(), trainer, pl_module)
        writer = self._writer(trainer)
        if writer is None or not isinstance(pl_module, GelClassifier):
            return
        assert self._logger is not None
        if self._figures:
            self._project(writer, pl_module)
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        settings = hyperparameters(trainer, pl_module)
        shown = [name for name in settings if self._shown is None or name in self._shown]
        # TensorBoard sorts them by name, and shows the first five.
        named = {name if name in COMPARED else f"run/{name}": settings[name] for name in shown}
        self._logger.log_hyperparams(named, metrics)
        self._logger.save()
        self._logger.finalize("success")

    def _writer(self, trainer: Trainer) -> SummaryWriter | None:
        if self._logger is None or not trainer.is_global_zero:
            return None
        writer: SummaryWriter = self._logger.experiment
        return writer

    def _collect(self, trainer: Trainer, outputs: Any, batch: Any, loader: int = 0) -> None:
        if loader == len(self._batches):
            self._batches.append([])
        # Without indices in the batch, assume that a DistributedSampler deals the data set to the ranks in turn.
        seen = sum(len(labels) for labels, *_ in self._batches[loader])
        order = torch.arange(seen, seen + len(batch[1])) * trainer.world_size + trainer.global_rank
        indices = batch[2] if len(batch) > 2 else order
        kept = (batch[1], indices, outputs["probabilities"], outputs["features"])
        self._batches[loader].append(tuple(tensor.detach().cpu() for tensor in kept))

    def _keep(self, stage: str, pl_module: LightningModule, loaders: Any) -> None:
        for (name, loader), batches in zip(by_stage(stage, loaders).items(), self._batches, strict=True):
            columns = [torch.cat(column) for column in zip(*batches, strict=True)]
            columns[1] %= len(loader.dataset)  # DistributedSampler pads from the beginning
            self._seen[name] = Seen(loader.dataset, *gathered(pl_module, columns))
        self._batches = []

    def _draw(self, stage: str, pictures: str, trainer: Trainer, pl_module: LightningModule) -> None:
        writer = self._writer(trainer)
        if writer is None or not self._figures or not isinstance(pl_module, GelClassifier):
            return
        names, seen = pl_module.class_names, self._seen[stage]
        matrix = confusion_figure(pl_module.confusion_matrices[stage], names, f"Confusion matrix, {pictures}")
        writer.add_figure(f"confusion matrix/{stage}", matrix)
        bars = class_figure(pl_module.confusion_matrices[stage], names, f"By class, {pictures}")
        writer.add_figure(f"classes/{stage}", bars)
        curve = roc_figure(seen.probabilities, seen.labels, names, f"ROC curve, {pictures}")
        writer.add_figure(f"ROC/{stage}", curve)
        title = f"Wrong (orange) and least certain {pictures}: actual → predicted, probability"
        writer.add_figure(f"pictures/{stage}", sheet_figure(_hardest(seen, names), title))

    def _project(self, writer: SummaryWriter, pl_module: GelClassifier) -> None:
        rows: list[list[str]] = []
        thumbnails, features = [], []
        for stage, seen in self._seen.items():
            indices = seen.indices.tolist()[: MOST_PROJECTED - len(rows)]
            if not indices:
                continue
            paths = getattr(seen.dataset, "paths", None)
            for index, label in zip(indices, seen.labels.tolist(), strict=False):
                name = paths[index].name if paths else str(index)
                # A tab or newline would shift all labels after it.
                rows.append([printable(pl_module.class_names[label]), stage, printable(name)])
            pictures = _thumbnails(seen.dataset, indices)
            thumbnails.append(functional.interpolate(pictures, size=(THUMBNAIL, THUMBNAIL), mode="area"))
            features.append(seen.features[: len(indices)])
        # The writer warns about the features that a run wrote before it was resumed.
        shutil.rmtree(Path(writer.log_dir) / "00000" / "features", ignore_errors=True)
        pictures = torch.cat(thumbnails).expand(-1, 3, -1, -1)
        writer.add_embedding(
            torch.cat(features), rows, pictures, tag="features", metadata_header=["class", "part", "name"]
        )


def cost_table(found: Cost) -> str:
    """What a model costs, as a table in Markdown."""
    rows = [
        ("size", f"{found.size_mb:.1f} MB in 32 bits"),
        ("parameters", f"{found.parameters:,}"),
        ("of these trained", f"{found.trainable_parameters:,}"),
        ("multiply-adds for a picture", f"{found.multiply_adds:,}"),
    ]
    return "\n".join(["| | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows)])


def _hardest(seen: Seen, class_names: tuple[str, ...]) -> list[Caption]:
    """The wrong pictures, most confident first, then the right ones, least confident first."""
    confidence, predicted = seen.probabilities.max(dim=1)
    wrong = predicted != seen.labels
    order = torch.where(wrong, -1 - confidence, confidence).argsort(stable=True)[:MOST].tolist()
    pictures = _thumbnails(seen.dataset, seen.indices[order].tolist())
    return [
        Caption(
            picture,
            f"{class_names[seen.labels[i]]} → {class_names[predicted[i]]} {confidence[i]:.2f}",
            WRONG if wrong[i] else RIGHT,
            _name(seen.dataset, int(seen.indices[i])),
        )
        for i, picture in zip(order, pictures, strict=True)
    ]


def _name(dataset: Any, index: int) -> str:
    """The file name of a picture; empty if the data set has none."""
    paths = getattr(dataset, "paths", None)
    return paths[index].name if paths else ""


def _thumbnails(dataset: Any, indices: list[int]) -> Tensor:
    """Pictures of shape ``[len(indices), 1 or 3, H, W]``; thumbnails if the data set has them."""
    if hasattr(dataset, "thumbnails"):
        thumbnails: Tensor = dataset.thumbnails(indices)
        return thumbnails
    return torch.stack([dataset[index][0].float() for index in indices])
