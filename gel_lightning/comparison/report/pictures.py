"""The pictures in a report: those that were hard, near-duplicates, and their thumbnails."""

import hashlib
import io
import os
import stat
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gel_lightning.comparison.folder import THUMBNAILS
from gel_lightning.comparison.predictions import Outcome
from gel_lightning.comparison.summary import Summary
from gel_lightning.core.files import replacing
from gel_lightning.core.html import SIDE, jpeg_uri, small_jpeg
from gel_lightning.data.images import PictureError, read_picture

MOST_BYTES = 100_000  # of a thumbnail: at 4 bytes per pixel, more than any JPEG of that size takes
MOST_PICTURES, MOST_GROUPS, MOST_OF_A_GROUP = 24, 60, 8


class Vote(NamedTuple):
    """The prediction of a model for a picture, and its probability."""

    model: str
    predicted: str
    share: float
    right: bool


class HardPicture(NamedTuple):
    """A picture that was hard: its thumbnail, name and class, and the prediction of each model."""

    picture: str | None
    name: str
    actual: str
    part: str
    wrong: int
    votes: list[Vote]


def hard_pictures(summary: Summary, pictures: Container[str]) -> list[HardPicture]:
    """The pictures that most models got wrong or were unsure about, the hardest first."""
    names = summary.comparison.class_names
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
        picture = _thumbnail(path, summary, pictures)
        cards.append(HardPicture(picture, _short(path), names[label], part, wrong, votes))
    return cards


def _means(outcomes: Sequence[Outcome]) -> Mapping[str, tuple[int, NDArray[np.float64]]]:
    """The label of each picture, and its mean probabilities over the fits that were tested on it."""
    seen: dict[str, tuple[int, list[NDArray[np.float64]]]] = {}
    for outcome in outcomes:
        for path, label, shares in zip(*outcome[2:], strict=True):
            seen.setdefault(path, (int(label), []))[1].append(shares)
    return {path: (label, np.mean(shares, axis=0)) for path, (label, shares) in seen.items()}


def near_duplicates(summary: Summary, pictures: Container[str]) -> list[list[tuple[str | None, str]]]:
    """Groups of near-duplicates: the thumbnail and name of each picture."""
    return [
        [(_thumbnail(path, summary, pictures), _short(path)) for path in group[:MOST_OF_A_GROUP]]
        for group in summary.comparison.about["near_duplicates"][:MOST_GROUPS]
    ]


def _thumbnail(path: str, summary: Summary, pictures: Container[str]) -> str | None:
    """The thumbnail of a picture as a data URI, from those that were kept if there is one.

    It is in colour if a model was.
    """
    keep = summary.comparison.folder / THUMBNAILS
    kept = keep / f"{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:16]}.jpg"
    content = None if keep.is_symlink() else _kept_thumbnail(kept)
    if content is None:
        if path not in pictures:
            return None
        try:
            picture = read_picture(Path(path), any(record.row["colour"] for record in summary.comparison.records))
        except PictureError:
            return None
        content = small_jpeg(picture)
        with replacing(kept, "wb") as file:
            file.write(content)
    return jpeg_uri(content)


def _kept_thumbnail(path: Path) -> bytes | None:
    """Reads a thumbnail; None unless it is a regular file with a complete, small JPEG."""
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
    """The name of a picture with its class folder."""
    short = str(Path(*Path(path).parts[-2:]))
    return short.encode(errors="backslashreplace").decode()  # a name may not be UTF-8
