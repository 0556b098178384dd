"""Files of records, each with a checksum, in NumPy's ``.npy`` format, which cannot contain code."""

import io
import os
import stat
import weakref
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gel_lightning.core.errors import OUT_OF_FILES, GelError
from gel_lightning.core.files import replacing

CHUNK_BYTES = 2**20
"""Bytes of a file that are read at once."""
SMALL_BYTES = 64 * 2**10
"""Files up to this size are kept in memory, so that a store of many files needs few open ones."""


def record_type(dtype: DTypeLike, length: int) -> np.dtype[Any]:
    """The type of a record: the digest of a picture, and the row of numbers computed from it."""
    numbers = np.dtype(dtype).newbyteorder("<")
    return np.dtype([("picture", "S32"), ("seconds", "<f4"), ("checksum", "<u4"), ("row", numbers, (length,))])


class RecordFile:
    """A file of records, open for reading.

    Args:
        path: of the file.
        file: the open file, after its header.
        dtype: of the records.
    """

    def __init__(self, path: Path, file: io.FileIO, dtype: np.dtype[Any]) -> None:
        self.path, self._file, self.dtype = path, file, dtype
        self._start = file.tell()
        self._size = os.fstat(file.fileno()).st_size

    @property
    def count(self) -> int:
        """The number of whole records."""
        return (self._size - self._start) // self.dtype.itemsize

    def chunks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Reads all records in chunks, all into the same memory.

        Yields:
            The index of the first record of the chunk, and the records.
        """
        records = np.empty(min(max(1, CHUNK_BYTES // self.dtype.itemsize), self.count), self.dtype)
        for first in range(0, self.count, len(records) or 1):
            self._file.seek(self._start + first * self.dtype.itemsize)
            read = self._file.readinto(records.view(np.uint8).data)
            yield first, records[: read // self.dtype.itemsize]

    def kept(self) -> "KeptRecords":
        """Makes a reader of single records, which works after this file is closed and even removed."""
        if self._size > SMALL_BYTES:
            return KeptRecords(self.path, self._start, self.dtype, os.dup(self._file.fileno()))
        self._file.seek(0)
        return KeptRecords(self.path, self._start, self.dtype, self._file.read())


class KeptRecords:
    """Reads the rows of single records of a file.

    The file is read and not memory-mapped: if another program truncates a mapped file, reading it kills this process.

    Args:
        path: of the file.
        start: of the first record in it, in bytes.
        dtype: of the records.
        content: of the file, or its file descriptor, which is closed with this object.
    """

    def __init__(self, path: Path, start: int, dtype: np.dtype[Any], content: bytes | int) -> None:
        self._path, self._content, self._step = path, content, dtype.itemsize
        self._row = np.dtype(dtype["row"]).itemsize
        self._start = start + self._step - self._row  # a row is the last part of its record
        if isinstance(content, int):
            weakref.finalize(self, os.close, content)

    def row(self, number: int) -> bytes:
        """Reads the row of record ``number``, counted from 0.

        Raises:
            GelError: the file was truncated.
        """
        start = self._start + number * self._step
        if isinstance(self._content, bytes):
            return self._content[start : start + self._row]
        row = os.pread(self._content, self._row, start)
        if len(row) < self._row:
            raise GelError(f"{self._path}: was cut short while it was in use; run again")
        return row


@contextmanager
def opened_records(path: Path, dtype: np.dtype[Any] | None = None) -> Iterator[RecordFile | None]:
    """Opens a file of records for reading.

    Args:
        path: of the file.
        dtype: of the records; by default any.

    Yields:
        The file; None if it is missing, unreadable, or not a file of such records.

    Raises:
        OSError: this process has too many open files.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait
            raise FileNotFoundError
        file = path.open("rb", buffering=0)
    except OSError as error:
        if error.errno in OUT_OF_FILES:
            raise
        yield None
        return
    with file:
        found = _header(file)
        yield RecordFile(path, file, found) if found is not None and dtype in (None, found) else None


def write_records(folder: Path, dtype: np.dtype[Any], parts: Iterable[NDArray[Any]]) -> None:
    """Writes a new file of records.

    Args:
        folder: in which the file gets a unique name.
        dtype: of the records.
        parts: the records in chunks.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    with replacing(folder / f"{uuid4().hex}.npy", "wb") as file:
        _write_header(file, dtype, 0)
        count = 0
        for records in parts:
            file.write(records.tobytes())  # ndarray.tofile does not report a full disk
            count += len(records)
        file.seek(0)
        _write_header(file, dtype, count)  # NumPy reserves space for longer numbers


def checksums(records: NDArray[Any], indices: NDArray[np.intp]) -> NDArray[np.uint32]:
    """CRC-32 of some records, each without its checksum in bytes 36 to 40."""
    data, size = memoryview(records.view(np.uint8).reshape(-1).data), records.dtype.itemsize
    starts = (indices * size).tolist()
    return np.array([zlib.crc32(data[i + 40 : i + size], zlib.crc32(data[i : i + 36])) for i in starts], np.uint32)


def _write_header(file: IO[bytes], dtype: np.dtype[Any], count: int) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_2_0(file, described)


def _header(file: IO[bytes]) -> np.dtype[Any] | None:
    """Reads a header; None if it is damaged, or not one of :func:`write_records`."""
    try:
        if np.lib.format.read_magic(file) != (2, 0):
            return None
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    except Exception:  # NumPy raises nearly anything for a damaged header
        return None
    return dtype if len(shape) == 1 and (dtype.names or ())[:3] == ("picture", "seconds", "checksum") else None
