import csv
import math
import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from made_up import CLASSES, make_comparison
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

from gel_lightning.comparison.original import original_results
from gel_lightning.comparison.records import read_comparison
from gel_lightning.comparison.report.figures.plots import plots
from gel_lightning.comparison.report.figures.scores import AS_GOOD, WORSE
from gel_lightning.comparison.report.figures.svg import Plot, render
from gel_lightning.comparison.summary import Summary
from gel_lightning.training.figures import (
    GRID,
    INK,
    MUTED,
    ON_DARK,
    ON_LIGHT,
    PALETTE,
    SURFACE,
    ink_on,
    plain,
    report_style,
    shorten,
)

pytestmark = pytest.mark.filterwarnings("error")

SUMMARISING = ["accuracy", "metrics_heatmap", "metrics_bars", "factors", "effects", "pairs"]
DETAILED = ["roc", "roc_models", "reliability", "reliability_models", "confusion_test", "confusion_folds"]
ALL = [*SUMMARISING, *DETAILED, "classes", "curves", "times", "original"]
THREE = ("resnet18", "vgg16", "mobilenet_v3_large")
ODD = ("<b>bold</b>", 'a&b "x"', "$x^2$ _y", "凝胶", "Гель", "a very long class name that goes on", "bell\x07\nnull")
VARIABLES = {"--ink", "--muted", "--grid", "--surface"}


def summary_of(folder: Path, **options) -> Summary:
    return Summary(read_comparison(make_comparison(folder, **options)))


@pytest.fixture(scope="module")
def eight(tmp_path_factory) -> Summary:
    skill = {"resnet18": 2.5, "mobilenet_v2": 0.5}
    return summary_of(tmp_path_factory.mktemp("eight") / "c", skill=skill, per_class=40)


@pytest.fixture(scope="module")
def figures(eight) -> dict[str, Plot]:
    return by_name(eight)


@pytest.fixture(scope="module")
def plain_fit(tmp_path_factory) -> Summary:
    """One model without folds."""
    grid = {"backbones": ["resnet18"], "heads": ["multi"], "optimizers": ["sgd"]}
    return summary_of(tmp_path_factory.mktemp("one") / "c", **grid, folds=0)


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Summary:
    """Names that are not words, and many classes."""
    grid = {"heads": ["single", "AHeadOfAVeryLongNameThatSomebodyWrote"], "optimizers": ["a_rather_long_optimizer"]}
    return summary_of(tmp_path_factory.mktemp("odd") / "c", classes=ODD, **grid, folds=3, repeats=2, per_class=6)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Summary:
    grid = {"backbones": THREE, "optimizers": ["sgd"], "hardware": ("cpu", "gpu", "tpu")}
    return summary_of(tmp_path_factory.mktemp("many") / "c", **grid, folds=2, repeats=1, per_class=8)


@pytest.fixture(autouse=True)
def pyplot_stays_out_of_it() -> Iterator[None]:
    yield
    assert not plt.get_fignums()


@cache
def by_name(summary: Summary) -> dict[str, Plot]:
    return {plot.name: plot for plot in plots(summary)}


def drawn(summary: Summary, name: str) -> Plot:
    """One figure, without those that come after it."""
    return next(plot for plot in plots(summary) if plot.name == name)


def marks(axes: Axes, marker: str, colour: str | None = None) -> list[tuple[float, float]]:
    """The points of the lines that have this marker, from the top down."""
    lines = [line for line in axes.lines if line.get_marker() == marker and colour in (None, line.get_color())]
    return sorted([tuple(point) for line in lines for point in line.get_xydata().tolist()], key=lambda point: point[1])


def whiskers(axes: Axes) -> list[tuple[float, float, float]]:
    """Row, low and high of the intervals, from the top down."""
    lines = [line for one in axes.collections if isinstance(one, LineCollection) for line in one.get_segments()]
    return sorted((line[0, 1], line[0, 0], line[1, 0]) for line in lines)


def y_labels(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def texts(axes: Axes) -> dict[tuple[int, int], str]:
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}


def area(x, y) -> float:
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


# Which figures there are


def test_all_figures_come_in_the_order_of_the_report(figures) -> None:
    assert list(figures) == ALL
    for plot in figures.values():
        assert plot.title
        assert plot.caption.endswith(".")
        assert plot.figure.get_size_inches()[0] == 7.2


