"""ROC and reliability curves."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_roc

from gel_lightning.comparison.predictions import Outcome, pooled
from gel_lightning.comparison.report.figures.layout import (
    COLUMNS,
    EDGE,
    WIDTH,
    entry,
    label_outer,
    legend,
    legend_rows,
    name_axes,
    panels,
    small_multiples,
)
from gel_lightning.comparison.report.figures.looks import (
    FOLDS,
    LOOKS,
    PLAIN,
    TEST,
    cross_validation,
    model_title,
    tested_on,
)
from gel_lightning.comparison.report.figures.svg import Plot
from gel_lightning.comparison.summary import Summary
from gel_lightning.training.figures import INK, MUTED, PALETTE, shorten
from gel_lightning.training.metrics import CALIBRATION_BINS, positive_class

STROKES = {TEST: "--", FOLDS: "-"}
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))  # of heads


class Line(NamedTuple):
    """A curve of a model: its points, the share of the pictures in each, and its summary number (area or error)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    shares: NDArray[np.float64] | None
    number: float


class Chart(NamedTuple):
    """The texts and the axes of a figure of curves.

    Attributes:
        name: of the figure's files.
        title: of the figure.
        caption: beginning of the caption.
        x: label of the axis.
        y: label of the axis.
        start: of the x axis.
        diagonal: what the diagonal means.
        number: what the number of a curve means.
    """

    name: str
    title: str
    caption: str
    x: str
    y: str
    start: float
    diagonal: str
    number: str


Lines = dict[str, list[Line | None]]  # for TEST and FOLDS: the curve of each model, if it has one


def roc_plots(summary: Summary) -> Iterator[Plot]:
    """ROC curves."""
    names = summary.comparison.class_names
    positive = positive_class(names)
    if positive is None:
        return
    rest = "the other classes" if len(names) > 2 else shorten(names[1 - positive], 40)
    caption = f"ROC curves of {shorten(names[positive], 40)} against {rest}"
    lines = {part: [_roc_line(outcome, positive) for outcome in seen] for part, seen in _outcomes(summary).items()}
    labels = ("false positive rate", "true positive rate")
    chart = Chart("roc", "ROC curves", caption, *labels, 0, "chance", "the area under the curve")
    yield from _curve_plots(summary, chart, lines)


def _roc_line(outcome: Outcome, positive: int) -> Line | None:
    actual = torch.from_numpy(outcome.labels == positive).long()
    if not 0 < actual.sum() < len(actual):  # a curve needs pictures of both classes
        return None
    x, y, _ = binary_roc(torch.from_numpy(outcome.probabilities[:, positive]), actual)
    return Line(x.numpy(), y.numpy(), None, float(torch.trapezoid(y.double(), x.double())))


def reliability_plots(summary: Summary) -> Iterator[Plot]:
    """Reliability curves."""
    models = summary.models
    errors = {
        TEST: [model.test["calibration_error"] for model in models],
        FOLDS: [model.estimates["calibration_error"].value for model in models],
    }
    lines: Lines = {
        part: [_reliability_line(*both) for both in zip(seen, errors[part], strict=True)]
        for part, seen in _outcomes(summary).items()
    }
    caption = f"Reliability: the share right of pictures by how sure the model was, in {CALIBRATION_BINS} bins"
    number = "the expected calibration error" + (" (of the folds the mean of the fits)" if summary.folds else "")
    start = 1 / len(summary.comparison.class_names)
    labels = ("confidence", "share right")
    chart = Chart("reliability", "Reliability", caption, *labels, start, "as right as sure", number)
    yield from _curve_plots(summary, chart, lines)


def _reliability_line(outcome: Outcome, error: float) -> Line:
    from sklearn.calibration import calibration_curve

    right = outcome.probabilities.argmax(axis=1) == outcome.labels
    confidence = outcome.probabilities.max(axis=1)
    share, mean = calibration_curve(right, confidence, n_bins=CALIBRATION_BINS)
    # It does not return how many pictures are in its bins: these are the same bins.
    inner = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    counts = np.bincount(np.searchsorted(inner, confidence))
    return Line(mean, share, counts[counts > 0] / len(confidence), error)


def _outcomes(summary: Summary) -> dict[str, list[Outcome]]:
    """The predictions of each model on the test pictures, and on all folds together."""
    records = [model.record for model in summary.models]
    seen = {TEST: [pooled([record.test]) for record in records]}
    return seen | ({FOLDS: [pooled(record.folds) for record in records]} if summary.folds else {})


