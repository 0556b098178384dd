import os
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import chain, combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import refused, save_class, save_data_set, save_picture
from lightning.pytorch import LightningModule, Trainer
from PIL import Image, ImageEnhance
from torch import Tensor, nn

from gel_lightning import GelClassifier, GelDataModule, LinearHead
from gel_lightning.data import datamodule as module
from gel_lightning.data.duplicates import hash_pictures, picture_hashes

torch.set_num_threads(1)  # on tiny pictures several threads mostly wait for each other
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),  # Lightning's own
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
]


class Watcher(LightningModule):
    """A Lightning module that knows nothing of ours: it counts pixels, and keeps which pictures it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.orders: dict[int, list[int]] = {}
        self.tested: list[int] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        pictures, labels, indices = batch
        self.orders.setdefault(self.current_epoch, []).extend(indices.tolist())
        return nn.functional.cross_entropy(self.layer(pictures.mean(dim=(1, 2, 3)).unsqueeze(1)), labels)

    def validation_step(self, batch: Any, _: int) -> None: ...

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.tested += batch[2].tolist()

    def predict_step(self, batch: Any, _: int) -> Any:
        return batch[1]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make(train_dir: Path | None = None, **options: Any) -> GelDataModule:
    return GelDataModule(train_dir, **({"image_size": 32, "num_workers": 0, "batch_size": 5} | options))


def make_trainer(folder: Path, epochs: int = 1) -> Trainer:
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def names(data: GelDataModule) -> dict[str, list[str]]:
    return {part: [path.name for path in pictures.paths] for part, pictures in data.parts.items()}


def split(train_dir: Path, **options: Any) -> dict[str, list[str]]:
    data = make(train_dir, **options)
    data.setup("fit")
    return names(data)


# Which picture goes where


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of gels and ten others."""
    folder = tmp_path_factory.mktemp("unbalanced")
    save_class(folder / "gel", 30, 0, striped=True)
    save_class(folder / "not_gel", 10, 100, striped=False)
    return folder


@pytest.mark.parametrize("seed", range(4))
def test_parts_cover_all_pictures_once_and_are_stratified(unbalanced: Path, seed: int) -> None:
    data = make(unbalanced, seed=seed)
    data.setup("fit")
    parts = names(data)
    everything = sorted(path.name for path in unbalanced.glob("*/*"))
    assert sorted(chain(*parts.values())) == everything
    assert {part: len(pictures) for part, pictures in parts.items()} == {"train": 26, "val": 6, "test": 8}
    for part, pictures in data.parts.items():
        assert pictures.labels == [int(path.parent.name == "not_gel") for path in pictures.paths]
        assert abs(pictures.labels.count(1) - len(pictures.labels) / 4) < 1, part
    assert data.class_names == ("gel", "not_gel")
    assert data.train_class_counts == [parts_of(data, "train")["gel"], parts_of(data, "train")["not_gel"]]


def parts_of(data: GelDataModule, part: str) -> Counter[str]:
    return Counter(path.parent.name for path in data.parts[part].paths)


def test_split_depends_on_the_seed_and_the_pictures_alone(unbalanced: Path, tmp_path: Path) -> None:
    first = split(unbalanced, seed=1)
    np.random.seed(9)  # noqa: NPY002
    assert split(unbalanced, seed=1) == first
    (tmp_path / "elsewhere").symlink_to(unbalanced)
    assert split(tmp_path / "elsewhere", seed=1) == first
    assert split(unbalanced, seed=2) != first


def test_fractions_are_those_asked_for(unbalanced: Path) -> None:
    parts = split(unbalanced, val_fraction=0.5, test_fraction=0.1)
    assert {part: len(pictures) for part, pictures in parts.items()} == {"train": 18, "val": 18, "test": 4}
    for option in ("val_fraction", "test_fraction"):
        for fraction in (0, 1, 1.5, -0.1):
            assert str(fraction) in refused(lambda: split(unbalanced, **{option: fraction}))  # noqa: B023


