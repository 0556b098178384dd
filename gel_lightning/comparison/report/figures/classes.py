"""Precision, recall and F1 of each class."""

from collections.abc import Iterator

import torch
from matplotlib.figure import Figure

from gel_lightning.comparison.predictions import confusion_counts
from gel_lightning.comparison.report.figures.layout import panels, text_width
from gel_lightning.comparison.report.figures.looks import cross_validation, tested_on
from gel_lightning.comparison.report.figures.svg import Plot
from gel_lightning.comparison.summary import Summary
from gel_lightning.training.figures import MOST_CLASSES, NAMED_CLASS, draw_classes, shorten
from gel_lightning.training.metrics import class_metrics


def class_plots(summary: Summary) -> Iterator[Plot]:
    """Bars of precision, recall and F1 of each class, of the best model."""
    best, every = summary.models[0], summary.comparison.class_names
    outcomes = best.record.folds or [best.record.test]
    where = f"in {cross_validation(summary)}" if summary.folds else f"on {tested_on(summary)}"
    names = [shorten(name, NAMED_CLASS) for name in every]
    shown = min(len(names), MOST_CLASSES)

    def draw() -> Figure:
        figure, axes = panels(3, 3, 0.19 * shown, left=text_width(names, 8) + 0.15, top=0.3, bottom=0.3, gap=0.2)
        draw_classes(axes, class_metrics(torch.from_numpy(confusion_counts(outcomes, len(names)))), names)
        return figure

    some = f" The {shown} of {len(names)} classes with the lowest F1 are shown." if shown < len(names) else ""
    yield Plot(
        "classes",
        "Precision, recall and F1 by class",
        f"Of {best.name}, {where}: precision, recall and F1 of each class against all others, the lowest F1 first, "
        f"and their means over the classes.{some}",
        draw,
        on_page=len(names) > 2,
    )