def _curve_plots(summary: Summary, chart: Chart, lines: Lines) -> Iterator[Plot]:
    """Draws all curves together, and those of each model."""
    lines = {part: curves for part, curves in lines.items() if any(curves)}
    if not lines:
        return
    where = f"on {tested_on(summary)}" if TEST in lines else ""
    if FOLDS in lines:
        where = f"{where}{' and ' if where else ''}on the pictures of all folds together, {cross_validation(summary)}"
    text = f"{chart.caption}, {where}."
    # Reliability curves cross each other so often that one chart of all is unreadable.
    on_page = chart.name != "reliability"
    text_of_all = f"{text} Colour: backbone; stroke: head."
    yield Plot(
        chart.name, f"{chart.title}, all models", text_of_all, partial(_together, summary, chart, lines), on_page
    )
    size = " Larger marks stand for more pictures." if chart.name == "reliability" else ""
    text = f"{text} The number is {chart.number}.{size}"
    yield Plot(f"{chart.name}_models", f"{chart.title}, model by model", text, partial(_apart, summary, chart, lines))


def _together(summary: Summary, chart: Chart, lines: Lines) -> Figure:
    colours, strokes = _looks(summary, "backbone", PALETTE), _looks(summary, "head", DASHES)
    keys = [entry(name, colour, "") for colour, name in _named(colours).items()]
    more = [entry(f"head: {name}", INK, "", stroke) for stroke, name in _named(strokes).items()]
    more.append(entry(chart.diagonal, MUTED, ""))
    side = (WIDTH - 0.55 - EDGE - 0.3) / 2
    left = 0.55 if len(lines) > 1 else (WIDTH - side) / 2
    high = 0.2 * len(legend_rows(keys))
    bottom = 0.6 + high + 0.2 * len(legend_rows(more))
    figure, every = panels(len(lines), 2, side, left=left, top=0.3, bottom=bottom, gap=0.3, width=side)
    for axes, (part, curves) in zip(every, lines.items(), strict=True):
        _diagonal(axes, chart)
        axes.set_title(part)
        for model, line in zip(summary.models, curves, strict=True):
            if line:
                levels = model.record.levels
                look = {"color": colours[levels["backbone"]], "linestyle": strokes[levels["head"]]}
                marker = "" if line.shares is None else "."  # a curve of one bin is a point
                axes.plot(line.x, line.y, **look, marker=marker, markersize=4, linewidth=1.1)
    label_outer(every, 2)
    for axes in every:
        axes.set_xlabel(chart.x)
    every[0].set_ylabel(chart.y)
    legend(figure, keys, side + 0.8)
    legend(figure, more, side + 0.8 + high)
    return figure


def _apart(summary: Summary, chart: Chart, lines: Lines) -> Figure:
    models = summary.models
    figure, every = small_multiples(len(models), 1.2, top=0.85, rise=0.65)
    for place, (axes, model) in enumerate(zip(every, models, strict=True)):
        _diagonal(axes, chart)
        numbers = []
        for part, curves in lines.items():
            line = curves[place]
            if line:
                colour, marker = LOOKS[part]
                axes.plot(line.x, line.y, color=colour, linestyle=STROKES[part], linewidth=1.2)
                numbers.append(f"{'test' if part == TEST else 'folds'} {line.number:.3f}")
                if line.shares is not None:
                    axes.scatter(
                        line.x, line.y, 4 + 60 * line.shares, colour, marker=marker, linewidths=0, clip_on=False
                    )
        axes.set_title("\n".join([*model_title(model), ", ".join(numbers)]), loc="left", size=8)
    name_axes(figure, every, COLUMNS, chart.x, chart.y)
    legend(figure, [entry(part, LOOKS[part][0], "", STROKES[part]) for part in lines], 0.1)
    return figure


def _diagonal(axes: Axes, chart: Chart) -> None:
    axes.plot([chart.start, 1], [chart.start, 1], color=MUTED, linewidth=0.8)
    pad = 0.03 * (1 - chart.start)
    axes.set(xlim=(chart.start - pad, 1 + pad), ylim=(-0.03, 1.03))
    axes.set_yticks([0, 0.5, 1])
    if chart.start:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    else:
        axes.set_xticks([0, 0.5, 1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PLAIN)


def _looks(summary: Summary, factor: str, looks: Sequence[Any]) -> dict[str, Any]:
    """A look for each level of a factor, in the order they were run; levels beyond the last look share it."""
    levels = dict.fromkeys(record.levels[factor] for record in summary.comparison.records)
    return {level: looks[min(place, len(looks) - 1)] for place, level in enumerate(levels)}


def _named(looks: Mapping[str, Any]) -> dict[Any, str]:
    """The levels that each look stands for."""
    names: dict[Any, str] = {}
    for level, look in looks.items():
        names[look] = f"{names[look]}, {level}" if look in names else level
    return {look: shorten(name, 30) for look, name in names.items()}
