"""The figures of a comparison's report."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_roc

from gel_lightning.comparison.drawing import (
    CELLS,
    COLUMNS,
    EDGE,
    GAP,
    WIDTH,
    Plot,
    add_axes,
    draw_intervals,
    draw_table,
    entry,
    label_outer,
    legend,
    legend_rows,
    name_axes,
    name_below,
    note,
    panels,
    row_axes,
    separate,
    small_multiples,
    text_width,
)
from gel_lightning.comparison.original import Original, original_results
from gel_lightning.comparison.predictions import Outcome, confusion_counts, pooled
from gel_lightning.comparison.records import Record
from gel_lightning.comparison.statistics import Estimate
from gel_lightning.comparison.summary import Metric, ModelSummary, Summary
from gel_lightning.training.figures import (
    INK,
    MUTED,
    PALETTE,
    RIGHT,
    SURFACE,
    WRONG,
    draw_confusion,
    ink_on,
    report_style,
    shorten,
)
from gel_lightning.training.metrics import CALIBRATION_BINS, positive_class

TEST, FOLDS = "test pictures", "cross-validation"
LOOKS, STROKES = {TEST: (WRONG, "D"), FOLDS: (RIGHT, "o")}, {TEST: "--", FOLDS: "-"}
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
SHAPES = {"cpu": "o", "gpu": "s", "tpu": "^"}
TICKS = {
    **{0.001: "1 ms", 0.01: "10 ms", 0.1: "0.1 s", 1.0: "1 s", 10.0: "10 s"},
    **{60.0: "1 min", 600.0: "10 min", 3600.0: "1 h", 36000.0: "10 h", 360000.0: "100 h"},
}
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
AS_GOOD, WORSE = 0.1, 0.8  # places on a scale of colours from pale to dark
FULL = 0.9  # bars that all reach it look alike
LEAST_SPAN = 5.0  # percentage points that a scale of differences spans, so that a tenth does not look like much
LEAST_LOSS = 1e-3  # that is shown: the scale is of powers, and the loss of training comes close to zero


def plots(summary: Summary) -> Iterator[Plot]:
    """Draws the figures of a report in its order; leaves out those that have nothing to show."""
    for draw in DRAWN:
        with report_style():
            drawn = list(draw(summary))
        yield from drawn


def _accuracy(summary: Summary) -> Iterator[Plot]:
    models, folded, places = summary.models, summary.folds > 0, np.arange(len(summary.models))
    figure, (axes,) = row_axes([model.name for model in models], 0.28, top=0.4)
    tested = [model.test_accuracy for model in models]
    text = f"Diamonds: share right of {_tested(summary)}, with the exact 95 % interval."
    alike = (
        f" (where all fits agree, the exact one of {summary.groups} different pictures)" if summary.no_spread else ""
    )
    if folded:
        draw_intervals(axes, places - 0.17, [model.estimates["accuracy"] for model in models], *LOOKS[FOLDS])
        dots = f"Dots: mean of {_folded(summary)}, with the 95 % interval of the corrected resampled t-test{alike}."
        text = f"{dots} {text}"
    draw_intervals(axes, places + (0.17 if folded else 0), tested, *LOOKS[TEST])
    axes.set(xlabel="accuracy, %", xlim=_accuracy_scale(summary))
    legend(figure, [entry(part, *LOOKS[part]) for part in ((FOLDS, TEST) if folded else (TEST,))], 0.1)
    yield Plot("accuracy", "Accuracy of each model", f"Accuracy of each model, the best first. {text}", figure)


def _accuracy_scale(summary: Summary) -> tuple[float, float]:
    """The ends of an axis of accuracy in %: all intervals fit, and no difference looks greater than it is."""
    ends = [
        (estimate.low, estimate.value)
        for m in summary.models
        for estimate in (m.test_accuracy, m.estimates["accuracy"])
    ]
    return min(100 * float(np.nanmin(ends)) - 1, 90), 101


def _heatmap(summary: Summary) -> Iterator[Plot]:
    models, metrics = summary.models, summary.metrics
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
    told = summary.folds > 0
    note(figure, "pale: not shown to be worse than the best; dark: shown to be worse; ↓ less is better", 0.1)
    where = f"means of {_folded(summary)}" if told else f"on {_tested(summary)}; one split cannot tell them apart"
    tests = (
        " In each column what is dark is shown to be worse than the best, by the corrected resampled t-test with "
        "Holm's correction; what is pale is not."
    )
    yield Plot(
        "metrics_heatmap",
        "All metrics: what can be told apart",
        f"Metrics of each model, {where}.{tests if told else ''}",
        figure,
        on_page=told and len(models) > 1,
    )


def _bars(summary: Summary) -> Iterator[Plot]:
    models, metrics = summary.models, summary.metrics
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
    if summary.folds:
        text = f"means of {_folded(summary)}, with 95 % intervals (lines)"
    else:
        text = f"on {_tested(summary)}; the line is the exact 95 % interval of the accuracy"
    yield Plot(
        "metrics_bars",
        "Each metric with its interval",
        f"Metrics of each model, {text}. Models are in the order of their rank; ↓ less is better.",
        figure,
        on_page=any(
            m.estimates[metric.key].value < FULL for m in models for metric in metrics if metric.more_is_better
        ),
    )


def _factors(summary: Summary) -> Iterator[Plot]:
    if not summary.factors:
        return
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
            axes.plot(values, place + _spread(len(values)), "o", color=RIGHT, markersize=4)
            axes.plot([mean], [place], "|", color=WRONG, markersize=18, markeredgewidth=2.5)
            axes.text(1.02, place, f"{mean:.1f} %", transform=axes.get_yaxis_transform(), va="center")
    for axes in every:
        axes.set_xlim(_accuracy_scale(summary))
    label_outer(every, 1)
    every[-1].set_xlabel("accuracy, %")
    where = f"mean of {_folded(summary)}" if summary.folds else f"on {_tested(summary)}"
    yield Plot(
        "factors",
        "Accuracy by each factor",
        f"Accuracy of the models by their level of each factor, {where}. Dots: the models; strokes and numbers: the "
        "mean of those of a level.",
        figure,
    )


def _effects(summary: Summary) -> Iterator[Plot]:
    effects = summary.effects
    if not effects:
        return
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
    yield Plot(
        "effects",
        "What each factor changes",
        "How much more accurate models of the first level are than those of the second that differ in nothing else: "
        f"mean of {_folded(summary)}, with the 95 % interval of the corrected resampled t-test.",
        figure,
    )


def _pairs(summary: Summary) -> Iterator[Plot]:
    if not summary.pairs:
        return
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
    written = cell > 0.33  # or there is no room for numbers
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
    key = Line2D([], [], color=INK, marker="o", markersize=4, linestyle="", label="holds with all pairs considered")
    legend(figure, [key], height + 1.15, left=left)
    yield Plot(
        "pairs",
        "Which models differ",
        "By how many percentage points the model of the row is more accurate than that of the column: mean of "
        f"{_folded(summary)}. A dot marks what holds with all pairs considered (Holm's correction, level 5 %).",
        figure,
    )


class Line(NamedTuple):
    """A curve of a model: its points, the share of the pictures that each stands for, and the number it comes to."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    shares: NDArray[np.float64] | None
    number: float


