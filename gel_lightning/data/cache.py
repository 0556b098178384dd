"""What is kept of how pictures look, so that a second run decodes none: perceptual hashes and thumbnails."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gel_lightning.core.store import Store
from gel_lightning.data.duplicates import HASHES, hash_picture
from gel_lightning.data.images import DECODING, PictureError, picture_digest, read_with_digest
from gel_lightning.data.reading import in_threads

Result = TypeVar("Result")

THUMBNAIL = 112
"""Side in pixels of the thumbnails that TensorBoard shows."""


class PictureCache:
    """Finds what was computed of pictures before by their content, and computes the rest.

    Args:
        root: folder of the stores.

    Attributes:
        computed: feature vectors that were computed with it, since they were not found.
        seconds: the time that it took.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.computed, self.seconds = 0, 0.0
        self._digests: dict[Path, bytes | PictureError] = {}

    def digests(self, paths: Sequence[Path]) -> list[bytes]:
        """Finds the digest of each file, as it was when this object first read it.

        Raises:
            PictureError: a file cannot be read.
        """
        self._read(paths)
        return _all_read([self._digests[path] for path in paths])

    def hashes(self, paths: Sequence[Path]) -> list[tuple[int, ...] | PictureError]:
        """Finds perceptual hashes, as :func:`~gel_lightning.data.duplicates.hash_pictures` does."""
        key = {"kind": "hashes", "decoding": DECODING, "imagehash": version("imagehash")}
        rows = self._rows(Store(self.root, key, np.uint64, HASHES), paths, hash_picture)
        return [row if isinstance(row, PictureError) else tuple(row.tolist()) for row in rows]

    def thumbnails(self, paths: Sequence[Path]) -> Tensor:
        """Finds small versions of pictures.

        Args:
            paths: picture files, n of them.

        Returns:
            Values in [0, 1], shape ``[n, 1, THUMBNAIL, THUMBNAIL]``.

        Raises:
            PictureError: one of them cannot be read.
        """
        key = {"kind": "thumbnails", "decoding": DECODING, "side": THUMBNAIL}
        rows = self._rows(Store(self.root, key, np.uint8, THUMBNAIL**2), paths, _thumbnail)
        return torch.from_numpy(np.stack(_all_read(rows))).view(-1, 1, THUMBNAIL, THUMBNAIL) / 255

    def _rows(
        self, store: Store, paths: Sequence[Path], compute: Callable[[Path], tuple[ArrayLike, bytes] | PictureError]
    ) -> list[NDArray[Any] | PictureError]:
        """The row of each picture, or why it cannot be read."""
        self._read(paths)
        failed: dict[Path, PictureError] = {}
        readable = []
        for path in dict.fromkeys(paths):
            digest = self._digests[path]
            if isinstance(digest, PictureError):
                failed[path] = digest
            else:
                readable.append(path)
        stored = store.find(self.digests(readable))
        found = np.flatnonzero(~stored.missing).tolist()
        rows = dict(zip([readable[i] for i in found], stored.take(found), strict=True))
        wanted = [path for path in readable if path not in rows]
        with store.adding() as add:
            for path, result in zip(wanted, in_threads(compute, wanted), strict=True):
                if isinstance(result, PictureError):
                    failed[path] = result
                else:
                    row, self._digests[path] = result
                    rows[path] = np.asarray(row, store.dtype["row"].base).reshape(-1)
                    add([result[1]], rows[path][None])
        return [failed[path] if path in failed else rows[path] for path in paths]

    def _read(self, paths: Sequence[Path]) -> None:
        unread = [path for path in dict.fromkeys(paths) if path not in self._digests]
        self._digests.update(zip(unread, in_threads(_digest, unread), strict=True))


def _all_read(results: Sequence[Result | PictureError]) -> list[Result]:
    """The results if none is an error."""
    read = []
    for result in results:
        if isinstance(result, PictureError):
            raise result
        read.append(result)
    return read


def _digest(path: Path) -> bytes | PictureError:
    try:
        return picture_digest(path)
    except PictureError as error:
        return error.to_keep()


def _thumbnail(path: Path) -> tuple[ArrayLike, bytes] | PictureError:
    try:
        picture, digest = read_with_digest(path)
    except PictureError as error:
        return error.to_keep()
    return np.asarray(picture.resize((THUMBNAIL, THUMBNAIL))), digest