def test_near_identical_pictures_are_on_one_side(tmp_path: Path) -> None:
    for label, kind in enumerate(("gel", "not_gel")):
        for number in range(8):
            path = tmp_path / kind / f"{number}_original.png"
            save_picture(path, 100 * label + number, striped=kind == "gel")
            picture = Image.open(path)
            picture.resize((80, 72)).save(path.with_name(f"{number}_larger.png"))
            ImageEnhance.Brightness(picture).enhance(0.9).save(path.with_name(f"{number}_darker.jpg"), quality=80)
    for seed in range(5):
        data = make(tmp_path, seed=seed)
        data.setup("fit")
        sides: dict[str, set[str]] = {}
        for part, pictures in data.parts.items():
            assert len(pictures.paths) >= 6
            for path in pictures.paths:
                sides.setdefault(f"{path.parent.name}/{path.name.split('_')[0]}", set()).add(part)
        assert {len(parts) for parts in sides.values()} == {1}


@pytest.mark.real
def test_near_identical_real_pictures_are_on_one_side(shared: Path) -> None:
    data = make(shared / "gel" / "dataset")
    data.setup("fit")
    hashes = {part: picture_hashes(hash_pictures(pictures.paths)) for part, pictures in data.parts.items()}
    assert sum(map(len, hashes.values())) == 92
    for one, other in combinations(hashes.values(), 2):
        distances = [(int(a[0]) ^ int(copy)).bit_count() for a in one for b in other for copy in b]
        assert min(distances) > 4


def test_test_pictures_of_their_own_folder(train_dir: Path, test_dir: Path) -> None:
    data = make(train_dir, test_dir=test_dir)
    data.setup("fit")
    parts = names(data)
    assert parts["test"] == sorted(path.name for path in test_dir.glob("*/*"))
    assert sorted(parts["train"] + parts["val"]) == sorted(path.name for path in train_dir.glob("*/*"))
    before = names(data)
    data.setup("test")
    assert names(data) == before


def test_testing_reads_the_test_folder_alone(tmp_path: Path, test_dir: Path) -> None:
    data = make(tmp_path / "absent", test_dir=test_dir)
    watcher = Watcher()
    make_trainer(tmp_path).test(watcher, datamodule=data, verbose=False)
    assert watcher.tested == list(range(8))
    assert "absent" in refused(lambda: data.setup("fit"))


# Cross-validation


