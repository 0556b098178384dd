"""Callbacks of every run: the seed of each epoch, threads, the last checkpoint, cleaning up after a failure."""

import math
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from gel_lightning.data.datasets import FeatureDataset

SAVE_SECONDS = 10.0  # a run that is killed loses at most this and one epoch


def derived_seed(seed: int, *places: int) -> int:
    """Derives a seed from a seed and the numbers of what it is for, such as repeat and fold."""
    return int(np.random.SeedSequence([seed, *places]).generate_state(1)[0])


class EpochSeed(Callback):
    """Seeds torch at the start of each epoch, so that a resumed run draws the same numbers as an uninterrupted one.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds torch from the run's seed, the epoch and the rank.

        At the first batch and not earlier, because the data loader draws a number to seed its workers: before
        ``on_train_epoch_start`` in the first epoch of a run or resumed run, after it in all others.
        """
        if batch_idx == 0:
            seed = derived_seed(self.seed, trainer.current_epoch, trainer.global_rank)
            device = trainer.strategy.root_device
            if device.type == "cpu":
                torch.default_generator.manual_seed(seed)  # torch.manual_seed takes milliseconds for unused devices
            elif device.type == "xla":
                import torch_xla

                torch_xla.manual_seed(seed)  # after torch.manual_seed XLA would repeat its numbers
            else:
                torch.manual_seed(seed)


def _holds_vectors(dataset: Any) -> bool:
    """Whether what is trained on is a feature vector a picture, and not a feature map."""
    return isinstance(dataset, FeatureDataset) and len(dataset.features.shape) == 1


class OneThread(Callback):
    """Trains on stored features with a single CPU thread.

    A batch is so small that several threads mostly wait for each other, up to a hundred times as long when another
    program uses the processor.
    """

    def __init__(self) -> None:
        self._threads = torch.get_num_threads()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Switches to one thread, after the features were computed."""
        self._threads = torch.get_num_threads()
        loader: Any = trainer.train_dataloader
        if trainer.strategy.root_device.type == "cpu" and _holds_vectors(loader.dataset):
            torch.set_num_threads(1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the number of threads."""
        torch.set_num_threads(self._threads)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restores the number of threads."""
        torch.set_num_threads(self._threads)


class LastCheckpoint(ModelCheckpoint):
    """Saves the state of the run in last.ckpt: after the first and last epoch, and at most every ten seconds between.

    ModelCheckpoint's ``save_last`` saves only epochs that were the best so far.

    Args:
        folder: by default that of the logger's run.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        super().__init__(folder, "last", enable_version_counter=False)
        self._saved = -math.inf

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves if due."""
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        is_last = is_last or 0 < trainer.max_steps <= trainer.global_step
        if is_last or time.monotonic() - self._saved > SAVE_SECONDS:
            super().on_train_epoch_end(trainer, pl_module)
            self._saved = time.monotonic()


class EmptyRunRemover(Callback):
    """Removes the folder of a run that failed before its first checkpoint.

    Args:
        folder: created for this run. Not ``trainer.log_dir``, which is the working folder if there is no logger.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Removes the folder if it holds no checkpoint."""
        if trainer.is_global_zero and not any(self.folder.glob("checkpoints/*.ckpt")):
            for logger in trainer.loggers:  # else TensorBoard's thread would go on writing there
                with suppress(OSError):
                    logger.finalize("failed")
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # not empty if there are other runs of this name
                self.folder.parent.rmdir()
