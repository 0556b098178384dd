"""Reading PyTorch files that anybody may have made: nothing in them is executed, and damage is found."""

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
PICKLE_MAGIC = b"\x80"  # with which older files of torch.save begin


class UnsafeFileError(ValueError):
    """The file holds more than plain data."""


class DamagedFileError(ValueError):
    """The file is not what :func:`torch.save` has written, or no longer."""


def load_plain(path: Path) -> Any:
    """Loads a file of :func:`torch.save` on the CPU, with ``weights_only=True``.

    ``torch.load`` ignores the checksums of the archive, follows sizes that the file states, and waits for ever at a
    named pipe; here all of that is checked before.

    Raises:
        OSError: the file is absent, is a folder, pipe or device, or cannot be opened.
        UnsafeFileError: loading it would need more than plain data.
        DamagedFileError: anything else is wrong with it.
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
        except Exception as error:  # on damaged files torch.load raises nearly anything
            raise DamagedFileError(_first_line(error)) from error


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no value is NaN or infinite; tensors of whole numbers always are finite."""
    floating = (tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel())
    return all(bool(torch.isfinite(extreme)) for tensor in floating for extreme in torch.aminmax(tensor))


def _check_archive(file: IO[bytes], size: int) -> None:
    """Compares each entry with its CRC-32, and the sizes they state with that of the file."""
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
    except Exception as error:  # a damaged directory makes zipfile raise nearly anything
        raise DamagedFileError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