def test_one_model_without_folds_has_nothing_to_compare(plain_fit) -> None:
    left_out = {"factors", "effects", "pairs", "confusion_folds"}
    found = by_name(plain_fit)
    assert list(found) == [name for name in ALL if name not in left_out]
    assert not [name for name, plot in found.items() if "cross-validation" in plot.caption or "fold" in plot.caption]


def test_models_of_folds_alone_have_their_figures(odd, many) -> None:
    assert list(by_name(many)) == ALL
    # Of its classes none stands out, and they are not those of the original study.
    assert list(by_name(odd)) == [name for name in ALL if name not in ("roc", "roc_models", "original")]


def test_what_says_nothing_is_not_on_the_page(eight, figures, plain_fit, tmp_path) -> None:
    assert [name for name, plot in figures.items() if not plot.on_page] == ["reliability", "classes"]
    found = by_name(plain_fit)  # one split tells nothing apart
    assert [name for name in found if not found[name].on_page] == ["metrics_heatmap", "reliability", "classes"]
    full = summary_of(tmp_path / "c", skill=30.0, per_class=10, heads=["multi"], optimizers=["sgd"], repeats=1)
    assert not drawn(full, "metrics_bars").on_page


def test_scales_do_not_exaggerate(tmp_path) -> None:
    grid = {"heads": ["multi"], "optimizers": ["sgd"]}
    found = by_name(summary_of(tmp_path / "c", skill=30.0, per_class=400, **grid, folds=2, repeats=1))
    for name in ("accuracy", "factors"):
        low, high = found[name].figure.axes[0].get_xlim()
        assert low <= 90
        assert high > 100
    low, high = found["effects"].figure.axes[0].get_xlim()
    assert high - low >= 5
    assert found["pairs"].figure.axes[0].images[0].get_array().max() <= 0.1


def test_failed_models_are_in_no_figure(tmp_path) -> None:
    summary = summary_of(tmp_path / "c", failed=["resnet18_single_adam_cpu"], heads=["single"], folds=0)
    assert len(y_labels(drawn(summary, "accuracy").figure.axes[0])) == 3
    assert len(drawn(summary, "roc_models").figure.axes) == 3


def test_no_curves_no_figure_of_them(tmp_path) -> None:
    folder = make_comparison(tmp_path / "c", folds=0, heads=["multi"], optimizers=["sgd"])
    for path in folder.glob("*/curves.csv"):
        path.unlink()
    found = by_name(Summary(read_comparison(folder)))
    assert "curves" not in found
    assert "times" in found


# What they show


def test_accuracy_is_that_of_folds_and_of_test_pictures(eight, figures) -> None:
    (axes,) = figures["accuracy"].figure.axes
    assert y_labels(axes) == [model.name for model in eight.models]
    folds = [100 * model.estimates["accuracy"].value for model in eight.models]
    test = [100 * model.right / model.total for model in eight.models]
    assert [x for x, _ in marks(axes, "o")] == pytest.approx(folds)
    assert [x for x, _ in marks(axes, "D")] == pytest.approx(test)
    rows = [y for _, y in marks(axes, "o")]
    assert [round(row) for row in rows] == list(range(8))
    assert axes.get_ylim() == (7.5, -0.5), "the best is not at the top"
    intervals = [estimate for model in eight.models for estimate in (model.estimates["accuracy"], model.test_accuracy)]
    expected = [(100 * estimate.low, 100 * estimate.high) for estimate in intervals]
    assert [line[1:] for line in whiskers(axes)] == [pytest.approx(ends) for ends in expected]
    assert axes.get_xlabel() == "accuracy, %"


def test_accuracy_without_folds_is_that_of_test_pictures(plain_fit) -> None:
    (axes,) = by_name(plain_fit)["accuracy"].figure.axes
    assert not marks(axes, "o")
    assert marks(axes, "D") == [(100 * plain_fit.models[0].test_accuracy.value, 0)]
    assert len(whiskers(axes)) == 1


def test_an_estimate_without_interval_has_no_whisker(tmp_path) -> None:
    grid = {"heads": ["multi"], "optimizers": ["sgd"]}
    summary = summary_of(tmp_path / "c", skill=30.0, per_class=10, **grid, repeats=1)  # never wrong
    axes = drawn(summary, "metrics_bars").figure.axes
    bars = dict(zip([metric.key for metric in summary.metrics], axes, strict=True))
    assert math.isnan(summary.models[0].estimates["auroc"].low)
    assert not whiskers(bars["auroc"])
    assert len(whiskers(bars["accuracy"])) == len(summary.models)
    assert [bar.get_width() for bar in bars["auroc"].patches] == [1] * len(summary.models)


