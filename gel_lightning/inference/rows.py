"""One row for each picture that a model was asked about."""

from typing import NamedTuple

UNSURE = "unsure"


class Row(NamedTuple):
    """What a model made of a picture.

    Attributes:
        path: as found.
        answer: a class name, :data:`UNSURE`, or "" where the picture could not be read.
        predicted: the most probable class, "" where unreadable.
        confidence: its probability.
        probabilities: by class; empty where unreadable.
        error: why it could not be read, else "".
        note: such as "page 1 of 3".
    """

    path: str
    answer: str
    predicted: str
    confidence: float | None
    probabilities: dict[str, float]
    error: str
    note: str
