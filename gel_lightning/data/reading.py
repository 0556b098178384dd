"""Reading many pictures in threads, with a progress bar."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from gel_lightning.core.progress import picture_progress

MANY_PICTURES = 200
"""Reading more pictures than this shows a progress bar, if stderr is a terminal."""

READING_THREADS = min(8, os.cpu_count() or 1)
"""Pictures that a process reads at once; :mod:`gel_lightning.data.images` bounds their memory."""

WINDOW, WINDOW_BYTES = 256, 2**26
"""The most pictures, and the most bytes of their files, that are in memory at once; a larger file is alone."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Calls a function that reads a picture for each of n items, in several threads.

    Reading and decoding release the GIL. Each thread holds one decoded picture.

    Args:
        function: reads a picture.
        items: the n arguments.

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


def windows(files: Iterable[Item], path: Callable[[Item], str | Path]) -> Iterator[list[Item]]:
    """Cuts a list of files into parts whose contents fit into memory.

    Args:
        files: what is cut.
        path: of each of them.
    """
    window: list[Item] = []
    total = 0
    for file in files:
        size = 0
        with suppress(OSError, ValueError):
            size = Path(path(file)).stat().st_size
        if window and (len(window) == WINDOW or total + size > WINDOW_BYTES):
            yield window
            window, total = [], 0
        window.append(file)
        total += size
    if window:
        yield window
