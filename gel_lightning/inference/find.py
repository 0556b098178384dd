"""Which pictures are gels: files in, a row for each out, without PyTorch.

Pictures go through in windows. The files of a window are read, and their digests looked up in the store of answers;
those that are not there are decoded and classified, each picture by one thread from file to probabilities. That is
faster than batches in which all threads compute one picture or some after the other, and takes pictures of any size.
"""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gel_lightning.core.errors import GelError, one_line
from gel_lightning.core.store import Store, StoreError, default_cache_dir
from gel_lightning.data.grey import grey_of_picture, grey_of_samples
from gel_lightning.data.images import DECODING, PictureError, decode_content, read_content
from gel_lightning.data.resizing import shortened
from gel_lightning.detector import read_detector
from gel_lightning.inference.exported import ExportedModel
from gel_lightning.inference.listing import File, list_pictures
from gel_lightning.inference.rows import LEVELS, Row, answered, thresholds_at

if TYPE_CHECKING:
    import pandas

WINDOW, WINDOW_BYTES = 256, 2**26
"""The most pictures, and the most bytes of their files, that are in memory at once; a larger file is alone."""

DETAIL = 4
"""Sides of a picture are shortened where they keep this many times the pixels of the network's input. With twice as
many a few probabilities moved by up to 0.04, since pixels are rounded to 8 bits; with four times as many none by 0.02.
"""

Extra = TypeVar("Extra")
Picture = str | Path | Image.Image | NDArray[Any]


class Found(NamedTuple, Generic[Extra]):
    """A picture that was looked at.

    Attributes:
        row: what the model made of it.
        file: which it is.
        extra: what else was asked for; None where the picture could not be read.
    """

    row: Row
    file: File
    extra: Extra | None


