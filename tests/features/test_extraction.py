import functools
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import (
    FIT,
    TINY,
    Ran,
    file_size_limit,
    gel_fit,
    read_rows,
    refused,
    save_class,
    save_picture,
)
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn, optim
from torchvision.models import get_model
from torchvision.transforms import v2

from gel_lightning import GelClassifier, GelDataModule, LinearHead, MultiLayerHead
from gel_lightning.core import store as store_module
from gel_lightning.core.store import Store, list_stores
from gel_lightning.data.datasets import Features, PictureDataset, picture_values
from gel_lightning.data.images import picture_digest, read_picture
from gel_lightning.models.network import Trunk, load_trunk

torch.set_num_threads(1)  # on tiny pictures several threads mostly wait for each other
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),  # Lightning's own
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
]

SGD = partial(optim.SGD, lr=0.01, momentum=0.9)
ADAM = partial(optim.Adam, lr=0.001)


class Record(Callback):
    """Keeps every batch's labels, places and loss, of training and of validation."""

    def __init__(self) -> None:
        self.orders: list[list[int]] = []
        self.losses: list[float] = []
        self.shapes: set[int] = set()
        self.metrics = self.predictions = torch.empty(0)
        self.computed = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        self.orders.append([*batch[1].tolist(), *batch[2].tolist()])
        self.losses.append(outputs["loss"].item())
        self.shapes.add(batch[0].values.ndim if isinstance(batch[0], Features) else batch[0].ndim)

    def on_validation_batch_end(self, *args: Any) -> None:
        self.on_train_batch_end(*args[:5])


def data_of(folder: Path, cache_dir: Path | None, **options: Any) -> GelDataModule:
    """A data module that keeps vectors in a folder, or nowhere."""
    options = {"image_size": 32, "num_workers": 0, "batch_size": 5, "predict_dir": folder} | options
    return GelDataModule(folder, cache_features=cache_dir is not None, cache_dir=cache_dir, **options)


