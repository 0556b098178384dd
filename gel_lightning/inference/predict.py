"""What `gel-fit predict` writes: a CSV file with a row for each picture, and what it says in short."""

import csv
import os
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gel_lightning.core.files import FORMULA_STARTS, formula_free, regular_file, replacing
from gel_lightning.training.classifier import GelClassifier

SHOWN = 5  # least certain pictures
UNCERTAIN = "uncertain"
REASONS = 10  # unreadable pictures
TEXT: dict[str, Any] = {"newline": "", "errors": "backslashreplace"}  # a file's name may be no UTF-8


class Summary:
    """What predictions say in short.

    Args:
        class_names: the classes.

    Attributes:
        counts: how many pictures were classified as each class.
        unreadable: how many could not be read.
        reasons: of the first ten of these the path, and why.
        uncertain: how many have a probability below the threshold of their class.
        least_certain: probability, path and class of the five least certain, these first.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.counts = dict.fromkeys(class_names, 0)
        self.unreadable = self.uncertain = 0
        self.reasons: list[tuple[str, str]] = []
        self.least_certain: list[tuple[float, str, str]] = []

    def add(self, path: str, predicted: str, confidence: str, error: str, uncertain: bool = False) -> None:
        """Adds a picture; the probability as it is written."""
        if error:
            self.unreadable += 1
            if len(self.reasons) < REASONS:
                self.reasons.append((path, error))
            return
        self.counts[predicted] += 1
        self.uncertain += uncertain
        self.least_certain = sorted([*self.least_certain, (float(confidence), path, predicted)])[:SHOWN]


class PredictionsFile(Callback):
    """Writes a row for each picture of ``trainer.predict``: path, class, confidence, probabilities, error, note.

    The rows go to a temporary file that takes its name when the last one is written. Several processes write a
    temporary file each, which the first one then puts together.

    Args:
        path: the CSV file.

    Attributes:
        summary: what the rows say in short.

    Raises:
        GelError: the path is of a folder, a device or a pipe.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = regular_file(path, "--predictions_file")
        self.summary = Summary([])
        self._open = ExitStack()
        self._parts: list[Path] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the file and writes the names of the columns."""
        assert isinstance(pl_module, GelClassifier)
        self._class_names = pl_module.class_names
        self._thresholds = dict(zip(pl_module.class_names, pl_module.calibration.thresholds, strict=True))
        self._note = f"demonstration: {', '.join(pl_module.made_up)}" if pl_module.made_up else ""
        if trainer.world_size == 1:
            self._begin()
            return
        run = trainer.strategy.broadcast(os.getpid())  # not shared with another run at the same time
        names = [f".{self.path.name}.{run}.{rank}.tmp" for rank in range(trainer.world_size)]
        self._parts = [self.path.with_name(name) for name in names]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self._parts[trainer.global_rank]
        self._rows = csv.writer(self._open.enter_context(part.open("w", encoding="utf-8", **TEXT)))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Writes a row for each picture of the batch."""
        for probabilities, path, error in zip(outputs.tolist(), batch[1], batch[2], strict=True):
            if error:
                row = [path, "", "", *[""] * len(probabilities), error]
            else:
                confidence = max(probabilities)
                predicted = self._class_names[probabilities.index(confidence)]
                row = [path, predicted, *(f"{value:.6f}" for value in (confidence, *probabilities)), ""]
            if self._parts:
                self._rows.writerow(row)
            else:
                self._write(row)

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
        # Without the mark of utf-8-sig Excel reads names that are not ASCII wrongly.
        file = self._open.enter_context(replacing(self.path, encoding="utf-8-sig", **TEXT))
        self._rows = csv.writer(file)
        probabilities = [f"probability_{name}" for name in self._class_names]
        self._rows.writerow(["path", "predicted", "confidence", *probabilities, "error", "note"])
        self.summary = Summary(self._class_names)

    def _write(self, row: list[str]) -> None:
        path, predicted, confidence, *probabilities, error = row
        note = self._noted(row)
        self.summary.add(path, predicted, confidence, error, note.startswith(UNCERTAIN))
        self._rows.writerow([formula_free(path), _text(predicted), confidence, *probabilities, _text(error), note])

    def _noted(self, row: Sequence[str]) -> str:
        """The note of a picture: whether its answer is uncertain, and whether the model is a demonstration."""
        _, predicted, confidence, *_ = row
        threshold = self._thresholds.get(predicted, 0.0)  # a picture that cannot be read has no class
        below = predicted and float(confidence) < threshold
        uncertain = f"{UNCERTAIN}: below {min(threshold, 1):.3g}" if below else ""
        return "; ".join(filter(None, [uncertain, self._note]))

    def _put_together(self) -> None:
        """Writes the rows of all processes, to which the pictures were dealt out in turn."""
        self._begin()
        with ExitStack() as files:
            parts = [csv.reader(files.enter_context(part.open(newline="", encoding="utf-8"))) for part in self._parts]
            for row in filter(None, chain.from_iterable(zip_longest(*parts))):
                self._write(row)
        self._open.close()
        for part in self._parts:
            part.unlink()


def _text(text: str) -> str:
    """A text as a CSV file has it, so that no spreadsheet computes it; a sign alone is no formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) and len(text) > 1 else text
