"""Data sets of pictures, and of the feature vectors of pictures."""

import hashlib
import io
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from gel_lightning.core.errors import GelError
from gel_lightning.core.store import StoredRows
from gel_lightning.data.cache import PictureCache
from gel_lightning.data.folders import LabelledPictures
from gel_lightning.data.images import PictureError, read_picture, read_with_digest
from gel_lightning.data.resizing import resized


def picture_values(picture: Image.Image, image_size: int) -> Tensor:
    """Resizes a grey picture to what networks take: values in [0, 1], shape ``[1, image_size, image_size]``."""
    return torch.from_numpy(resized(picture, image_size))[None]


class Augmentation:
    """Random changes to pictures: always the same ones for the same picture, view and seed.

    Args:
        transforms: what is done to a picture, values in [0, 1] of shape ``[1, H, W]``, one after the other.
        seed: of what is drawn.

    Raises:
        GelError: a transform cannot be pickled, so that nothing can tell it from another one.
    """

    def __init__(self, transforms: Sequence[Callable[[Tensor], Tensor]], seed: int) -> None:
        self.transforms = list(transforms)
        self.seed = seed
        try:
            self.identity = hashlib.sha256(_written_out(self.transforms)).hexdigest()
        except (pickle.PicklingError, AttributeError, RecursionError, TypeError, ValueError) as error:
            raise GelError(
                f"an augmentation cannot be told from others ({error}); give objects of importable classes "
                "(--data.augmentation)"
            ) from error

    def __call__(self, picture: Tensor, digest: bytes, view: int) -> Tensor:
        """Makes a view, from 1 on, of a picture with a digest."""
        drawn = hashlib.sha256(digest + f"{self.seed} {view}".encode()).digest()
        with isolate_rng(include_cuda=False):
            torch.manual_seed(int.from_bytes(drawn[:8], "little"))
            np.random.seed(int.from_bytes(drawn[8:12], "little"))  # noqa: NPY002 - transforms may draw from it
            random.seed(drawn)
            for transform in self.transforms:
                picture = transform(picture)
        return picture


class _Writer(pickle.Pickler):
    """Writes tensors by their values: PyTorch's own way has the place in memory in it."""

    def reducer_override(self, value: Any) -> Any:
        return (tuple, ((str(value.dtype), value.tolist()),)) if isinstance(value, Tensor) else NotImplemented


def _written_out(value: object) -> bytes:
    """Bytes that are the same for equal objects in any process."""
    file = io.BytesIO()
    writer = _Writer(file, protocol=4)
    writer.fast = True  # with no reference to what was written before, whether or not it is the same object
    writer.dump(value)
    return file.getvalue()


class PictureDataset(Dataset[tuple[Tensor, int, int]]):
    """Labelled picture files.

    An item is the picture, values in [0, 1] of shape ``[1, image_size, image_size]``, its label, and its
    index in ``paths``. Of n pictures, item ``i + v * n`` is view v of picture i; view 0 is the picture itself.

    Args:
        pictures: files, labels and class names.
        image_size: side of the pictures in pixels.
        augmentation: what makes the other views.
        cache: where thumbnails are kept, if anywhere.
    """

    def __init__(
        self,
        pictures: LabelledPictures,
        image_size: int,
        augmentation: Augmentation | None = None,
        cache: PictureCache | None = None,
    ) -> None:
        self.paths = pictures.paths
        self.labels = pictures.labels
        self.image_size = image_size
        self.augmentation = augmentation
        self.cache = cache

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        place = index % len(self)
        return self.decode(index)[0], self.labels[place], place

    def decode(self, index: int) -> tuple[Tensor, bytes]:
        """Reads the picture of an item, with the digest of the file that it was read from."""
        view, place = divmod(index, len(self))
        grey, digest = read_with_digest(self.paths[place])
        picture = picture_values(grey, self.image_size)
        if view and self.augmentation:
            picture = self.augmentation(picture, digest, view)
        return picture, digest

    def thumbnails(self, indices: Sequence[int]) -> Tensor:
        """Small versions of some pictures to look at, values in [0, 1] of shape ``[len(indices), 1, H, W]``."""
        if self.cache is None:
            return torch.stack([self[index][0] for index in indices])
        return self.cache.thumbnails([self.paths[index] for index in indices])


class FeatureDataset(Dataset[tuple[Tensor, int, int]]):
    """The feature vectors of labelled pictures, read from a store.

    Items are those of :class:`PictureDataset` with a vector of shape ``[num_features]`` for the picture.

    Args:
        pictures: whose vectors these are.
        views: the vectors of each view of them.

    Attributes:
        seconds: the time it took to compute the vectors, whenever that was.
    """

    def __init__(self, pictures: PictureDataset, views: Sequence[StoredRows]) -> None:
        self.paths = pictures.paths
        self.thumbnails = pictures.thumbnails
        self.labels = torch.tensor(pictures.labels)
        self.views = views
        self.seconds = sum(view.seconds for view in views)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        vectors, labels, places = self.__getitems__([index])
        return vectors[0], int(labels[0]), int(places[0])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Reads a batch: vectors ``[N, num_features]``, labels and indices ``[N]``."""
        views, places = np.divmod(np.asarray(indices), len(self))
        vectors = self.views[0].take(places.tolist())
        for view in np.unique(views[views > 0]).tolist():
            vectors[views == view] = self.views[view].take(places[views == view].tolist())
        index = torch.from_numpy(places)
        return torch.from_numpy(vectors), self.labels[index], index

    @staticmethod
    def collate(batch: Any) -> Any:
        """Leaves a batch as it is: :meth:`__getitems__` has made it at once."""
        return batch


class ViewSampler(DistributedSampler[int]):
    """Deals out the pictures in an order, and each in a view, that depend on the seed and the epoch alone.

    Lightning tells it the epoch, so that a resumed run sees what it would have seen.

    Args:
        dataset: n pictures.
        views: how many there are of each.
        seed: of what is drawn.
        **options: as for DistributedSampler.
    """

    def __init__(self, dataset: Dataset[Any], views: int, seed: int, **options: Any) -> None:
        super().__init__(dataset, seed=seed, **options)
        self.views = views

    def __iter__(self) -> Iterator[int]:
        pictures: int = len(self.dataset)  # type: ignore[arg-type]
        views = np.random.default_rng([self.seed, self.epoch]).integers(self.views, size=pictures)
        return (index + int(views[index]) * pictures for index in super().__iter__())


class UnlabelledDataset(Dataset[tuple[Tensor, str, str]]):
    """Picture files to be classified.

    An item is the picture, as in :class:`PictureDataset`, its path, and why it cannot be read: empty where it
    can, else the picture is black, so that one bad file does not stop the rest.

    Args:
        paths: the files.
        image_size: side of the pictures in pixels.
    """

    def __init__(self, paths: Sequence[Path], image_size: int) -> None:
        self.paths = paths
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, str, str]:
        path = self.paths[index]
        try:
            return picture_values(read_picture(path), self.image_size), str(path), ""
        except PictureError as error:
            return torch.zeros(1, self.image_size, self.image_size), str(path), error.reason
