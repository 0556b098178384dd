"""Finding gels: from picture files to rows, without PyTorch.

Files are processed in windows. Those of a window are read, and their digests looked up in the store of answers. The
remaining pictures are decoded and classified, each by a single thread from file to probabilities. This is faster than
batches whose operators are spread over all threads, and works for pictures of any size.
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
from gel_lightning.data.grey import converted, grey_of_samples
from gel_lightning.data.images import DECODING, PictureError, decode_content, read_content
from gel_lightning.data.reading import windows
from gel_lightning.data.resizing import pixels, shortened
from gel_lightning.detector import read_detector
from gel_lightning.inference.exported import ExportedModel
from gel_lightning.inference.listing import File, list_pictures
from gel_lightning.inference.rows import LEVELS, Row, answered, thresholds_at

if TYPE_CHECKING:
    import pandas

DETAIL = 4
"""Pictures are reduced to no less than this many times the side of the network's input. With 2, some probabilities
changed by up to 0.04, because pixels are rounded to 8 bits; with 4 none changed by 0.02."""

Extra = TypeVar("Extra")
Picture = str | Path | Image.Image | NDArray[Any]


class Found(NamedTuple, Generic[Extra]):
    """A picture that was classified.

    Attributes:
        row: the answer of the model.
        file: of the picture.
        extra: the result of ``also``; None if the picture could not be read.
    """

    row: Row
    file: File
    extra: Extra | None


class Rows(Sequence[Row]):
    """The rows of several pictures."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows": ...
    def __getitem__(self, index: int | slice) -> "Row | Rows":
        """One row, or a slice."""
        return Rows(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Rows({list(self._rows)!r})"

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a data frame, with a column ``probability_CLASS`` for each class.

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
    """Classifies pictures with an exported model.

    Args:
        model: a file of `gel-fit export`; by default the packaged detector.
        confidence: ``high``, ``medium`` or ``best-guess``, see :func:`~gel_lightning.inference.rows.thresholds_at`.
        cache_dir: folder of the store of answers; by default the user's cache folder.

    Attributes:
        model: the model.
        class_names: its classes.
        kept: whether all answers could be stored.

    Raises:
        GelError: the model cannot be loaded, or the level of confidence does not exist.
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
        # Besides the probabilities: the page that was read, and the number of pages.
        root = default_cache_dir() if cache_dir is None else Path(cache_dir)
        self._store = Store(root, key, np.float32, len(self.class_names) + 2)

    def find(self, pictures: Picture | Iterable[Picture]) -> Rows:
        """Classifies pictures.

        Args:
            pictures: one or more of: a file, a folder with pictures at any depth, a Pillow picture, an array of grey
                values ``[height, width]`` or of colours ``[height, width, channels]``. 8-bit values are used
                unchanged, others are scaled like those of files.

        Returns:
            A row for each picture: first the files, sorted by path, then the others in the given order.

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
        """Classifies files in their order, each as soon as it is known. Answers are stored and reused.

        Args:
            files: to classify.
            also: called by several threads at once with each picture, as it was classified, and its row. With it all
                pictures are decoded, even if their answers are stored.
        """
        with _threads() as pool, self._keeping() as keep:
            for window in windows(files, lambda file: file.path):
                read = list(pool.map(_read, window))
                done = pool.map(self._look, read, self._stored(read), repeat(also))
                for (found, computed), file in zip(done, read, strict=True):
                    if computed is not None:
                        keep(file.digest, computed)
                    yield found

    def _stored(self, files: Sequence["_Read"]) -> list[NDArray[np.float32] | None]:
        """The stored answer of each file; None if there is none."""
        rows: list[NDArray[np.float32] | None] = [None] * len(files)
        readable = [place for place, file in enumerate(files) if not file.error]
        with suppress(OSError, GelError):  # a store that cannot be read is ignored
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
        """Classifies a file that was read. The second value is the answer to store, if it is new."""
        path, picture, computed = read.file.path, None, None
        if read.error:
            return Found(Row(path, error=read.error), read.file, None), None
        if kept is None or also is not None:
            try:
                picture, header = decode_content(path, read.content, self._at_least, self.model.colour)
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
        """The row of a Pillow picture or an array."""
        path = getattr(given, "filename", "") or f"picture {number}"
        try:
            mode = "RGB" if self.model.colour else "L"
            picture = converted(given, mode) if isinstance(given, Image.Image) else _of_array(given, mode)
            return self._row(str(path), self._probabilities(shortened(picture.convert(mode), self._at_least)))
        except (OSError, TypeError, ValueError) as error:
            return Row(str(path), error=f"is no picture ({one_line(error)})")

    def _probabilities(self, picture: Image.Image) -> NDArray[np.float32]:
        (probabilities,) = self.model(pixels(picture)[None])
        return np.asarray(probabilities)

    def _row(self, path: str, probabilities: Iterable[float], note: str = "") -> Row:
        return answered(path, dict(zip(self.class_names, probabilities, strict=True)), self._thresholds, note)

    @contextmanager
    def _keeping(self) -> Iterator[Callable[[bytes, NDArray[np.float32]], None]]:
        """Stores answers until the store cannot be written; see :attr:`kept`."""

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
    """A file with its content and digest, or why it cannot be read."""

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


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """A thread for each core that this process may use. Tasks that have not begun are cancelled at the end."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _of_array(values: NDArray[Any], mode: str) -> Image.Image:
    values = np.asarray(values)
    if values.dtype == np.bool_:
        values = np.where(values, np.uint8(255), np.uint8(0))
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or 0 in values.shape or (values.ndim == 3 and values.shape[2] > 4):
        raise ValueError(f"an array of shape {list(values.shape)}, not [height, width] or [height, width, channels]")
    return converted(Image.fromarray(values), mode) if values.dtype == np.uint8 else grey_of_samples(values)


def _load(model: str | Path | None) -> ExportedModel:
    """Loads a model that computes each call in the calling thread."""
    if model is not None:
        return ExportedModel.load(model, threads=1)
    return ExportedModel(read_detector(), "the packaged detector", threads=1)
