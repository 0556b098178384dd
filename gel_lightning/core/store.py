"""Stores of rows of numbers on disk, found by the content of the pictures that they were computed from."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import platformdirs
from numpy.typing import DTypeLike, NDArray

from gel_lightning.core.errors import GelError
from gel_lightning.core.files import regular_file, remove_leftovers, replacing
from gel_lightning.core.records import KeptRecords, checksums, opened_records, record_type, write_records

KEY_FILE = "key.json"
OWN_FILE = rf"({re.escape(KEY_FILE)}|[0-9a-f]{{32}}\.npy)"
"""Regular expression of the names of a store's files."""

FLUSH_BYTES, FLUSH_SECONDS, FLUSH_SHARE = 64 * 2**20, 10.0, 0.1
"""Rows are written at this size, or after the longer of these seconds and this share of the time so far."""
FEW_FILES = 16
"""Small files are merged when there are more than this, because each file may have to be kept open."""


def default_cache_dir() -> Path:
    """The folder of this user in which stores are kept by default."""
    return platformdirs.user_cache_path("gel-lightning")


class StoreError(GelError):
    """A store that cannot be written."""


class StoredRows:
    """The rows of some pictures in a store, read from disk each time they are taken.

    Attributes:
        missing: which pictures have no row, [n].
        seconds: time that computing the rows took, when they were computed.
    """

    def __init__(
        self,
        files: Sequence[KeptRecords],
        file: NDArray[np.intp],
        row: NDArray[np.intp],
        seconds: float,
        dtype: np.dtype[Any],
    ) -> None:
        self._files, self._file, self._row, self._dtype = files, file.tolist(), row.tolist(), dtype
        self.missing: NDArray[np.bool_] = file < 0
        self.seconds = seconds

    def take(self, indices: Sequence[int]) -> NDArray[Any]:
        """Reads the rows of some pictures, [len(indices), length]; none of them may be missing.

        Raises:
            GelError: a file was truncated since it was searched.
        """
        assert not self.missing[np.asarray(indices, np.intp)].any()
        rows = bytearray().join([self._files[self._file[index]].row(self._row[index]) for index in indices])
        return np.frombuffer(rows, self._dtype["row"].base).reshape(-1, *self._dtype["row"].shape)