def test_heat_map_has_all_metrics_and_colours_what_can_be_told_apart(eight, figures) -> None:
    (axes,) = figures["metrics_heatmap"].figure.axes
    written = texts(axes)
    shares = axes.images[0].get_array()
    for column, metric in enumerate(eight.metrics):
        values = np.array([model.estimates[metric.key].value for model in eight.models])
        assert [float(written[row, column]) for row in range(8)] == pytest.approx(values.tolist(), abs=6e-4)
        assert [share == AS_GOOD for share in shares[:, column]] == eight.not_worse[metric.key]
    assert set(np.unique(shares)) == {AS_GOOD, WORSE}
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[:3] == ["accuracy", "balanced accuracy", "precision of gel"]
    assert labels[-2:] == ["log loss ↓", "calibration error ↓"]


def test_heat_map_of_models_that_are_all_alike_or_have_no_value_is_drawn(plain_fit, tmp_path) -> None:
    (axes,) = by_name(plain_fit)["metrics_heatmap"].figure.axes
    assert set(axes.images[0].get_array().flatten().tolist()) == {AS_GOOD}
    model = plain_fit.models[0]
    nothing = model._replace(estimates=model.estimates | {"auroc": model.estimates["auroc"]._replace(value=math.nan)})
    without = Summary(plain_fit.comparison)
    without.models = [nothing]
    found = by_name(without)
    (axes,) = found["metrics_heatmap"].figure.axes
    column = [metric.key for metric in without.metrics].index("auroc")
    (text,) = [text for text in axes.texts if text.get_position()[0] == column]
    assert (text.get_text(), text.get_color()) == ("–", INK)
    for name in ("metrics_heatmap", "metrics_bars"):
        render(found[name], tmp_path)


@pytest.mark.parametrize("colour", ["white", "black", "#fde725", "#440154", "#21918c", "#08306b", "#6baed6"])
def test_ink_on_a_cell_has_the_contrast_of_readable_text(colour) -> None:
    def light(name: str) -> float:
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(name)]
        return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2] + 0.05

    assert {ink_on((0, 0, 0)), ink_on((1, 1, 1))} == {ON_DARK, ON_LIGHT}
    ratio = light(ink_on(to_rgb(colour))) / light(colour)
    assert max(ratio, 1 / ratio) > 4.5
    for data in PALETTE[:4]:  # and the colours of data stand out from the page, light or dark
        assert light("#ffffff") / light(data) > 3
        assert light(data) / light("#16191d") > 3


def test_bars_have_the_value_and_the_interval_of_each_metric(eight, figures) -> None:
    every = figures["metrics_bars"].figure.axes
    assert len(every) == len(eight.metrics)
    assert y_labels(every[0]) == [model.name for model in eight.models]
    for axes, metric in zip(every, eight.metrics, strict=True):
        assert axes.get_title(loc="left").removesuffix(" ↓") == metric.label
        estimates = [model.estimates[metric.key] for model in eight.models]
        assert [bar.get_width() for bar in axes.patches] == pytest.approx([estimate.value for estimate in estimates])
        assert axes.get_xlim()[0] == 0
        ends = [(row, max(e.low, 0), e.high) for row, e in enumerate(estimates) if not math.isnan(e.low)]
        assert whiskers(axes) == [pytest.approx(line) for line in ends]


def test_factors_have_the_models_and_the_mean_of_each_level(eight, figures) -> None:
    every = figures["factors"].figure.axes
    assert [axes.get_title(loc="left") for axes in every] == eight.factors == ["backbone", "head", "optimizer"]
    for axes, factor in zip(every, eight.factors, strict=True):
        levels = y_labels(axes)
        assert len(levels) == 2
        for row, level in enumerate(levels):
            values = [
                100 * model.estimates["accuracy"].value
                for model in eight.models
                if model.record.levels[factor] == level
            ]
            assert sorted(x for x, y in marks(axes, "o") if round(y) == row) == pytest.approx(sorted(values))
            assert marks(axes, "|")[row] == pytest.approx((np.mean(values), row))
            assert axes.texts[row].get_text() == f"{np.mean(values):.1f} %"
    assert len({axes.get_xlim() for axes in every}) == 1


