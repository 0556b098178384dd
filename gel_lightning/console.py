"""What a person reads in the terminal before and after a run."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from gel_lightning.classifier import GelClassifier
from gel_lightning.datamodule import GelDataModule
from gel_lightning.results import hyperparameters

STAGE_NAMES = {"val": "validation", "test": "test"}


class Announcement(Callback):
    """Says what is trained on what, before it begins."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the model, the hardware, the pictures, and whether this is but a demonstration."""
        data = getattr(trainer, "datamodule", None)
        if not (trainer.is_global_zero and isinstance(pl_module, GelClassifier) and isinstance(data, GelDataModule)):
            return
        model = hyperparameters(trainer, pl_module)
        print_line(
            f"{model['backbone']} (weights: {model['weights']}) + {model['head']} + {model['optimizer']} "
            f"on {model['hardware']}, {trainer.max_epochs} epochs"
        )
        counts = {part: len(pictures.paths) for part, pictures in data.parts.items()}
        print_line(
            f"{counts['train']} training, {counts['val']} validation and {counts['test']} test pictures of "
            f"{len(pl_module.class_names)} classes: {', '.join(pl_module.class_names)}"
        )
        made_up = ["drawn pictures"] * data.drawn + ["a random backbone"] * (model["weights"] == "none")
        if made_up:
            print_line(
                f"This is a demonstration with {' and '.join(made_up)}: "
                "its figures say nothing about pictures of real gels."
            )


def print_line(text: str) -> None:
    """Prints a line as it is: unbroken, and with no markup read into it."""
    Console(soft_wrap=True, highlight=False, markup=False, emoji=False).print(text)


def print_metrics(metrics: Mapping[str, Mapping[str, Any]], model: GelClassifier) -> None:
    """Prints a table of metrics, a column for each stage.

    Args:
        metrics: of each stage, ``val`` or ``test``, values by name, such as ``test/accuracy``.
        model: the classifier that was measured.
    """
    table = Table(title=None)
    table.add_column("metric")
    rows: dict[str, list[str]] = {}
    for stage, values in metrics.items():
        matrix = model.confusion_matrices[stage]
        right, total = int(matrix.diagonal().sum()), int(matrix.sum())
        table.add_column(f"{STAGE_NAMES[stage]} ({total} pictures)", justify="right")
        for key, value in values.items():
            name = key.partition("/")[2]
            text = f"{right}/{total}   {value:.4f}" if name == "accuracy" else f"{value:.4f}"
            rows.setdefault(name, []).append(text)
    for name, cells in rows.items():
        table.add_row(name.replace("_", " "), *cells)
    Console(markup=False).print(table)


def print_counts(counts: Mapping[str, int]) -> None:
    """Prints how many pictures were taken for each class, and how many could not be read."""
    table = Table("predicted", "pictures")
    table.columns[1].justify = "right"
    for name, number in counts.items():
        if name != "error":
            table.add_row(name, str(number))
    if counts["error"]:
        table.add_row("cannot be read", str(counts["error"]))
    Console(markup=False).print(table)
