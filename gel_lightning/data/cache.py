"""What is kept of pictures, so that each file is read once in a run, and decoded once ever."""

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gel_lightning.core.progress import picture_progress
from gel_lightning.core.store import Store
from gel_lightning.data.duplicates import HASHES, perceptual_hashes
from gel_lightning.data.images import (
    DECODING,
    PictureError,
    decode_content,
    picture_digest,
    read_content,
    read_with_digest,
)
from gel_lightning.data.reading import MANY_PICTURES, READING_THREADS, in_threads, windows
from gel_lightning.data.resizing import network_input, pixels

Result = TypeVar("Result")

THUMBNAIL = 112
"""Side in pixels of the thumbnails that TensorBoard shows."""
KEPT_BYTES = 2**28
"""Memory for network inputs and thumbnails of decoded pictures: some 1,200 pictures of 224 pixels a side."""


class Decoded(NamedTuple):
    """What is kept in memory of a picture that was decoded.

    Attributes:
        digest: of the file.
        values: the network input, in [0, 1], shape ``[channels, image_size, image_size]``.
        thumbnail: shape ``[channels, THUMBNAIL, THUMBNAIL]``.
    """

    digest: bytes
    values: NDArray[np.float32]
    thumbnail: NDArray[np.uint8]


class PictureCache:
    """Finds what was computed of pictures before by their content, and computes the rest.

    Args:
        root: folder of the stores.

    Attributes:
        computed: how many rows of features were computed with it, since they were not found.
        seconds: the time that it took.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.computed, self.seconds = 0, 0.0
        self._digests: dict[Path, bytes | PictureError] = {}
        self._decoded: dict[Path, Decoded] = {}
        self._kept = 0

    def read(self, paths: Sequence[Path]) -> list[bytes | PictureError]:
        """Finds the digest of each file as it was when this object first read it, or why it cannot be read."""
        new = [path for path in dict.fromkeys(paths) if path not in self._digests]
        self._digests.update(zip(new, in_threads(_digest, new), strict=True))
        return [self._digests[path] for path in paths]

    def digests(self, paths: Sequence[Path]) -> list[bytes]:
        """Finds the digest of each file as :meth:`read` does.

        Raises:
            PictureError: a file cannot be read.
        """
        return _all_read(self.read(paths))

    def hashes(self, paths: Sequence[Path], image_size: int | None = None) -> list[tuple[int, ...] | PictureError]:
        """Finds the perceptual hashes of each picture, or why it cannot be read.

        A file is read once, and decoded if its hashes are not in the store.

        Args:
            paths: picture files, n of them.
            image_size: keeps the network input of this side of what is decoded, as far as there is memory for it.
        """
        key = {"kind": "hashes", "decoding": DECODING, "imagehash": version("imagehash")}
        store = Store(self.root, key, np.uint64, HASHES)
        found: dict[Path, tuple[int, ...] | PictureError] = {}
        new = list(dict.fromkeys(paths))

        def decode(path: Path) -> tuple[tuple[int, ...] | PictureError, Decoded | None]:
            try:
                picture, _ = decode_content(path, contents[path])
            except PictureError as error:
                return error.to_keep(), None
            return perceptual_hashes(picture), self._to_keep(picture, digests[path], image_size)

        with (
            picture_progress("Reading pictures", len(new), len(new) > MANY_PICTURES) as advance,
            ThreadPoolExecutor(READING_THREADS) as pool,
            store.adding() as add,
        ):
            contents: dict[Path, bytes]
            digests: dict[Path, bytes]
            for window in windows(new, Path):
                read = dict(zip(window, pool.map(_content, window), strict=True))
                contents = {path: content for path, content in read.items() if isinstance(content, bytes)}
                found |= {path: error for path, error in read.items() if isinstance(error, PictureError)}
                digests = {path: hashlib.sha256(content).digest() for path, content in contents.items()}
                self._digests.update(read | digests)
                stored = store.find([*digests.values()])
                known = np.flatnonzero(~stored.missing).tolist()
                rows = zip([[*digests][i] for i in known], stored.take(known), strict=True)
                found |= {path: tuple(row.tolist()) for path, row in rows}
                wanted = [path for path in contents if path not in found]
                advance(len(window) - len(wanted))
                for path, (hashes, kept) in zip(wanted, pool.map(decode, wanted), strict=True):
                    found[path] = hashes
                    if not isinstance(hashes, PictureError):
                        add([digests[path]], np.array([hashes], np.uint64))
                    if kept is not None:
                        self._decoded[path] = kept
                    advance(1)
        return [found[path] for path in paths]

    def values(self, path: Path, image_size: int, colour: bool = False) -> tuple[NDArray[np.float32], bytes]:
        """The network input of a picture, and its digest.

        Returns:
            Values in [0, 1], shape ``[1, image_size, image_size]``, or with 3 channels in colour; and the digest.

        Raises:
            PictureError: the file cannot be read.
        """
        kept = self._decoded.get(path)
        if kept is not None and kept.values.shape == (3 if colour else 1, image_size, image_size):
            return kept.values, kept.digest
        picture, digest = read_with_digest(path, colour)
        if decoded := self._to_keep(picture, digest, image_size):
            self._decoded[path] = decoded
            return decoded.values, digest
        return network_input(picture, image_size), digest

    def thumbnails(self, paths: Sequence[Path], colour: bool = False) -> Tensor:
        """Finds small versions of pictures.

        Args:
            paths: picture files, n of them.
            colour: whether to read RGB.

        Returns:
            Values in [0, 1], shape ``[n, 1, THUMBNAIL, THUMBNAIL]``, or with 3 channels in colour.

        Raises:
            PictureError: one of them cannot be read.
        """
        shape = (3 if colour else 1, THUMBNAIL, THUMBNAIL)
        key = {"kind": "thumbnails", "decoding": DECODING, "side": THUMBNAIL, **({"colour": "RGB"} if colour else {})}
        store = Store(self.root, key, np.uint8, math.prod(shape))
        new = list(dict.fromkeys(paths))
        stored = store.find(self.digests(new))
        known = np.flatnonzero(~stored.missing).tolist()
        found: dict[Path, NDArray[np.uint8]] = dict(zip([new[i] for i in known], stored.take(known), strict=True))
        wanted = [path for path in new if path not in found]
        with store.adding() as add:
            for path, result in zip(wanted, in_threads(partial(self._thumbnail, colour), wanted), strict=True):
                ((thumbnail, digest),) = _all_read([result])
                found[path] = thumbnail.reshape(-1)
                self._digests[path] = digest
                add([digest], found[path][None])
        return torch.from_numpy(np.stack([found[path] for path in paths])).view(-1, *shape) / 255

    def _thumbnail(self, colour: bool, path: Path) -> tuple[NDArray[np.uint8], bytes] | PictureError:
        kept = self._decoded.get(path)
        if kept is not None and len(kept.thumbnail) == (3 if colour else 1):
            return kept.thumbnail, kept.digest
        try:
            picture, digest = read_with_digest(path, colour)
        except PictureError as error:
            return error.to_keep()
        return _small(picture), digest

    def _to_keep(self, picture: Image.Image, digest: bytes, image_size: int | None) -> Decoded | None:
        """What later steps need of a picture, if there is memory for it."""
        size = len(picture.getbands()) * (THUMBNAIL**2 + 4 * (image_size or 0) ** 2)
        if image_size is None or self._kept + size > KEPT_BYTES:
            return None
        self._kept += size  # by several threads at once, which may let a few more in
        return Decoded(digest, network_input(picture, image_size), _small(picture))


def _all_read(results: Sequence[Result | PictureError]) -> list[Result]:
    """The results if none is an error."""
    read = []
    for result in results:
        if isinstance(result, PictureError):
            raise result
        read.append(result)
    return read


def _content(path: Path) -> bytes | PictureError:
    try:
        return read_content(path)
    except PictureError as error:
        return error.to_keep()


def _digest(path: Path) -> bytes | PictureError:
    try:
        return picture_digest(path)
    except PictureError as error:
        return error.to_keep()


def _small(picture: Image.Image) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels(picture.resize((THUMBNAIL, THUMBNAIL))))