class Store:
    """Rows of one kind in one folder, in files that are never changed once written.

    A file holds any number of rows, each with the digest of its picture and a checksum. A damaged or truncated row
    counts as missing and is computed again. Small files are merged when rows are added. Several processes may read
    and add rows at once; at worst a row is stored twice.

    Args:
        root: folder of all stores.
        key: everything that the rows depend on besides the content of the pictures, as JSON data.
        dtype: of the numbers.
        length: numbers per row.
    """

    def __init__(self, root: Path, key: Mapping[str, Any], dtype: DTypeLike, length: int) -> None:
        self.key = dict(key)
        self.folder = root / _name(self.key)
        self.dtype = record_type(dtype, length)

    def find(self, digests: Sequence[bytes]) -> StoredRows:
        """Looks up the rows of pictures.

        Args:
            digests: the :func:`~gel_lightning.data.images.picture_digest` of each of n pictures.

        Raises:
            OSError: the process may not open so many files.
        """
        wanted, places = np.unique(np.array(digests, dtype="S32"), return_inverse=True)
        file, row = np.full(len(wanted), -1, np.intp), np.full(len(wanted), -1, np.intp)
        seconds = np.zeros(len(wanted))
        files: list[KeptRecords] = []
        for path in self._files():
            if (file >= 0).all():
                break
            with opened_records(path, self.dtype) as records_file:
                for start, records in records_file.chunks() if records_file else ():
                    found, candidate = _places(records["picture"], wanted, file < 0)
                    whole = records["checksum"][candidate] == checksums(records, candidate)
                    found, candidate = found[whole], candidate[whole]
                    file[found], row[found] = len(files), start + candidate
                    seconds[found] = records["seconds"][candidate]
                if records_file and (file == len(files)).any():
                    files.append(records_file.kept())
        return StoredRows(files, file[places], row[places], float(seconds[places].sum()), self.dtype)

    @contextmanager
    def adding(self) -> Iterator[Callable[[Sequence[bytes], NDArray[Any]], None]]:
        """Adds rows while the block computes them, and keeps those that are done if it is interrupted.

        Yields:
            A function that takes the digests of n pictures and their rows, [n, length].

        Raises:
            StoreError: the folder cannot be written; the store stays unchanged.
        """
        digests: list[bytes] = []
        rows: list[NDArray[Any]] = []
        size, begun = 0, time.perf_counter()
        first = begun

        def write() -> None:
            nonlocal size, begun
            if digests:
                self._write(digests, np.concatenate(rows), time.perf_counter() - begun)
            digests.clear()
            rows.clear()
            size, begun = 0, time.perf_counter()

        def add(more: Sequence[bytes], computed: NDArray[Any]) -> None:
            nonlocal size
            digests.extend(more)
            # Converted one by one: concatenating signed and unsigned integers gives floats.
            rows.append(np.asarray(computed, self.dtype["row"].base))
            size += rows[-1].nbytes
            now = time.perf_counter()
            if size >= FLUSH_BYTES or now - begun >= max(FLUSH_SECONDS, FLUSH_SHARE * (now - first)):
                write()

        try:
            yield add
        except BaseException:
            with suppress(GelError):
                write()
            raise
        write()
        with suppress(OSError):  # without merging, more files stay open
            self._merge()

    def _write(self, digests: Sequence[bytes], rows: NDArray[Any], seconds: float) -> None:
        """Writes a file of rows that took ``seconds`` to compute."""
        records = np.zeros(len(digests), self.dtype)
        records["picture"] = digests
        records["seconds"] = seconds / len(digests)
        records["row"] = rows
        records["checksum"] = checksums(records, np.arange(len(records)))
        try:
            with suppress(FileNotFoundError):  # another process cleared the folder
                return self._write_files(records)
            self._write_files(records)
        except OSError as error:
            raise StoreError(
                f"{self.folder.parent}: nothing can be kept there ({error.strerror}); free some space, name another "
                "folder with --data.cache_dir, or keep nothing with --data.cache_features false"
            ) from error

    def _write_files(self, records: NDArray[Any]) -> None:
        """Writes a file of records, and the key beside it."""
        if not (self.folder / KEY_FILE).exists():
            with replacing(self.folder / KEY_FILE) as text:
                json.dump(self.key, text, indent=2, sort_keys=True)
        write_records(self.folder, self.dtype, [records])

    def _merge(self) -> None:
        """Merges small files if there are many, so that few have to be open later.

        The old files, and those left by killed processes, are removed only once the new one is complete. If two
        processes merge at once, rows may be stored twice until the next merge.
        """
        sizes = {path: path.stat().st_size for path in self.folder.glob("*.npy") if path.is_file()}
        large = max(FLUSH_BYTES, sum(sizes.values()) // (2 * FEW_FILES))
        small = [path for path, size in sizes.items() if size < large]
        remove_leftovers(self.folder, OWN_FILE)
        if len(small) <= FEW_FILES:
            return
        merged: list[Path] = []
        write_records(self.folder, self.dtype, self._each_once(sorted(small), merged))
        for path in merged:
            path.unlink(missing_ok=True)

    def _each_once(self, paths: Sequence[Path], read: list[Path]) -> Iterator[NDArray[Any]]:
        """Yields the undamaged rows of files, one per picture, and appends the files to ``read``."""
        seen: set[bytes] = set()
        for path in paths:
            with opened_records(path, self.dtype) as file:
                for _, records in file.chunks() if file else ():
                    whole = records["checksum"] == checksums(records, np.arange(len(records)))
                    kept = []
                    for i in np.flatnonzero(whole).tolist():
                        picture = bytes(records["picture"][i])
                        if picture not in seen:
                            seen.add(picture)
                            kept.append(i)
                    yield records[kept]
                if file:
                    read.append(path)

    def _files(self) -> Iterator[Path]:
        """The files of rows, including those that appear meanwhile: another process may merge files."""
        seen: set[Path] = set()
        while new := sorted(set(self.folder.glob("*.npy")) - seen):
            seen.update(new)
            yield from new


def _places(
    pictures: NDArray[Any], wanted: NDArray[Any], missing: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Finds the missing ones of the sorted ``wanted`` pictures: their indices in ``wanted`` and in ``pictures``."""
    place = np.minimum(np.searchsorted(wanted, pictures), len(wanted) - 1)
    candidate = np.flatnonzero((wanted[place] == pictures) & missing[place])
    return place[candidate], candidate


class Contents(NamedTuple):
    """What a store holds: its folder, key, number of rows and size in bytes."""

    folder: Path
    key: dict[str, Any]
    rows: int
    size: int


def list_stores(root: Path) -> list[Contents]:
    """Lists the stores in a folder, the largest first."""
    return sorted((_contents(folder) for folder in _stores(root)), key=lambda contents: -contents.size)


def clear_stores(root: Path) -> int:
    """Removes all stores in a folder, and nothing else that may be there.

    Returns:
        The number of bytes that were freed.
    """
    freed = 0
    for folder in _stores(root):
        for path in _own_files(folder):
            with suppress(FileNotFoundError):  # another process may be clearing
                freed += path.stat().st_size
                path.unlink()
        with suppress(OSError):  # not empty: other files, or another process has just added some
            folder.rmdir()
    return freed


def _stores(root: Path) -> list[Path]:
    folders = [folder for folder in root.glob("*") if re.fullmatch("[0-9a-f]{64}", folder.name) and folder.is_dir()]
    return [folder for folder in folders if _own_files(folder)]


def _own_files(folder: Path) -> list[Path]:
    """The files of a store, including temporary ones left by killed processes."""
    own = re.compile(rf"(\.)?{OWN_FILE}(?(1)\..*\.tmp)")
    return [path for path in folder.glob("*") if own.fullmatch(path.name) and path.is_file()]


def _name(key: Mapping[str, Any]) -> str:
    """The name of the folder of a store with a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _contents(folder: Path) -> Contents:
    key: dict[str, Any] = {}
    with suppress(ValueError, OSError, GelError):
        found = json.loads(regular_file(folder / KEY_FILE).read_bytes())
        if _name(found) == folder.name:  # else the key is damaged
            key = found
    rows = size = 0
    for path in _own_files(folder):
        with suppress(FileNotFoundError):  # another process may be clearing
            size += path.stat().st_size
        if path.suffix == ".npy":
            with opened_records(path) as records:
                rows += records.count if records else 0
    return Contents(folder, key, rows, size)
