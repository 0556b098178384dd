"""Rows of numbers on disk, found again by the content of the pictures they were computed from."""

import hashlib
import json
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import platformdirs
from numpy.typing import DTypeLike, NDArray

from gel_lightning.core.errors import GelError
from gel_lightning.core.files import replacing

KEY_FILE = "key.json"

FLUSH_BYTES, FLUSH_SECONDS, FLUSH_SHARE = 64 * 2**20, 10.0, 0.1
"""Rows are written down when there are so many bytes of them, or so long after the last time.

The time grows with the whole, of which it is a share: each file that is written is one to keep open later.
"""


def default_cache_dir() -> Path:
    """The folder of this user where stores are kept if no other is named."""
    return platformdirs.user_cache_path("gel-lightning")


class StoredRows:
    """The rows of some pictures in a store; they stay on disk, mapped into memory, until they are taken.

    Attributes:
        missing: which of the pictures have no row, [n].
        seconds: time in seconds that computing the rows took when it was done.
    """

    def __init__(
        self, files: list[NDArray[Any]], file: NDArray[np.intp], row: NDArray[np.intp], dtype: np.dtype[Any]
    ) -> None:
        self._rows = [records["row"] for records in files]
        self._none = np.empty(0, dtype)["row"]
        self._file, self._row = file, row
        self.missing: NDArray[np.bool_] = file < 0
        self.seconds = float(sum(records["seconds"][row[file == f]].sum() for f, records in enumerate(files)))

    def take(self, indices: Sequence[int]) -> NDArray[Any]:
        """Reads the rows of some pictures, [len(indices), length]; none of them may be missing."""
        assert not self.missing[np.asarray(indices, np.intp)].any()
        return np.stack([self._rows[self._file[i]][self._row[i]] for i in indices]) if len(indices) else self._none


