"""GelDataModule: labelled pictures to splits and loaders, of pictures or of their feature vectors."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
import torch
from lightning.fabric.utilities import suggested_max_num_workers
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from gel_lightning.core.errors import GelError, check_range
from gel_lightning.core.store import default_cache_dir
from gel_lightning.core.xla import PaddedBatches, on_xla
from gel_lightning.data.augmentation import PRESETS, Augmentation
from gel_lightning.data.builtin import BUILTIN, prepare
from gel_lightning.data.cache import PictureCache
from gel_lightning.data.datasets import (
    FeatureDataset,
    PictureDataset,
    StoredFeatures,
    UnlabelledDataset,
    UnlabelledFeatureDataset,
    ViewSampler,
    as_it_is,
)
from gel_lightning.data.drawn.dataset import draw_data_set, draw_extra
from gel_lightning.data.duplicates import HASHES, hash_pictures, near_duplicate_groups, picture_hashes, repeated_groups
from gel_lightning.data.folders import DEFAULT_CLASSES, LabelledPictures, folder_notes
from gel_lightning.data.groups import groups_digest
from gel_lightning.data.images import PictureError
from gel_lightning.data.named_sets import MAIN, is_tested, named_folders
from gel_lightning.data.originals import download_originals
from gel_lightning.data.parts import Folders, Official, Split, check_drawn_classes
from gel_lightning.data.picture_files import find_pictures
from gel_lightning.data.sources import source_classes
from gel_lightning.data.tables import is_table

Number = TypeVar("Number", int, float)
FindFeatures = Callable[..., StoredFeatures]
"""Gives the features of a :class:`PictureDataset`. It is called with that, the number of views, and a dict for the
errors of pictures that cannot be read; None in its place raises the first one."""

DATA_ROOT = Path("data/gel_electrophoresis")
DRAWN_ROOT = Path("data/drawn")
TEST_FRACTION = 0.2
MAX_SIDE = 1024
"""Pixels a side to which pictures are resized, at most: larger ones take gigabytes a batch."""
MOST = {
    "batch_size": 1_000_000,
    "image_size": MAX_SIDE,
    "num_workers": 1024,
    "views": 1000,
    "extra_drawn": 10_000,
    "cache_limit": 1_000_000,
}
"""The largest values of settings: beyond them memory or time would run out before anything is trained."""
FOLDER: Final = "folder"
"""The data set that is pictures in folders or CSV files."""
SPLIT = ("seed", "val_fraction", "test_fraction")  # what the parts depend on, besides the pictures


class GelDataModule(LightningDataModule):
    """Pictures with labels, split so that near-identical ones are never on both sides.

    A module that computes features of pictures, as GelClassifier does, hands over what finds them
    (:meth:`use_features`) and gets batches of features in place of pictures. Each is computed once and kept, and found
    again by any later run that needs the same one.

    Attributes:
        parts: ``train``, ``val``, ``test``, and ``test_NAME`` for each test set that has a name.
        split: how the pictures were dealt out, once that is done.

    Args:
        train_dir: folder of class folders, or several, for training and validation; or a CSV file with the columns
            path, which starts at the file's folder, and label. None takes data/gel_electrophoresis/dataset, and
            downloads the 92 original pictures if it is absent.
        test_dir: the same for testing, some classes may be absent; more of them as NAME=FOLDER each, which are measured
            one by one. Without one that has no name the originals' test pictures are taken with the
            originals, and else a test part is split off train_dir.
        predict_dir: a picture, or a folder of any depth, to be classified.
        dataset: folder for pictures in train_dir and test_dir; or a data set with official training and test parts,
            which is downloaded to data/DATASET if it is absent. Its near-duplicates are not looked for.
        class_names: the classes to take, in the order of their labels; other class folders are left out. None takes
            all there are, in alphabetical order.
        groups: CSV file with the columns path and group, and a row for each training picture: pictures of one group,
            such as a lab, stay on one side of every split. Paths start at the file's folder or at train_dir.
        drawn: draws gels and look-alikes in data/drawn instead of downloading, for use with no network.
        extra_drawn: drawn pictures of the classes gel and not_gel to add to the training pictures, of each class.
        batch_size: pictures a batch.
        val_fraction: share held out for validation, in (0, 1), of the pictures that are not held out for testing.
        test_fraction: share of train_dir held out for testing if no test_dir is without a name, in (0, 1).
        image_size: side in pixels to which pictures are resized.
        colour: reads pictures in red, green and blue; else in grey. Deep pictures, such as 16-bit TIFFs, stay grey.
        num_workers: processes that decode pictures. None takes one fewer than there are cores, at most 4.
        cache_features: computes the features of each picture once and keeps them. False runs every picture through
            the whole network in every epoch, and keeps nothing.
        cache_dir: folder where features are kept; None takes the user's cache folder.
        cache_limit: GB on disk above which the features of a run are not kept, as with cache_features false.
        half_features: keeps features in 16 bits, which takes half the space and rounds them.
        views: versions of each training picture, of which each epoch draws one: the picture itself, and randomly
            augmented ones.
        augmentation: what makes the augmented versions. study crops, mirrors and turns, as the original study did;
            labs also changes what differs between labs, such as light, inversion, labels, panels beside the picture and
            resolution; crop_flip moves and mirrors, as is usual for small photographs. Or a list of transforms, of
            torchvision.transforms.v2 or the like, which get values in [0, 1] of shape [channels, image_size,
            image_size].
        seed: of the split, of the order of the training pictures and of their augmentation.
    """

    def __init__(
        self,
        train_dir: list[str | Path] | str | Path | None = None,
        test_dir: list[str | Path] | str | Path | None = None,
        predict_dir: str | Path | None = None,
        dataset: Literal["folder", "mnist", "fashion_mnist", "cifar10"] = FOLDER,
        class_names: list[str] | None = None,
        groups: str | Path | None = None,
        drawn: bool = False,
        extra_drawn: int = 0,
        batch_size: int = 23,
        val_fraction: float = 0.2,
        test_fraction: float = TEST_FRACTION,
        image_size: int = 224,
        colour: bool = False,
        num_workers: int | None = None,
        cache_features: bool = True,
        cache_dir: str | Path | None = None,
        cache_limit: float = 20,
        half_features: bool = False,
        views: int = 1,
        augmentation: Literal["study", "labs", "crop_flip"] | list[nn.Module] = "study",
        seed: int = 42,
    ) -> None:
        super().__init__()
        if dataset != FOLDER:
            given = {"train_dir": train_dir, "test_dir": test_dir, "groups": groups, "drawn": drawn}
            _refuse(dataset, [name for name, value in {**given, "extra_drawn": extra_drawn}.items() if value])
        if drawn and train_dir:
            raise GelError(
                "--data.drawn true draws its own training pictures; leave it out, or --data.train_dir (drawn pictures "
                "are added to yours with --data.extra_drawn)"
            )
        self.dataset = dataset
        self.root = Path("data", dataset) if dataset in BUILTIN else DRAWN_ROOT if drawn else DATA_ROOT
        self.train_dirs = _paths(train_dir) or [self.root if dataset in BUILTIN else self.root / "dataset"]
        self.default = dataset == FOLDER and not _paths(train_dir)
        self.test_folders = named_folders(test_dir)
        self.predict_dir = _path(predict_dir)
        self.taken = _classes(class_names)
        self.groups = _path(groups)
        self.drawn = drawn
        self.extra_drawn = _in_range("extra_drawn", extra_drawn, 0)
        self.batch_size = _in_range("batch_size", batch_size, 1)
        self.val_fraction = _share("val_fraction", val_fraction)
        self.test_fraction = _share("test_fraction", test_fraction)
        self.image_size = _in_range("image_size", image_size, 1)
        self.colour = colour
        workers = min(4, suggested_max_num_workers(1)) if num_workers is None else num_workers
        self.num_workers = _in_range("num_workers", workers, 0)
        self.cache = PictureCache(_path(cache_dir) or default_cache_dir()) if cache_features else None
        self.cache_limit = _in_range("cache_limit", cache_limit, 0)
        self.half_features = half_features
        self.views = _in_range("views", views, 1)
        if isinstance(augmentation, str) and augmentation not in PRESETS:
            raise GelError(f"no augmentation {augmentation!r}; choose {', '.join(PRESETS)}, or list transforms")
        self.augmentation = PRESETS[augmentation](image_size) if isinstance(augmentation, str) else augmentation
        if views == 1 and augmentation != "study":
            raise GelError("--data.augmentation makes the augmented versions, and --data.views 1 has none; give more")
        self.seed = seed
        self.parts: dict[str, LabelledPictures] = {}
        self.split: Split | None = None
        self.notes: list[str] = []
        self.left_out: Mapping[str, int] = {}
        self._known: dict[Path, NDArray[np.uint64]] = {}
        self._find_features: FindFeatures | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels.

        Before ``setup`` those that were asked for, else those of the class folders of ``train_dir``, without reading a
        picture; gel and not_gel while the default pictures are absent.

        Raises:
            GelError: a folder that is absent, or folders with fewer than two classes.
        """
        for pictures in self.parts.values():
            return tuple(pictures.class_names)
        if self.taken is not None:
            return tuple(self.taken)
        if self.dataset in BUILTIN:
            return BUILTIN[self.dataset].class_names
        if self.default and not self.train_dirs[0].exists():
            return DEFAULT_CLASSES
        return tuple(source_classes(self.train_dirs))

    @property
    def train_class_counts(self) -> list[int]:
        """Number of training pictures of each class."""
        counts: list[int] = np.bincount(self.parts["train"].labels).tolist()
        return counts

    def prepare_data(self) -> None:
        """Downloads or draws the default pictures or the data set if they are asked for and absent.

        Raises:
            GelError: they cannot be downloaded.
        """
        stage = self.trainer.state.fn if self.trainer else None
        if stage == TrainerFn.PREDICTING or (stage == TrainerFn.TESTING and self.test_folders):
            return
        if self.dataset in BUILTIN:
            prepare(self.dataset, self.root)
        if self.default and not self.train_dirs[0].exists():
            if self.drawn:
                with _unless_there(self.train_dirs[0]):
                    draw_data_set(self.root)
            else:
                download_originals(self.root)
        if self.extra_drawn and not self._extra_dir.exists():
            check_drawn_classes(self.class_names)
            with _unless_there(self._extra_dir):
                draw_extra(self._extra_dir, self.extra_drawn)

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
            if is_table(self.predict_dir):
                raise GelError(f"{self.predict_dir}: --data.predict_dir takes a picture or a folder, not a CSV file")
            found = find_pictures(self.predict_dir)
            self.predict_paths = found.paths
            self.left_out = found.left_out
        elif stage == "test" and self.test_folders and not self.parts:
            model: Any = self.trainer.lightning_module if self.trainer else None
            folders = Folders(self.train_dirs, self.test_folders, self.taken)
            self.parts = folders.read_tests(getattr(model, "class_names", None))
            self.notes = [note for part in self.parts for note in folder_notes(folders.test[part], self.parts[part])]
            self._hashes([path for test in self.parts.values() for path in test.paths])  # names all unreadable ones
        elif "train" not in self.parts:
            self._split()

    def teardown(self, stage: str) -> None:
        """Serves pictures again."""
        self._find_features = None

    def use_features(self, find_features: FindFeatures) -> None:
        """Serves features in place of pictures, until the end of the run.

        Lightning restores the split of a checkpoint after ``setup``, and then makes the loaders with no hook between
        them. So this takes what finds features, which each loader calls for its own pictures, and not the features.
        """
        self._find_features = find_features

    def picture_count(self, stage: str) -> int:
        """How many pictures a stage goes through, each view of a training picture counted."""
        if stage == "predict":
            return len(self.predict_paths)
        views = {part: self.views if part == "train" else 1 for part in self.parts if stage == "fit" or part != "train"}
        return sum(views[part] * len(self.parts[part].paths) for part in views)

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

    def test_dataloader(self) -> DataLoader[Any] | dict[str, DataLoader[Any]]:
        """Test pictures, in the order of their names; a loader for each part if several are tested on."""
        loaders = {part: self._loader(self._dataset(part)) for part in self.parts if is_tested(part)}
        return loaders if list(loaders) != [MAIN] else loaders[MAIN]

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
        files = LabelledPictures(self.predict_paths, [], [])
        pictures = PictureDataset(files, self.image_size, cache=self.cache, colour=self.colour)
        if self._find_features is None:
            return self._loader(UnlabelledDataset(pictures))
        errors: dict[Path, PictureError] = {}
        features = self._find_features(pictures, 1, errors)
        return self._loader(UnlabelledFeatureDataset(self.predict_paths, features, errors))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: how pictures were resized, grouped, split and ordered."""
        groups = groups_digest(self.groups) if self.groups else None
        return {**{name: getattr(self, name) for name in ("image_size", "colour", *SPLIT)}, "groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resizes, splits and orders pictures as for the checkpoint's training, so that none of it is tested on.

        Raises:
            GelError: that training had other groups.
        """
        before = self.state_dict()
        for name in before.keys() & state_dict.keys() - {"groups"}:
            setattr(self, name, state_dict[name])
        if "train" in self.parts:
            if state_dict.get("groups", before["groups"]) != before["groups"]:
                raise GelError(
                    "the checkpoint was trained with other groups of pictures; give --data.groups as for its training"
                )
            if any(getattr(self, name) != before[name] for name in SPLIT):
                self._split()

    def _dataset(self, part: str) -> PictureDataset | FeatureDataset:
        """The pictures of a part, or their features."""
        views = self.views if part == "train" else 1
        size = self.image_size
        augmentation = Augmentation(self.augmentation, self.seed) if views > 1 else None
        pictures = PictureDataset(self.parts[part], size, augmentation, self.cache, self.colour)
        if self._find_features is None:
            return pictures
        return FeatureDataset(pictures, self._find_features(pictures, views, None))

    def _loader(self, dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
        # What a loader draws for its workers would shift the dropout that is drawn after it.
        options["generator"] = torch.Generator()
        stored = isinstance(dataset, FeatureDataset | UnlabelledFeatureDataset)
        collate = as_it_is if stored else default_collate
        if on_xla(self.trainer) and isinstance(dataset, FeatureDataset | PictureDataset):
            collate = PaddedBatches(collate, self.batch_size)
        workers = 0 if stored else self.num_workers
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            **options,
        )

    def cross_validation(self, folds: int | Literal["groups"], repeats: int = 1) -> list[dict[str, LabelledPictures]]:
        """Splits the training and validation pictures for cross-validation; near-identical ones share a fold.

        Args:
            folds: parts into which they are dealt, each of which is tested on once; ``groups`` makes each group one.
            repeats: how many times they are dealt.

        Returns:
            For each fit what ``parts`` is to be, fold after fold and repeat after repeat: ``test`` is the fold,
            ``val`` a share of the rest as always.

        Raises:
            GelError: there are too few different pictures of a class, or ``groups`` without a file of groups.
        """
        if folds == "groups" and self.groups is None:
            raise GelError("no groups to leave out: name a CSV file of path and group with --data.groups")
        assert self.split is not None
        return self.split.folds(folds, repeats)

    def near_duplicates(self) -> list[list[Path]]:
        """Lists the groups of near-identical pictures among those of all parts; none of a data set's own parts."""
        if self.dataset in BUILTIN:
            return []
        paths = [path for pictures in self.parts.values() for path in pictures.paths]
        return [[paths[i] for i in group] for group in repeated_groups(near_duplicate_groups(self._hashes(paths)))]

    def _hashes(self, paths: Sequence[Path]) -> NDArray[np.uint64]:
        """The perceptual hashes of pictures, [n, HASHES]; several processes that can keep them share the reading."""
        new = [path for path in paths if path not in self._known]
        trainer, keep = self.trainer, None if self.colour else self.image_size  # hashes are of grey pictures
        if new and self.cache and trainer and trainer.world_size > 1:
            try:
                self.cache.hashes(new[trainer.global_rank :: trainer.world_size], keep)
            finally:  # after an error too, so that no other one waits for ever
                trainer.strategy.barrier()
        hashes = picture_hashes(self.cache.hashes(new, keep) if self.cache else hash_pictures(new))
        self._known.update(zip(new, hashes, strict=True))
        return np.array([self._known[path] for path in paths], np.uint64).reshape(-1, HASHES)

    def _split(self) -> None:
        """Deals out the pictures."""
        self.split = Split(
            self.folders,
            self._hashes,
            test_fraction=self.test_fraction,
            val_fraction=self.val_fraction,
            seed=self.seed,
        )
        self.parts, self.notes = self.split.parts, [*self.split.notes]
        times = Counter(map(str.casefold, self.class_names))
        if alike := [name for name in self.class_names if times[name.casefold()] > 1]:
            self.notes.append(f"classes that differ in case only: {', '.join(alike)}")
        if self.test_fraction != TEST_FRACTION and MAIN in self.folders.test:
            self.notes.append(f"--data.test_fraction {self.test_fraction} is not used: there are test pictures")

    @property
    def folders(self) -> Folders | Official:
        """Where the pictures are; with the test pictures that come with the default ones, once those are there."""
        if self.dataset in BUILTIN:
            return Official(self.dataset, self.root, self.taken)
        test = self.test_folders
        if self.default and MAIN not in test and (self.root / "test_images").exists():
            test = {MAIN: self.root / "test_images", **test}
        extra = self._extra_dir if self.extra_drawn else None
        return Folders(self.train_dirs, test, self.taken, self.groups, extra)

    @property
    def _extra_dir(self) -> Path:
        return DRAWN_ROOT / f"extra_{self.extra_drawn}"


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value).expanduser()


def _paths(value: str | Path | Sequence[str | Path] | None) -> list[Path]:
    values = [] if value is None else [value] if isinstance(value, str | Path) else value
    return [Path(path).expanduser() for path in values]


def _classes(names: Sequence[str] | None) -> list[str] | None:
    if names is not None and len(set(names)) < max(len(names), 2):
        raise GelError(
            f"the classes are {', '.join(names) or 'none'}; name two or more, each once (--data.class_names)"
        )
    return None if names is None else list(names)


def _refuse(dataset: str, given: Sequence[str]) -> None:
    for name in given:
        raise GelError(
            f"--data.dataset {dataset} has its own training and test pictures; leave --data.{name} out, or "
            "--data.dataset"
        )


@contextmanager
def _unless_there(folder: Path) -> Iterator[None]:
    """Ignores errors of drawing pictures into a folder if it is there, perhaps drawn by another run meanwhile."""
    try:
        yield
    except GelError:
        if not folder.exists():
            raise


def _share(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise GelError(f"--data.{name} is {value}; give a number above 0 and below 1")
    return value


def _in_range(name: str, value: Number, least: int) -> Number:
    check_range(f"--data.{name}", value, least, MOST[name])
    return value
