"""Learning curves of each model."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from gel_lightning.comparison.report.figures.layout import COLUMNS, entry, legend, name_below, small_multiples
from gel_lightning.comparison.report.figures.looks import PLAIN, model_title
from gel_lightning.comparison.report.figures.svg import Plot
from gel_lightning.comparison.summary import ModelSummary, Summary
from gel_lightning.training.figures import RIGHT, WRONG

LEAST_LOSS = 1e-3  # the smallest loss shown: the scale is logarithmic, and training loss comes close to zero


def learning_curve_plots(summary: Summary) -> Iterator[Plot]:
    """Loss and accuracy over the epochs."""
    stages = {"train": ("training", RIGHT, "-"), "val": ("validation", WRONG, "--")}
    names = [f"{stage}/{metric}" for stage in stages for metric in ("loss", "accuracy")]
    models = [model for model in summary.models if any(len(_points(model, name)[0]) for name in names)]
    if not models:
        return

    def draw() -> Figure:
        columns = min(len(models), COLUMNS)
        blocks = -(-len(models) // columns)
        figure, every = small_multiples(2 * blocks * columns, 0.9, top=0.8, rise=(0.1, 0.5), columns=columns)
        used = []
        for place, model in enumerate(models):
            first = 2 * columns * (place // columns) + place % columns
            pair = every[first], every[first + columns]
            used.append(pair)
            pair[0].set_title("\n".join(model_title(model)), loc="left", size=8)
            for axes, metric in zip(pair, ("loss", "accuracy"), strict=True):
                for stage, (_, colour, stroke) in stages.items():
                    epochs, values = _points(model, f"{stage}/{metric}")
                    values = values.clip(LEAST_LOSS) if metric == "loss" else 100 * values
                    marker = "." if len(values) < 3 else ""
                    axes.plot(epochs, values, color=colour, linestyle=stroke, marker=marker, linewidth=1.2)
        for axes in set(every) - {axes for pair in used for axes in pair}:
            axes.remove()
        for row, label in enumerate(("loss", "accuracy, %")):
            _share_scales([pair[row] for pair in used], logarithmic=row == 0)
            for place, pair in enumerate(used):
                last = row == 1 and place + columns >= len(used)
                pair[row].tick_params(labelleft=place % columns == 0, labelbottom=last)
                if place % columns == 0:
                    pair[row].set_ylabel(label)
        name_below(figure, "epoch")
        legend(figure, [entry(name, colour, "", stroke) for name, colour, stroke in stages.values()], 0.1)
        return figure

    yield Plot(
        "curves",
        "Learning curves",
        f"Loss (logarithmic scale; values below {LEAST_LOSS} are drawn there) and accuracy of each model over the "
        "epochs, on the pictures it was trained on and on the validation pictures.",
        draw,
    )


def _points(model: ModelSummary, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The epochs and values of a curve, without those that are not finite."""
    values = np.array(model.record.curves.get(key, []))
    some = np.isfinite(values)
    return np.arange(1.0, len(values) + 1)[some], values[some]


def _share_scales(every: Sequence[Axes], logarithmic: bool) -> None:
    if logarithmic:
        for axes in every:
            axes.set_yscale("log")
    ends = np.array([axes.get_xlim() + axes.get_ylim() for axes in every])
    near = ends[:, 3].max() < 30 * ends[:, 2].min()
    for axes in every:
        axes.set(xlim=(ends[:, 0].min(), ends[:, 1].max()), ylim=(ends[:, 2].min(), ends[:, 3].max()))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        if logarithmic:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if near else (1,)))
            axes.yaxis.set_major_formatter(PLAIN)
            axes.yaxis.set_minor_locator(NullLocator())
