"""Reading many pictures: some at a time, with a progress bar."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

MANY_PICTURES = 200
"""Above this number, reading pictures shows a progress bar, if stderr is a terminal."""

READING_THREADS = min(8, os.cpu_count() or 1)
"""Pictures that a process reads at a time; what that takes of memory is bounded in :mod:`gel_lightning.data.images`."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Speed(ProgressColumn):
    """Pictures per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f}/s" if speed else "", style="progress.data.speed")


@contextmanager
def picture_progress(text: str, pictures: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Shows a bar over pictures while the block runs, if stderr is a terminal.

    Args:
        text: what is being done.
        pictures: how many there are.
        shown: False shows nothing.

    Yields:
        A function that advances the bar by a number of pictures.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=10), MofNCompleteColumn(), TextColumn("pictures"))
    times = (_Speed(), TextColumn("left"), TimeRemainingColumn())
    shown = shown and getattr(rank_zero_only, "rank", 0) == 0  # of several processes one shows what it does
    disable = not (shown and console.is_terminal)  # in a file a bar is but noise
    with Progress(*columns, *times, console=console, disable=disable, transient=True) as progress:
        task = progress.add_task(text, total=pictures)
        yield lambda number: progress.advance(task, number)


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Calls a function that reads a picture for each of many, some at a time.

    Reading and decoding free the interpreter's lock; each thread holds one decoded picture. Above
    :data:`MANY_PICTURES` a bar is shown.

    Args:
        function: what is called.
        items: its argument, n of them.

    Yields:
        The n results, in order.
    """
    with (
        picture_progress("Reading pictures", len(items), len(items) > MANY_PICTURES) as advance,
        ThreadPoolExecutor(READING_THREADS) as pool,
    ):
        for result in pool.map(function, items):
            advance(1)
            yield result
