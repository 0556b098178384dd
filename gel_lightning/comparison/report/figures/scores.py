"""Figures of the metrics of each model."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gel_lightning.comparison.report.figures.layout import (
    draw_intervals,
    draw_table,
    entry,
    legend,
    note,
    row_axes,
    text_width,
)
from gel_lightning.comparison.report.figures.looks import (
    FOLDS,
    LOOKS,
    PLAIN,
    TEST,
    accuracy_scale,
    cross_validation,
    tested_on,
)
from gel_lightning.comparison.report.figures.svg import Plot
from gel_lightning.comparison.summary import Metric, Summary
from gel_lightning.training.figures import INK, RIGHT, shorten

AS_GOOD, WORSE = 0.1, 0.8  # positions on a colour scale from pale to dark
FULL = 0.9  # bars that all reach this look the same


def accuracy_plots(summary: Summary) -> Iterator[Plot]:
    """Accuracy of each model, with intervals."""
    models, folded, places = summary.models, summary.folds > 0, np.arange(len(summary.models))

    def draw() -> Figure:
        figure, (axes,) = row_axes([model.name for model in models], 0.28, top=0.4)
        tested = [model.test_accuracy for model in models]
        if folded:
            draw_intervals(axes, places - 0.17, [model.estimates["accuracy"] for model in models], *LOOKS[FOLDS])
        draw_intervals(axes, places + (0.17 if folded else 0), tested, *LOOKS[TEST])
        axes.set(xlabel="accuracy, %", xlim=accuracy_scale(summary))
        legend(figure, [entry(part, *LOOKS[part]) for part in ((FOLDS, TEST) if folded else (TEST,))], 0.1)
        return figure

    text = f"Diamonds: share right of {tested_on(summary)}, with the exact 95 % interval."
    if folded:
        dots = f"Dots: mean of {cross_validation(summary)}, with the 95 % interval of the corrected resampled t-test"
        if summary.no_spread:
            dots += f" (where all fits agree, the exact one of {summary.groups} different pictures)"
        text = f"{dots}. {text}"
    yield Plot("accuracy", "Accuracy of each model", f"Accuracy of each model, the best first. {text}", draw)


def heatmap_plots(summary: Summary) -> Iterator[Plot]:
    """A table of all metrics of all models, coloured by what can be told apart."""
    models, metrics = summary.models, summary.metrics

    def draw() -> Figure:
        values = np.array([[model.estimates[metric.key].value for metric in metrics] for model in models])
        alike = np.array([summary.not_worse[metric.key] for metric in metrics], dtype=float).T
        labels = [_label(metric) for metric in metrics]
        top = 0.65 * text_width(labels, 8) + 0.2
        figure, (axes,) = row_axes([model.name for model in models], 0.26, top=top, bottom=0.35, right=0.75)
        shares = np.where(np.isfinite(values), np.where(alike > 0, AS_GOOD, WORSE), np.nan)
        draw_table(axes, shares, [[_number(value) for value in row] for row in values], "Blues")
        axes.set_xticks(range(len(metrics)), labels, rotation=40)
        for tick in axes.get_xticklabels():
            tick.set(ha="left", rotation_mode="anchor")
        note(figure, "pale: not shown to be worse than the best; dark: shown to be worse; ↓ less is better", 0.1)
        return figure

    told = summary.folds > 0
    where = (
        f"means of {cross_validation(summary)}"
        if told
        else f"on {tested_on(summary)}; one split cannot tell them apart"
    )
    tests = (
        " In each column what is dark is shown to be worse than the best, by the corrected resampled t-test with "
        "Holm's correction; what is pale is not."
    )
    yield Plot(
        "metrics_heatmap",
        "All metrics: what can be told apart",
        f"Metrics of each model, {where}.{tests if told else ''}",
        draw,
        on_page=told and len(models) > 1,
    )


def bar_plots(summary: Summary) -> Iterator[Plot]:
    """A bar chart of each metric, with intervals."""
    models, metrics = summary.models, summary.metrics

    def draw() -> Figure:
        figure, every = row_axes([model.name for model in models], 0.2, len(metrics), top=0.3, bottom=0.3, rise=0.5)
        for axes, metric in zip(every, metrics, strict=True):
            values, low, high = np.array([model.estimates[metric.key] for model in models]).T
            places, some = np.arange(len(models)), np.isfinite(low)
            axes.barh(places, values, height=0.62, color=RIGHT)
            axes.hlines(places[some], low[some].clip(0), high[some], color=INK, linewidth=1.2)
            axes.set_title(_label(metric, 21), loc="left", size=8)
            if metric.bounded and metric.more_is_better:
                axes.set(xlim=(0, 1), xticks=[0, 0.5, 1])
            else:
                axes.set_xlim(0)
                axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.xaxis.set_major_formatter(PLAIN)
            axes.grid(False, axis="y")
        return figure

    if summary.folds:
        text = f"means of {cross_validation(summary)}, with 95 % intervals (lines)"
    else:
        text = f"on {tested_on(summary)}; the line is the exact 95 % interval of the accuracy"
    yield Plot(
        "metrics_bars",
        "Each metric with its interval",
        f"Metrics of each model, {text}. Models are in the order of their rank; ↓ less is better.",
        draw,
        on_page=any(
            m.estimates[metric.key].value < FULL for m in models for metric in metrics if metric.more_is_better
        ),
    )


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _label(metric: Metric, most: int = 24) -> str:
    """The name of a metric, with an arrow if less is better."""
    return shorten(metric.label, most) + ("" if metric.more_is_better else " ↓")
