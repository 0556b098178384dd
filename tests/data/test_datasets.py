import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_data_set
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from gel_lightning.core.store import Store
from gel_lightning.data.augmentation import Augmentation
from gel_lightning.data.datasets import (
    FeatureDataset,
    Features,
    PictureDataset,
    StoredFeatures,
    UnlabelledDataset,
    ViewSampler,
    as_it_is,
    picture_values,
)
from gel_lightning.data.folders import LabelledPictures, read_class_folders
from gel_lightning.data.images import picture_digest, read_picture

CROP = v2.RandomResizedCrop(32, antialias=True)


class Shift:
    """A transform that somebody else has written; it draws from all generators."""

    def __call__(self, picture: Tensor) -> Tensor:
        return picture + torch.rand(()) + random.random() + np.random.random()  # noqa: NPY002


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_data_set(tmp_path_factory.mktemp("pictures"), 5)


def make(folder: Path, *transforms: object, seed: int = 0) -> PictureDataset:
    augmentation = Augmentation(transforms, seed) if transforms else None  # type: ignore[arg-type]
    return PictureDataset(read_class_folders(folder), 32, augmentation)


# Views


def test_view_0_is_the_picture_itself_and_the_others_are_not(folder: Path) -> None:
    dataset = make(folder, CROP)
    for place, path in enumerate(dataset.paths):
        plain = picture_values(read_picture(path), 32)
        assert plain.shape == (1, 32, 32)
        assert 0 <= plain.min() < plain.max() <= 1
        views = [dataset[place + view * len(dataset)] for view in range(4)]
        assert [(label, index) for _, label, index in views] == [(dataset.labels[place], place)] * 4
        assert views[0][0].equal(plain)
        for view, (picture, *_) in enumerate(views):
            assert picture.shape == (1, 32, 32)
            assert not any(picture.equal(other) for other, *_ in views[:view])


def test_a_view_depends_on_the_picture_its_number_and_the_seed_alone(folder: Path, tmp_path: Path) -> None:
    first = [make(folder, CROP, Shift())[10 + i][0] for i in range(10)]
    torch.manual_seed(7)
    backwards = make(folder, CROP, Shift())
    again = [backwards[10 + i][0] for i in range(9, -1, -1)][::-1]
    assert all(one.equal(other) for one, other in zip(first, again, strict=True))
    for other in (make(folder, CROP, Shift(), seed=1)[10][0], backwards[20][0]):
        assert not other.equal(first[0])

    for place, path in enumerate(backwards.paths):  # other names and another order
        target = tmp_path / path.parent.name / f"{9 - place}.png"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    renamed = make(tmp_path, CROP, Shift())
    found = {picture_digest(path): renamed[10 + i][0] for i, path in enumerate(renamed.paths)}
    assert all(found[picture_digest(path)].equal(first[i]) for i, path in enumerate(backwards.paths))


def test_views_leave_the_generators_alone(folder: Path) -> None:
    dataset = make(folder, CROP, Shift())

    def draw() -> tuple[float, float, float]:
        return torch.rand(()).item(), np.random.random(), random.random()  # noqa: NPY002

    def start() -> None:
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)

    start()
    expected = draw()
    start()
    dataset[13]
    assert draw() == expected


# Which view when


@pytest.mark.parametrize("views", [1, 4])
def test_each_epoch_deals_each_picture_once_in_a_view_that_is_drawn_anew(views: int) -> None:
    dataset = TensorDataset(torch.arange(50))
    sampler = ViewSampler(dataset, views, seed=3, num_replicas=1, rank=0)
    epochs = []
    for epoch in range(40):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert sorted(item % 50 for item in epochs[-1]) == list(range(50))
    drawn = Counter(item // 50 for epoch in epochs for item in epoch)
    assert set(drawn) == set(range(views))
    assert all(abs(count / 2000 - 1 / views) < 0.05 for count in drawn.values())
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == (1 if views == 1 else 40)

    again = ViewSampler(dataset, views, seed=3, num_replicas=1, rank=0)
    again.set_epoch(17)  # as of a run that is resumed
    assert list(again) == epochs[17]
    other = ViewSampler(dataset, views, seed=4, num_replicas=1, rank=0)
    other.set_epoch(17)
    assert list(other) != epochs[17]


def test_processes_deal_the_views_that_one_would() -> None:
    dataset = TensorDataset(torch.arange(50))
    whole = set(ViewSampler(dataset, 4, seed=3, num_replicas=1, rank=0))
    shares = [set(ViewSampler(dataset, 4, seed=3, num_replicas=2, rank=rank)) for rank in range(2)]
    assert shares[0] | shares[1] == whole
    assert not shares[0] & shares[1]


# Vectors in place of pictures


def test_vectors_come_with_the_labels_and_places_of_the_pictures(folder: Path, tmp_path: Path) -> None:
    pictures = make(folder)
    digests = [picture_digest(path) for path in pictures.paths]
    vectors = np.random.default_rng(0).normal(size=(3, 10, 7)).astype(np.float32)
    views = []
    for view in range(3):
        store = Store(tmp_path, {"view": view}, np.float32, 7)
        with store.adding() as add:
            add(digests, vectors[view])
        views.append(store.find(digests))
    dataset = FeatureDataset(pictures, StoredFeatures(views, (7,), torch.float32))
    assert len(dataset) == 10
    assert dataset.seconds == pytest.approx(sum(view.seconds for view in views))

    items = [25, 3, 13, 3, 29, 0]
    expected = torch.from_numpy(np.stack([vectors[i // 10, i % 10] for i in items]))
    (batch,) = DataLoader(dataset, 6, sampler=items, collate_fn=as_it_is)  # type: ignore[arg-type]
    assert isinstance(batch[0], Features)
    assert batch[0].values.equal(expected)
    assert batch[1].tolist() == [pictures.labels[i % 10] for i in items]
    assert batch[2].tolist() == [i % 10 for i in items]
    for i, item in enumerate(items):
        vector, label, place = dataset[item]
        assert vector.equal(expected[i])
        assert (label, place) == (pictures.labels[item % 10], item % 10)
    batch[0].values.zero_()  # a batch is the trainer's own
    assert dataset[3][0].equal(expected[1])


# Pictures to be classified


def test_a_bad_file_is_black_and_says_why(folder: Path, tmp_path: Path) -> None:
    good = next(folder.rglob("*.png"))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    dataset = UnlabelledDataset(PictureDataset(LabelledPictures([good, tmp_path / "bad.png"], [], []), 32))
    assert len(dataset) == 2
    assert dataset[0][0].equal(picture_values(read_picture(good), 32))
    assert dataset[0][1:] == (str(good), "")
    picture, path, reason = dataset[1]
    assert not picture.any()
    assert path == str(tmp_path / "bad.png")
    assert "not a picture" in reason
