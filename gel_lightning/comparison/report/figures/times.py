"""Times of training and of predicting, beside those of the original study."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from gel_lightning.comparison.original import Original, original_results
from gel_lightning.comparison.records import Record
from gel_lightning.comparison.report.figures.layout import entry, legend, row_axes
from gel_lightning.comparison.report.figures.looks import FOLDS, LOOKS, TEST, spread
from gel_lightning.comparison.report.figures.svg import Plot
from gel_lightning.comparison.summary import Summary
from gel_lightning.training.figures import RIGHT, SURFACE

TICKS = {
    **{0.001: "1 ms", 0.01: "10 ms", 0.1: "0.1 s", 1.0: "1 s", 10.0: "10 s"},
    **{60.0: "1 min", 600.0: "10 min", 3600.0: "1 h", 36000.0: "10 h", 360000.0: "100 h"},
}


def time_plots(summary: Summary) -> Iterator[Plot]:
    """Times of training and of predicting."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in summary.comparison.records:
        groups.setdefault((record.levels["backbone"], record.levels["hardware"]), []).append(record)
    originals = {key: _originals_of(*key, records) if summary.of_gels else [] for key, records in groups.items()}

    def draw() -> Figure:
        several = len({hardware for _, hardware in groups}) > 1
        labels = [f"{backbone}, {hardware}" if several else backbone for backbone, hardware in groups]
        figure, every = row_axes(labels, 0.5, 2, top=0.6, bottom=0.3, right=0.3, gap=0.5)
        for axes, title in zip(every, ("training", "predicting the test pictures"), strict=True):
            own = [_seconds(records, title) for records in groups.values()]
            their = [_seconds(results, title) for results in originals.values()]
            for (colour, marker), face, rows in ((LOOKS[TEST], SURFACE, their), (LOOKS[FOLDS], RIGHT, own)):
                for place, values in enumerate(rows):
                    axes.plot(values, place + spread(len(values)), marker, color=colour, markerfacecolor=face)
            _time_scale(axes, [value for values in own + their for value in values])
            axes.set_title(title, loc="left")
        keys = [entry("ours", *LOOKS[FOLDS], "")]
        if any(originals.values()):
            keys.append(entry("original study", *LOOKS[TEST], "", SURFACE))
        legend(figure, keys, 0.1)
        return figure

    text = "The time that each model took, including computing the features of its pictures; logarithmic scale."
    if any(originals.values()):
        text += " Diamonds: the same models in the original study, on other hardware than ours and on its own pictures."
    yield Plot("times", "Time of training and of predicting", text, draw)


def _originals_of(backbone: str, hardware: str, records: Sequence[Record]) -> list[Original]:
    """The original study's models of a backbone and hardware: those with our model ids, or all if ours have none."""
    numbers = {record.row["model_id"] for record in records} - {""}
    return [
        result
        for number, result in original_results().items()
        if (result.levels["backbone"], result.levels["hardware"]) == (backbone, hardware)
        and (not numbers or str(number) in numbers)
    ]


def _seconds(results: Sequence[Record] | Sequence[Original], what: str) -> list[float]:
    seconds = [result.training_seconds if what == "training" else result.inference_seconds for result in results]
    return [max(value, min(TICKS)) for value in seconds]  # so that none is left of the scale


def _time_scale(axes: Axes, seconds: Sequence[float]) -> None:
    """A logarithmic scale from the tick below all times to the tick above."""
    ticks = list(TICKS)
    low = max((tick for tick in ticks if tick <= min(seconds)), default=ticks[0])
    high = min((tick for tick in ticks if tick > max(seconds)), default=ticks[-1])
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(shown, [TICKS[tick] for tick in shown])
    axes.xaxis.set_minor_locator(NullLocator())