def test_effects_are_differences_with_intervals(eight, figures) -> None:
    (axes,) = figures["effects"].figure.axes
    effects = eight.effects
    assert y_labels(axes) == [f"{effect.factor}: {effect.first} − {effect.second}" for effect in effects]
    assert [x for x, _ in marks(axes, "o")] == pytest.approx([100 * effect.difference.value for effect in effects])
    ends = [(row, 100 * e.difference.low, 100 * e.difference.high) for row, e in enumerate(effects)]
    assert whiskers(axes) == [pytest.approx(line) for line in ends]
    filled = {y for line in axes.lines if line.get_markerfacecolor() == PALETTE[0] for y in line.get_ydata()}
    shown = {row for row, effect in enumerate(effects) if effect.difference.shown}
    assert filled == shown
    assert 0 < len(shown) < len(effects)
    assert "percentage points" in axes.get_xlabel()


def check_pairs(summary: Summary, axes: Axes) -> None:
    names = [model.name for model in summary.models]
    assert [label.split("  ")[0] for label in y_labels(axes)] == [shorten(name, 36) for name in names]
    values = np.ma.filled(axes.images[0].get_array(), np.nan)
    top = max(pair.difference.value for pair in summary.pairs)
    for pair in summary.pairs:
        assert values[names.index(pair.first), names.index(pair.second)] == pytest.approx(pair.difference.value / top)
    assert np.isfinite(values).sum() == len(summary.pairs) == len(names) * (len(names) - 1) / 2
    shown = {(names.index(pair.first), names.index(pair.second)) for pair in summary.pairs if pair.shown}
    assert {(round(y), round(x)) for x, y in marks(axes, "o")} == shown


def test_pairs_have_each_difference_and_a_dot_at_those_that_hold(eight, figures, many) -> None:
    axes, scale = figures["pairs"].figure.axes
    check_pairs(eight, axes)
    assert marks(axes, "o"), "nothing holds, and the test shows nothing"
    written = {place: text for place, text in texts(axes).items() if text}
    names = [model.name for model in eight.models]
    for pair in eight.pairs:
        place = names.index(pair.first), names.index(pair.second)
        assert float(written.pop(place)) == pytest.approx(100 * pair.difference.value, abs=0.051)
    assert not written
    assert scale.get_xlabel() == "difference, percentage points"
    check_pairs(many, by_name(many)["pairs"].figure.axes[0])


@pytest.mark.parametrize("case", ["eight", "plain_fit"])
def test_roc_curves_have_their_areas(case, request) -> None:
    summary = request.getfixturevalue(case)
    found = by_name(summary)
    names = summary.comparison.class_names
    assert shorten(names[0], 40) in found["roc"].caption
    parts = {"test": [[model.record.test] for model in summary.models]}
    if summary.folds:
        parts["folds"] = [model.record.folds for model in summary.models]
    assert len(found["roc"].figure.axes) == len(parts)
    expected = {}
    for axes, (part, seen) in zip(found["roc"].figure.axes, parts.items(), strict=True):
        labels = [np.concatenate([outcome.labels for outcome in outcomes]) for outcomes in seen]
        shares = [np.concatenate([outcome.probabilities[:, 0] for outcome in outcomes]) for outcomes in seen]
        expected[part] = [roc_auc_score(actual == 0, share) for actual, share in zip(labels, shares, strict=True)]
        curves = axes.lines[1:]  # the first is the diagonal
        assert [area(*line.get_data()) for line in curves] == pytest.approx(expected[part], abs=1e-5)
    small = found["roc_models"].figure.axes
    for place, (axes, model) in enumerate(zip(small, summary.models, strict=True)):
        *name, numbers = axes.get_title(loc="left").split("\n")
        assert name[0] == model.record.levels["backbone"]
        assert re.findall(r"[a-z]+", numbers) == list(expected)
        written = [float(number) for number in re.findall(r"[\d.]+", numbers)]
        assert written == pytest.approx([areas[place] for areas in expected.values()], abs=6e-4)
        assert [area(*line.get_data()) for line in axes.lines[1:]] == pytest.approx(
            [areas[place] for areas in expected.values()], abs=1e-5
        )


def test_curves_of_many_models_have_a_legend_of_their_looks(many) -> None:
    figure = by_name(many)["roc"].figure
    keys = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert keys == [*THREE, "head: single", "head: multi", "chance"]
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines[1:]}
    assert len(looks) == 6


