from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import TensorBoardLogger

from gel_lightning import GelClassifier, GelDataModule, LinearHead
from gel_lightning.features import extraction as features
from gel_lightning.training.callbacks import SAVE_SECONDS, EmptyRunRemover, EpochSeed, LastCheckpoint, OneThread


def failed_in(remover: EmptyRunRemover, is_global_zero: bool = True) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=is_global_zero, loggers=[])
    model: Any = None
    remover.on_exception(trainer, model, RuntimeError())


def test_a_folder_without_a_checkpoint_is_removed_and_no_other(tmp_path: Path) -> None:
    for name in ("version_0", "version_1"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    failed_in(EmptyRunRemover(tmp_path / "version_1"), is_global_zero=False)
    assert (tmp_path / "version_1/config.yaml").exists()
    failed_in(EmptyRunRemover(tmp_path / "version_1"))
    assert [path.name for path in tmp_path.iterdir()] == ["version_0"]
    (tmp_path / "version_0/checkpoints/last.ckpt").touch()
    failed_in(EmptyRunRemover(tmp_path / "version_0"))
    assert (tmp_path / "version_0/config.yaml").exists()
    failed_in(EmptyRunRemover(tmp_path / "gone"))


@pytest.mark.filterwarnings("error")  # an error in another thread is a warning of pytest's
def test_a_folder_is_not_removed_under_the_thread_that_writes_there(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="v")
    for step in range(1000):
        logger.experiment.add_scalar("loss", 1.0, step)
    trainer: Any = SimpleNamespace(is_global_zero=True, loggers=[logger])
    model: Any = None
    EmptyRunRemover(tmp_path / "v").on_exception(trainer, model, RuntimeError())
    logger.finalize("failed")  # as Lightning does next
    assert not (tmp_path / "v").exists()


def drawn(seed: int, epoch: int, rank: int = 0, batch: int = 0) -> list[float]:
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(current_epoch=epoch, global_rank=rank, strategy=strategy)
    model: Any = None
    with torch.random.fork_rng(devices=[]):
        EpochSeed(seed).on_train_batch_start(trainer, model, None, batch)
        numbers: list[float] = torch.rand(3).tolist()
    return numbers


def test_each_epoch_draws_its_own_numbers_whatever_was_drawn_before() -> None:
    first = drawn(1, epoch=3)
    with torch.random.fork_rng(devices=[]):
        torch.rand(5)
        assert drawn(1, epoch=3) == first
    others = [drawn(1, epoch=4), drawn(2, epoch=3), drawn(1, epoch=3, rank=1), drawn(0, epoch=0), drawn(3, epoch=1)]
    assert len({tuple(numbers) for numbers in [first, *others]}) == 6


def test_later_batches_of_an_epoch_draw_on() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        expected = torch.rand(3).tolist()
        torch.manual_seed(9)
        assert drawn(1, epoch=0, batch=1) == expected


class Threads(Callback):
    """Keeps how many threads there are when something is done."""

    def __init__(self, failing: bool = False) -> None:
        self.failing = failing
        self.seen: dict[str, set[int]] = {}

    def see(self, what: str) -> None:
        self.seen.setdefault(what, set()).add(torch.get_num_threads())

    def on_train_batch_start(self, *_: Any) -> None:
        self.see("training")
        if self.failing:
            raise ValueError("on purpose")

    def on_validation_batch_start(self, *_: Any) -> None:
        self.see("validating")

    def on_test_batch_start(self, *_: Any) -> None:
        self.see("testing")


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    """Counts threads, of which there are three."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    threads, compute = Threads(), features._compute

    def counted(*args: Any) -> Any:
        threads.see("extracting")
        return compute(*args)

    monkeypatch.setattr(features, "_compute", counted)
    yield threads
    torch.set_num_threads(before)


def fitted(threads: Threads, folder: Path, train_dir: Path, cache_features: bool = True) -> Trainer:
    data = GelDataModule(
        train_dir,
        batch_size=5,
        image_size=32,
        num_workers=0,
        cache_dir=folder / "cache",
        cache_features=cache_features,
    )
    options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    callbacks = [OneThread(), threads]
    trainer = Trainer(accelerator="cpu", max_epochs=2, logger=False, callbacks=callbacks, **options)
    trainer.fit(GelClassifier(weights="none", head=LinearHead), datamodule=data)
    return trainer


@pytest.mark.filterwarnings("ignore")  # Lightning's, of few workers and few batches
def test_one_thread_trains_on_vectors_and_all_do_the_rest(threads: Threads, tmp_path: Path, train_dir: Path) -> None:
    trainer = fitted(threads, tmp_path, train_dir)
    # The first validation of a fit, if there is one, is before the training.
    assert threads.seen == {"extracting": {3}, "training": {1}, "validating": threads.seen["validating"]}
    assert 1 in threads.seen["validating"]
    assert torch.get_num_threads() == 3
    trainer.test(trainer.lightning_module, trainer.datamodule, verbose=False)
    assert threads.seen["testing"] == {3}


@pytest.mark.filterwarnings("ignore")
def test_all_threads_are_back_after_an_error(threads: Threads, tmp_path: Path, train_dir: Path) -> None:
    threads.failing = True
    with pytest.raises(ValueError, match="on purpose"):
        fitted(threads, tmp_path, train_dir)
    assert threads.seen["training"] == {1}
    assert torch.get_num_threads() == 3


@pytest.mark.filterwarnings("ignore")
def test_all_threads_train_on_pictures(threads: Threads, tmp_path: Path, train_dir: Path) -> None:
    fitted(threads, tmp_path, train_dir, cache_features=False)
    assert threads.seen == {"training": {3}, "validating": {3}}
    assert torch.get_num_threads() == 3


class Clock(Callback):
    """An epoch takes a time; the epochs are kept after which something was saved."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 1000.0
        self.saved: list[int] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.now += self.seconds

    def on_save_checkpoint(self, trainer: Trainer, *_: Any) -> None:
        self.saved.append(trainer.current_epoch)


@pytest.mark.filterwarnings("ignore")  # Lightning's, of few workers and few batches
@pytest.mark.parametrize(
    ("seconds", "limits", "saved"),
    [
        pytest.param(0, {"max_epochs": 5}, [0, 4], id="quick"),
        pytest.param(0, {"max_epochs": 1}, [0], id="one epoch"),
        pytest.param(0.4 * SAVE_SECONDS, {"max_epochs": 9}, [0, 3, 6, 8], id="every ten seconds"),
        pytest.param(2 * SAVE_SECONDS, {"max_epochs": 4}, [0, 1, 2, 3], id="slow"),
        pytest.param(0, {"max_epochs": 9, "patience": 2}, [0, 2], id="stopped early"),
        pytest.param(0, {"max_epochs": 9, "max_steps": 7}, [0, 3], id="steps"),
        pytest.param(0, {"max_epochs": -1, "max_steps": 8}, [0, 3], id="endless but for steps"),
    ],
)
def test_the_last_checkpoint_is_of_the_first_and_the_last_epoch_and_of_some_between(
    seconds: float, limits: dict[str, int], saved: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(seconds)
    monkeypatch.setattr("gel_lightning.training.callbacks.time", SimpleNamespace(monotonic=lambda: clock.now))
    callbacks: list[Callback] = [clock, LastCheckpoint(tmp_path / "kept")]
    if "patience" in limits:
        limits = dict(limits)
        callbacks.append(EarlyStopping("same", patience=limits.pop("patience")))
    model: Any = BoringModel()
    model.on_train_epoch_end = lambda: model.log("same", 1.0)
    options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(
        accelerator="cpu", limit_train_batches=2, limit_val_batches=0, callbacks=callbacks, **limits, **options
    )
    trainer.fit(model)
    assert clock.saved == saved
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["last.ckpt"]
    kept = torch.load(tmp_path / "kept/last.ckpt", weights_only=True)
    assert (kept["epoch"], kept["global_step"]) == (saved[-1], trainer.global_step)
    assert all(torch.equal(value, kept["state_dict"][name]) for name, value in model.state_dict().items())
