"""Progress bars on stderr, if it is a terminal. Imports no PyTorch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables in which launchers tell each process its rank."""


class _Speed(ProgressColumn):
    """Pictures per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f}/s" if speed else "", style="progress.data.speed")


@contextmanager
def picture_progress(text: str, pictures: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Shows a bar over pictures while the block runs, on rank 0 and if stderr is a terminal.

    Args:
        text: what is being done.
        pictures: number of pictures.
        shown: whether to show the bar.

    Yields:
        A function that advances the bar by a number of pictures.
    """
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    count = (MofNCompleteColumn(), TextColumn("pictures"))
    times = (_Speed(), TextColumn("left"), TimeRemainingColumn())
    with _bar((*count, *times), shown and rank == "0", transient=True) as progress:
        task = progress.add_task(text, total=pictures)
        yield lambda number: progress.advance(task, number)


def progress_bar(*count: ProgressColumn, shown: bool = True) -> Progress:
    """Makes a bar with columns that count, elapsed time and remaining time."""
    return _bar((*count, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()), shown)


def _bar(columns: tuple[ProgressColumn, ...], shown: bool, transient: bool = False) -> Progress:
    console = Console(stderr=True)
    first = (TextColumn("{task.description}"), BarColumn(bar_width=10))
    disable = not (shown and console.is_terminal)  # a bar is only noise in a file
    return Progress(*first, *columns, console=console, disable=disable, transient=transient)
