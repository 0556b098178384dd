"""All figures of a report, in order."""

from collections.abc import Callable, Iterator

from gel_lightning.comparison.report.figures.classes import class_plots
from gel_lightning.comparison.report.figures.confusion import confusion_plots
from gel_lightning.comparison.report.figures.curves import reliability_plots, roc_plots
from gel_lightning.comparison.report.figures.differences import effect_plots, factor_plots, pair_plots
from gel_lightning.comparison.report.figures.learning import learning_curve_plots
from gel_lightning.comparison.report.figures.original import original_plots
from gel_lightning.comparison.report.figures.scores import accuracy_plots, bar_plots, heatmap_plots
from gel_lightning.comparison.report.figures.svg import Plot
from gel_lightning.comparison.report.figures.times import time_plots
from gel_lightning.comparison.summary import Summary

PLOTS: tuple[Callable[[Summary], Iterator[Plot]], ...] = (
    *(accuracy_plots, heatmap_plots, bar_plots, factor_plots, effect_plots, pair_plots, roc_plots, reliability_plots),
    *(confusion_plots, class_plots, learning_curve_plots, time_plots, original_plots),
)


def plots(summary: Summary) -> Iterator[Plot]:
    """The figures of a report in order, without those with nothing to show."""
    for some in PLOTS:
        yield from some(summary)