class Rows(Sequence[Row]):
    """Rows that a detector has made."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows": ...
    def __getitem__(self, index: int | slice) -> "Row | Rows":
        """A row, or some of them."""
        return Rows(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Rows({list(self._rows)!r})"

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a table, with a column ``probability_CLASS`` for each class.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

        return pandas.DataFrame(
            {
                **{name: value for name, value in row._asdict().items() if name != "probabilities"},
                **{f"probability_{name}": share for name, share in row.probabilities.items()},
            }
            for row in self._rows
        )


class Detector:
    """Says which class pictures belong to.

    Args:
        model: a file of `gel-fit export`; None takes the packaged detector.
        confidence: ``high``, ``medium`` or ``best-guess``, see :func:`~gel_lightning.inference.rows.thresholds_at`.
        cache_dir: folder of the store of answers; None takes the user's cache folder.

    Attributes:
        model: the model.
        class_names: its classes.
        kept: False once the store of answers could not be written.

    Raises:
        GelError: the model cannot be had, or there is no such level of confidence.
    """

    def __init__(
        self, model: str | Path | None = None, confidence: str = "high", cache_dir: str | Path | None = None
    ) -> None:
        if confidence not in LEVELS:
            raise GelError(f"no confidence {confidence!r}; choose {', '.join(LEVELS)}")
        self.model = _load(model)
        self.kept = True
        self.class_names = self.model.class_names
        self._thresholds = thresholds_at(confidence, self.model.thresholds)
        self._at_least = DETAIL * self.model.image_size
        key = {"kind": "answers", "model": self.model.sha256, "decoding": DECODING, "at_least": self._at_least}
        # With the probabilities: the page that was read, and how many there are.
        root = default_cache_dir() if cache_dir is None else Path(cache_dir)
        self._store = Store(root, key, np.float32, len(self.class_names) + 2)

    def find(self, pictures: Picture | Iterable[Picture]) -> Rows:
        """Classifies pictures.

        Args:
            pictures: one or more of: a file, a folder with pictures at any depth, a Pillow picture, an array of grey
                values ``[height, width]`` or of colours ``[height, width, channels]``. 8-bit values are taken as they
                are, others scaled as those of files are.

        Returns:
            A row for each picture: first of files, in the order of their paths, then of the others, as they come.

        Raises:
            GelError: there is no picture.
        """
        one = isinstance(pictures, str | Path | Image.Image | np.ndarray)
        given = [cast(Picture, pictures)] if one else list(cast(Iterable[Picture], pictures))
        paths = [picture for picture in given if isinstance(picture, str | Path)]
        rows: list[Row] = []
        if paths or not given:
            looked: Iterator[Found[None]] = self.look(list_pictures(paths).files)
            rows = [found.row for found in looked]
        others = [picture for picture in given if not isinstance(picture, str | Path)]
        with _threads() as pool:
            rows += pool.map(self._of_picture, range(len(others)), others)
        return Rows(rows)

    def look(
        self, files: Sequence[File], also: Callable[[Image.Image, Row], Extra] | None = None
    ) -> Generator[Found[Extra], None, None]:
        """Classifies files, each as soon as it is known and in their order. Answers are kept, and found again.

        Args:
            files: what is to be classified.
            also: is called with each picture, of mode ``"L"`` and as it was classified, and its row, by several threads
                at once. It has every picture decoded.
        """
        with _threads() as pool, self._keeping() as keep:
            for window in _windows(files):
                read = list(pool.map(_read, window))
                done = pool.map(self._look, read, self._stored(read), repeat(also))
                for (found, computed), file in zip(done, read, strict=True):
                    if computed is not None:
                        keep(file.digest, computed)
                    yield found

    def _stored(self, files: Sequence["_Read"]) -> list[NDArray[np.float32] | None]:
        """What is kept of each file; None where nothing is."""
        rows: list[NDArray[np.float32] | None] = [None] * len(files)
        readable = [place for place, file in enumerate(files) if not file.error]
        with suppress(OSError, GelError):  # a store that cannot be read is as good as none
            stored = self._store.find([files[place].digest for place in readable])
            there = np.flatnonzero(~stored.missing).tolist()
            for place, row in zip(there, stored.take(there), strict=True):
                rows[readable[place]] = row
        return rows

    def _look(
        self,
        read: "_Read",
        kept: NDArray[np.float32] | None,
        also: Callable[[Image.Image, Row], Extra] | None,
    ) -> tuple[Found[Extra], NDArray[np.float32] | None]:
        """Classifies a file that was read; the second value is to be kept."""
        path, picture, computed = read.file.path, None, None
        if read.error:
            return Found(Row(path, error=read.error), read.file, None), None
        if kept is None or also is not None:
            try:
                picture, header = decode_content(path, read.content, self._at_least)
            except PictureError as error:
                return Found(Row(path, error=error.reason), read.file, None), None
            if kept is None:
                kept = computed = np.array([*self._probabilities(picture), header.page, header.pages], np.float32)
        assert kept is not None
        *probabilities, page, pages = kept.tolist()
        row = self._row(path, probabilities, f"page {page:.0f} of {pages:.0f}" if pages > 1 else "")
        extra = also(picture, row) if also is not None and picture is not None else None
        return Found(row, read.file, extra), computed

    def _of_picture(self, number: int, given: Image.Image | NDArray[Any]) -> Row:
        """The row of a picture that is no file, or has been opened."""
        path = getattr(given, "filename", "") or f"picture {number}"
        try:
            grey = grey_of_picture(given) if isinstance(given, Image.Image) else _grey_of_array(given)
            return self._row(str(path), self._probabilities(shortened(grey, self._at_least)))
        except (OSError, TypeError, ValueError) as error:
            return Row(str(path), error=f"is no picture ({one_line(error)})")

    def _probabilities(self, picture: Image.Image) -> NDArray[np.float32]:
        (probabilities,) = self.model(np.asarray(picture)[None, None])
        return np.asarray(probabilities)

    def _row(self, path: str, probabilities: Iterable[float], note: str = "") -> Row:
        return answered(path, dict(zip(self.class_names, probabilities, strict=True)), self._thresholds, note)

    @contextmanager
    def _keeping(self) -> Iterator[Callable[[bytes, NDArray[np.float32]], None]]:
        """Adds to the store for as long as that can be written; see :attr:`kept`."""

        def keep(digest: bytes, row: NDArray[np.float32]) -> None:
            if self.kept:
                self.kept = False
                add([digest], row[None])
                self.kept = True

        try:
            with self._store.adding() as add:
                yield keep
        except StoreError:
            self.kept = False


class _Read(NamedTuple):
    """A file with its content and the digest of that, or why it cannot be read."""

    file: File
    content: bytes
    digest: bytes
    error: str


def _read(file: File) -> _Read:
    if file.error:
        return _Read(file, b"", b"", file.error)
    try:
        content = read_content(file.path)
    except PictureError as error:
        return _Read(file, b"", b"", error.reason)
    return _Read(file, content, hashlib.sha256(content).digest(), "")


def _windows(files: Iterable[File]) -> Iterator[list[File]]:
    """Cuts a list of files into parts that fit into memory."""
    window: list[File] = []
    total = 0
    for file in files:
        size = 0
        with suppress(OSError, ValueError):
            size = Path(file.path).stat().st_size
        if window and (len(window) == WINDOW or total + size > WINDOW_BYTES):
            yield window
            window, total = [], 0
        window.append(file)
        total += size
    if window:
        yield window


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """A thread for each core that this process may use; what they have not begun is dropped at the end."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _grey_of_array(values: NDArray[Any]) -> Image.Image:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or 0 in values.shape or (values.ndim == 3 and values.shape[2] > 4):
        raise ValueError(f"an array of shape {list(values.shape)}, not [height, width] or [height, width, channels]")
    return grey_of_picture(Image.fromarray(values)) if values.dtype in (np.uint8, np.bool_) else grey_of_samples(values)


def _load(model: str | Path | None) -> ExportedModel:
    """Loads a model that leaves the cores to the threads which call it."""
    if model is not None:
        return ExportedModel.load(model, threads=1)
    return ExportedModel(read_detector(), "the packaged detector", threads=1)
