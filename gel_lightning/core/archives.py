"""Reading PyTorch files from untrusted sources: nothing in them is executed, and damage is detected."""

import errno
import pickle
import stat
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

MAX_BYTES = 4 * 2**30
ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80"  # start of older files of torch.save


class UnsafeFileError(ValueError):
    """The file holds more than plain data."""


class DamagedFileError(ValueError):
    """The file was not written by :func:`torch.save`, or is damaged."""


def load_plain(path: Path) -> Any:
    """Loads a file of :func:`torch.save` on the CPU, with ``weights_only=True``.

    ``torch.load`` ignores the checksums of the archive, trusts the sizes in it, and waits forever at a named pipe. All
    of this is checked first.

    Raises:
        OSError: the file is missing, is a folder, pipe or device, or cannot be opened.
        UnsafeFileError: the file holds more than plain data.
        DamagedFileError: the file is damaged, too large, or of another format.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "it is a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise OSError(errno.EINVAL, kind, str(path))
    if status.st_size > MAX_BYTES:
        raise DamagedFileError(f"larger than {MAX_BYTES // 2**30} GiB")
    with path.open("rb") as file:
        start = file.read(len(ZIP_MAGIC))
        if start == ZIP_MAGIC:
            _check_archive(file, status.st_size)
        elif not start.startswith(PICKLE_MAGIC):
            raise DamagedFileError("not a file of torch.save")
        file.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise UnsafeFileError("it holds more than plain data") from error
        except Exception as error:  # torch.load raises nearly anything for damaged files
            raise DamagedFileError(_first_line(error)) from error


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no value is NaN or infinite. Integer tensors always are finite."""
    floating = (tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel())
    return all(bool(torch.isfinite(extreme)) for tensor in floating for extreme in torch.aminmax(tensor))


def _check_archive(file: IO[bytes], size: int) -> None:
    """Checks the CRC-32 of each entry, and the stated sizes against that of the file."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if compressed or sum(entry.file_size for entry in entries) > size:
                raise zipfile.BadZipFile("its entries are larger than the file")
            for entry in entries:
                with archive.open(entry) as part:
                    while part.read(2**20):
                        pass
    except Exception as error:  # zipfile raises nearly anything for a damaged directory
        raise DamagedFileError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
