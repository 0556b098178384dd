"""Figures of differences between models: by factor, of each factor, of each pair of models."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gel_lightning.comparison.report.figures.layout import (
    CELLS,
    EDGE,
    WIDTH,
    add_axes,
    draw_intervals,
    draw_table,
    entry,
    label_outer,
    legend,
    panels,
    row_axes,
    text_width,
)
from gel_lightning.comparison.report.figures.looks import (
    FOLDS,
    LOOKS,
    accuracy_scale,
    cross_validation,
    spread,
    tested_on,
)
from gel_lightning.comparison.report.figures.svg import Plot
from gel_lightning.comparison.summary import ModelSummary, Summary
from gel_lightning.training.figures import INK, RIGHT, SURFACE, WRONG, ink_on, shorten

LEAST_SPAN = 5.0  # percentage points: the smallest scale of differences, so that a tenth of one does not look large


def factor_plots(summary: Summary) -> Iterator[Plot]:
    """Accuracy of the models of each level of each factor."""
    if not summary.factors:
        return

    def draw() -> Figure:
        groups = {factor: _grouped(summary.models, factor) for factor in summary.factors}
        names = {factor: [shorten(level, 30) for level in levels] for factor, levels in groups.items()}
        left = text_width([name for some in names.values() for name in some]) + 0.2
        heights = [0.36 * len(levels) for levels in groups.values()]
        figure, every = panels(len(groups), 1, heights, left=left, top=0.3, bottom=0.45, right=0.75, rise=0.4)
        for axes, (factor, levels) in zip(every, groups.items(), strict=True):
            axes.set_title(factor, loc="left")
            axes.set_yticks(range(len(levels)), names[factor])
            axes.set_ylim(len(levels) - 0.5, -0.5)
            for place, models in enumerate(levels.values()):
                values = [100 * model.estimates["accuracy"].value for model in models]
                mean = float(np.mean(values))
                axes.plot(values, place + spread(len(values)), "o", color=RIGHT, markersize=4)
                axes.plot([mean], [place], "|", color=WRONG, markersize=18, markeredgewidth=2.5)
                axes.text(1.02, place, f"{mean:.1f} %", transform=axes.get_yaxis_transform(), va="center")
        for axes in every:
            axes.set_xlim(accuracy_scale(summary))
        label_outer(every, 1)
        every[-1].set_xlabel("accuracy, %")
        return figure

    where = f"mean of {cross_validation(summary)}" if summary.folds else f"on {tested_on(summary)}"
    yield Plot(
        "factors",
        "Accuracy by each factor",
        f"Accuracy of the models by their level of each factor, {where}. Dots: the models; strokes and numbers: the "
        "mean of those of a level.",
        draw,
    )


def effect_plots(summary: Summary) -> Iterator[Plot]:
    """The mean difference in accuracy between levels of each factor."""
    effects = summary.effects
    if not effects:
        return

    def draw() -> Figure:
        labels = [f"{effect.factor}: {effect.first} − {effect.second}" for effect in effects]
        figure, (axes,) = row_axes(labels, 0.3, top=0.4, most=48)
        axes.axvline(0, color=INK, linewidth=1)
        differences = [effect.difference for effect in effects]
        hollow = [not difference.shown for difference in differences]
        draw_intervals(axes, np.arange(len(effects)), differences, *LOOKS[FOLDS], hollow=hollow)
        keys = [entry("interval without zero", *LOOKS[FOLDS]), entry("with zero", *LOOKS[FOLDS], face=SURFACE)]
        legend(figure, keys, 0.1)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -LEAST_SPAN / 2), max(high, LEAST_SPAN / 2))
        axes.set_xlabel("difference in accuracy, percentage points")
        return figure

    yield Plot(
        "effects",
        "What each factor changes",
        "How much more accurate models of the first level are than those of the second that differ in nothing else: "
        f"mean of {cross_validation(summary)}, with the 95 % interval of the corrected resampled t-test.",
        draw,
    )


def pair_plots(summary: Summary) -> Iterator[Plot]:
    """A table of the differences in accuracy of all pairs of models."""
    if not summary.pairs:
        return

    def draw() -> Figure:
        places = {model.name: place for place, model in enumerate(summary.models)}
        values = np.full((len(places), len(places)), np.nan)
        for pair in summary.pairs:
            values[places[pair.first], places[pair.second]] = 100 * pair.difference.value
        labels = [f"{shorten(name, 36)}  {place + 1}" for name, place in places.items()]
        left = text_width(labels, 8) + 0.15
        cell = min((WIDTH - left - EDGE) / len(places), 0.42)
        height = len(places) * max(cell, 0.145)
        figure, (axes,) = panels(1, 1, height, left=left, top=0.4, bottom=1, width=len(places) * cell)
        top = max(float(np.nanmax(values)), LEAST_SPAN)
        written = cell > 0.33  # else there is no room for numbers
        texts = [["" if np.isnan(value) or not written else f"{value:.1f}" for value in row] for row in values]
        draw_table(axes, values / top, texts)
        for pair in summary.pairs:
            if pair.shown:
                row, column = places[pair.first], places[pair.second]
                shift = 0.32 if written else 0
                ink = ink_on(colormaps[CELLS](values[row, column] / top))
                axes.plot([column + shift], [row - shift], "o", color=ink, markersize=4, markeredgewidth=0)
        numbers = [str(place + 1) for place in places.values()]
        axes.set_xticks(range(len(places)), numbers, rotation=0 if cell > 0.2 else 90)
        axes.set_yticks(range(len(places)), labels)
        scale = add_axes(figure, left, 0.75, 2.2, 0.1)
        scale.imshow(np.linspace(0, 1, 64)[None], cmap=CELLS, extent=(0, top, 0, 1), aspect="auto")
        scale.set(yticks=[], xlabel="difference, percentage points")
        scale.xaxis.set_major_locator(MaxNLocator(4))
        scale.grid(False)
        scale.spines[:].set_visible(False)
        dot = Line2D([], [], color=INK, marker="o", markersize=4, linestyle="", label="significant (Holm's correction)")
        legend(figure, [dot], height + 1.15, left=left)
        return figure

    yield Plot(
        "pairs",
        "Which models differ",
        "By how many percentage points the model of the row is more accurate than that of the column: mean of "
        f"{cross_validation(summary)}. A dot marks differences that are significant with all pairs considered (Holm's "
        "correction, level 5 %).",
        draw,
    )


def _grouped(models: Sequence[ModelSummary], factor: str) -> dict[str, list[ModelSummary]]:
    """The models of each level of a factor."""
    groups: dict[str, list[ModelSummary]] = {}
    for model in models:
        groups.setdefault(model.record.levels[factor], []).append(model)
    return groups