def test_more_backbones_than_colours_share_the_last(tmp_path) -> None:
    backbones = [f"backbone{number}" for number in range(8)]
    summary = summary_of(tmp_path / "c", backbones=backbones, heads=["multi"], optimizers=["sgd"], folds=0)
    (legend, _) = drawn(summary, "roc").figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*backbones[:5], shorten(", ".join(backbones[5:]), 30)]


def test_test_pictures_of_one_class_have_no_roc_curve(plain_fit) -> None:
    model = plain_fit.models[0]
    some = model.record.test.labels == 0
    paths = tuple(np.array(model.record.test.paths)[some])
    test = model.record.test._replace(
        paths=paths, labels=model.record.test.labels[some], probabilities=model.record.test.probabilities[some]
    )
    summary = Summary(plain_fit.comparison)
    summary.models = [model._replace(record=model.record._replace(test=test))]
    found = by_name(summary)
    assert "roc" not in found
    assert "roc_models" not in found
    assert "reliability" in found


@pytest.mark.parametrize("case", ["eight", "plain_fit", "odd"])
def test_reliability_is_the_share_right_in_each_bin_of_confidence(case, request) -> None:
    summary = request.getfixturevalue(case)
    found = by_name(summary)
    assert len(found["reliability"].figure.axes) == 2 if summary.folds else 1
    for place, (axes, model) in enumerate(zip(found["reliability_models"].figure.axes, summary.models, strict=True)):
        parts = [[model.record.test]] + ([model.record.folds] if summary.folds else [])
        curves = axes.lines[1:]
        assert len(curves) == len(parts)
        for part, (outcomes, line) in enumerate(zip(parts, curves, strict=True)):
            probabilities = np.concatenate([outcome.probabilities for outcome in outcomes])
            labels = np.concatenate([outcome.labels for outcome in outcomes])
            confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
            bins = np.ceil(confidence * 10).astype(int)
            means = [[confidence[bins == one].mean(), right[bins == one].mean()] for one in sorted(set(bins.tolist()))]
            np.testing.assert_allclose(line.get_xydata(), means, atol=1e-6)
            together = found["reliability"].figure.axes[part].lines[1 + place]
            np.testing.assert_array_equal(together.get_xydata(), line.get_xydata())
            sizes = axes.collections[part].get_sizes()
            counts = np.array([(bins == one).sum() for one in sorted(set(bins.tolist()))])
            np.testing.assert_allclose((sizes - 4) / 60, counts / len(bins))
        errors = [f"test {model.test['calibration_error']:.3f}"]
        if summary.folds:
            errors.append(f"folds {model.estimates['calibration_error'].value:.3f}")
        assert axes.get_title(loc="left").split("\n")[-1] == ", ".join(errors)


@pytest.mark.parametrize("skill", [-40.0, 40.0])
def test_models_that_are_always_wrong_or_right_are_drawn(skill, tmp_path) -> None:
    summary = summary_of(
        tmp_path / "c", skill=skill, per_class=6, repeats=1, folds=2, heads=["multi"], optimizers=["sgd"]
    )
    for plot in plots(summary):
        render(plot, tmp_path)


@pytest.mark.parametrize("case", ["eight", "odd"])
def test_confusion_matrices_count_test_pictures_and_average_folds(case, request) -> None:
    summary = request.getfixturevalue(case)
    found = by_name(summary)
    classes = range(len(summary.comparison.class_names))
    for name, times in (("confusion_test", 1), ("confusion_folds", summary.repeats)):
        for axes, model in zip(found[name].figure.axes, summary.models, strict=True):
            outcomes = [model.record.test] if name == "confusion_test" else model.record.folds
            labels = np.concatenate([outcome.labels for outcome in outcomes])
            answers = np.concatenate([outcome.probabilities.argmax(1) for outcome in outcomes])
            counts = confusion_matrix(labels, answers, labels=classes) / times
            written = texts(axes)
            for actual in classes:
                for predicted in classes:
                    count = counts[actual, predicted]
                    assert written[actual, predicted] == (f"{count:.0f}" if count == int(count) else f"{count:.1f}")
            shares = counts / counts.sum(1, keepdims=True)
            np.testing.assert_allclose(axes.images[0].get_array(), shares)
        assert y_labels(found[name].figure.axes[0]) == [shorten(name, 16) for name in summary.comparison.class_names]


