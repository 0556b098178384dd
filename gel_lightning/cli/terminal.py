"""Lines and tables in a terminal, in which nothing that comes from outside has an effect; no import of PyTorch."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from gel_lightning.core.text import printable


def print_line(text: str, stderr: bool = False) -> None:
    """Prints a line unbroken, with no markup read into it; what would control the terminal is escaped."""
    Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False).print(printable(text))


class SafeTable(Table):
    """A table whose cells are escaped as :func:`~gel_lightning.core.text.printable` does."""

    def add_row(self, *cells: object, **options: Any) -> None:
        """Adds a row of cells with any text."""
        super().add_row(*map(printable, cells), **options)


def print_answers(answers: Sequence[tuple[float, str, str]]) -> None:
    """Prints a line for each answer.

    Args:
        answers: probability, path and class of each.
    """
    for confidence, path, name in answers:
        print_line(f"  {confidence:.3f}  {name}  {path}")
