"""The table of models in a report."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gel_lightning.comparison.report.answer import duration, percent
from gel_lightning.comparison.statistics import Estimate
from gel_lightning.comparison.summary import Metric, ModelSummary, Summary

COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "size_mb": ("size, MB", lambda value: f"{value:.1f}"),
    "parameters": ("parameters", lambda value: f"{value:,.0f}"),
    "trainable_parameters": ("trained parameters", lambda value: f"{value:,.0f}"),
    "multiply_adds": ("multiply-adds, millions", lambda value: f"{value / 1e6:,.0f}"),
}
"""What a model costs: columns of the results file, with the heading and the text of a value."""


class Cell(NamedTuple):
    """A cell of the table of models: its text, the value it is sorted by, and a detail below the text."""

    text: str
    value: float
    detail: str = ""
    best: bool = False


def columns(summary: Summary) -> list[str]:
    """The names of the columns."""
    first = ["accuracy, cross-validated"] if summary.folds else ["accuracy, validation pictures"]
    others = [*(metric.label for metric in summary.metrics[1:]), *(COSTS[name][0] for name in _known_costs(summary))]
    named = [f"accuracy, {name}" for name in summary.models[0].named]
    return ["model", *first, "accuracy, test pictures", *named, *others, "training", "inference"]


def rows(summary: Summary) -> list[tuple[ModelSummary, list[Cell]]]:
    """The models with their cells: the accuracy they are ranked by, test pictures, other metrics, and times."""
    columns = [_chosen(summary), _tested([(m.right, m.total, m.test_accuracy) for m in summary.models], summary)]
    columns += [
        _tested([model.named[name][:3] for model in summary.models], summary) for name in summary.models[0].named
    ]
    columns += [_measured(summary, metric) for metric in summary.metrics[1:]]
    records = [model.record for model in summary.models]
    for name in _known_costs(summary):
        values = [float(record.row[name] or "nan") for record in records]
        columns.append([Cell(COSTS[name][1](value) if value == value else "–", value) for value in values])
    for times in ([r.training_seconds for r in records], [r.inference_seconds for r in records]):
        columns.append([Cell(duration(time), time) for time in times])
    return list(zip(summary.models, [list(cells) for cells in zip(*columns, strict=True)], strict=True))


def _known_costs(summary: Summary) -> list[str]:
    """The columns of :data:`COSTS` that the results file has values in; those of older versions have none."""
    return [name for name in COSTS if any(model.record.row[name] for model in summary.models)]


def _chosen(summary: Summary) -> list[Cell]:
    if summary.folds:
        return _measured(summary, summary.metrics[0])
    values = [model.chosen_by[0] for model in summary.models]
    return _best_bold([Cell(percent(value), value) for value in values])


def _tested(tested: Sequence[tuple[int, int, Estimate]], summary: Summary) -> list[Cell]:
    """Accuracy on test pictures, without its interval if there are folds: the other columns' are of another kind."""
    return _best_bold(
        [
            Cell(
                percent(accuracy.value),
                accuracy.value,
                f"{right}/{total}" + ("" if summary.folds else f", {interval_ends(accuracy)}"),
            )
            for right, total, accuracy in tested
        ]
    )


def _measured(summary: Summary, metric: Metric) -> list[Cell]:
    cells = []
    for model in summary.models:
        estimate = model.estimates[metric.key]
        fits = model.fits.get(metric.key, np.empty(0))
        share = metric.bounded and metric.more_is_better
        ends = "" if not len(fits) else interval_ends(estimate, share) if np.ptp(fits) > 1e-9 else "no spread"
        cells.append(Cell(percent(estimate.value) if share else f"{estimate.value:.3f}", estimate.value, ends))
    return _best_bold(cells, metric.more_is_better)


def _best_bold(cells: Sequence[Cell], more_is_better: bool = True) -> list[Cell]:
    """Marks the cells that read the same as the best one, unless all do."""
    best = (max if more_is_better else min)(cells, key=lambda cell: cell.value).text
    differ = len({cell.text for cell in cells}) > 1
    return [cell._replace(best=differ and cell.text == best) for cell in cells]


def interval_ends(estimate: Estimate, share: bool = True) -> str:
    """The ends of an interval, in percent for a share; empty if there is none."""
    if np.isnan(estimate.low):
        return ""
    ends = (max(estimate.low, 0), estimate.high)
    return "–".join(percent(end)[:-2] if share else f"{end:.3f}" for end in ends)
