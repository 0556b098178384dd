"""The report of a comparison: one page that stands alone, and its figures."""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gel_lightning.comparison.answer import answer, effect_in_words, interval, not_worse, percent, points, seconds
from gel_lightning.comparison.drawing import save
from gel_lightning.comparison.original import SOURCE, original_results
from gel_lightning.comparison.plots import plots
from gel_lightning.comparison.records import Outcome, read_comparison
from gel_lightning.comparison.statistics import Estimate
from gel_lightning.comparison.summary import Metric, ModelSummary, Summary
from gel_lightning.core.files import replacing
from gel_lightning.data.images import PictureError, read_picture

REPORT, FIGURES, THUMBNAILS = "report.html", "figures", "thumbnails"
SIDE = 160
"""Most pixels of a side of a thumbnail."""
MOST_PICTURES, MOST_GROUPS, MOST_OF_A_GROUP = 24, 60, 8


class Cell(NamedTuple):
    """A figure in the table of models: what is read, what is sorted by, and where its bar begins and ends, in %."""

    text: str
    value: float
    detail: str = ""
    bar: tuple[float, float, float] | None = None
    best: bool = False


class Vote(NamedTuple):
    """What a model took a picture for, and how sure it was."""

    model: str
    predicted: str
    share: float
    right: bool


class Card(NamedTuple):
    """A picture that was hard: its thumbnail, its place, and what each model made of it."""

    picture: str | None
    name: str
    actual: str
    part: str
    wrong: int
    votes: list[Vote]


def make_report(folder: Path) -> Summary:
    """Writes report.html and figures/ from what a comparison has left.

    Args:
        folder: of the comparison.

    Returns:
        What it shows.

    Raises:
        GelError: it is no comparison, or a file of it is damaged.
        OSError: the report cannot be written.
    """
    import jinja2

    comparison = read_comparison(folder)
    summary = Summary(comparison)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gel_lightning.comparison", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"points": points, "percent": percent, "interval": interval, "seconds": seconds}
    page = environment.get_template("report.html.jinja").render(
        summary=summary,
        about=comparison.about,
        floor=floor(summary),
        failed=comparison.failed,
        answer=answer(summary),
        columns=_columns(summary),
        rows=[(model, _cells(summary, model)) for model in summary.models],
        alike=[model.name for model in not_worse(summary)],
        effects=[(effect, effect_in_words(effect)) for effect in summary.effects],
        plots=[(plot, save(plot, folder / FIGURES)) for plot in plots(summary)],
        originals=_originals(summary),
        source=SOURCE,
        cards=_cards(summary),
        groups=_groups(summary),
        most_groups=MOST_GROUPS,
    )
    with replacing(folder / REPORT) as file:
        file.write(page)
    return summary


def _columns(summary: Summary) -> list[str]:
    first = ["accuracy, cross-validated"] if summary.folds else []
    others = [metric.label for metric in summary.metrics[1:]]
    return ["model", *first, "accuracy, test pictures", *others, "training", "inference"]


def _cells(summary: Summary, model: ModelSummary) -> list[Cell]:
    cells = [_cell(summary, model, summary.metrics[0])] if summary.folds else []
    best = max(other.right for other in summary.models)
    ends = model.test_accuracy
    detail = f"{model.right}/{model.total}, {interval(ends)}"
    cells.append(Cell(percent(ends.value), ends.value, detail, _bar(ends, floor(summary), 1), model.right == best))
    cells += [_cell(summary, model, metric) for metric in summary.metrics[1:]]
    return cells + [Cell(seconds(t), t) for t in (model.record.training_seconds, model.record.inference_seconds)]


def _cell(summary: Summary, model: ModelSummary, metric: Metric) -> Cell:
    of_all = [other.estimates[metric.key] for other in summary.models]
    estimate = model.estimates[metric.key]
    values = [other.value for other in of_all]
    best = estimate.value == (max(values) if metric.more_is_better else min(values))
    if _is_share(metric):
        return Cell(
            percent(estimate.value), estimate.value, interval(estimate), _bar(estimate, floor(summary), 1), best
        )
    ends = "" if np.isnan(estimate.low) else f"{max(estimate.low, 0):.3f} to {estimate.high:.3f}"
    most = float(np.nanmax([(other.value, other.high) for other in of_all]))
    return Cell(f"{estimate.value:.3f}", estimate.value, ends, _bar(estimate, 0, most), best)