class Store:
    """Rows of one kind in one folder, in files that are never changed once they are written.

    A file holds any number of rows, each with the digest of its picture and a checksum of its own. A row that
    is damaged, or in a file that is cut short, counts as missing, and is computed anew. Processes may read and
    add at once: at worst a row is there twice. The files are NumPy's ``.npy``, which cannot hold code.

    Args:
        root: folder of all stores.
        key: everything that the rows depend on besides the content of the pictures, as JSON data.
        dtype: of the numbers.
        length: numbers a row.
    """

    def __init__(self, root: Path, key: Mapping[str, Any], dtype: DTypeLike, length: int) -> None:
        self.key = dict(key)
        self.folder = root / _name(self.key)
        numbers = np.dtype(dtype).newbyteorder("<")
        self.dtype = np.dtype(
            [("picture", "S32"), ("seconds", "<f4"), ("checksum", "<u4"), ("row", numbers, (length,))]
        )

    def find(self, digests: Sequence[bytes]) -> StoredRows:
        """Looks up the rows of pictures.

        Args:
            digests: the :func:`~gel_lightning.data.images.picture_digest` of each, n of them.
        """
        wanted = np.array(digests, dtype="S32")
        file, row = np.full(len(wanted), -1, np.intp), np.full(len(wanted), -1, np.intp)
        files: list[NDArray[Any]] = []
        for records in self._files():
            missing = np.flatnonzero(file < 0)
            if not len(missing):
                break
            pictures = records["picture"]
            order = np.argsort(pictures)
            place = np.searchsorted(pictures, wanted[missing], sorter=order)
            candidate = order[np.minimum(place, len(order) - 1)]
            same = pictures[candidate] == wanted[missing]
            same[same] = records["checksum"][candidate[same]] == _checksums(records, candidate[same])
            file[missing[same]], row[missing[same]] = len(files), candidate[same]
            if same.any():  # each that is kept is an open file
                files.append(records)
        return StoredRows(files, file, row, self.dtype)

    @contextmanager
    def adding(self) -> Iterator[Callable[[Sequence[bytes], NDArray[Any]], None]]:
        """Adds rows while they are computed in the block, and keeps what is there if it is interrupted.

        Yields:
            A function that takes the digests of n pictures and their rows, [n, length].

        Raises:
            GelError: the folder cannot be written; the store is as it was.
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
            # Each at once: NumPy makes floats of signed and unsigned numbers together.
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

    def _write(self, digests: Sequence[bytes], rows: NDArray[Any], seconds: float) -> None:
        """Writes a file of rows that took a time to compute."""
        records = np.zeros(len(digests), self.dtype)
        records["picture"] = digests
        records["seconds"] = seconds / len(digests)
        records["row"] = rows
        records["checksum"] = _checksums(records, np.arange(len(records)))
        try:
            with suppress(FileNotFoundError):  # the folder was cleared meanwhile
                return self._write_files(records)
            self._write_files(records)
        except OSError as error:
            raise GelError(
                f"{self.folder.parent}: nothing can be kept there ({error.strerror}); free some space, name another "
                "folder with --data.cache_dir, or keep nothing with --data.cache_features false"
            ) from error

    def _write_files(self, records: NDArray[Any]) -> None:
        """Writes a file of records, and the key beside it."""
        if not (self.folder / KEY_FILE).exists():
            with replacing(self.folder / KEY_FILE) as text:
                json.dump(self.key, text, indent=2, sort_keys=True)
        content = records.tobytes()
        name = hashlib.sha256(content).hexdigest()[:32]
        with replacing(self.folder / f"{name}.npy", "wb") as file:
            np.lib.format.write_array_header_2_0(file, np.lib.format.header_data_from_array_1_0(records))
            file.write(content)  # NumPy's own writing does not say that the disk is full

    def _files(self) -> Iterator[NDArray[Any]]:
        """The rows of each whole file, mapped into memory."""
        for path in sorted(self.folder.glob("*.npy")):
            records = None
            with suppress(Exception):  # a damaged header makes NumPy raise nearly anything
                records = np.asarray(np.lib.format.open_memmap(path, mode="r"))
            if records is not None and records.dtype == self.dtype and records.ndim == 1 and len(records):
                yield records


class Contents(NamedTuple):
    """What a store holds: its folder, its key, its rows and its bytes on disk."""

    folder: Path
    key: dict[str, Any]
    rows: int
    size: int


def list_stores(root: Path) -> list[Contents]:
    """Lists the stores below a folder, the largest first."""
    return sorted((_contents(folder) for folder in _stores(root)), key=lambda contents: -contents.size)


def clear_stores(root: Path) -> int:
    """Removes all stores below a folder, and nothing else that may lie there.

    Returns:
        The number of bytes that were freed.
    """
    freed = 0
    for folder in _stores(root):
        for path in _own_files(folder):
            with suppress(FileNotFoundError):  # another process is clearing
                freed += path.stat().st_size
                path.unlink()
        with suppress(OSError):  # something else is in it, or another process has just added to it
            folder.rmdir()
    return freed


def _stores(root: Path) -> list[Path]:
    folders = [folder for folder in root.glob("*") if re.fullmatch("[0-9a-f]{64}", folder.name) and folder.is_dir()]
    return [folder for folder in folders if _own_files(folder)]


def _own_files(folder: Path) -> list[Path]:
    """The files that a store has written; what a killed process has left of one is among them."""
    own = re.compile(rf"(\.)?({re.escape(KEY_FILE)}|[0-9a-f]{{32}}\.npy)(?(1)\..*\.tmp)")
    return [path for path in folder.glob("*") if own.fullmatch(path.name)]


def _name(key: Mapping[str, Any]) -> str:
    """The name of the folder of a store with a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _contents(folder: Path) -> Contents:
    key: dict[str, Any] = {}
    with suppress(ValueError, OSError):
        found = json.loads((folder / KEY_FILE).read_bytes())
        if _name(found) == folder.name:  # else it is damaged, or no key
            key = found
    rows = size = 0
    for path in _own_files(folder):
        with suppress(FileNotFoundError):  # another process is clearing
            size += path.stat().st_size
        if path.suffix == ".npy":
            with suppress(Exception):  # damaged
                rows += len(np.lib.format.open_memmap(path, mode="r"))
    return Contents(folder, key, rows, size)


def _checksums(records: NDArray[Any], indices: NDArray[np.intp]) -> NDArray[np.uint32]:
    """CRC-32 of some records, each without its checksum: the four bytes from the 36th on."""
    data, size = memoryview(records.view(np.uint8).reshape(-1).data), records.dtype.itemsize
    starts = (indices * size).tolist()
    return np.array([zlib.crc32(data[i + 40 : i + size], zlib.crc32(data[i : i + 36])) for i in starts], np.uint32)
