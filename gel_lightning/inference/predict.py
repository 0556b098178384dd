"""What `gel-fit predict` writes: a CSV file with a row for each picture."""

import os
from contextlib import ExitStack
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gel_lightning.core.files import output_file, replacing
from gel_lightning.inference.rows import CSV_OPTIONS, Row, Summary, Table, answered, from_json, to_json
from gel_lightning.training.classifier import GelClassifier


class PredictionsFile(Callback):
    """Writes a row for each picture of ``trainer.predict``: see :class:`~gel_lightning.inference.rows.Row`.

    The rows go to a temporary file that takes its name when the last one is written. Several processes write a
    temporary file each, which the first one then puts together.

    Args:
        path: the CSV file.

    Attributes:
        summary: what the rows say in short.

    Raises:
        GelError: the path is of a folder, a device or a pipe, or does not end in .csv.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = output_file(path, "--predictions_file", ".csv")
        self.summary: Summary
        self._open = ExitStack()
        self._parts: list[Path] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the file and writes the names of the columns."""
        assert isinstance(pl_module, GelClassifier)
        self._class_names = pl_module.class_names
        self._thresholds = pl_module.calibration.thresholds
        self._note = f"demonstration: {', '.join(pl_module.made_up)}" if pl_module.made_up else ""
        if trainer.world_size == 1:
            self._begin()
            return
        run = trainer.strategy.broadcast(os.getpid())  # not shared with another run at the same time
        names = [f".{self.path.name}.{run}.{rank}.tmp" for rank in range(trainer.world_size)]
        self._parts = [self.path.with_name(name) for name in names]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self._parts[trainer.global_rank]
        self._part = self._open.enter_context(part.open("w", encoding="utf-8"))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Writes a row for each picture of the batch."""
        for probabilities, path, error in zip(outputs.tolist(), batch[1], batch[2], strict=True):
            row = Row(path, error=error, note=self._note)
            if not error:
                by_class = dict(zip(self._class_names, probabilities, strict=True))
                row = answered(path, by_class, self._thresholds, self._note)
            if self._parts:
                self._part.write(f"{to_json(row)}\n")
            else:
                self._add(row)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the file its name."""
        self._open.close()
        trainer.strategy.barrier()
        if self._parts and trainer.is_global_zero:
            self._put_together()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves no file behind."""
        self._open.__exit__(type(exception), exception, exception.__traceback__)
        for part in self._parts:
            part.unlink(missing_ok=True)

    def _begin(self) -> None:
        self._table = Table(self._open.enter_context(replacing(self.path, **CSV_OPTIONS)), self._class_names)
        self.summary = Summary(self._class_names)

    def _add(self, row: Row) -> None:
        self._table.add(row)
        self.summary.add(row)

    def _put_together(self) -> None:
        """Writes the rows of all processes, to which the pictures were dealt out in turn."""
        self._begin()
        with ExitStack() as files:
            parts = [files.enter_context(part.open(encoding="utf-8")) for part in self._parts]
            for line in filter(None, chain.from_iterable(zip_longest(*parts))):
                self._add(from_json(line))
        self._open.close()
        for part in self._parts:
            part.unlink()