def change_curves(path: Path, change) -> None:
    header, *rows = list(csv.reader(path.read_text().splitlines()))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *change(rows)])


def test_learning_curves_show_each_epoch_that_has_a_value(tmp_path) -> None:
    folder = make_comparison(tmp_path / "c", folds=0, heads=["multi"])  # four models
    first, second, third = (
        folder / f"{name}_cpu" / "curves.csv"
        for name in ("resnet18_multi_adam", "resnet18_multi_sgd", "mobilenet_v2_multi_adam")
    )
    change_curves(first, lambda rows: rows[:7])
    change_curves(
        second, lambda rows: [[row[0], "nan", "nan", row[3], ""] if i % 2 else row for i, row in enumerate(rows)]
    )
    third.unlink()
    summary = Summary(read_comparison(folder))
    curves = drawn(summary, "curves")
    figure = curves.figure
    models = [model for model in summary.models if model.record.curves]
    assert len(models) == 3
    above, below = figure.axes[:3], figure.axes[3:]
    for metric, scale, every in (("loss", 1, above), ("accuracy", 100, below)):
        assert len({axes.get_ylim() for axes in every}) == len({axes.get_xlim() for axes in every}) == 1
        for axes, model in zip(every, models, strict=True):
            for line, stage in zip(axes.lines, ("train", "val"), strict=True):
                values = scale * np.array(model.record.curves[f"{stage}/{metric}"])
                some = np.isfinite(values)
                np.testing.assert_allclose(line.get_xdata(), np.arange(1, len(values) + 1)[some])
                np.testing.assert_allclose(line.get_ydata(), values[some].clip(1e-3 if metric == "loss" else 0))
    render(curves, tmp_path)


def test_times_have_those_of_the_original_study_beside_them(eight, figures) -> None:
    every = figures["times"].figure.axes
    assert y_labels(every[0]) == ["resnet18", "mobilenet_v2"]
    own = {backbone: [] for backbone in ("resnet18", "mobilenet_v2")}
    for model in eight.models:
        own[model.record.levels["backbone"]].append(model.record)
    results = [original_results()[number] for number in (1, 2, 3, 4)]
    for axes, what in zip(every, ("training_seconds", "inference_seconds"), strict=True):
        assert axes.get_xscale() == "log"
        for row, records in enumerate(own.values()):
            seconds = sorted(getattr(record, what) for record in records)
            assert sorted(x for x, y in marks(axes, "o") if round(y) == row) == pytest.approx(seconds)
        diamonds = marks(axes, "D")
        assert sorted(x for x, _ in diamonds) == pytest.approx(sorted(getattr(result, what) for result in results))
        assert {round(y) for _, y in diamonds} == {0}
        low, high = axes.get_xlim()
        assert all(
            low <= line.get_xdata().min() and line.get_xdata().max() < high
            for line in axes.lines
            if len(line.get_xdata())
        )
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert all(re.fullmatch(r"[\d.]+ (ms|s|min|h)", label) for label in labels)
    assert "other hardware" in figures["times"].caption


def test_times_of_models_of_our_own_heads_stand_beside_all_of_their_backbone(tmp_path) -> None:
    summary = summary_of(tmp_path / "c", backbones=["vgg16"], heads=["Mine"], optimizers=["sgd"], folds=0)
    axes, _ = drawn(summary, "times").figure.axes
    assert len(marks(axes, "D")) == 4
    alone = summary_of(tmp_path / "d", backbones=["mobilenet_v2"], heads=["Mine"], optimizers=["sgd"], folds=0)
    plot = drawn(alone, "times")
    assert not marks(plot.figure.axes[0], "D")
    assert "original" not in plot.caption


def test_original_results_stand_beside_ours_of_the_same_kind(eight, figures, many) -> None:
    (axes,) = figures["original"].figure.axes
    kinds = y_labels(axes)
    assert len(kinds) == len(set(kinds)) == 12
    theirs = marks(axes, "o", "#D55E00") + marks(axes, "s")
    assert sorted(x for x, _ in theirs) == pytest.approx(
        sorted(100 * result.accuracy.value for result in original_results().values())
    )
    for result in original_results().values():
        kind = " ".join(list(result.levels.values())[:3])
        rows = [y for x, y in theirs if x == pytest.approx(100 * result.accuracy.value)]
        assert kinds.index(kind) in [round(row) for row in rows]
    ours = marks(axes, "o", "#0072B2")
    matching = {" ".join(list(m.record.levels.values())[:3]): m for m in eight.models}
    assert {kinds[round(y)] for _, y in ours} == set(kinds) & set(matching)
    for x, y in ours:
        assert x == pytest.approx(100 * matching[kinds[round(y)]].test_accuracy.value)
    assert len(whiskers(axes)) == 24 + len(ours)
    (axes,) = by_name(many)["original"].figure.axes
    assert len(whiskers(axes)) == 24 + 18