@pytest.fixture(scope="module")
def triplets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of each class, each in three forms."""
    folder = tmp_path_factory.mktemp("triplets")
    for label, kind in enumerate(("gel", "not_gel")):
        for number in range(12):
            path = folder / kind / f"{number}_original.png"
            save_picture(path, 100 * label + number, striped=kind == "gel")
            picture = Image.open(path)
            picture.resize((80, 72)).save(path.with_name(f"{number}_larger.png"))
            ImageEnhance.Brightness(picture).enhance(0.9).save(path.with_name(f"{number}_darker.jpg"), quality=80)
    return folder


def original(path: Path) -> str:
    return f"{path.parent.name}/{path.name.split('_')[0]}"


@pytest.mark.parametrize("own_test_folder", [True, False])
@pytest.mark.parametrize(("folds", "repeats"), [(2, 1), (4, 3)])
def test_each_picture_is_cross_validated_once_in_each_repeat(
    folds: int, repeats: int, own_test_folder: bool, triplets: Path, test_dir: Path
) -> None:
    data = make(triplets, test_dir=test_dir if own_test_folder else None)
    data.setup("fit")
    plain = dict(data.parts)
    own = sorted(plain["train"].paths + plain["val"].paths)
    fits = data.cross_validation(folds, repeats)
    assert data.parts == plain
    assert len(fits) == folds * repeats
    for parts in fits:
        assert list(parts) == ["train", "val", "test"]
        paths = [set(pictures.paths) for pictures in parts.values()]
        assert sorted(chain(*paths)) == own, "a test picture is among them, or one is missing"
        sides = [{original(path) for path in some} for some in paths]
        assert not any(one & other for one, other in combinations(sides, 2)), "the same picture is on two sides"
        for part, pictures in parts.items():
            assert pictures.labels == [int(path.parent.name == "not_gel") for path in pictures.paths]
            assert pictures.class_names == ["gel", "not_gel"]
            assert pictures.paths == sorted(pictures.paths)
            assert abs(pictures.labels.count(0) - pictures.labels.count(1)) <= 3, part
        assert len(parts["val"].paths) == pytest.approx(len(parts["train"].paths + parts["val"].paths) / 5, abs=3)
    tested = [parts["test"].paths for parts in fits]
    for repeat in range(repeats):
        assert sorted(chain(*tested[repeat * folds : (repeat + 1) * folds])) == own
    assert len(set(map(tuple, tested))) == folds * repeats


def test_folds_depend_on_the_seed_and_the_pictures_alone(triplets: Path, tmp_path: Path) -> None:
    def dealt(folder: Path, seed: int, repeats: int = 2) -> list[dict[str, list[str]]]:
        data = make(folder, seed=seed)
        data.setup("fit")
        fits = data.cross_validation(3, repeats)
        return [{part: list(map(original, pictures.paths)) for part, pictures in parts.items()} for parts in fits]

    first = dealt(triplets, 1)
    np.random.seed(9)  # noqa: NPY002
    (tmp_path / "elsewhere").symlink_to(triplets)
    assert dealt(tmp_path / "elsewhere", 1) == first
    assert dealt(triplets, 1, repeats=3)[:6] == first
    assert dealt(triplets, 2) != first


def test_pictures_are_read_once_whatever_is_asked_of_them(
    triplets: Path, test_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def hashes(paths: list[Path]) -> Any:
        read.extend(paths)
        return hash_pictures(paths)

    monkeypatch.setattr(module, "hash_pictures", hashes)
    data = make(triplets, test_dir=test_dir, cache_features=False)
    data.setup("fit")
    data.cross_validation(2, 2)
    data.near_duplicates()
    assert sorted(read) == sorted([*triplets.glob("*/*"), *test_dir.glob("*/*")])


def test_folds_of_too_few_pictures_are_an_error_of_one_line(
    unbalanced: Path, triplets: Path, test_dir: Path, tmp_path: Path
) -> None:
    data = make(unbalanced)  # eight of the ten others are left, and two of them in validation
    data.setup("fit")
    assert refused(lambda: data.cross_validation(9, 1)).startswith(
        "class not_gel has 8 different pictures, too few for 9"
    )
    assert len(data.cross_validation(8, 1)) == 8
    assert refused(lambda: data.cross_validation(1, 1)).startswith("1 folds, repeated 1 times: give 2 folds or more")
    data = make(triplets, val_fraction=0.5, test_fraction=0.8)
    data.setup("fit")
    assert "class gel has 2 different pictures" in refused(lambda: data.cross_validation(3, 1))
    data = make(save_data_set(tmp_path, 3), test_dir=test_dir)  # enough for two folds, but not for validation too
    data.setup("fit")
    text = refused(lambda: data.cross_validation(2, 1))
    assert "(pictures: 1, different ones: 1) cannot be on both sides of a split: add different pictures of it" in text


def test_near_duplicates_of_all_parts_are_listed(
    triplets: Path, train_dir: Path, test_dir: Path, tmp_path: Path
) -> None:
    data = make(triplets)
    data.setup("fit")
    groups = data.near_duplicates()
    assert {frozenset(map(original, group)) for group in groups} == {
        frozenset([f"{kind}/{number}"]) for kind in ("gel", "not_gel") for number in range(12)
    }
    assert sorted(chain(*groups)) == sorted(triplets.glob("*/*"))

    data = make(train_dir, test_dir=test_dir)
    data.setup("fit")
    assert data.near_duplicates() == []
    for kind, number in (("gel", 3), ("not_gel", 1)):
        (tmp_path / kind).mkdir()
        Image.open(train_dir / kind / f"{kind}_{number}.png").resize((90, 90)).save(tmp_path / kind / "again.png")
    data = make(train_dir, test_dir=tmp_path)  # a test picture that was trained on must show
    data.setup("fit")
    assert sorted(data.near_duplicates()) == [
        [train_dir / "gel/gel_3.png", tmp_path / "gel/again.png"],
        [train_dir / "not_gel/not_gel_1.png", tmp_path / "not_gel/again.png"],
    ]


@pytest.mark.real
def test_near_identical_real_pictures_share_a_fold(shared: Path) -> None:
    data = make(shared / "gel" / "dataset", test_dir=shared / "gel" / "other_labs")
    data.setup("fit")
    pairs = data.near_duplicates()
    assert [len(pair) for pair in pairs] == [2] * 19
    for parts in data.cross_validation(5, 2):
        assert sum(len(pictures.paths) for pictures in parts.values()) == 92
        for pair in pairs:
            assert sorted(len(set(pair) & set(pictures.paths)) for pictures in parts.values()) == [0, 0, 2]
        assert [parts["test"].labels.count(label) for label in (0, 1)] == pytest.approx([9.2, 9.2], abs=1)


# What comes out of the loaders


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory, train_dir: Path) -> Path:
    """The pictures of train_dir at 32 x 32 pixels."""
    folder = tmp_path_factory.mktemp("square")
    for path in train_dir.glob("*/*"):
        (folder / path.parent.name).mkdir(exist_ok=True)
        Image.open(path).resize((32, 32)).save(folder / path.parent.name / path.name)
    return folder


def test_batch_holds_grey_pictures_in_0_to_1_their_labels_and_indices(square: Path) -> None:
    data = make(square)
    data.setup("fit")
    for part in ("train", "val", "test"):
        loader = getattr(data, f"{part}_dataloader")()
        batches = list(loader)
        assert [len(batch) for batch in batches] == [3] * len(batches)
        pictures, labels, indices = (torch.cat(column) for column in zip(*batches, strict=True))
        assert all(len(batch[0]) == 5 for batch in batches[:-1])
        assert pictures.dtype == torch.float32
        assert pictures.shape == (len(data.parts[part].paths), 1, 32, 32)
        assert labels.dtype == torch.int64
        for picture, label, index in zip(pictures, labels.tolist(), indices.tolist(), strict=True):
            path = data.parts[part].paths[index]
            assert data.class_names is not None
            assert path.parent.name == data.class_names[label]
            torch.testing.assert_close(picture[0] * 255, torch.tensor(np.asarray(Image.open(path))).float())
        in_order = indices.tolist() == list(range(len(indices)))
        assert in_order == (part != "train")


def test_workers_give_what_none_gives(train_dir: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "good.png", 1, striped=True)
    (tmp_path / "bad.png").write_bytes(b"")
    batches = {}
    for workers in (0, 1):
        data = make(train_dir, num_workers=workers, predict_dir=tmp_path)
        data.setup("fit")
        data.setup("predict")
        train = data.train_dataloader()
        got = [*train]
        train.sampler.set_epoch(1)
        batches[workers] = [*got, *train, *data.val_dataloader(), *data.test_dataloader(), *data.predict_dataloader()]
    assert len(batches[0]) == len(batches[1]) > 8
    for none, one in zip(batches[0], batches[1], strict=True):
        assert len(none) == len(one) == 3
        for left, right in zip(none, one, strict=True):
            assert left.equal(right) if isinstance(left, Tensor) else left == right


def test_order_of_training_pictures_depends_on_seed_and_epoch_alone(train_dir: Path, tmp_path: Path) -> None:
    def orders(epochs: int, seed: int = 3, ckpt_path: Path | None = None) -> dict[int, list[int]]:
        watcher, trainer = Watcher(), make_trainer(tmp_path, epochs)
        trainer.fit(watcher, datamodule=make(train_dir, seed=seed), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return watcher.orders

    torch.manual_seed(0)
    whole = orders(4)
    assert len({tuple(order) for order in whole.values()}) == 4
    pictures = len(split(train_dir, seed=3)["train"])
    assert all(sorted(order) == list(range(pictures)) for order in whole.values())
    torch.manual_seed(1)
    begun = orders(2)
    torch.manual_seed(2)
    resumed = orders(4, ckpt_path=tmp_path / "2.ckpt")
    assert sorted(resumed) == [2, 3]
    assert begun | resumed == whole
    assert orders(1, seed=4)[0] != whole[0]


# Pictures to be classified


def test_pictures_of_any_depth_are_classified_and_bad_ones_say_why(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for number, place in enumerate(("a.png", "b/c/d.PNG", "z.tif")):
        save_picture(folder / place, number, striped=True)
    (folder / "b" / "empty.jpg").write_bytes(b"")
    (folder / "b" / "text.png").write_bytes(b"not a picture")
    (folder / "notes.txt").write_bytes(b"no picture by its name")
    data = make(predict_dir=folder)
    got = make_trainer(tmp_path).predict(Watcher(), datamodule=data)
    assert got is not None
    expected = [str(folder / place) for place in ("a.png", "b/c/d.PNG", "b/empty.jpg", "b/text.png", "z.tif")]
    assert list(got[0]) == expected
    pictures, paths, errors = next(iter(data.predict_dataloader()))
    assert list(paths) == expected
    assert [bool(error) for error in errors] == [False, False, True, True, False]
    assert errors[2] == "is empty (0 bytes)"
    assert "not a picture" in errors[3]
    assert [bool(picture.any()) for picture in pictures] == [True, True, False, False, True]
    assert pictures.shape == (5, 1, 32, 32)


def test_single_picture_is_classified_whatever_its_name(tmp_path: Path) -> None:
    save_picture(tmp_path / "scan.png", 1, striped=True)
    (tmp_path / "scan.png").rename(tmp_path / "scan.of.tuesday")
    data = make(predict_dir=str(tmp_path / "scan.of.tuesday"))
    data.setup("predict")
    ((pictures, paths, errors),) = data.predict_dataloader()
    assert pictures.shape == (1, 1, 32, 32)
    assert pictures.any()
    assert (list(paths), list(errors)) == ([str(tmp_path / "scan.of.tuesday")], [""])


def test_fewer_pictures_to_classify_than_processes_are_one_line(tmp_path: Path) -> None:
    save_class(tmp_path / "pictures", 1, 9000, striped=True)
    data = make(predict_dir=tmp_path / "pictures")
    data.setup("predict")
    data.trainer = SimpleNamespace(world_size=2)  # type: ignore[assignment]
    assert refused(data.predict_dataloader) == "1 pictures are too few for 2 processes; give --trainer.devices 1"


# Errors


def test_folders_that_will_not_do_are_errors_of_one_line(train_dir: Path, tmp_path: Path) -> None:
    assert "absent" in refused(lambda: make(tmp_path / "absent").setup("fit"))
    assert "absent" in refused(lambda: make(train_dir, test_dir=tmp_path / "absent").setup("fit"))
    assert "absent" in refused(lambda: make(predict_dir=tmp_path / "absent").setup("predict"))
    assert "--data.predict_dir" in refused(lambda: make(train_dir).setup("predict"))
    for number in range(3):
        save_picture(tmp_path / "one" / "gel" / f"{number}.png", number, striped=True)
    assert "only the class folder gel" in refused(lambda: make(tmp_path / "one").setup("fit"))
    (tmp_path / "one" / "not_gel").mkdir()
    assert str(tmp_path / "one" / "not_gel") in refused(lambda: make(tmp_path / "one").setup("fit"))
    (tmp_path / "nothing").mkdir()
    assert "nothing" in refused(lambda: make(predict_dir=tmp_path / "nothing").setup("predict"))


def test_class_names_are_known_before_anything_is_read(
    train_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert GelDataModule().class_names == GelDataModule(drawn=True).class_names == ("gel", "not_gel")
    assert not list(tmp_path.iterdir())
    for place in ("pictures/photo/a.png", "pictures/blot/b.png", "data/drawn/dataset/x/c.png"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_bytes(b"no picture")
    data = GelDataModule("pictures")
    assert data.class_names == ("blot", "photo")
    (tmp_path / "pictures/another").mkdir()
    assert data.class_names == ("another", "blot", "photo")
    assert "only the class folder x" in refused(lambda: GelDataModule(drawn=True).class_names)
    assert "absent" in refused(lambda: GelDataModule("absent").class_names)
    assert make(train_dir).class_names == ("gel", "not_gel")


def test_pictures_to_test_on_may_lack_a_class(train_dir: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "not_gel/1.png", 1, striped=False)
    data = make(train_dir, test_dir=tmp_path)
    data.setup("fit")
    assert (data.parts["test"].labels, data.parts["test"].class_names) == ([1], ["gel", "not_gel"])


def test_test_folder_of_other_classes_is_refused(train_dir: Path, tmp_path: Path) -> None:
    for number, kind in enumerate(("gel", "blot")):
        save_picture(tmp_path / kind / "1.png", number, striped=True)
    text = refused(lambda: make(train_dir, test_dir=tmp_path).setup("fit"))
    assert "missing: not_gel; extra: blot" in text


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "test alone"])
def test_all_unreadable_pictures_are_named_at_once(stage: str, tmp_path: Path) -> None:
    folders = {part: save_data_set(tmp_path / part, 3) for part in ("train", "test")}
    bad = [folders["test"] / "gel" / "gel_1.png", folders["test"] / "not_gel" / "bad.jpg"]
    if stage != "test alone":
        bad.append(folders["train"] / "gel" / "gel_0.png")
    for path in bad:
        path.write_bytes(b"damaged")
    data = make(folders["train"], test_dir=folders["test"])
    if stage == "test":
        data.test_folders = {}
        bad = bad[2:]
    text = refused(lambda: data.setup(stage.split()[0]))
    assert f"{len(bad)} picture" in text
    assert all(str(path) in text for path in bad)


def test_default_number_of_workers_is_for_the_cores_that_may_be_used(
    train_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for cores, workers in ((64, 4), (3, 2), (2, 1), (1, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        data = GelDataModule(train_dir)
        assert data.num_workers == workers
        data.setup("fit")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data.train_dataloader()  # PyTorch warns of more workers than cores


# The default pictures


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An empty working folder; and what was downloaded or drawn in it, tiny pictures in either case."""
    monkeypatch.chdir(tmp_path)
    calls: list[str] = []

    def making(what: str) -> Callable[[Path], Path]:
        def make_pictures(root: Path) -> Path:
            calls.append(what)
            save_data_set(root / "dataset", 5)
            save_data_set(root / "test_images", 2, seed=500)
            return root

        return make_pictures

    monkeypatch.setattr(module, "download_originals", making("downloaded"))
    monkeypatch.setattr(module, "draw_data_set", making("drawn"))
    return calls


