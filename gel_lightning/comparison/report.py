"""The report of a comparison: one page that stands alone, and its figures."""

import hashlib
import io
import os
import stat
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gel_lightning.comparison.answer import answer, effect_in_words, not_worse, percent, points, seconds
from gel_lightning.comparison.drawing import save
from gel_lightning.comparison.folder import FIGURES, REPORT, THUMBNAILS, model_folder
from gel_lightning.comparison.methods import methods
from gel_lightning.comparison.original import SOURCE, original_results
from gel_lightning.comparison.plots import plots
from gel_lightning.comparison.predictions import Outcome
from gel_lightning.comparison.records import read_comparison
from gel_lightning.comparison.statistics import Estimate
from gel_lightning.comparison.summary import Metric, ModelSummary, Summary
from gel_lightning.core.files import replacing
from gel_lightning.core.html import SIDE, environment, jpeg_uri, small_jpeg
from gel_lightning.data.images import PictureError, read_picture

MOST_BYTES = 100_000
"""Of a thumbnail: four bytes a pixel are more than any JPEG of that size takes."""
MOST_PICTURES, MOST_GROUPS, MOST_OF_A_GROUP = 24, 60, 8


class Cell(NamedTuple):
    """A figure in the table of models: what is read, what is sorted by, and what stands below it."""

    text: str
    value: float
    detail: str = ""
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


def make_report(folder: Path, pictures: Container[str] = frozenset()) -> Summary:
    """Writes report.html and figures/ from what a comparison has left.

    Args:
        folder: of the comparison.
        pictures: paths that thumbnails may be made of. Of others the page shows those that the comparison has kept,
            since a folder that somebody else made could name any file here.

    Returns:
        What it shows.

    Raises:
        GelError: it is no comparison, or a file of it is damaged.
        OSError: the report cannot be written.
    """
    comparison = read_comparison(folder)
    summary = Summary(comparison)
    drawn = [(plot, svg) for plot in plots(summary) for svg in [save(plot, folder / FIGURES)] if plot.on_page]
    hardware = {f"{r.levels['hardware']}{f' ({r.device})' if r.device != 'cpu' else ''}" for r in comparison.records}
    templates = environment("gel_lightning.comparison")
    templates.filters |= {"points": points, "percent": percent, "ends": _ends, "seconds": seconds}
    page = templates.get_template("report.html.jinja").render(
        summary=summary,
        about=comparison.about,
        failed=[(comparison.names[model_folder(row)], row) for row in comparison.failed],
        one_hardware=hardware.pop() if len(hardware) == 1 else "",
        answer=answer(summary),
        columns=_columns(summary),
        rows=_rows(summary),
        alike=[model.name for model in not_worse(summary)],
        effects=[(effect, effect_in_words(effect)) for effect in summary.effects],
        methods=methods(summary),
        plots=drawn,
        originals=_originals(summary),
        source=SOURCE,
        cards=_cards(summary, pictures),
        groups=_groups(summary, pictures),
        most_groups=MOST_GROUPS,
    )
    with replacing(folder / REPORT) as file:
        file.write(page)
    return summary


def _columns(summary: Summary) -> list[str]:
    first = ["accuracy, cross-validated"] if summary.folds else ["accuracy, validation pictures"]
    others = [metric.label for metric in summary.metrics[1:]]
    named = [f"accuracy, {name}" for name in summary.models[0].named]
    return ["model", *first, "accuracy, test pictures", *named, *others, "training", "inference"]


def _rows(summary: Summary) -> list[tuple[ModelSummary, list[Cell]]]:
    """The table of models: the figure they were chosen by, the test pictures, all other metrics, and times."""
    columns = [_chosen(summary), _tested([(m.right, m.total, m.test_accuracy) for m in summary.models], summary)]
    columns += [_tested([model.named[name] for model in summary.models], summary) for name in summary.models[0].named]
    columns += [_measured(summary, metric) for metric in summary.metrics[1:]]
    records = [model.record for model in summary.models]
    for times in ([r.training_seconds for r in records], [r.inference_seconds for r in records]):
        columns.append([Cell(seconds(time), time) for time in times])
    return list(zip(summary.models, [list(cells) for cells in zip(*columns, strict=True)], strict=True))


def _chosen(summary: Summary) -> list[Cell]:
    if summary.folds:
        return _measured(summary, summary.metrics[0])
    values = [model.chosen_by[0] for model in summary.models]
    return _best_bold([Cell(percent(value), value) for value in values])