def floor(summary: Summary) -> float:
    """Where the bars of metrics begin that end at 1: at the tenth below all of them."""
    lows = [
        end
        for model in summary.models
        for ends in (
            model.test_accuracy,
            *(model.estimates[metric.key] for metric in summary.metrics if _is_share(metric)),
        )
        for end in (ends.low, ends.value)
    ]
    return float(np.floor(10 * np.nanmin(lows)) / 10)


def _is_share(metric: Metric) -> bool:
    return metric.bounded and metric.more_is_better


def _bar(estimate: Estimate, least: float, most: float) -> tuple[float, float, float] | None:
    """Where an interval begins, where its value is, and where it ends, in percent of the way from least to most."""
    if np.isnan(estimate.low):
        return None
    ends = (estimate.low, estimate.value, estimate.high)
    low, value, high = (100 * min(max((end - least) / (most - least or 1), 0), 1) for end in ends)
    return low, value, high


def _originals(summary: Summary) -> list[tuple[Any, ModelSummary | None]]:
    """The original's results, best first, each with ours of the same model."""
    ours = {tuple(model.record.levels.values()): model for model in summary.models}
    results = sorted(original_results().values(), key=lambda result: (-result.right, result.model_id))
    return [(result, ours.get(tuple(result.levels.values()))) for result in results]


def _cards(summary: Summary) -> list[Card]:
    """The pictures that most models were wrong or unsure about, the hardest first."""
    comparison, names = summary.comparison, summary.comparison.class_names
    found = []
    for part, folds in (("test picture", False), ("cross-validated", True)):
        of_models = [_means([*m.record.folds] if folds else [m.record.test]) for m in summary.models]
        for path, (label, _) in of_models[0].items():
            shares = np.stack([means[path][1] for means in of_models])
            found.append((float(shares[:, label].mean()), path, label, part, shares))
    found.sort(key=lambda one: (one[0], one[1]))
    cards = []
    for _, path, label, part, shares in found[:MOST_PICTURES]:
        predicted = shares.argmax(axis=1)
        votes = [
            Vote(model.name, names[guess], float(share[guess]), bool(guess == label))
            for model, guess, share in zip(summary.models, predicted, shares, strict=True)
        ]
        wrong = int((predicted != label).sum())
        picture = _thumbnail(path, comparison.folder / THUMBNAILS)
        cards.append(Card(picture, _short(path), names[label], part, wrong, votes))
    return cards


def _means(outcomes: Sequence[Outcome]) -> Mapping[str, tuple[int, NDArray[np.float64]]]:
    """The label of each picture, and its probabilities averaged over the fits that were tested on it."""
    seen: dict[str, tuple[int, list[NDArray[np.float64]]]] = {}
    for outcome in outcomes:
        for path, label, shares in zip(*outcome[2:], strict=True):
            seen.setdefault(path, (int(label), []))[1].append(shares)
    return {path: (label, np.mean(shares, axis=0)) for path, (label, shares) in seen.items()}


def _groups(summary: Summary) -> list[list[tuple[str | None, str]]]:
    """The near-identical pictures, group by group: thumbnail and name of each."""
    keep = summary.comparison.folder / THUMBNAILS
    return [
        [(_thumbnail(path, keep), _short(path)) for path in group[:MOST_OF_A_GROUP]]
        for group in summary.comparison.about["near_duplicates"][:MOST_GROUPS]
    ]


def _thumbnail(path: str, keep: Path) -> str | None:
    """A small version of a picture as a data URI; the one that was kept when the picture was still there."""
    kept = keep / f"{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:16]}.jpg"
    if not kept.exists():
        try:
            picture = read_picture(Path(path))
        except PictureError:
            return None
        picture.thumbnail((SIDE, SIDE))
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=80)
        with replacing(kept, "wb") as file:
            file.write(data.getvalue())
    return f"data:image/jpeg;base64,{base64.b64encode(kept.read_bytes()).decode()}"


def _short(path: str) -> str:
    """A picture's name with its class folder."""
    short = str(Path(*Path(path).parts[-2:]))
    return short.encode(errors="backslashreplace").decode()  # a name that is not text
