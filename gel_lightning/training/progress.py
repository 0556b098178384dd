"""The bars of a run: what Lightning does, over all batches of a fit or over the fits of many models."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from gel_lightning.core.progress import progress_bar
from gel_lightning.core.text import printable


class GridProgress(ProgressBar):
    """One bar over the fits of many models.

    Args:
        models: how many there are.
        fits: of each.
        shown: False shows nothing.
    """

    is_only_bar = True

    def __init__(self, models: int, fits: int = 1, shown: bool = True) -> None:
        super().__init__()
        self.bar = progress_bar(TextColumn(f"{{task.fields[done]}}/{models} models"), shown=shown)
        self._task = self.bar.add_task("", total=models, done=0)
        self._done, self._fits, self._fitted = 0, fits, 0

    def begin(self, name: str) -> None:
        """Names the model that is fitted now."""
        self._fitted = 0
        self.bar.update(self._task, description=printable(name))

    def fitted(self) -> None:
        """Counts one of the fits of a model as done."""
        self._fitted += 1
        self._advance(0.0)

    def end(self) -> None:
        """Counts a model as done, however it ended."""
        self._done += 1
        self.bar.update(self._task, completed=self._done, done=self._done)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Advances the bar by an epoch."""
        if trainer.max_epochs and trainer.max_epochs > 0:
            self._advance((trainer.current_epoch + 1) / trainer.max_epochs)

    def disable(self) -> None:
        """Shows nothing: Lightning asks for it in all processes but the first."""
        self.bar.disable = True

    def _advance(self, part: float) -> None:
        self.bar.update(self._task, completed=self._done + (self._fitted + part) / self._fits)


class RunProgress(ProgressBar):
    """A bar over all batches of a fit, and one over the batches of a validation, test or prediction."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._progress: Progress | None = None

    def disable(self) -> None:
        """Shows nothing: Lightning asks for it in all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins the bar of the fit, at the epoch that a resumed run begins with."""
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        self._start("training", epochs and epochs * self.total_train_batches)
        self._advance(trainer.current_epoch * int(self.total_train_batches))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Names the epoch, and the validation accuracy of the one before."""
        text = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        if "val/accuracy" in trainer.progress_bar_metrics:  # one figure, since a line has but 80 columns
            text += f" · val/accuracy {float(trainer.progress_bar_metrics['val/accuracy']):.3f}"
        self._describe(text)

    def on_train_batch_end(self, *_: Any) -> None:
        """Advances the bar of the fit."""
        self._advance(1)

    def on_train_end(self, *_: Any) -> None:
        """Ends the bar of the fit."""
        self._stop()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins a bar, unless this validation is a part of a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._start("validating", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Advances the bar, unless this validation is a part of a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._advance(1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the bar, unless this validation is a part of a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._stop()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins a bar."""
        self._start("testing", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *_: Any) -> None:
        """Advances the bar."""
        self._advance(1)

    def on_test_end(self, *_: Any) -> None:
        """Ends the bar."""
        self._stop()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins a bar."""
        self._start("classifying", sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, *_: Any) -> None:
        """Advances the bar."""
        self._advance(1)

    def on_predict_end(self, *_: Any) -> None:
        """Ends the bar."""
        self._stop()

    def on_exception(self, *_: Any) -> None:
        """Ends the bar, so that the error stands below it."""
        self._stop()

    def _start(self, text: str, batches: int | float | None) -> None:
        if not self._enabled:
            return
        self._progress = progress_bar(MofNCompleteColumn(), TextColumn("batches"))
        self._progress.start()
        self._task = self._progress.add_task(text, total=batches)

    def _advance(self, batches: int) -> None:
        if self._progress is not None:
            self._progress.advance(self._task, batches)

    def _describe(self, text: str) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description=text)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
