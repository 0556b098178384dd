"""Data sets of torchvision with their official splits: MNIST, Fashion-MNIST and CIFAR-10.

Each is downloaded once and packed (:mod:`~gel_lightning.data.packed`); what lies where torchvision would put it is not
downloaded.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from gel_lightning.core.errors import GelError, one_line
from gel_lightning.core.files import replacing
from gel_lightning.data.folders import LabelledPictures
from gel_lightning.data.named_sets import MAIN
from gel_lightning.data.packed import packed_paths

PARTS = ("train", MAIN)


class Builtin(NamedTuple):
    """A data set of torchvision.

    Attributes:
        name: of its class in torchvision.datasets.
        files: where torchvision looks for its files, in the folder of the data set.
        class_names: in the order of their labels.
    """

    name: str
    files: str
    class_names: tuple[str, ...]


_CLOTHES = ("t_shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot")
_THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BUILTIN = {
    "mnist": Builtin("MNIST", "MNIST/raw", tuple("0123456789")),
    "fashion_mnist": Builtin("FashionMNIST", "FashionMNIST/raw", _CLOTHES),
    "cifar10": Builtin("CIFAR10", "cifar-10-batches-py", _THINGS),
}
"""The data sets, by the name that ``--data.dataset`` takes."""


def prepare(dataset: str, root: Path) -> None:
    """Packs a data set, after downloading it if its files are absent.

    Args:
        dataset: its name in :data:`BUILTIN`.
        root: its folder.

    Raises:
        GelError: it cannot be downloaded, or its files are damaged.
    """
    files = [file(root, part) for file in (_pictures, _labels) for part in PARTS]
    if all(path.exists() for path in files):
        return
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        if not all(path.exists() for path in files):
            for part in PARTS:
                loaded = _load(dataset, root, part == "train")
                pack(root, part, np.asarray(loaded.data), np.asarray(loaded.targets))


def pack(root: Path, part: str, pictures: NDArray[np.uint8], labels: NDArray[np.integer]) -> None:
    """Writes a part of a data set.

    Args:
        root: folder of the data set.
        part: ``train`` or ``test``.
        pictures: shape ``[N, H, W]``, or ``[N, H, W, 3]`` in colour.
        labels: shape ``[N]``.
    """
    with replacing(_pictures(root, part), "wb") as file:
        np.save(file, pictures)
    with replacing(_labels(root, part), "wb") as file:
        np.save(file, labels.astype(np.int64))


def read_builtin(dataset: str, root: Path, class_names: Sequence[str] | None) -> dict[str, LabelledPictures]:
    """Lists the pictures of the official parts, ``train`` and ``test``.

    Args:
        dataset: its name in :data:`BUILTIN`.
        root: its folder, which has been prepared.
        class_names: the classes to take, in the order of their labels; None takes all.

    Raises:
        GelError: it has no such class, or its files are damaged.
    """
    own = BUILTIN[dataset].class_names
    names = list(class_names or own)
    if unknown := [name for name in names if name not in own]:
        raise GelError(
            f"{dataset} has no class {', '.join(unknown)}, but {', '.join(own)}: name some of these with "
            "--data.class_names"
        )
    places = np.array([names.index(name) if name in names else -1 for name in own])
    parts = {}
    for part in PARTS:
        try:
            labels, paths = np.load(_labels(root, part)), packed_paths(_pictures(root, part))
            if len(labels) != len(paths):
                raise ValueError(f"{len(labels)} labels of {len(paths)} pictures")
            if not np.array_equal(np.unique(labels), np.arange(len(own))):
                raise ValueError(f"labels other than those of {len(own)} classes")
            taken = places[labels]
        except (OSError, ValueError) as error:
            raise GelError(
                f"{_pictures(root, part)}, {_labels(root, part).name}: damaged ({one_line(error)}): delete both, and "
                "run again"
            ) from error
        kept = np.flatnonzero(taken >= 0).tolist()
        parts[part] = LabelledPictures([paths[place] for place in kept], taken[kept].tolist(), names)
    return parts


def _pictures(root: Path, part: str) -> Path:
    return root / f"{part}.npy"


def _labels(root: Path, part: str) -> Path:
    return root / f"{part}_labels.npy"


def _load(dataset: str, root: Path, train: bool) -> Any:
    builtin = BUILTIN[dataset]
    kind = getattr(import_module("torchvision.datasets"), builtin.name)
    try:
        return kind(root, train=train, download=True)
    except Exception as error:  # torchvision raises nearly anything for damaged files
        raise GelError(
            f"{dataset} cannot be downloaded, or its files in {root / builtin.files} are damaged ({one_line(error)}): "
            "put there what torchvision downloads, or run again with a network"
        ) from error
