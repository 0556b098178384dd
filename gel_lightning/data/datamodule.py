"""GelDataModule: folders of class folders to splits and loaders, of pictures or of their feature vectors."""

import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.fabric.utilities import suggested_max_num_workers
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from gel_lightning.core.errors import GelError, check_range
from gel_lightning.core.store import default_cache_dir
from gel_lightning.core.xla import PaddedBatches, on_xla
from gel_lightning.data.cache import PictureCache
from gel_lightning.data.datasets import Augmentation, FeatureDataset, PictureDataset, UnlabelledDataset, ViewSampler
from gel_lightning.data.drawn import draw_data_set
from gel_lightning.data.folders import (
    DEFAULT_CLASSES,
    LabelledPictures,
    class_folders,
    find_pictures,
    folder_notes,
    read_class_folders,
)
from gel_lightning.data.originals import download_originals
from gel_lightning.data.splits import (
    HASHES,
    hash_pictures,
    near_duplicate_groups,
    picture_hashes,
    repeated_groups,
    stratified_folds,
    stratified_split,
)
from gel_lightning.features.extraction import find_features

Number = TypeVar("Number", int, float)

DATA_ROOT = Path("data/gel_electrophoresis")
DRAWN_ROOT = Path("data/drawn")
MAX_SIDE = 1024
"""Pixels a side to which pictures are resized, at most: larger ones take gigabytes a batch."""
MOST = {
    "batch_size": 1_000_000,
    "image_size": MAX_SIDE,
    "num_workers": 1024,
    "views": 1000,
    "val_fraction": 1,
    "test_fraction": 1,
}
"""The largest values of settings: beyond them memory or time would run out before anything is trained."""
SPLIT = ("seed", "val_fraction", "test_fraction")  # what the parts depend on, besides the pictures