class Kind(NamedTuple):
    """What curves are of.

    Attributes:
        name: of the figure.
        title: of the figure.
        caption: of the figure, as far as it goes for all.
        x: label of the axis.
        y: label of the axis.
        start: of the x axis.
        diagonal: what it is.
        number: what the number of a curve is.
    """

    name: str
    title: str
    caption: str
    x: str
    y: str
    start: float
    diagonal: str
    number: str


Lines = dict[str, list[Line | None]]  # of the test pictures, and of the folds: of each model, if it has one


def _roc(summary: Summary) -> Iterator[Plot]:
    names = summary.comparison.class_names
    positive = positive_class(names)
    rest = "the other classes" if len(names) > 2 else shorten(names[1 - positive], 40)
    caption = f"ROC curves of {shorten(names[positive], 40)} against {rest}"
    lines = {part: [_roc_line(outcome, positive) for outcome in seen] for part, seen in _seen(summary).items()}
    labels = ("false positive rate", "true positive rate")
    kind = Kind("roc", "ROC curves", caption, *labels, 0, "chance", "the area under the curve")
    yield from _curved(summary, kind, lines)


def _roc_line(outcome: Outcome, positive: int) -> Line | None:
    actual = torch.from_numpy(outcome.labels == positive).long()
    if not 0 < actual.sum() < len(actual):  # a curve needs pictures of both sides
        return None
    x, y, _ = binary_roc(torch.from_numpy(outcome.probabilities[:, positive]), actual)
    return Line(x.numpy(), y.numpy(), None, float(torch.trapezoid(y.double(), x.double())))


