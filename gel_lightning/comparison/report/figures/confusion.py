"""Confusion matrices of each model."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gel_lightning.comparison.predictions import Outcome, confusion_counts
from gel_lightning.comparison.report.figures.layout import EDGE, GAP, WIDTH, name_axes, panels, separate, text_width
from gel_lightning.comparison.report.figures.looks import cross_validation, model_title, tested_on
from gel_lightning.comparison.report.figures.svg import Plot
from gel_lightning.comparison.summary import ModelSummary, Summary
from gel_lightning.training.figures import NUMBERED, draw_confusion, shorten


def confusion_plots(summary: Summary) -> Iterator[Plot]:
    """Confusion matrices on the test pictures, and in cross-validation."""
    models = summary.models
    who = "each model"
    if len(summary.comparison.class_names) > NUMBERED:  # each matrix fills the page
        models, who = models[:1], f"{models[0].name}, the best model,"
    yield Plot(
        "confusion_test",
        "Confusion matrices, test pictures",
        f"Predictions of {who} for {tested_on(summary)}: rows are the actual class, columns the predicted one, "
        "colour the share of the row.",
        lambda: _matrices(summary, models, [_counts(summary, [model.record.test]) for model in models]),
    )
    if summary.folds:
        yield Plot(
            "confusion_folds",
            "Confusion matrices, cross-validation",
            f"Predictions of {who} for pictures that it was not trained on: {cross_validation(summary)}, "
            f"all folds together{', mean of the repeats' if summary.repeats > 1 else ''}. Rows are the actual class, "
            "columns the predicted one, colour the share of the row.",
            lambda: _matrices(
                summary, models, [_counts(summary, model.record.folds) / summary.repeats for model in models]
            ),
        )


def _counts(summary: Summary, outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    return confusion_counts(outcomes, len(summary.comparison.class_names)).astype(float)


def _matrices(summary: Summary, models: Sequence[ModelSummary], matrices: Sequence[NDArray[np.float64]]) -> Figure:
    names = [shorten(name, 16) for name in summary.comparison.class_names]
    long = text_width(names, 8)
    left = long + 0.4
    room = WIDTH - left - EDGE
    widest = max(max(matrix.max() for matrix in matrices), 10)
    whole = all((matrix % 1 == 0).all() for matrix in matrices)
    needed = text_width([f"{widest:.0f}" if whole else f"{widest:.1f}"]) + 0.06
    numbered = len(names) <= NUMBERED
    cell = min(max(needed, 1.15 / len(names)), room / len(names)) if numbered else room / len(names)
    size = 8 if numbered else min(8, 64 * cell)  # of names, so that they do not touch
    side = cell * len(names)
    gap = max(1.57 - side, GAP)  # the titles need it
    columns = max(min(int((room + GAP) / (side + gap)), len(matrices)), 1)
    turned = long + 0.06 > cell
    bottom = 0.35 + (long if turned else 0.15)
    figure, every = panels(
        len(matrices), columns, side, left=left, top=0.4, bottom=bottom, gap=gap, rise=0.5, width=side
    )
    for axes, model, matrix in zip(every, models, matrices, strict=True):
        draw_confusion(axes, torch.from_numpy(matrix), 8.5 * min(1, cell / needed))
        if numbered:
            separate(axes)
        axes.set_title("\n".join(model_title(model)), loc="left", size=8)
        axes.set_xticks(range(len(names)), names, rotation=90 if turned else 0, size=size)
        axes.set_yticks(range(len(names)), names, size=size)
        if turned:
            for tick in axes.get_xticklabels():
                tick.set(ha="right", va="center", rotation_mode="anchor")
    name_axes(figure, every, columns, "predicted class", "actual class")
    return figure
