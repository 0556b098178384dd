"""What a run leaves behind: checkpoints, TensorBoard pages."""

import math
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from gel_lightning.core.text import printable
from gel_lightning.data.datasets import FeatureDataset
from gel_lightning.data.named_sets import name_of
from gel_lightning.training.classifier import GelClassifier
from gel_lightning.training.figures import (
    MOST,
    RIGHT,
    WRONG,
    Caption,
    confusion_figure,
    roc_figure,
    sheet_figure,
)
from gel_lightning.training.outcomes import by_stage, gathered
from gel_lightning.training.results import hyperparameters

CURVES = ("loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc")
COMPARED = ("optimizer", "head", "backbone", "lr")  # the hyper-parameters that comparisons here are about
SAVE_SECONDS = 10.0  # a run that is killed loses no more than these, and an epoch
THUMBNAIL = 48  # side in pixels of a picture in the projector
MOST_PROJECTED = 1000  # pictures; TensorBoard's sprite holds 8192 x 8192 pixels


"""How a CSV file is opened: file names that are not UTF-8 are written with escapes."""


def derived_seed(seed: int, *places: int) -> int:
    """A seed that follows from another one and from what it is for."""
    return int(np.random.SeedSequence([seed, *places]).generate_state(1)[0])


class EpochSeed(Callback):
    """Seeds dropout anew in each epoch, so that a resumed run draws what it would have drawn.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds torch from the run's seed, the epoch and the process.

        Not before the first batch is there: the loader draws a number for its workers, in most epochs after
        their start, but before it in the first one, and so in the one that a run is resumed in.
        """
        if batch_idx == 0:
            seed = derived_seed(self.seed, trainer.current_epoch, trainer.global_rank)
            device = trainer.strategy.root_device
            if device.type == "cpu":
                torch.default_generator.manual_seed(seed)  # the other one takes milliseconds for devices not in use
            elif device.type == "xla":
                import torch_xla

                torch_xla.manual_seed(seed)  # torch's own has it draw what it drew before
            else:
                torch.manual_seed(seed)


def _holds_vectors(dataset: Any) -> bool:
    """Whether what is trained on is a feature vector a picture, and not a feature map."""
    return isinstance(dataset, FeatureDataset) and len(dataset.features.shape) == 1