def _reliability(summary: Summary) -> Iterator[Plot]:
    models = summary.models
    errors = {
        TEST: [model.test["calibration_error"] for model in models],
        FOLDS: [model.estimates["calibration_error"].value for model in models],
    }
    lines: Lines = {
        part: [_reliability_line(*both) for both in zip(seen, errors[part], strict=True)]
        for part, seen in _seen(summary).items()
    }
    caption = f"Reliability: the share right of pictures by how sure the model was, in {CALIBRATION_BINS} bins"
    number = "the expected calibration error" + (" (of the folds the mean of the fits)" if summary.folds else "")
    start = 1 / len(summary.comparison.class_names)
    labels = ("confidence", "share right")
    kind = Kind("reliability", "Reliability", caption, *labels, start, "as right as sure", number)
    yield from _curved(summary, kind, lines)


def _reliability_line(outcome: Outcome, error: float) -> Line:
    from sklearn.calibration import calibration_curve

    right = outcome.probabilities.argmax(axis=1) == outcome.labels
    confidence = outcome.probabilities.max(axis=1)
    share, mean = calibration_curve(right, confidence, n_bins=CALIBRATION_BINS)
    # It tells not how many pictures are in its bins, which are these.
    inner = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    counts = np.bincount(np.searchsorted(inner, confidence))
    return Line(mean, share, counts[counts > 0] / len(confidence), error)


def _seen(summary: Summary) -> dict[str, list[Outcome]]:
    """What each model made of the test pictures, and of all folds together."""
    records = [model.record for model in summary.models]
    seen = {TEST: [pooled([record.test]) for record in records]}
    return seen | ({FOLDS: [pooled(record.folds) for record in records]} if summary.folds else {})


def _curved(summary: Summary, kind: Kind, lines: Lines) -> Iterator[Plot]:
    """Draws curves all together, and for each model."""
    lines = {part: curves for part, curves in lines.items() if any(curves)}
    if not lines:
        return
    where = f"on {_tested(summary)}" if TEST in lines else ""
    if FOLDS in lines:
        where = f"{where}{' and ' if where else ''}on the pictures of all folds together, {_folded(summary)}"
    text = f"{kind.caption}, {where}."
    together = _together(summary, kind, lines)
    # Curves of bins cross each other so often that all in one chart say nothing.
    on_page = kind.name != "reliability"
    text_of_all = f"{text} Colour: backbone; stroke: head."
    yield Plot(kind.name, f"{kind.title}, all models", text_of_all, together, on_page)
    size = " Larger marks stand for more pictures." if kind.name == "reliability" else ""
    apart = _apart(summary, kind, lines)
    text = f"{text} The number is {kind.number}.{size}"
    yield Plot(f"{kind.name}_models", f"{kind.title}, model by model", text, apart)


def _together(summary: Summary, kind: Kind, lines: Lines) -> Figure:
    colours, strokes = _looks(summary, "backbone", PALETTE), _looks(summary, "head", DASHES)
    keys = [entry(name, colour, "") for colour, name in _named(colours).items()]
    more = [entry(f"head: {name}", INK, "", stroke) for stroke, name in _named(strokes).items()]
    more.append(entry(kind.diagonal, MUTED, ""))
    side = (WIDTH - 0.55 - EDGE - 0.3) / 2
    left = 0.55 if len(lines) > 1 else (WIDTH - side) / 2
    high = 0.2 * len(legend_rows(keys))
    bottom = 0.6 + high + 0.2 * len(legend_rows(more))
    figure, every = panels(len(lines), 2, side, left=left, top=0.3, bottom=bottom, gap=0.3, width=side)
    for axes, (part, curves) in zip(every, lines.items(), strict=True):
        _diagonal(axes, kind)
        axes.set_title(part)
        for model, line in zip(summary.models, curves, strict=True):
            if line:
                levels = model.record.levels
                look = {"color": colours[levels["backbone"]], "linestyle": strokes[levels["head"]]}
                marker = "" if line.shares is None else "."  # a curve of one bin is no line
                axes.plot(line.x, line.y, **look, marker=marker, markersize=4, linewidth=1.1)
    label_outer(every, 2)
    for axes in every:
        axes.set_xlabel(kind.x)
    every[0].set_ylabel(kind.y)
    legend(figure, keys, side + 0.8)
    legend(figure, more, side + 0.8 + high)
    return figure