def _tested(tested: Sequence[tuple[int, int, Estimate]], summary: Summary) -> list[Cell]:
    """Accuracy on test pictures; its interval is not of the kind that the others have if there are folds."""
    return _best_bold(
        [
            Cell(
                percent(accuracy.value),
                accuracy.value,
                f"{right}/{total}" + ("" if summary.folds else f", {_ends(accuracy)}"),
            )
            for right, total, accuracy in tested
        ]
    )


def _measured(summary: Summary, metric: Metric) -> list[Cell]:
    cells = []
    for model in summary.models:
        estimate = model.estimates[metric.key]
        fits = model.fits.get(metric.key, np.empty(0))
        share = metric.bounded and metric.more_is_better
        ends = "" if not len(fits) else _ends(estimate, share) if np.ptp(fits) > 1e-9 else "no spread"
        cells.append(Cell(percent(estimate.value) if share else f"{estimate.value:.3f}", estimate.value, ends))
    return _best_bold(cells, metric.more_is_better)


def _best_bold(cells: Sequence[Cell], more_is_better: bool = True) -> list[Cell]:
    """Marks the cells that read like the best one, unless all do."""
    best = (max if more_is_better else min)(cells, key=lambda cell: cell.value).text
    differ = len({cell.text for cell in cells}) > 1
    return [cell._replace(best=differ and cell.text == best) for cell in cells]


def _ends(estimate: Estimate, share: bool = True) -> str:
    """The ends of an interval as short as can be: of a share in percent."""
    if np.isnan(estimate.low):
        return ""
    ends = (max(estimate.low, 0), estimate.high)
    return "–".join(percent(end)[:-2] if share else f"{end:.3f}" for end in ends)


def _originals(summary: Summary) -> list[tuple[Any, ModelSummary | None]]:
    """The original's results, best first, each with ours of the same model."""
    ours = {tuple(model.record.levels.values()): model for model in summary.models}
    results = sorted(original_results().values(), key=lambda result: (-result.right, result.model_id))
    return [(result, ours.get(tuple(result.levels.values()))) for result in results]


def _cards(summary: Summary, pictures: Container[str]) -> list[Card]:
    """The pictures that most models were wrong or unsure about, the hardest first."""
    comparison, names = summary.comparison, summary.comparison.class_names
    found = []
    records = [model.record for model in summary.models]
    parts = {"test picture": [[record.test] for record in records], "cross-validated": [r.folds for r in records]}
    parts |= {f"test picture of {name}": [[record.named[name]] for record in records] for name in records[0].named}
    for part, outcomes in parts.items():
        of_models = [_means(some) for some in outcomes]
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
        picture = _thumbnail(path, comparison.folder / THUMBNAILS, pictures)
        cards.append(Card(picture, _short(path), names[label], part, wrong, votes))
    return cards


def _means(outcomes: Sequence[Outcome]) -> Mapping[str, tuple[int, NDArray[np.float64]]]:
    """The label of each picture, and its probabilities averaged over the fits that were tested on it."""
    seen: dict[str, tuple[int, list[NDArray[np.float64]]]] = {}
    for outcome in outcomes:
        for path, label, shares in zip(*outcome[2:], strict=True):
            seen.setdefault(path, (int(label), []))[1].append(shares)
    return {path: (label, np.mean(shares, axis=0)) for path, (label, shares) in seen.items()}


def _groups(summary: Summary, pictures: Container[str]) -> list[list[tuple[str | None, str]]]:
    """The near-identical pictures, group by group: thumbnail and name of each."""
    keep = summary.comparison.folder / THUMBNAILS
    return [
        [(_thumbnail(path, keep, pictures), _short(path)) for path in group[:MOST_OF_A_GROUP]]
        for group in summary.comparison.about["near_duplicates"][:MOST_GROUPS]
    ]


def _thumbnail(path: str, keep: Path, pictures: Container[str]) -> str | None:
    """A small version of a picture as a data URI; the one that was kept when the picture was still there."""
    kept = keep / f"{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:16]}.jpg"
    content = None if keep.is_symlink() else _kept_thumbnail(kept)
    if content is None:
        if path not in pictures:
            return None
        try:
            picture = read_picture(Path(path))
        except PictureError:
            return None
        content = small_jpeg(picture)
        with replacing(kept, "wb") as file:
            file.write(content)
    return jpeg_uri(content)


def _kept_thumbnail(path: Path) -> bytes | None:
    """Reads a thumbnail: a regular file, not a link, that is a whole and small JPEG; None if it is not."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            return None
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as picture:
            if max(picture.size) > SIDE:
                return None
            picture.load()
    except (OSError, ValueError, SyntaxError):
        return None
    return content


def _short(path: str) -> str:
    """A picture's name with its class folder."""
    short = str(Path(*Path(path).parts[-2:]))
    return short.encode(errors="backslashreplace").decode()  # a name that is not text
