"""The metrics of each epoch of a fit, as a CSV file."""

import csv
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from gel_lightning.comparison.folder import csv_rows
from gel_lightning.core.errors import GelError
from gel_lightning.core.files import replacing


class CurvesFile(Callback):
    """Writes the metrics of each epoch of a fit to a CSV file.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: list[dict[str, float]] = []
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes that this epoch was validated."""
        self._validated = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the metrics of the previous epoch: training metrics are logged after the callbacks at its end."""
        self._keep(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        self._keep(trainer)
        if trainer.is_global_zero and self._rows:
            names = list(dict.fromkeys(name for row in self._rows for name in row))
            with replacing(self.path, newline="") as file:
                writer = csv.DictWriter(file, ["epoch", *names], lineterminator="\n")
                writer.writeheader()
                writer.writerows({"epoch": epoch, **row} for epoch, row in enumerate(self._rows, start=1))

    def _keep(self, trainer: Trainer) -> None:
        metrics = {
            name: value.item()
            for name, value in trainer.callback_metrics.items()
            if self._validated or not name.startswith("val/")  # Lightning keeps those of earlier epochs
        }
        self._validated = False
        if metrics:
            self._rows.append(metrics)


def read_curves(path: Path) -> dict[str, list[float]]:
    """Reads what :class:`CurvesFile` wrote; empty if the fit had no epoch.

    Raises:
        GelError: the file is damaged.
    """
    if not path.exists():
        return {}
    lines = list(csv_rows(path))
    header = lines[0][1] if lines else []
    if header[:1] != ["epoch"] or len(lines) < 2:
        raise GelError(f"{path}: no metrics of epochs; remove the file")
    epochs = []
    for line, row in lines[1:]:
        try:
            if len(row) != len(header):
                raise ValueError
            epochs.append([float(value or "nan") for value in row])
        except ValueError as error:
            raise GelError(f"{path}, line {line}: not a whole row of metrics; remove the file") from error
    columns = [list(values) for values in zip(*epochs, strict=True)]
    return dict(zip(header[1:], columns[1:], strict=True))
