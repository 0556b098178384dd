"""Data sets of pictures, and of the feature vectors of pictures."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from gel_lightning.core.store import StoredRows
from gel_lightning.data.augmentation import Augmentation
from gel_lightning.data.cache import PictureCache
from gel_lightning.data.folders import LabelledPictures
from gel_lightning.data.images import PictureError, read_with_digest
from gel_lightning.data.resizing import network_input


class Features(NamedTuple):
    """Features in the place of the pictures of a batch: what the frozen trunk of a network gives for them.

    Attributes:
        values: shape ``[N, num_features]``, or of feature maps ``[N, C, H, W]``.
    """

    values: Tensor


def picture_values(picture: Image.Image, image_size: int) -> Tensor:
    """Resizes a picture to what networks take: values in [0, 1], shape ``[1 or 3, image_size, image_size]``."""
    return torch.from_numpy(network_input(picture, image_size))


class PictureDataset(Dataset[tuple[Tensor, int, int]]):
    """Labelled pictures.

    An item is the picture, values in [0, 1] of shape ``[channels, image_size, image_size]``, its label, and its
    index in ``paths``. Of n pictures, item ``i + v * n`` is view v of picture i; view 0 is the picture itself.

    Args:
        pictures: files, labels and class names.
        image_size: side of the pictures in pixels.
        augmentation: what makes the other views.
        cache: where thumbnails are kept, if anywhere.
        colour: whether pictures have three channels, red, green and blue, or one.
    """

    def __init__(
        self,
        pictures: LabelledPictures,
        image_size: int,
        augmentation: Augmentation | None = None,
        cache: PictureCache | None = None,
        colour: bool = False,
    ) -> None:
        self.paths = pictures.paths
        self.labels = pictures.labels
        self.image_size = image_size
        self.augmentation = augmentation
        self.cache = cache
        self.colour = colour

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture: channels, height and width."""
        return (3 if self.colour else 1, self.image_size, self.image_size)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        place = index % len(self)
        return self.decode(index)[0], self.labels[place], place

    def decode(self, index: int) -> tuple[Tensor, bytes]:
        """Reads the picture of an item, with the digest of the file that it was read from."""
        view, place = divmod(index, len(self))
        if self.cache is None:
            read, digest = read_with_digest(self.paths[place], self.colour)
            picture = picture_values(read, self.image_size)
        else:
            values, digest = self.cache.values(self.paths[place], self.image_size, self.colour)
            picture = torch.from_numpy(values)
        if view and self.augmentation:
            picture = self.augmentation(picture.clone(), digest, view)  # some transforms change their argument
        return picture, digest

    def thumbnails(self, indices: Sequence[int]) -> Tensor:
        """Small versions of some pictures to look at, values in [0, 1] of shape ``[len(indices), 1 or 3, H, W]``."""
        if self.cache is None:
            return torch.stack([self[index][0] for index in indices])
        return self.cache.thumbnails([self.paths[index] for index in indices], self.colour)


class FeatureDataset(Dataset[tuple[Tensor, int, int]]):
    """The features of labelled pictures, read from a store.

    Items are those of :class:`PictureDataset` with the features for the picture.

    Args:
        pictures: whose features these are.
        features: of each picture.

    Attributes:
        seconds: the time it took to compute the features, whenever that was.
    """

    def __init__(self, pictures: PictureDataset, features: "StoredFeatures") -> None:
        self.paths = pictures.paths
        self.thumbnails = pictures.thumbnails
        self.labels = torch.tensor(pictures.labels)
        self.features = features
        self.seconds = features.seconds

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        (values,), labels, places = self.__getitems__([index])
        return values[0], int(labels[0]), int(places[0])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Features, Tensor, Tensor]:
        """Reads a batch: features, labels and indices ``[N]``."""
        places = torch.from_numpy(np.asarray(indices) % len(self))
        return Features(self.features.take(indices)), self.labels[places], places


class StoredFeatures:
    """The features of n pictures and of their views, which are read from disk each time that they are taken.

    Of n pictures, item ``i + v * n`` is view v of picture i.

    Args:
        views: the rows of each view.
        shape: of the features of one picture.
        dtype: in which they are given; they may be stored in half precision.
    """

    def __init__(self, views: Sequence[StoredRows], shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.views, self.shape, self.dtype = views, shape, dtype
        self.seconds = sum(view.seconds for view in views)

    def take(self, indices: Sequence[int]) -> Tensor:
        """Reads items, shape ``[len(indices), *shape]``; none of them may be missing."""
        views, places = np.divmod(np.asarray(indices), len(self.views[0].missing))
        rows = self.views[0].take(places.tolist())
        for view in np.unique(views[views > 0]).tolist():
            rows[views == view] = self.views[view].take(places[views == view].tolist())
        return torch.from_numpy(rows).to(self.dtype).view(-1, *self.shape)


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
        pictures: the files, which need no labels.
    """

    def __init__(self, pictures: PictureDataset) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, str, str]:
        path = str(self.pictures.paths[index])
        try:
            return self.pictures.decode(index)[0], path, ""
        except PictureError as error:
            return torch.zeros(self.pictures.shape), path, error.reason


class UnlabelledFeatureDataset(Dataset[tuple[Tensor, str, str]]):
    """The features of picture files to be classified; items are those of :class:`UnlabelledDataset` otherwise.

    Args:
        paths: the files.
        features: of each of them that can be read.
        errors: why the others cannot be read.
    """

    def __init__(self, paths: Sequence[Path], features: StoredFeatures, errors: Mapping[Path, PictureError]) -> None:
        self.paths, self.features, self.errors = paths, features, errors

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, str, str]:
        (values,), (path,), (error,) = self.__getitems__([index])
        return values[0], path, error

    def __getitems__(self, indices: Sequence[int]) -> tuple[Features, list[str], list[str]]:
        """Reads a batch: features, paths, and why files cannot be read."""
        paths = [self.paths[index] for index in indices]
        values = torch.zeros(len(paths), *self.features.shape, dtype=self.features.dtype)
        readable = [place for place, path in enumerate(paths) if path not in self.errors]
        values[readable] = self.features.take([indices[place] for place in readable])
        errors = [self.errors[path].reason if path in self.errors else "" for path in paths]
        return Features(values), [str(path) for path in paths], errors


def as_it_is(batch: Any) -> Any:
    """Collates what ``__getitems__`` has made a batch of."""
    return batch
