"""Accuracy beside that of the original study."""

from collections.abc import Iterator, Mapping

from matplotlib.figure import Figure

from gel_lightning.comparison.original import Original, original_results
from gel_lightning.comparison.report.figures.layout import draw_intervals, entry, legend, legend_rows, row_axes
from gel_lightning.comparison.report.figures.looks import tested_on
from gel_lightning.comparison.report.figures.svg import Plot
from gel_lightning.comparison.statistics import Estimate
from gel_lightning.comparison.summary import ModelSummary, Summary
from gel_lightning.training.figures import RIGHT, SURFACE, WRONG

SHAPES = {"cpu": "o", "gpu": "s", "tpu": "^"}


def original_plots(summary: Summary) -> Iterator[Plot]:
    """Accuracy of the original study's models, and of ours of the same kinds."""
    if not summary.of_gels:
        return
    groups: dict[str, tuple[list[Original], list[ModelSummary]]] = {}
    for result in original_results().values():
        groups.setdefault(_model_key(result.levels), ([], []))[0].append(result)
    matched = [model for model in summary.models if _model_key(model.record.levels) in groups]
    if not matched:
        return
    for model in matched:
        groups[_model_key(model.record.levels)][1].append(model)
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

    def draw() -> Figure:
        keys = [entry(", ".join(source), *look, face=hollow[source]) for source, look in looks.items()]
        figure, (axes,) = row_axes(list(groups), 0.13 * (lines + 1.5), top=0.2 + 0.2 * len(legend_rows(keys)))
        for source, shown in series.items():
            places, estimates = zip(*shown, strict=True)
            draw_intervals(axes, places, estimates, *looks[source], hollow=hollow[source] is not None)
        axes.set(xlabel="accuracy, %", xlim=(None, 101))
        legend(figure, keys, 0.1)
        return figure

    total = next(iter(original_results().values())).total
    yield Plot(
        "original",
        "Beside the original study",
        f"Share right of the test pictures of the original study's 24 models ({total} pictures) and of ours that have "
        f"the same backbone, head and optimizer ({tested_on(summary)}), with exact 95 % intervals. The pictures may "
        "differ.",
        draw,
    )


def _model_key(levels: Mapping[str, str]) -> str:
    """Identifies a model of either study, whatever its hardware."""
    return " ".join(level for factor, level in levels.items() if factor != "hardware")
