"""Writing the page of a report."""

from collections.abc import Container
from pathlib import Path
from typing import Any

from gel_lightning.comparison.folder import FIGURES, REPORT
from gel_lightning.comparison.original import SOURCE, original_results
from gel_lightning.comparison.records import read_comparison
from gel_lightning.comparison.report.answer import answer, duration, effect_in_words, not_worse, percent, points
from gel_lightning.comparison.report.figures.plots import plots
from gel_lightning.comparison.report.figures.svg import render
from gel_lightning.comparison.report.methods import methods
from gel_lightning.comparison.report.pictures import MOST_GROUPS, hard_pictures, near_duplicates
from gel_lightning.comparison.report.table import columns, interval_ends, rows
from gel_lightning.comparison.summary import ModelSummary, Summary
from gel_lightning.core.files import replacing
from gel_lightning.core.html import environment
from gel_lightning.models.spec import ModelSpec


def make_report(folder: Path, pictures: Container[str] = frozenset(), figures: bool = False) -> Summary:
    """Writes report.html from the files of a comparison.

    Args:
        folder: of the comparison.
        pictures: paths that thumbnails may be made from. Others are shown only if the comparison has kept a thumbnail,
            because a folder from somebody else could name any file of this machine.
        figures: whether to write each figure as PNG and SVG to figures/ as well, with those that the page leaves out.

    Returns:
        The summary that it shows.

    Raises:
        GelError: the folder is not a comparison, or a file of it is damaged.
        OSError: the report cannot be written.
    """
    comparison = read_comparison(folder)
    summary = Summary(comparison)
    kept = folder / FIGURES if figures else None
    drawn = [(plot, render(plot, kept)) for plot in plots(summary) if plot.on_page or figures]
    hardware = {f"{r.levels['hardware']}{f' ({r.device})' if r.device != 'cpu' else ''}" for r in comparison.records}
    templates = environment("gel_lightning.comparison.report")
    templates.filters |= {"points": points, "percent": percent, "ends": interval_ends, "duration": duration}
    page = templates.get_template("report.html.jinja").render(
        summary=summary,
        about=comparison.about,
        failed=[(comparison.names[ModelSpec.of_row(row).name], row) for row in comparison.failed],
        one_hardware=hardware.pop() if len(hardware) == 1 else "",
        answer=answer(summary),
        columns=columns(summary),
        rows=rows(summary),
        alike=[model.name for model in not_worse(summary)],
        effects=[(effect, effect_in_words(effect)) for effect in summary.effects],
        methods=methods(summary),
        plots=[(plot, svg) for plot, svg in drawn if plot.on_page],
        originals=_originals(summary),
        source=SOURCE,
        cards=hard_pictures(summary, pictures),
        groups=near_duplicates(summary, pictures),
        most_groups=MOST_GROUPS,
    )
    with replacing(folder / REPORT) as file:
        file.write(page)
    return summary


def _originals(summary: Summary) -> list[tuple[Any, ModelSummary | None]]:
    """The results of the original study, best first, each with our model of the same levels if there is one."""
    ours = {tuple(model.record.levels.values()): model for model in summary.models}
    results = sorted(original_results().values(), key=lambda result: (-result.right, result.model_id))
    return [(result, ours.get(tuple(result.levels.values()))) for result in results]