# How they look


def texts_drawn(figure: Figure) -> Iterator[Text]:
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden |= {
                id(label)
                for tick in axis.get_major_ticks()
                if not low - 1e-9 <= tick.get_loc() <= high + 1e-9
                for label in (tick.label1, tick.label2)
            }
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            yield text


@pytest.mark.parametrize("case", ["eight", "plain_fit", "odd", "many"])
def test_no_text_is_cut_off_or_too_small_or_written_over_another(case, request) -> None:
    for plot in by_name(request.getfixturevalue(case)).values():
        with report_style():
            canvas = FigureCanvasAgg(plot.figure)
            canvas.draw()
            width, height = plot.figure.bbox.size
            boxes: list[tuple] = []
            for text in texts_drawn(plot.figure):
                assert text.get_size() >= 8, f"{plot.name}: {text.get_text()}"
                box = text.get_window_extent(canvas.get_renderer())
                inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
                assert inside, f"{plot.name}: {text.get_text()} is cut off"
                if text.get_rotation() in (0, 90):
                    boxes.append((box, text.get_text()))
        for place, (one, words) in enumerate(boxes):
            for other, more in boxes[:place]:
                across = min(one.x1, other.x1) - max(one.x0, other.x0)
                up = min(one.y1, other.y1) - max(one.y0, other.y0)
                assert across < 1 or up < 2, f"{plot.name}: {words!r} is over {more!r}"


def test_nothing_of_matplotlib_is_left_changed(plain_fit, tmp_path) -> None:
    before = dict(matplotlib.rcParams)
    filters = list(warnings.filters)
    for plot in plots(plain_fit):
        assert dict(matplotlib.rcParams) == before, "a figure that is handed out has left its style behind"
        if plot.name in ("accuracy", "roc"):
            render(plot, tmp_path)
    assert dict(matplotlib.rcParams) == before
    assert list(warnings.filters) == filters


def test_settings_of_the_user_do_not_reach_the_figures(plain_fit, tmp_path) -> None:
    expected = render(next(plots(plain_fit)), tmp_path)
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "figure.dpi": 50, "axes.titleweight": "bold"}):
        assert render(next(plots(plain_fit)), tmp_path) == expected


# On the disk and in the page


@pytest.fixture(scope="module")
def saved(figures, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("saved") / "figures"
    return folder, {name: render(plot, folder) for name, plot in figures.items()}


def test_files_are_whole(saved) -> None:
    folder, inline = saved
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}.{s}" for n in ALL for s in ("png", "svg"))
    for name in inline:
        with Image.open(folder / f"{name}.png") as picture:
            picture.load()
            assert picture.width == 1080
        text = (folder / f"{name}.svg").read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).get("width") == "518.4pt"
        assert INK in text, "the file on the disk has no colours of its own"
        assert "var(--" not in text