class OneThread(Callback):
    """Trains on stored vectors with one thread of the CPU.

    A batch of them is so small that threads wait for each other longer than they work, and a hundred times as
    long where another program uses the processor too.
    """

    def __init__(self) -> None:
        self._threads = torch.get_num_threads()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes one thread, once the vectors are computed."""
        self._threads = torch.get_num_threads()
        loader: Any = trainer.train_dataloader
        if trainer.strategy.root_device.type == "cpu" and _holds_vectors(loader.dataset):
            torch.set_num_threads(1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes all of them again."""
        torch.set_num_threads(self._threads)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes all of them again."""
        torch.set_num_threads(self._threads)


class LastCheckpoint(ModelCheckpoint):
    """Keeps the state of the run in last.ckpt: after the first and the last epoch, and every ten seconds between.

    ModelCheckpoint's own ``save_last`` saves only epochs that were the best so far.

    Args:
        folder: None takes the folder of the logger's run.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        super().__init__(folder, "last", enable_version_counter=False)
        self._saved = -math.inf

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves, if it is time to."""
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        is_last = is_last or 0 < trainer.max_steps <= trainer.global_step
        if is_last or time.monotonic() - self._saved > SAVE_SECONDS:
            super().on_train_epoch_end(trainer, pl_module)
            self._saved = time.monotonic()


class EmptyRunRemover(Callback):
    """Removes the folder of a run that failed before its first checkpoint.

    Args:
        folder: made for this run alone. Not ``trainer.log_dir``: without a logger that is the working folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Removes the folder if it holds no checkpoint."""
        if trainer.is_global_zero and not any(self.folder.glob("checkpoints/*.ckpt")):
            for logger in trainer.loggers:  # TensorBoard's thread would go on to write there
                with suppress(OSError):
                    logger.finalize("failed")
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # other runs of this name are there
                self.folder.parent.rmdir()


class Seen(NamedTuple):
    """Some pictures of one stage: where they are in its data set, and what the model made of them."""

    dataset: Any
    labels: Tensor
    indices: Tensor
    probabilities: Tensor
    features: Tensor


class TensorBoardPages(Callback):
    """Figures, projector and hyper-parameters in TensorBoard.

    While training: a sheet of training pictures. After ``trainer.validate`` and ``trainer.test``: confusion
    matrix, ROC curve, and the wrong and the least certain pictures, of each test set. After ``trainer.test``: the
    features of all pictures for the projector, and the hyper-parameters with the test metrics. Curves of training and
    validation share a chart on the page CUSTOM SCALARS. Does nothing without a TensorBoardLogger.

    Args:
        figures: False leaves out figures and the projector.
        shown: names of the hyper-parameters that are shown, those of
            :func:`~gel_lightning.training.results.hyperparameters`; None shows all.
    """

    def __init__(self, figures: bool = True, shown: Sequence[str] | None = None) -> None:
        self._figures = figures
        self._shown = shown
        self._logger: TensorBoardLogger | None = None
        self._batches: list[list[tuple[Any, ...]]] = []  # of each loader
        self._seen: dict[str, Seen] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keeps the logger, since what is measured after a fit may be meant for no curve."""
        if isinstance(trainer.logger, TensorBoardLogger):
            self._logger = trainer.logger

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lays out the charts and shows some training pictures."""
        writer = self._writer(trainer)
        if writer is None or not isinstance(pl_module, GelClassifier):
            return
        # With a RunLogger the tags of two runs, with another logger two tags of one run.
        charts = {name: ["Multiline", [f"^{name}$", f"^(train|val)/{name}$"]] for name in CURVES}
        writer.add_custom_scalars({"training and validation": charts})
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
        """Begins to collect the features of the training pictures, which are the same in every epoch."""
        self._batches = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collects a batch, until all training pictures were seen once."""
        if "train" not in self._seen:
            self._collect(trainer, outputs, batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the features of the first epoch."""
        if "train" not in self._seen:
            self._keep("train", pl_module, trainer.train_dataloader)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to collect, unless this validation is a part of training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._batches = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Collects a batch."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._collect(trainer, outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the validation pictures' pages."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._keep("val", pl_module, trainer.val_dataloaders)
            self._draw("val", "validation pictures", trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to collect."""
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
        """Draws the test pictures' pages, the projector's, and the hyper-parameters beside the metrics."""
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
        # Without indices in the batch the order of the loader stands for them, which deals them out in turn.
        seen = sum(len(labels) for labels, *_ in self._batches[loader])
        order = torch.arange(seen, seen + len(batch[1])) * trainer.world_size + trainer.global_rank
        indices = batch[2] if len(batch) > 2 else order
        kept = (batch[1], indices, outputs["probabilities"], outputs["features"])
        self._batches[loader].append(tuple(tensor.detach().cpu() for tensor in kept))

    def _keep(self, stage: str, pl_module: LightningModule, loaders: Any) -> None:
        for (name, loader), batches in zip(by_stage(stage, loaders).items(), self._batches, strict=True):
            columns = [torch.cat(column) for column in zip(*batches, strict=True)]
            columns[1] %= len(loader.dataset)  # from whose beginning the last of several processes are filled up
            self._seen[name] = Seen(loader.dataset, *gathered(pl_module, columns))
        self._batches = []

    def _draw(self, stage: str, pictures: str, trainer: Trainer, pl_module: LightningModule) -> None:
        writer = self._writer(trainer)
        if writer is None or not self._figures or not isinstance(pl_module, GelClassifier):
            return
        names, seen = pl_module.class_names, self._seen[stage]
        matrix = confusion_figure(pl_module.confusion_matrices[stage], names, f"Confusion matrix, {pictures}")
        writer.add_figure(f"confusion matrix/{stage}", matrix)
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
                # A tab or a line end would shift all labels after it.
                rows.append([printable(pl_module.class_names[label]), stage, printable(name)])
            pictures = _thumbnails(seen.dataset, indices)
            thumbnails.append(functional.interpolate(pictures, size=(THUMBNAIL, THUMBNAIL), mode="area"))
            features.append(seen.features[: len(indices)])
        # The writer complains of the features of the same run before it was resumed.
        shutil.rmtree(Path(writer.log_dir) / "00000" / "features", ignore_errors=True)
        pictures = torch.cat(thumbnails).expand(-1, 3, -1, -1)
        writer.add_embedding(
            torch.cat(features), rows, pictures, tag="features", metadata_header=["class", "part", "name"]
        )


def _hardest(seen: Seen, class_names: tuple[str, ...]) -> list[Caption]:
    """The wrong pictures, surest first, then the right ones, least sure first."""
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
    """The file name of a picture; nothing if the data set has none."""
    paths = getattr(dataset, "paths", None)
    return paths[index].name if paths else ""


def _thumbnails(dataset: Any, indices: list[int]) -> Tensor:
    """Pictures to look at, small if the data set has small ones: shape ``[len(indices), 1 or 3, H, W]``."""
    if hasattr(dataset, "thumbnails"):
        thumbnails: Tensor = dataset.thumbnails(indices)
        return thumbnails
    return torch.stack([dataset[index][0].float() for index in indices])
