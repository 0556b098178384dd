"""Progress bars of Lightning runs: over all batches of a fit, or over the fits of many models."""

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
        models: number of models.
        fits: number of fits per model.
        shown: whether to show the bar.
    """

    is_only_bar = True

    def __init__(self, models: int, fits: int = 1, shown: bool = True) -> None:
        super().__init__()
        self.shown = shown
        self.bar = progress_bar(TextColumn(f"{{task.fields[done]}}/{models} models"), shown=shown)
        self._task = self.bar.add_task("", total=models, done=0)
        self._done, self._fits, self._fitted = 0, fits, 0

    def begin(self, name: str) -> None:
        """Shows the name of the model that is fitted now."""
        self._fitted = 0
        self.bar.update(self._task, description=printable(name))

    def fitted(self) -> None:
        """Counts one fit of the model as done."""
        self._fitted += 1
        self._advance(0.0)

    def end(self) -> None:
        """Counts the model as done, even if it failed."""
        self._done += 1
        self.bar.update(self._task, completed=self._done, done=self._done)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Advances the bar by an epoch."""
        if trainer.max_epochs and trainer.max_epochs > 0:
            self._advance((trainer.current_epoch + 1) / trainer.max_epochs)

    def disable(self) -> None:
        """Shows nothing; Lightning calls this on all ranks but 0."""
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
        """Shows nothing; Lightning calls this on all ranks but 0."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the bar of the fit, for a resumed run at its first epoch."""
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        self._start("training", epochs and epochs * self.total_train_batches)
        self._advance(trainer.current_epoch * int(self.total_train_batches))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the epoch, and the validation accuracy of the previous one."""
        text = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        if "val/accuracy" in trainer.progress_bar_metrics:  # one number, because a line has 80 columns
            text += f" · val/accuracy {float(trainer.progress_bar_metrics['val/accuracy']):.3f}"
        self._describe(text)

    def on_train_batch_end(self, *_: Any) -> None:
        """Advances the bar of the fit."""
        self._advance(1)

    def on_train_end(self, *_: Any) -> None:
        """Ends the bar of the fit."""
        self._stop()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts a bar, unless this validation is part of a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._start("validating", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Advances the bar, unless this validation is part of a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._advance(1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the bar, unless this validation is part of a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._stop()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts a bar."""
        self._start("testing", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *_: Any) -> None:
        """Advances the bar."""
        self._advance(1)

    def on_test_end(self, *_: Any) -> None:
        """Ends the bar."""
        self._stop()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts a bar."""
        self._start("classifying", sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, *_: Any) -> None:
        """Advances the bar."""
        self._advance(1)

    def on_predict_end(self, *_: Any) -> None:
        """Ends the bar."""
        self._stop()

    def on_exception(self, *_: Any) -> None:
        """Ends the bar, so that the error is printed below it."""
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