def test_a_file_that_cannot_be_written_leaves_nothing(figures, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pathlib.Path.replace", lambda *args: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises(OSError, match="no space"):
        render(figures["effects"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_inline_svg_is_of_the_page(figures, saved) -> None:
    for name, text in saved[1].items():
        root = ElementTree.fromstring(text)
        assert root.get("role") == "img"
        assert root.get("aria-label") == figures[name].caption
        assert root.get("height") is None
        assert root.get("width") == "100%"
        assert root.get("viewBox", "").startswith("0 0 518.4 ")
        assert text.startswith("<svg ")
        assert "<style" not in text
        assert "<metadata" not in text
        for colour in (INK, MUTED, GRID, SURFACE):
            assert colour not in text.lower()
        assert set(re.findall(r"var\((--\w+)\)", text)) <= VARIABLES
        assert "var(--ink)" in text
        styles = [element.get("style", "") for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert styles
        assert all("font-family: inherit" in style and "font-size: " in style for style in styles)
        assert "DejaVu" not in text
        # The whole figure has no ground of its own.
        height = float(root.get("viewBox", "").split()[-1])
        assert not re.search(rf'd="M 0 {height:g} ', text)


def test_ids_of_all_figures_of_a_page_are_unique_and_found(saved) -> None:
    everything = "".join(saved[1].values())
    ids = re.findall(r'\sid="([^"]+)"', everything)
    assert len(ids) == len(set(ids)) > 50
    for name, text in saved[1].items():
        own = set(re.findall(r'\sid="([^"]+)"', text))
        assert all(one.startswith(f"{name}-") for one in own)
        referred = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
        assert set(referred) == own
    assert "clip-path=" in everything
    assert "data:image/png;base64" in everything


def test_the_same_comparison_gives_the_same_files(tmp_path) -> None:
    grid = {"heads": ["multi"], "optimizers": ["sgd"], "folds": 2, "repeats": 1, "per_class": 4}
    summary = summary_of(tmp_path / "c", **grid)
    for plot, again in zip(plots(summary), plots(summary), strict=True):
        inline = render(plot, tmp_path / "one")
        assert render(plot, tmp_path / "other") == inline, "saving has changed the figure"
        assert render(again, tmp_path / "again") == inline
        for suffix in ("png", "svg"):
            name = f"{plot.name}.{suffix}"
            one, other, third = ((tmp_path / folder / name).read_bytes() for folder in ("one", "other", "again"))
            assert one == other == third


def test_odd_names_are_written_as_they_are(odd, tmp_path) -> None:
    saved = {name: render(plot, tmp_path) for name, plot in by_name(odd).items()}
    for name, text in saved.items():
        ElementTree.fromstring(text)
        ElementTree.parse(tmp_path / f"{name}.svg")
        assert "<b>" not in text
    for text in (saved["confusion_test"], saved["confusion_folds"]):
        root = ElementTree.fromstring(text)
        words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
        assert {shorten(name, 16) for name in ODD} <= words
        assert {"<b>bold</b>", 'a&b "x"', "$x^2$ _y", "凝胶", "Гель", "a very l…goes on", "bell\ufffd null"} <= words
    assert "&lt;b&gt;bold&lt;/b&gt;" in saved["classes"]
    assert "precision, weighted" in saved["metrics_heatmap"]


def test_names_are_shortened_in_their_middle() -> None:
    assert shorten("gel", 3) == "gel"
    assert shorten("abcdefgh", 5) == "ab…gh"
    assert len(shorten("x" * 100, 24)) == 24
    assert plain("a\tb\u2028c\x00\ud800d") == "a b c\ufffd\ufffdd"


def test_two_classes_are_named_in_the_captions(figures) -> None:
    assert f"{CLASSES[0]} against {CLASSES[1]}" in figures["roc"].caption
    assert "40 fixed test pictures" in figures["accuracy"].caption
    assert "5-fold cross-validation, dealt 2 times" in figures["accuracy"].caption


@pytest.mark.parametrize("folds", [0, 2])
@pytest.mark.parametrize("classes", [2, 10, 51])
def test_bars_and_matrices_of_many_classes(classes: int, folds: int, tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(classes)]
    grid = {"backbones": ["resnet18"], "heads": ["multi"]}
    summary = summary_of(tmp_path, classes=names, folds=folds, repeats=1, per_class=8, skill=1.0, **grid)
    found = by_name(summary)
    record = summary.models[0].record
    outcomes = record.folds or [record.test]
    labels = np.concatenate([outcome.labels for outcome in outcomes])
    predicted = np.concatenate([outcome.probabilities.argmax(axis=1) for outcome in outcomes])
    scores = precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0)[:3]
    order = np.argsort(scores[2], kind="stable")
    assert found["classes"].on_page == (classes > 2)
    assert [tick.get_text() for tick in found["classes"].figure.axes[0].get_yticklabels()] == [names[i] for i in order]
    for axes, values in zip(found["classes"].figure.axes, scores, strict=True):
        assert [bar.get_width() for bar in axes.patches] == pytest.approx(values[order].tolist())
    # Of many classes only the best model has a matrix, without numbers.
    matrices = found["confusion_test"].figure.axes
    assert len(matrices) == (2 if classes <= 12 else 1)
    assert bool(matrices[0].texts) == (classes <= 12)
    assert ("roc" in found) == (classes == 2)
    assert "original" not in found
