"""One row per classified picture, as CSV and JSON, and all rows summarised in a sentence."""

import csv
import json
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple

from gel_lightning.core.files import formula_free, text_cell
from gel_lightning.core.text import printable

UNSURE = "unsure"
"""The answer if the most probable class is below its threshold."""

LEVELS = ("high", "medium", "best-guess")
"""Levels of confidence that can be required of an answer: see :func:`thresholds_at`."""

DIGITS = 6
"""Decimal places of probabilities."""

CSV_OPTIONS: dict[str, Any] = {"newline": "", "encoding": "utf-8-sig", "errors": "backslashreplace"}
"""How a CSV file is opened. Without the byte order mark Excel misreads names that are not ASCII."""

REASONS = 10  # unreadable pictures that are listed
LEAST_CERTAIN = 5
MOST_FREQUENT = 10  # classes that are counted by name


class Row(NamedTuple):
    """The answer of a model for a picture.

    Attributes:
        path: of the picture.
        answer: a class name, :data:`UNSURE`, or "" if the picture could not be read.
        predicted: the most probable class, "" if unreadable.
        confidence: its probability.
        probabilities: by class; empty if unreadable.
        error: why it could not be read, or "".
        note: such as "page 1 of 3".
    """

    path: str
    answer: str = ""
    predicted: str = ""
    confidence: float | None = None
    probabilities: Mapping[str, float] = {}
    error: str = ""
    note: str = ""


def thresholds_at(level: str, thresholds: Sequence[float]) -> tuple[float, ...]:
    """Finds the probability that each class needs to be the answer.

    Args:
        level: ``high`` uses the thresholds of the model, ``best-guess`` none. ``medium`` is halfway between that of the
            model (at most 1) and 1 / classes, which the most probable class always reaches.
        thresholds: of the model, for each class.

    Returns:
        The threshold of each class.
    """
    if level == "best-guess":
        return (0.0,) * len(thresholds)
    if level == "medium":
        return tuple((min(threshold, 1.0) + 1 / len(thresholds)) / 2 for threshold in thresholds)
    return tuple(thresholds)


def answered(path: str, probabilities: Mapping[str, float], thresholds: Sequence[float], note: str = "") -> Row:
    """Makes the row of a picture from its probabilities.

    Args:
        path: of the picture.
        probabilities: of each class.
        thresholds: of each class, see :func:`thresholds_at`.
        note: for the row.
    """
    rounded = {name: round(float(value), DIGITS) for name, value in probabilities.items()}
    predicted = max(rounded, key=rounded.__getitem__)
    sure = rounded[predicted] >= dict(zip(rounded, thresholds, strict=True))[predicted]
    return Row(path, predicted if sure else UNSURE, predicted, rounded[predicted], rounded, "", note)


class Table:
    """Writes rows to an open CSV file, without cells that spreadsheets take for formulas.

    Args:
        file: opened with :data:`CSV_OPTIONS`.
        class_names: of the model.
    """

    def __init__(self, file: IO[str], class_names: Sequence[str]) -> None:
        self._class_names, self._writer = tuple(class_names), csv.writer(file)
        columns = [f"probability_{name}" for name in class_names]
        self._writer.writerow(["path", "answer", "predicted", "confidence", *columns, "error", "note"])

    def add(self, row: Row) -> None:
        """Writes a row."""
        shares = [row.confidence, *(row.probabilities.get(name) for name in self._class_names)]
        numbers = ["" if share is None else f"{share:.{DIGITS}f}" for share in shares]
        names = (text_cell(row.answer), text_cell(row.predicted))
        self._writer.writerow([formula_free(row.path), *names, *numbers, text_cell(row.error), row.note])


def to_json(row: Row) -> str:
    """A row as one line of JSON. Bytes of names that are not UTF-8 become lone surrogates, as in Python."""
    return json.dumps(row._asdict())


def from_json(line: str) -> Row:
    """Parses a line of :func:`to_json`."""
    return Row(**json.loads(line))


class Summary:
    """Summarises rows.

    Args:
        class_names: the classes.
        looked_for: the class that the sentence is about; None is the first of two classes, and all of more.

    Attributes:
        counts: number of pictures with each class, or :data:`UNSURE`, as their answer.
        unreadable: number of pictures that could not be read.
        left_out: number of other files, by suffix.
        least_certain: probability, path and most probable class of the five least certain pictures, in this order.
    """

    def __init__(self, class_names: Sequence[str], looked_for: str | None = None) -> None:
        if looked_for is None and len(class_names) <= 2:
            looked_for = class_names[0]
        self.looked_for = looked_for
        self.counts = dict.fromkeys((*class_names, UNSURE), 0)
        self.unreadable = 0
        self.left_out: Mapping[str, int] = {}
        self.least_certain: list[tuple[float, str, str]] = []
        self._reasons: list[tuple[str, str]] = []
        self._last: Row | None = None

    def add(self, row: Row) -> None:
        """Counts a row."""
        self._last = row
        if row.confidence is None:
            self.unreadable += 1
            if len(self._reasons) < REASONS:
                self._reasons.append((row.path, row.error))
            return
        self.counts[row.answer] += 1
        self.least_certain = sorted([*self.least_certain, (row.confidence, row.path, row.predicted)])[:LEAST_CERTAIN]

    @property
    def total(self) -> int:
        """The number of pictures."""
        return sum(self.counts.values()) + self.unreadable

    def lines(self) -> list[str]:
        """The sentence, and the first pictures that could not be read, with the reasons."""
        parts = [self._of_one(self._last) if self.total == 1 and self._last else self._of_many()]
        if (unsure := self.counts[UNSURE]) and self.total > 1:
            parts.append(f"{unsure} unsure")
        if self.unreadable:
            parts.append(f"{self.unreadable} could not be read")
        if number := sum(self.left_out.values()):
            kinds = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
            names = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in kinds)
            parts.append(f"{number} {'file' if number == 1 else 'files'} left out ({names})")
        lines = [", ".join(filter(None, parts))]
        lines += [f"could not be read: {path}: {reason}" for path, reason in self._reasons]
        if (more := self.unreadable - len(self._reasons)) > 0:
            lines.append(f"could not be read: {more} more, each with its reason in its row")
        return [printable(line) for line in lines]

    def _of_many(self) -> str:
        all_of_them = "picture" if self.total == 1 else "pictures"
        if self.looked_for is None:
            return ", ".join([f"{self.total} {all_of_them}", *self._by_class()])
        found = self.counts[self.looked_for]
        one = found == 1
        if self.looked_for == "gel":
            return f"{found} of {self.total} {all_of_them} {'is a gel' if one else 'are gels'}"
        return f"{found} of {self.total} {all_of_them} {'is' if one else 'are'} {self.looked_for}"

    def _by_class(self) -> list[str]:
        """The counts of the most frequent classes, and of all others together."""
        counts = sorted(((count, name) for name, count in self.counts.items() if name != UNSURE), reverse=True)
        named = [f"{count} {name}" for count, name in counts[:MOST_FREQUENT] if count]
        others = sum(count for count, _ in counts[MOST_FREQUENT:])
        return [*named, f"{others} of other classes"] if others else named

    def _of_one(self, row: Row) -> str:
        if row.confidence is None:
            return ""
        if row.answer == UNSURE:
            return f"{row.path}: {UNSURE}; most probable is {row.predicted}, with probability {row.confidence:.3f}"
        return f"{row.path} is classified as {row.answer}, with probability {row.confidence:.3f}"
