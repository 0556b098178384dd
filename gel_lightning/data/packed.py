"""Sets of small pictures of one size in one file, which is mapped and not opened for each picture.

Picture 42 of ``train.npy`` has the path ``train.npy/00042``: it is named, listed and reported as any file is. The file
is NumPy's, of 8-bit numbers, shape ``[N, H, W]`` in grey and ``[N, H, W, 3]`` in RGB.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SUFFIX = ".npy"


def packed_paths(file: Path) -> list[Path]:
    """The paths of all pictures of a file.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged.
    """
    count = len(_mapped(str(file)))
    return [file / f"{number:0{len(str(count - 1))}}" for number in range(count)]


def is_packed(path: Path) -> bool:
    """Whether a path is that of a packed picture."""
    return path.parent.suffix == SUFFIX


def read_packed(path: Path) -> NDArray[np.uint8]:
    """The pixels of one picture, shape ``[H, W]`` or ``[H, W, 3]``.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged.
    """
    return np.array(_mapped(str(path.parent))[int(path.name)])


@lru_cache(maxsize=8)
def _mapped(file: str) -> NDArray[np.uint8]:
    pictures: NDArray[np.uint8] = np.load(file, mmap_mode="r")
    if pictures.dtype != np.uint8 or pictures.shape[3:] not in ((), (3,)) or pictures.ndim < 3:
        raise ValueError(f"is an array of {pictures.dtype}, {list(pictures.shape)}, not of 8-bit pictures")
    return pictures
