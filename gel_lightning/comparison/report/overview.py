"""One page over the comparisons of several data sets: their models in one table, and links to their reports."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gel_lightning.comparison.folder import REPORT
from gel_lightning.comparison.records import read_comparison
from gel_lightning.comparison.report.answer import duration, percent
from gel_lightning.comparison.report.table import COSTS
from gel_lightning.comparison.summary import ModelSummary, Summary
from gel_lightning.core.files import replacing
from gel_lightning.core.html import environment

COLUMNS = (
    *("model", *(heading for heading, _ in COSTS.values())),
    *("train loss", "test loss", "train accuracy", "test accuracy", "precision", "recall", "F1", "training"),
)


class DataSet(NamedTuple):
    """The comparison of a data set: its name, its number of test pictures and classes, and a row for each model."""

    name: str
    pictures: int
    classes: int
    rows: list[list[str]]


def make_overview(folder: Path, comparisons: Sequence[Path]) -> None:
    """Writes a page that has the models of several comparisons in one table.

    Models of different data sets stand beside each other and are not ranked: tests are within a comparison.

    Args:
        folder: for the page.
        comparisons: folders below it, of a data set each.

    Raises:
        GelError: one is no comparison, or a file of it is damaged.
    """
    sets = []
    for one in comparisons:
        summary = Summary(read_comparison(one))
        classes = len(summary.comparison.class_names)
        sets.append(DataSet(one.name, summary.models[0].total, classes, [_row(model) for model in summary.models]))
    template = environment("gel_lightning.comparison.report").get_template("overview.html.jinja")
    with replacing(folder / REPORT) as file:
        file.write(template.render(sets=sets, columns=COLUMNS, report=REPORT))


def _row(model: ModelSummary) -> list[str]:
    row, curves = model.record.row, model.record.curves

    def last(name: str) -> float:
        return curves.get(name, [float("nan")])[-1]

    return [
        model.name,
        *(text(float(row[name])) if row[name] else "–" for name, (_, text) in COSTS.items()),
        _number(last("train/loss")),
        _number(model.test["log_loss"]),
        percent(last("train/accuracy")) if "train/accuracy" in curves else "–",
        percent(model.test_accuracy.value),
        *(percent(float(row[name])) for name in ("precision", "recall")),
        percent(model.test["f1"]),
        duration(model.record.training_seconds),
    ]


def _number(value: float) -> str:
    return f"{value:.4f}" if value == value else "–"