class GelDataModule(LightningDataModule):
    """Pictures in class folders, split so that near-identical ones are never on both sides.

    A trainer whose module takes feature vectors in place of pictures, as GelClassifier does, gets vectors: each
    is computed once and kept, and found again by any later run that needs the same one.

    Args:
        train_dir: folder of class folders, for training and validation. None takes
            data/gel_electrophoresis/dataset, and downloads the 92 original pictures if it is absent.
        test_dir: folder of class folders, for testing; some classes may be absent. None takes the originals' test
            pictures with the originals, and else splits a test part off train_dir.
        predict_dir: a picture, or a folder of any depth, to be classified.
        drawn: draws gels and look-alikes in data/drawn instead of downloading, for use with no network.
        batch_size: pictures a batch.
        val_fraction: share of the training pictures held out for validation, in (0, 1).
        test_fraction: share of train_dir held out for testing if there is no test_dir, in (0, 1).
        image_size: side in pixels to which pictures are resized.
        num_workers: processes that decode pictures. None takes one fewer than there are cores, at most 4.
        cache_features: computes each picture's feature vector once and keeps it. False runs every picture through
            the backbone in every epoch, and keeps nothing.
        cache_dir: folder where vectors are kept; None takes the user's cache folder.
        views: versions of each training picture, of which each epoch draws one: the picture itself, and randomly
            augmented ones.
        augmentation: transforms of torchvision.transforms.v2, or the like, that make the augmented versions of a
            picture, values in [0, 1] of shape [1, image_size, image_size]. None takes the original study's:
            RandomResizedCrop, RandomHorizontalFlip and RandomRotation by up to 10 degrees.
        seed: of the split, of the order of the training pictures and of their augmentation.
    """

    def __init__(
        self,
        train_dir: str | Path | None = None,
        test_dir: str | Path | None = None,
        predict_dir: str | Path | None = None,
        drawn: bool = False,
        batch_size: int = 23,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        image_size: int = 224,
        num_workers: int | None = None,
        cache_features: bool = True,
        cache_dir: str | Path | None = None,
        views: int = 1,
        augmentation: list[nn.Module] | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        self.train_dir = _path(train_dir)
        self.test_dir = _path(test_dir)
        self.predict_dir = _path(predict_dir)
        self.root = DRAWN_ROOT if drawn else DATA_ROOT
        self.drawn = drawn
        self.batch_size = _in_range("batch_size", batch_size, 1)
        self.val_fraction = _in_range("val_fraction", val_fraction, 0)
        self.test_fraction = _in_range("test_fraction", test_fraction, 0)
        self.image_size = _in_range("image_size", image_size, 1)
        workers = min(4, suggested_max_num_workers(1)) if num_workers is None else num_workers
        self.num_workers = _in_range("num_workers", workers, 0)
        self.cache = PictureCache(_path(cache_dir) or default_cache_dir()) if cache_features else None
        self.views = _in_range("views", views, 1)
        self.augmentation = augmentation
        self.seed = seed
        self.parts: dict[str, LabelledPictures] = {}
        self.notes: list[str] = []
        self._known: dict[Path, NDArray[np.uint64]] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels.

        Before ``setup`` those of the class folders of ``train_dir``, of which no picture is read; gel and not_gel
        while the default pictures are absent.

        Raises:
            GelError: a folder that is absent or has fewer than two class folders.
        """
        for pictures in self.parts.values():
            return tuple(pictures.class_names)
        folder = self.train_dir or self.root / "dataset"
        if self.train_dir is None and not folder.exists():
            return DEFAULT_CLASSES
        return tuple(class_folders(folder))

    @property
    def train_class_counts(self) -> list[int]:
        """Number of training pictures of each class."""
        counts: list[int] = np.bincount(self.parts["train"].labels).tolist()
        return counts

    def prepare_data(self) -> None:
        """Downloads or draws the default pictures if they are asked for and absent.

        Raises:
            GelError: they cannot be downloaded.
        """
        stage = self.trainer.state.fn if self.trainer else None
        needed = stage != TrainerFn.PREDICTING and not (stage == TrainerFn.TESTING and self.test_dir)
        if not needed or self.train_dir is not None or (self.root / "dataset").exists():
            return
        if self.drawn:
            draw_data_set(self.root)
        else:
            download_originals(self.root)

    def setup(self, stage: str) -> None:
        """Finds the pictures, reads each one once, and splits them.

        Several processes share out the pictures that they read, and find what the others have kept.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            GelError: a folder that is absent, empty or of one class, or pictures that cannot be read, all of
                them named.
        """
        if stage == "predict":
            if self.predict_dir is None:
                raise GelError("no pictures to classify; name a picture or a folder with --data.predict_dir")
            found = find_pictures(self.predict_dir)
            self.predict_paths = found.paths
            self.notes = folder_notes(self.predict_dir, found)
        elif stage == "test" and self.test_dir is not None and not self.parts:
            model: Any = self.trainer.lightning_module if self.trainer else None
            test = read_class_folders(self.test_dir, getattr(model, "class_names", None), every_class=False)
            self.notes = folder_notes(self.test_dir, test)
            self._hashes(test.paths)  # names all unreadable pictures at once
            self.parts = {"test": test}
        elif "train" not in self.parts:
            self.parts = self._split()

    def train_dataloader(self) -> DataLoader[Any]:
        """Training pictures, in an order and in views that depend on the seed and the epoch alone."""
        dataset = self._dataset("train")
        sampler = ViewSampler(
            dataset,
            self.views,
            self.seed,
            num_replicas=self.trainer.world_size if self.trainer else 1,
            rank=self.trainer.global_rank if self.trainer else 0,
        )
        return self._loader(dataset, sampler=sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation pictures, in the order of their names."""
        return self._loader(self._dataset("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        """Test pictures, in the order of their names."""
        return self._loader(self._dataset("test"))

    def predict_dataloader(self) -> DataLoader[Any]:
        """Pictures to be classified, in the order of their names: see :class:`UnlabelledDataset`.

        Raises:
            GelError: there are fewer of them than processes.
        """
        processes = self.trainer.world_size if self.trainer else 1
        if len(self.predict_paths) < processes:
            raise GelError(
                f"{len(self.predict_paths)} pictures are too few for {processes} processes; give --trainer.devices 1"
            )
        return self._loader(UnlabelledDataset(self.predict_paths, self.image_size))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: how pictures were resized, split and ordered."""
        return {name: getattr(self, name) for name in ("image_size", *SPLIT)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resizes, splits and orders pictures as for the checkpoint's training, so that none of it is tested on."""
        before = self.state_dict()
        for name in before.keys() & state_dict.keys():
            setattr(self, name, state_dict[name])
        if "train" in self.parts and any(getattr(self, name) != before[name] for name in SPLIT):
            self.parts = self._split()

    def _dataset(self, part: str) -> PictureDataset | FeatureDataset:
        """The pictures of a part, or their vectors if the trainer's module takes those."""
        views = self.views if part == "train" else 1
        size = self.image_size
        transforms = self.augmentation or [
            v2.RandomResizedCrop(size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(10),
        ]
        augmentation = Augmentation(transforms, self.seed) if views > 1 else None
        pictures = PictureDataset(self.parts[part], size, augmentation, self.cache)
        trainer = self.trainer
        model: Any = trainer.lightning_module if trainer else None
        if self.cache is None or trainer is None or not hasattr(type(model), "backbone_fingerprint"):
            return pictures
        loading = (self.batch_size, self.num_workers)
        return FeatureDataset(pictures, find_features(self.cache, trainer, model, pictures, views, *loading))

    def _loader(self, dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
        # What a loader draws for its workers would shift the dropout that is drawn after it.
        options["generator"] = torch.Generator()
        labelled = isinstance(dataset, FeatureDataset | PictureDataset)
        collate = FeatureDataset.collate if isinstance(dataset, FeatureDataset) else default_collate
        if labelled and on_xla(self.trainer):
            collate = PaddedBatches(collate, self.batch_size)
        if isinstance(dataset, FeatureDataset):
            # Lightning warns of too few workers, which are of no use here.
            warnings.filterwarnings("ignore", message=".*does not have many workers", category=PossibleUserWarning)
            return DataLoader(dataset, self.batch_size, collate_fn=collate, **options)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            **options,
        )

    def cross_validation(self, folds: int, repeats: int) -> list[dict[str, LabelledPictures]]:
        """Splits the training and validation pictures for cross-validation; near-identical ones share a fold.

        Args:
            folds: parts into which they are dealt, each of which is tested on once.
            repeats: how many times they are dealt.

        Returns:
            For each fit what ``parts`` is to be, fold after fold and repeat after repeat: ``test`` is the fold,
            ``val`` a share of the rest as always.

        Raises:
            GelError: there are too few different pictures of a class.
        """
        own = sorted(
            (path, label) for part in ("train", "val") for path, label in zip(*self.parts[part][:2], strict=True)
        )
        paths, labels, names = [path for path, _ in own], [label for _, label in own], self.parts["train"].class_names
        pictures, groups = LabelledPictures(paths, labels, names), near_duplicate_groups(self._hashes(paths))
        everything, parts = np.arange(len(paths)), []
        for fold in chain(*stratified_folds(labels, groups, folds, repeats, self.seed, names)):
            rest = np.setdiff1d(everything, fold)
            parts.append({**self._train_and_val(pictures, groups, rest), "test": _subset(pictures, fold)})
        return parts

    def near_duplicates(self) -> list[list[Path]]:
        """Lists the groups of near-identical pictures among those of all parts."""
        paths = [path for pictures in self.parts.values() for path in pictures.paths]
        return [[paths[i] for i in group] for group in repeated_groups(near_duplicate_groups(self._hashes(paths)))]

    def _hashes(self, paths: Sequence[Path]) -> NDArray[np.uint64]:
        """The perceptual hashes of pictures, [n, HASHES]; several processes that can keep them share the reading."""
        new = [path for path in paths if path not in self._known]
        trainer = self.trainer
        if new and self.cache and trainer and trainer.world_size > 1:
            try:
                self.cache.hashes(new[trainer.global_rank :: trainer.world_size])
            finally:  # after an error too, so that no other one waits for ever
                trainer.strategy.barrier()
        hashes = picture_hashes(self.cache.hashes(new) if self.cache else hash_pictures(new))
        self._known.update(zip(new, hashes, strict=True))
        return np.array([self._known[path] for path in paths], np.uint64).reshape(-1, HASHES)

    def _split(self) -> dict[str, LabelledPictures]:
        """Parts ``train``, ``val`` and ``test``, from one folder or two."""
        train_dir = self.train_dir or self.root / "dataset"
        pictures = read_class_folders(train_dir)
        default_test = self.root / "test_images"
        test_dir = self.test_dir
        if test_dir is None and self.train_dir is None and default_test.exists():
            test_dir = default_test
        test = read_class_folders(test_dir, pictures.class_names, every_class=False) if test_dir else None
        self.notes = folder_notes(train_dir, pictures) + (folder_notes(test_dir, test) if test_dir and test else [])
        hashes = self._hashes([*pictures.paths, *(test.paths if test else [])])
        labels = np.array(pictures.labels)
        groups = near_duplicate_groups(hashes[: len(labels)])
        train = np.arange(len(labels))
        if test is None:
            train, held_out = stratified_split(labels, groups, self.test_fraction, self.seed, pictures.class_names)
            test = _subset(pictures, held_out)
        return {**self._train_and_val(pictures, groups, train), "test": test}

    def _train_and_val(
        self, pictures: LabelledPictures, groups: NDArray[np.intp], indices: NDArray[np.intp]
    ) -> dict[str, LabelledPictures]:
        """Splits some of the pictures, all of which have groups, in two."""
        labels = np.array(pictures.labels)[indices]
        kept, held_out = stratified_split(labels, groups[indices], self.val_fraction, self.seed, pictures.class_names)
        return {"train": _subset(pictures, indices[kept]), "val": _subset(pictures, indices[held_out])}


def _subset(pictures: LabelledPictures, indices: np.ndarray) -> LabelledPictures:
    return LabelledPictures(
        [pictures.paths[i] for i in indices], [pictures.labels[i] for i in indices], pictures.class_names
    )


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value).expanduser()


def _in_range(name: str, value: Number, least: int) -> Number:
    check_range(f"--data.{name}", value, least, MOST[name])
    return value