@pytest.mark.parametrize(("drawn", "what"), [(False, "downloaded"), (True, "drawn")])
def test_default_pictures_are_made_once_and_have_a_test_part(
    made: list[str], drawn: bool, what: str, tmp_path: Path
) -> None:
    for _ in range(2):
        data = make(drawn=drawn)
        make_trainer(tmp_path).fit(Watcher(), datamodule=data)
        assert made == [what]
    folder = Path("data", "drawn" if drawn else "gel_electrophoresis")
    assert {path.parents[1] for path in data.parts["test"].paths} == {folder / "test_images"}
    assert {path.parents[1] for path in data.parts["train"].paths} == {folder / "dataset"}
    assert len(data.parts["train"].paths) + len(data.parts["val"].paths) == 10
    assert len(data.parts["test"].paths) == 4


def test_default_pictures_are_not_made_where_they_are_not_needed(
    made: list[str], train_dir: Path, test_dir: Path, tmp_path: Path
) -> None:
    trainer, watcher = make_trainer(tmp_path), Watcher()
    trainer.predict(watcher, datamodule=make(predict_dir=test_dir))
    trainer.test(watcher, datamodule=make(test_dir=test_dir), verbose=False)
    trainer.test(watcher, datamodule=make(train_dir), verbose=False)
    trainer.fit(watcher, datamodule=make(train_dir))
    assert made == []
    assert not Path("data").exists()
    trainer.test(watcher, datamodule=make(), verbose=False)
    assert made == ["downloaded"]