def _apart(summary: Summary, kind: Kind, lines: Lines) -> Figure:
    models = summary.models
    figure, every = small_multiples(len(models), 1.2, top=0.85, rise=0.65)
    for place, (axes, model) in enumerate(zip(every, models, strict=True)):
        _diagonal(axes, kind)
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
        axes.set_title("\n".join([*_title(model), ", ".join(numbers)]), loc="left", size=8)
    name_axes(figure, every, COLUMNS, kind.x, kind.y)
    legend(figure, [entry(part, LOOKS[part][0], "", STROKES[part]) for part in lines], 0.1)
    return figure


def _diagonal(axes: Axes, kind: Kind) -> None:
    axes.plot([kind.start, 1], [kind.start, 1], color=MUTED, linewidth=0.8)
    pad = 0.03 * (1 - kind.start)
    axes.set(xlim=(kind.start - pad, 1 + pad), ylim=(-0.03, 1.03))
    axes.set_yticks([0, 0.5, 1])
    if kind.start:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    else:
        axes.set_xticks([0, 0.5, 1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PLAIN)


def _confusion(summary: Summary) -> Iterator[Plot]:
    yield Plot(
        "confusion_test",
        "Confusion matrices, test pictures",
        f"What each model took {_tested(summary)} for: rows are the actual class, columns the predicted one, colour "
        "the share of the row.",
        _matrices(summary, [_counts(summary, [model.record.test]) for model in summary.models]),
    )
    if summary.folds:
        yield Plot(
            "confusion_folds",
            "Confusion matrices, cross-validation",
            f"What each model took pictures for that it was not trained on: {_folded(summary)}, all folds together"
            f"{', mean of those times' if summary.repeats > 1 else ''}. Rows are the actual class, columns the "
            "predicted one, colour the share of the row.",
            _matrices(summary, [_counts(summary, model.record.folds) / summary.repeats for model in summary.models]),
        )


def _counts(summary: Summary, outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    return confusion_counts(outcomes, len(summary.comparison.class_names)).astype(float)


def _matrices(summary: Summary, matrices: Sequence[NDArray[np.float64]]) -> Figure:
    names = [shorten(name, 16) for name in summary.comparison.class_names]
    long = text_width(names, 8)
    left = long + 0.4
    room = WIDTH - left - EDGE
    widest = max(max(matrix.max() for matrix in matrices), 10)
    whole = all((matrix % 1 == 0).all() for matrix in matrices)
    needed = text_width([f"{widest:.0f}" if whole else f"{widest:.1f}"]) + 0.06
    cell = min(max(needed, 1.15 / len(names)), room / len(names))
    side = cell * len(names)
    gap = max(1.57 - side, GAP)  # the titles need it
    columns = max(min(int((room + GAP) / (side + gap)), len(matrices)), 1)
    turned = long + 0.06 > cell
    bottom = 0.35 + (long if turned else 0.15)
    figure, every = panels(
        len(matrices), columns, side, left=left, top=0.4, bottom=bottom, gap=gap, rise=0.5, width=side
    )
    for axes, model, matrix in zip(every, summary.models, matrices, strict=True):
        draw_confusion(axes, torch.from_numpy(matrix), 8.5 * min(1, cell / needed))
        separate(axes)
        axes.set_title("\n".join(_title(model)), loc="left", size=8)
        axes.set_xticks(range(len(names)), names, rotation=90 if turned else 0)
        axes.set_yticks(range(len(names)), names)
        if turned:
            for tick in axes.get_xticklabels():
                tick.set(ha="right", va="center", rotation_mode="anchor")
    name_axes(figure, every, columns, "predicted class", "actual class")
    return figure


def _curves(summary: Summary) -> Iterator[Plot]:
    stages = {"train": ("training", RIGHT, "-"), "val": ("validation", WRONG, "--")}
    names = [f"{stage}/{metric}" for stage in stages for metric in ("loss", "accuracy")]
    models = [model for model in summary.models if any(len(_points(model, name)[0]) for name in names)]
    if not models:
        return
    columns = min(len(models), COLUMNS)
    blocks = -(-len(models) // columns)
    figure, every = small_multiples(2 * blocks * columns, 0.9, top=0.8, rise=(0.1, 0.5), columns=columns)
    used = []
    for place, model in enumerate(models):
        first = 2 * columns * (place // columns) + place % columns
        pair = every[first], every[first + columns]
        used.append(pair)
        pair[0].set_title("\n".join(_title(model)), loc="left", size=8)
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
    yield Plot(
        "curves",
        "Learning curves",
        "Loss (scale of powers of ten; what is below "
        f"{LEAST_LOSS} is drawn there) and accuracy of each model over the epochs, on the pictures it was trained on "
        "and on the validation pictures.",
        figure,
    )


def _points(model: ModelSummary, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The epochs and values of a curve, those that are numbers."""
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
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if logarithmic:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if near else (1,)))
            axes.yaxis.set_major_formatter(PLAIN)
            axes.yaxis.set_minor_locator(NullLocator())


def _times(summary: Summary) -> Iterator[Plot]:
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in summary.comparison.records:
        groups.setdefault((record.levels["backbone"], record.levels["hardware"]), []).append(record)
    originals = {key: _originals_of(*key, records) for key, records in groups.items()}
    several = len({hardware for _, hardware in groups}) > 1
    labels = [f"{backbone}, {hardware}" if several else backbone for backbone, hardware in groups]
    figure, every = row_axes(labels, 0.5, 2, top=0.6, bottom=0.3, right=0.3, gap=0.5)
    for axes, title in zip(every, ("training", "predicting the test pictures"), strict=True):
        own = [_seconds(records, title) for records in groups.values()]
        their = [_seconds(results, title) for results in originals.values()]
        for (colour, marker), face, rows in ((LOOKS[TEST], SURFACE, their), (LOOKS[FOLDS], RIGHT, own)):
            for place, values in enumerate(rows):
                axes.plot(values, place + _spread(len(values)), marker, color=colour, markerfacecolor=face)
        _time_scale(axes, [value for values in own + their for value in values])
        axes.set_title(title, loc="left")
    keys = [entry("ours", *LOOKS[FOLDS], "")]
    text = "The time that each model took, with that of computing the features of its pictures; scale of powers of ten."
    if any(originals.values()):
        keys.append(entry("original study", *LOOKS[TEST], "", SURFACE))
        text += " Diamonds: the same models in the original study, on other hardware than ours and on its own pictures."
    legend(figure, keys, 0.1)
    yield Plot("times", "Time of training and of predicting", text, figure)


def _originals_of(backbone: str, hardware: str, records: Sequence[Record]) -> list[Original]:
    """The original study's models of a backbone and hardware: those of our numbers, or all if ours have none."""
    numbers = {record.row["model_id"] for record in records} - {""}
    return [
        result
        for number, result in original_results().items()
        if (result.levels["backbone"], result.levels["hardware"]) == (backbone, hardware)
        and (not numbers or str(number) in numbers)
    ]


def _seconds(results: Sequence[Record] | Sequence[Original], what: str) -> list[float]:
    seconds = [result.training_seconds if what == "training" else result.inference_seconds for result in results]
    return [max(value, min(TICKS)) for value in seconds]  # none is left of the scale


def _time_scale(axes: Axes, seconds: Sequence[float]) -> None:
    """A scale of powers, from the tick below all times to that above."""
    ticks = list(TICKS)
    low = max((tick for tick in ticks if tick <= min(seconds)), default=ticks[0])
    high = min((tick for tick in ticks if tick > max(seconds)), default=ticks[-1])
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(shown, [TICKS[tick] for tick in shown])
    axes.xaxis.set_minor_locator(NullLocator())


def _original(summary: Summary) -> Iterator[Plot]:
    groups: dict[str, tuple[list[Original], list[ModelSummary]]] = {}
    for result in original_results().values():
        groups.setdefault(_kind(result.levels), ([], []))[0].append(result)
    matched = [model for model in summary.models if _kind(model.record.levels) in groups]
    if not matched:
        return
    for model in matched:
        groups[_kind(model.record.levels)][1].append(model)
    lines = max(len(their) + len(own) for their, own in groups.values())
    series: dict[tuple[str, str], list[tuple[float, Estimate]]] = {}
    for place, (their, own) in enumerate(groups.values()):
        found = [("original study", result.levels, result.accuracy) for result in their]
        found += [("ours", model.record.levels, model.test_accuracy) for model in own]
        for line, (study, levels, estimate) in enumerate(found):
            shift = (line - (len(found) - 1) / 2) / (lines + 1.5)
            series.setdefault((study, levels["hardware"]), []).append((place + shift, estimate))
    looks = {
        (study, hardware): (WRONG if study == "original study" else RIGHT, SHAPES.get(hardware, "v"))
        for study, hardware in series
    }
    hollow = {source: SURFACE if source[0] == "original study" else None for source in series}
    keys = [entry(", ".join(source), *look, face=hollow[source]) for source, look in looks.items()]
    figure, (axes,) = row_axes(list(groups), 0.13 * (lines + 1.5), top=0.2 + 0.2 * len(legend_rows(keys)))
    for source, shown in series.items():
        places, estimates = zip(*shown, strict=True)
        draw_intervals(axes, places, estimates, *looks[source], hollow=hollow[source] is not None)
    axes.set(xlabel="accuracy, %", xlim=(None, 101))
    legend(figure, keys, 0.1)
    total = next(iter(original_results().values())).total
    yield Plot(
        "original",
        "Beside the original study",
        f"Share right of the test pictures of the original study's 24 models ({total} pictures) and of ours that have "
        f"the same backbone, head and optimizer ({_tested(summary)}), with exact 95 % intervals. The pictures need not "
        "be the same.",
        figure,
    )


def _kind(levels: Mapping[str, str]) -> str:
    """A model of either study, whatever its hardware."""
    return " ".join(level for factor, level in levels.items() if factor != "hardware")


DRAWN: tuple[Callable[[Summary], Iterator[Plot]], ...] = (
    *(_accuracy, _heatmap, _bars, _factors, _effects, _pairs, _roc, _reliability),
    *(_confusion, _curves, _times, _original),
)


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _label(metric: Metric, most: int = 24) -> str:
    return shorten(metric.label, most) + ("" if metric.more_is_better else " ↓")


def _title(model: ModelSummary) -> list[str]:
    """A model's name on two lines, for narrow axes."""
    backbone = model.record.levels["backbone"]
    return [shorten(backbone, 22), shorten(model.name.removeprefix(f"{backbone} "), 22)]


def _grouped(models: Sequence[ModelSummary], factor: str) -> dict[str, list[ModelSummary]]:
    """The models by their level of a factor."""
    groups: dict[str, list[ModelSummary]] = {}
    for model in models:
        groups.setdefault(model.record.levels[factor], []).append(model)
    return groups


def _spread(number: int) -> NDArray[np.float64]:
    """Places of so many marks within a row."""
    return np.linspace(-0.28, 0.28, number) if number > 1 else np.zeros(number)


def _looks(summary: Summary, factor: str, looks: Sequence[Any]) -> dict[str, Any]:
    """A look for each level of a factor, in the order they were run in; the last for all that are left."""
    levels = dict.fromkeys(record.levels[factor] for record in summary.comparison.records)
    return {level: looks[min(place, len(looks) - 1)] for place, level in enumerate(levels)}


def _named(looks: Mapping[str, Any]) -> dict[Any, str]:
    """What each look stands for."""
    names: dict[Any, str] = {}
    for level, look in looks.items():
        names[look] = f"{names[look]}, {level}" if look in names else level
    return {look: shorten(name, 30) for look, name in names.items()}


def _tested(summary: Summary) -> str:
    number = summary.models[0].total
    return f"the {number} fixed test pictures" if number > 1 else "the one fixed test picture"


def _folded(summary: Summary) -> str:
    if summary.left_out:
        return f"cross-validation that leaves one of {summary.folds} groups out at a time"
    times = f", dealt {summary.repeats} times" if summary.repeats > 1 else ""
    return f"{summary.folds}-fold cross-validation{times}"