def make_trainer(folder: Path, *callbacks: Callback, epochs: int = 2, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


def fit(
    data: GelDataModule,
    folder: Path,
    backbone: str = "resnet18",
    head: Any = MultiLayerHead,
    optimizer: Any = SGD,
    weights: str = "none",
    **options: Any,
) -> Record:
    """Trains, tests and, if there are pictures to be classified, predicts; always from the same random numbers."""
    torch.manual_seed(0)
    record = Record()
    model = GelClassifier(backbone, weights, head, optimizer, class_names=["gel", "not_gel"])
    trainer = make_trainer(folder, record, **options)
    trainer.fit(model, datamodule=data)
    (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    record.metrics = torch.tensor(list(metrics.values()))
    if data.predict_dir:
        record.predictions = torch.cat(trainer.predict(model, datamodule=data))  # type: ignore[arg-type]
    record.computed = data.cache.computed if data.cache else 0
    return record


def assert_alike(one: Record, other: Record) -> None:
    """The same pictures in the same order, and losses and predictions that differ by rounding alone."""
    assert one.orders == other.orders
    assert all(np.isfinite(one.losses))
    assert len(set(one.losses)) > 3, "nothing is learned, and so nothing compared"
    np.testing.assert_allclose(one.losses, other.losses, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.metrics, other.metrics, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.predictions, other.predictions, rtol=0, atol=1e-5)


@pytest.fixture(autouse=True)
def built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random backbones are always the same, and one takes a second."""
    monkeypatch.setattr("gel_lightning.models.network.load_trunk", built)


@functools.cache
def built(*of: Any) -> Trunk:
    return load_trunk(*of)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when this is called on, no picture may be decoded and no backbone built."""

    def fail(*_: object) -> None:
        raise AssertionError("a picture was decoded, or a backbone built")

    def forbid() -> None:
        monkeypatch.setattr("gel_lightning.data.images._opened", fail)
        monkeypatch.setattr("gel_lightning.models.network.load_trunk", fail)
        monkeypatch.setattr("gel_lightning.models.network.Trunk.forward", fail)

    return forbid


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, train_dir: Path) -> tuple[Path, Record]:
    """A folder of stores that a run has filled, and what that run gave."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gel_lightning.models.network.load_trunk", built)
        return folder, fit(data_of(train_dir, folder), folder)


# The same as without


@pytest.mark.parametrize(
    ("backbone", "optimizer"),
    [
        pytest.param("resnet18", SGD, id="resnet18-SGD"),
        pytest.param("mobilenet_v3_large", ADAM, id="mobilenet_v3_large-Adam"),  # has dropout before the last layer
    ],
)
def test_a_fit_is_the_same_as_without_the_store(backbone: str, optimizer: Any, train_dir: Path, tmp_path: Path) -> None:
    plain = fit(data_of(train_dir, None), tmp_path, backbone, optimizer=optimizer)
    assert plain.shapes == {4}
    for computed in (20, 0):  # filling the store, and from it
        kept = fit(data_of(train_dir, tmp_path / "cache"), tmp_path, backbone, optimizer=optimizer)
        assert kept.shapes == {2}
        assert kept.computed == computed
        assert_alike(kept, plain)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions_are_alike_too(precision: Any, train_dir: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.undo()  # a backbone is converted for good
    records = [
        fit(data_of(train_dir, cache), tmp_path, epochs=1, precision=precision) for cache in (None, tmp_path / "cache")
    ]
    assert records[0].orders == records[1].orders
    tolerance = 1e-5 if precision == "64-true" else 0.02
    np.testing.assert_allclose(records[0].losses, records[1].losses, rtol=0, atol=tolerance)
    (features,) = (store.key for store in list_stores(tmp_path / "cache") if store.key["kind"] == "features")
    assert features["precision"] == precision


def test_views_are_the_same_as_without_the_store(train_dir: Path, tmp_path: Path) -> None:
    plain, kept, again, other = (
        fit(data_of(train_dir, cache, views=3, seed=seed), tmp_path)
        for cache, seed in ((None, 5), (tmp_path, 5), (tmp_path, 5), (tmp_path, 6))
    )
    assert_alike(kept, plain)
    assert_alike(again, plain)
    # Of the training pictures each view, of all others but the picture itself.
    training = len(set(itertools.chain(*(order[len(order) // 2 :] for order in plain.orders))))
    assert kept.computed == 3 * training + (20 - training)
    assert again.computed == 0
    assert other.computed > 0, "views depend on the seed"
    assert fit(data_of(train_dir, tmp_path, seed=5), tmp_path).losses != kept.losses


def test_augmentation_is_the_one_of_the_config(train_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "flip.yaml").write_text(
        "data: {views: 2, augmentation: [{class_path: torchvision.transforms.v2.RandomVerticalFlip,"
        " init_args: {p: 1.0}}]}\n"
    )
    options = (*TINY, "--data.train_dir", train_dir, "--trainer.logger", "false", "--trainer.max_epochs", "1")
    for _ in range(2):
        ran = gel_fit("fit", "--config", "flip.yaml", *options, "--data.cache_dir", "cache", cwd=tmp_path)
        assert (ran.status, ran.err) == (0, "")
    assert "feature vectors" not in ran.out
    stores = [store for store in list_stores(tmp_path / "cache") if store.key.get("view") == 1]
    (contents,) = stores
    data = data_of(train_dir, None)
    data.setup("fit")
    store = Store(tmp_path / "cache", contents.key, np.float32, 512)
    paths = data.parts["train"].paths
    vectors = store.find([picture_digest(path) for path in paths]).take(range(len(paths)))
    transform = v2.Compose([partial(picture_values, image_size=32), v2.RandomVerticalFlip(1.0)])
    expected = built("resnet18", "none")(torch.stack([transform(read_picture(path)) for path in paths]))
    torch.testing.assert_close(torch.from_numpy(vectors), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("views", ["0", "-1"])
def test_views_that_will_not_do(views: str, train_dir: Path, tmp_path: Path) -> None:
    ran = gel_fit("fit", *FIT, "--data.train_dir", train_dir, "--data.views", views, cwd=tmp_path)
    assert_error(ran, f"views is {views}", "--data.views")


# Little memory


@pytest.mark.parametrize("fits", [3, 1])
def test_a_batch_that_does_not_fit_is_halved(
    fits: int, train_dir: Path, tmp_path: Path, filled: tuple[Path, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, sizes = Trunk.forward, []

    def limited(backbone: Trunk, pictures: torch.Tensor) -> torch.Tensor:
        if len(pictures) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(pictures))
        return forward(backbone, pictures)

    monkeypatch.setattr(Trunk, "forward", limited)
    record = fit(data_of(train_dir, tmp_path / "cache", predict_dir=None), tmp_path)
    assert record.computed == sum(sizes) == 20
    assert max(sizes) == fits
    assert record.orders == filled[1].orders
    np.testing.assert_allclose(record.losses, filled[1].losses, rtol=0, atol=1e-5)


def test_too_little_memory_for_one_picture_is_an_error(
    train_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trunk, "forward", limited)
    text = refused(lambda: fit(data_of(train_dir, tmp_path / "cache"), tmp_path))
    assert "too little memory" in text
    assert "--trainer.accelerator cpu" in text


# Nothing is computed twice


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"head": LinearHead},
        {"optimizer": ADAM},
        {"epochs": 1},
        {"data": {"seed": 1}},
        {"data": {"val_fraction": 0.4, "test_fraction": 0.3}},
        {"data": {"batch_size": 3}},
    ],
    ids=str,
)
def test_nothing_is_decoded_and_no_backbone_built_again(
    change: dict[str, Any],
    filled: tuple[Path, Record],
    train_dir: Path,
    tmp_path: Path,
    no_work: Callable[[], None],
) -> None:
    no_work()
    folder, first = filled
    options = {"predict_dir": None} | change.get("data", {})  # what is predicted is not kept
    again = fit(data_of(train_dir, folder, **options), tmp_path, **{k: v for k, v in change.items() if k != "data"})
    assert again.computed == 0
    assert (again.losses == first.losses) == (not change)


def test_a_whole_second_command_needs_no_picture_and_no_backbone(
    pictures: tuple[object, ...], tmp_path: Path, no_work: Callable[[], None]
) -> None:
    """With its TensorBoard pages, its validation and its test."""
    options = (*FIT, *pictures, "--data.cache_dir", "cache", "--trainer.max_epochs", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gel_lightning.training.tensorboard_pages.TensorBoardPages._draw", lambda *_: None)
        first = gel_fit("fit", *options, cwd=tmp_path)
    assert (first.status, first.err) == (0, "")
    assert "\n20 feature vectors computed in " in first.out  # the other 8 when they are tested
    no_work()
    for more in ((), ("--model.head", "LinearHead", "--model.optimizer", "Adam", "--seed_everything", "7")):
        with pytest.MonkeyPatch.context() as patch:
            if more:  # pages of one run will do
                patch.setattr("gel_lightning.training.tensorboard_pages.TensorBoardPages._draw", lambda *_: None)
            ran = gel_fit("fit", *options, *more, cwd=tmp_path)
        assert (ran.status, ran.err) == (0, "")
        assert "feature vectors" not in ran.out
    rows = read_rows(tmp_path / "lightning_logs/results.csv")
    assert [row["val_loss"] == rows[0]["val_loss"] for row in rows] == [True, True, False]
    checkpoint = next(tmp_path.glob("lightning_logs/*/version_0/checkpoints/best.ckpt"))
    for command in ("validate", "test"):
        ran = gel_fit(command, "--ckpt_path", checkpoint, *pictures, *TINY, "--data.cache_dir", "cache", cwd=tmp_path)
        assert (ran.status, ran.err) == (0, "")


def test_ten_more_pictures_are_ten_more_vectors(train_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(train_dir, tmp_path / "pictures")
    assert fit(data_of(folder, tmp_path / "cache"), tmp_path).computed == 20
    save_class(folder / "gel", 16, 0, striped=True)  # the first ten are as they were
    save_class(folder / "not_gel", 14, 1000, striped=False)
    for computed in (10, 0):
        assert fit(data_of(folder, tmp_path / "cache"), tmp_path).computed == computed


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"backbone": "mobilenet_v2"}, id="backbone"),
        pytest.param({"data": {"image_size": 40}}, id="size"),
        pytest.param({"precision": "bf16-mixed"}, id="precision"),
        pytest.param("gel_lightning.features.extraction.DECODING", id="decoding"),
        pytest.param("torchvision.__version__", id="resizing"),
        pytest.param("torch.__version__", id="torch"),
        pytest.param("weights", id="weights"),
        pytest.param("pictures", id="pictures"),
    ],
)
def test_vectors_are_computed_anew_when_what_they_depend_on_changes(
    change: Any,
    filled: tuple[Path, Record],
    train_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, options = train_dir, change if isinstance(change, dict) else {}
    if change == "weights":
        torch.save(get_model("resnet18", weights=None).state_dict(), tmp_path / "weights.pth")
        options = {"weights": str(tmp_path / "weights.pth")}
    elif change == "pictures":
        folder = shutil.copytree(train_dir, tmp_path / "pictures")
        for number, path in enumerate(sorted(folder.rglob("*.png"))):
            save_picture(path, 7000 + number, striped=number < 10)
    elif isinstance(change, str):
        monkeypatch.setattr(change, "another version")
    cache = shutil.copytree(filled[0], tmp_path / "cache", dirs_exist_ok=True)
    assert fit(data_of(folder, cache, **options.pop("data", {})), tmp_path, epochs=1, **options).computed == 20


# Pictures and weights that change meanwhile


def test_a_picture_that_is_replaced_meanwhile_is_never_taken_for_the_one_before(
    train_dir: Path, tmp_path: Path, filled: tuple[Path, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(train_dir, tmp_path / "pictures")
    data = data_of(folder, tmp_path / "kept in memory")
    data.setup("fit")
    save_picture(data.parts["train"].paths[3], 7000, striped=True)
    assert_alike(fit(data, tmp_path), filled[1])

    shutil.rmtree(folder)
    shutil.copytree(train_dir, folder)
    monkeypatch.setattr("gel_lightning.data.cache.KEPT_BYTES", 0)
    data = data_of(folder, tmp_path / "cache")
    data.setup("fit")
    replaced = data.parts["train"].paths[3]
    save_picture(replaced, 7000, striped=True)
    text = refused(lambda: fit(data, tmp_path))
    assert text.startswith(f"{replaced}: was changed meanwhile")
    record = fit(data_of(folder, tmp_path / "cache"), tmp_path)
    assert record.computed < 20
    assert_alike(record, fit(data_of(folder, None), tmp_path))


def test_a_picture_that_cannot_be_read_any_more_is_named(
    train_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gel_lightning.data.cache.KEPT_BYTES", 0)
    folder = shutil.copytree(train_dir, tmp_path / "pictures")
    data = data_of(folder, tmp_path / "cache")
    data.setup("fit")
    data.parts["train"].paths[3].unlink()
    assert refused(lambda: fit(data, tmp_path)).startswith(str(data.parts["train"].paths[3]))


# Damage, and runs that end before their time


def test_a_damaged_store_is_mended(filled: tuple[Path, Record], train_dir: Path, tmp_path: Path) -> None:
    folder, first = filled
    rng = random.Random(0)
    for _ in range(4):
        cache = shutil.copytree(folder, tmp_path / "cache")
        for path in cache.rglob("*.*"):
            content = bytearray(path.read_bytes())
            at = rng.randrange(len(content))
            content[at] ^= rng.randrange(1, 256)
            path.write_bytes(content[:at] if rng.random() < 0.3 else content)
        again = fit(data_of(train_dir, cache), tmp_path)
        assert 0 < again.computed <= 20
        assert_alike(again, first)
        assert fit(data_of(train_dir, cache), tmp_path, epochs=1).computed == 0
        shutil.rmtree(cache)


class Killer(Callback):
    """Kills the process while it computes vectors, which it writes down two at a time, after a random while."""

    def __init__(self, seed: int) -> None:
        self.wait = random.Random(seed).uniform(0, 0.2)
        store_module.FLUSH_SECONDS = store_module.FLUSH_SHARE = 0.0
        write, self.begun = Store._write, False

        def killing(store: Store, *args: Any) -> None:
            if store.key["kind"] == "features" and not self.begun:
                self.begun = True
                threading.Timer(self.wait, os.kill, (os.getpid(), signal.SIGKILL)).start()
            time.sleep(0.02)
            write(store, *args)

        Store._write = killing  # type: ignore[method-assign]


def test_killed_runs_leave_what_is_right(train_dir: Path, tmp_path: Path, filled: tuple[Path, Record]) -> None:
    """Two at once, several times at random moments, in copies of this process, on one store that grows."""
    context = multiprocessing.get_context("fork")
    cache = tmp_path / "cache"
    killed, before = 0, 0
    for number in range(4):
        if number % 2 == 0:
            shutil.rmtree(cache, ignore_errors=True)
            before = 0

        def run(seed: int) -> None:
            Killer(seed)
            fit(data_of(train_dir, cache, batch_size=2), tmp_path)

        processes = [context.Process(target=run, args=(2 * number + other,)) for other in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)  # 0 where others had left next to nothing to compute
            killed += process.exitcode == -signal.SIGKILL
        present = sum(store.rows for store in list_stores(cache) if store.key["kind"] == "features")
        assert present >= before
        before = present
    assert killed > 2
    again = fit(data_of(train_dir, cache), tmp_path)
    assert_alike(again, filled[1])


def test_two_runs_fill_one_store_at_once(train_dir: Path, tmp_path: Path, filled: tuple[Path, Record]) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(2), context.SimpleQueue()

    def run() -> None:
        store_module.FLUSH_SECONDS = store_module.FLUSH_SHARE = 0.0
        start.wait()
        record = fit(data_of(train_dir, tmp_path / "cache"), tmp_path)
        results.put((record.orders, record.losses, record.metrics.tolist(), record.predictions.tolist()))

    processes = [context.Process(target=run) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    for _ in range(2):
        record = Record()
        record.orders, record.losses, metrics, predictions = results.get()
        record.metrics, record.predictions = torch.tensor(metrics), torch.tensor(predictions)
        assert_alike(record, filled[1])
    assert fit(data_of(train_dir, tmp_path / "cache"), tmp_path).computed == 0


# Where nothing can be kept


def assert_error(ran: Ran, *words: str) -> None:
    """It ended with one line that says what is wrong."""
    assert ran.status == 1, ran.err
    assert ran.err.startswith("gel-fit: error: ")
    assert ran.err.count("\n") == 1
    assert all(word in ran.err for word in words), ran.err


def test_a_full_disk_is_an_error_that_the_next_run_gets_over(pictures: tuple[object, ...], tmp_path: Path) -> None:
    options = (*FIT, *pictures, "--data.cache_dir", "cache", "--trainer.logger", "false")
    for limit in (500, 20_000):  # no room for the hashes; no room for the vectors
        with file_size_limit(limit):
            assert_error(gel_fit("fit", *options, cwd=tmp_path), "File too large", str(Path("cache")))
        assert not (tmp_path / "lightning_logs").exists()
    ran = gel_fit("fit", *options, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "\n20 feature vectors computed in " in ran.out


def test_a_cache_folder_that_cannot_be_written(
    pictures: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, *_: Any) -> Iterator[None]:
        raise PermissionError(13, "Permission denied", str(path))

    options = (*FIT, *pictures, "--data.cache_dir", "cache", "--trainer.logger", "false")
    monkeypatch.setattr(store_module, "replacing", denied)  # root writes everywhere
    assert_error(gel_fit("fit", *options, cwd=tmp_path), "cache", "Permission denied")
    ran = gel_fit("fit", *options, "--data.cache_features", "false", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert not (tmp_path / "cache").exists()


# The model in between


def test_other_modules_get_pictures(train_dir: Path, tmp_path: Path) -> None:
    class Plain(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 2)

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            assert batch[0].ndim == 4
            return nn.functional.cross_entropy(self.layer(batch[0].mean(dim=(2, 3))), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            assert batch[0].ndim == 4

        def configure_optimizers(self) -> optim.Optimizer:
            return optim.SGD(self.parameters(), lr=0.1)

    data = data_of(train_dir, tmp_path)
    make_trainer(tmp_path).fit(Plain(), datamodule=data)
    assert {store.key["kind"] for store in list_stores(tmp_path)} == {"hashes"}
    assert isinstance(data.train_dataloader().dataset, PictureDataset)


def test_sigterm_ends_extraction_after_the_batch_at_hand(
    train_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def killed(trunk: Trunk, pictures: torch.Tensor) -> torch.Tensor:
        seen.append(len(pictures))
        os.kill(os.getpid(), signal.SIGTERM)
        return built("resnet18", "none")(pictures)

    monkeypatch.setattr("gel_lightning.features.runtime.Runtime.__call__", lambda _, *given: killed(*given))
    data = data_of(train_dir, tmp_path / "cache")
    with pytest.raises(SIGTERMException):
        fit(data, tmp_path)
    assert seen == [5, 5]  # the second is computed while the first is kept
    assert [store.rows for store in list_stores(tmp_path / "cache") if store.key["kind"] == "features"] == [5]