def test_default_pictures_with_a_test_folder_of_ones_own(made: list[str], test_dir: Path, tmp_path: Path) -> None:
    data = make(test_dir=test_dir)
    make_trainer(tmp_path).fit(Watcher(), datamodule=data)
    assert made == ["downloaded"]
    assert len(data.parts["test"].paths) == 8


# What a checkpoint keeps


def test_checkpoint_brings_back_size_and_split(unbalanced: Path, tmp_path: Path) -> None:
    """A model is never tested on pictures it was trained on, though seed and size are not given again."""
    data = make(unbalanced, image_size=24, seed=7, val_fraction=0.3, test_fraction=0.3)
    trainer = make_trainer(tmp_path, 2)
    torch.manual_seed(0)
    model = GelClassifier("resnet18", "none", LinearHead)
    trainer.fit(model, datamodule=data)
    path = trainer.checkpoint_callback.best_model_path
    (metrics,) = trainer.test(model, datamodule=data, ckpt_path=path, verbose=False)

    fresh = make(unbalanced, image_size=48)
    fresh.setup("test")
    assert set(names(fresh)["test"]) & set(names(data)["train"]), "the test part would be the same anyway"
    (again,) = make_trainer(tmp_path).test(
        GelClassifier.load_from_checkpoint(path), datamodule=fresh, ckpt_path=path, verbose=False
    )
    assert again == metrics
    assert names(fresh) == names(data)
    assert next(iter(fresh.test_dataloader()))[0].shape[-1] == 24


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("batch_size", [0, 10**7]),
        ("image_size", [0, -1, 100_000]),
        ("num_workers", [-1, 10**20]),
        ("views", [0, 10**9]),
        ("val_fraction", [0, 1, -0.1, 1.5, float("nan"), float("inf")]),
        ("test_fraction", [0, 1, -0.1, 1.5, float("nan"), float("inf")]),
    ],
)
def test_a_number_out_of_range_is_an_error_that_names_the_option(name: str, values: list[Any]) -> None:
    for value in values:
        options: dict[str, Any] = {name: value}
        range_ = "above 0 and below 1" if name.endswith("fraction") else "from"
        assert f"--data.{name} is {value}; give a number {range_}" in refused(
            lambda options=options: GelDataModule(**options)
        )
