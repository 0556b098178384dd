from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import refused
from lightning import seed_everything
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import Tensor, optim

from gel_lightning import GelClassifier, GelDataModule, LinearHead, MultiLayerHead
from gel_lightning.comparison import folds
from gel_lightning.comparison.folds import BestHead, fit_fold, outcome
from gel_lightning.comparison.predictions import Outcome
from gel_lightning.data.folders import LabelledPictures
from gel_lightning.training.runs import training_callbacks

torch.set_num_threads(1)  # on tiny pictures several threads mostly wait for each other
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),  # Lightning's own
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
]

SETTINGS = {"accelerator": "cpu", "max_epochs": 8, "enable_model_summary": False, "num_sanity_val_steps": 0}
BEST = {"monitor": "val/loss", "mode": "min"}
JUMPY = partial(optim.Adam, lr=0.03)  # the best epoch is rarely the last
Parts = dict[str, LabelledPictures]


def classifier(**options: Any) -> GelClassifier:
    return GelClassifier("resnet18", "none", **({"head": LinearHead, "optimizer": JUMPY} | options))


def made(train_dir: Path, test_dir: Path, folds: int = 2, repeats: int = 2) -> tuple[GelDataModule, list[Parts]]:
    data = GelDataModule(train_dir, test_dir, image_size=32, num_workers=0, batch_size=5)
    data.setup("fit")
    return data, data.cross_validation(folds, repeats)


@pytest.fixture
def data_and_parts(
    train_dir: Path, test_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[GelDataModule, list[Parts]]:
    """Tiny pictures, cross-validated in two folds, twice; and an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return made(train_dir, test_dir)


Data = tuple[GelDataModule, list[Parts]]


def fit(data_and_parts: Data, place: tuple[int, int] = (1, 1), part: int = 0, **options: Any) -> Outcome:
    data, parts = data_and_parts
    settings = SETTINGS | options.pop("settings", {})
    model = options.pop("model", None) or classifier()
    return fit_fold(model, data, parts[part], place, settings, options.get("checkpoint", BEST), options.get("seed", 1))


def equal(one: Outcome, other: Outcome) -> bool:
    return bool((one.probabilities == other.probabilities).all())


def test_a_fit_depends_on_seed_place_and_pictures_alone(data_and_parts: Data, tmp_path: Path) -> None:
    data, parts = data_and_parts
    first = fit(data_and_parts)
    assert first[:2] == (1, 1)
    assert list(first.paths) == [str(path) for path in parts[0]["test"].paths]
    assert first.labels.tolist() == parts[0]["test"].labels
    assert first.probabilities.shape == (len(first.paths), 2)
    np.testing.assert_allclose(first.probabilities.sum(axis=1), 1, atol=1e-6)
    assert data.parts == parts[0]

    torch.manual_seed(99)  # what came before plays no part
    assert equal(fit(data_and_parts), first)
    others = [
        fit(data_and_parts, place=(1, 2)),
        fit(data_and_parts, place=(2, 1)),
        fit(data_and_parts, seed=2),
        fit(data_and_parts, seed=0),
    ]
    assert not any(equal(one, first) for one in others)
    assert len({one.probabilities.tobytes() for one in others}) == 4, "a place is mistaken for a seed"
    assert [one[:2] for one in others[:2]] == [(1, 2), (2, 1)]
    assert fit(data_and_parts, part=1).paths != first.paths
    assert list(tmp_path.iterdir()) == [], "a fold leaves something on disk"


def test_without_a_seed_no_two_fits_are_alike(data_and_parts: Data) -> None:
    torch.manual_seed(3)
    first = fit(data_and_parts, seed=False)
    assert not equal(fit(data_and_parts, seed=False), first)
    torch.manual_seed(3)
    assert equal(fit(data_and_parts, seed=False), first)


def test_the_model_is_a_pattern_and_left_alone(data_and_parts: Data) -> None:
    data, _ = data_and_parts
    model = classifier(head=partial(MultiLayerHead, hidden=[8], dropout=[0.5]), class_weights="balanced")
    expected = fit(data_and_parts, model=model)
    trainer = Trainer(**SETTINGS, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(model, datamodule=data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings, hparams = repr(dict(model.hparams)), model.probabilities
    assert equal(fit(data_and_parts, model=model), expected), "what a model has learned plays a part"
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].equal(value) for name, value in before.items())
    assert (repr(dict(model.hparams)), model.probabilities, model.logs_metrics) == (settings, hparams, True)
    assert not equal(fit(data_and_parts, model=classifier()), expected)
    assert not equal(fit(data_and_parts, model=classifier(optimizer=optim.SGD)), fit(data_and_parts))


# The best epoch


class Heads(Callback):
    """Keeps the head and the metrics of each epoch."""

    def __init__(self) -> None:
        self.heads: list[dict[str, Tensor]] = []
        self.metrics: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            state = pl_module.network.head.state_dict()
            self.heads.append({name: value.clone() for name, value in state.items()})
            self.metrics.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def same(head: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(value.equal(other[name]) for name, value in head.items())


@pytest.mark.parametrize(
    ("monitor", "mode", "options"),
    [
        ("val/loss", "min", {}),
        ("val/loss", "max", {}),
        ("val/accuracy", "max", {}),
        ("val/loss", "min", {"check_val_every_n_epoch": 3}),
        ("val/loss", "min", {"val_check_interval": 0.5}),
        ("train/loss", "min", {}),
    ],
)
def test_the_best_epoch_is_that_of_lightnings_checkpoint(
    monitor: str, mode: str, options: dict[str, Any], data_and_parts: Data, tmp_path: Path
) -> None:
    data, parts = data_and_parts
    chosen = []
    for seed, part in enumerate(parts):
        seed_everything(seed, verbose=False)
        data.parts, model = part, classifier()
        heads, checkpoint = Heads(), ModelCheckpoint(tmp_path / str(seed), monitor=monitor, mode=mode)
        trainer = Trainer(
            **{**SETTINGS, **options},
            logger=False,
            enable_progress_bar=False,
            callbacks=[heads, *training_callbacks(seed), BestHead(monitor, mode), checkpoint],
        )
        trainer.fit(model, datamodule=data)
        best = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]
        best = {
            name.removeprefix("network.head."): value
            for name, value in best.items()
            if name.startswith("network.head.")
        }
        assert same(best, dict(model.network.head.state_dict()))
        chosen += [number for number, head in enumerate(heads.heads) if same(best, head)]
    assert options or len(set(chosen)) > 1, "the epoch that is chosen is always the same one"


@pytest.mark.parametrize(("monitor", "mode"), [(None, "min"), ("val/loss", "min"), ("val/accuracy", "max")])
@pytest.mark.parametrize("head", [LinearHead, MultiLayerHead])
def test_a_fit_is_what_lightning_makes_of_the_same_seed(
    head: Any, monitor: str | None, mode: str, data_and_parts: Data, tmp_path: Path
) -> None:
    """With the checkpoint that it writes, tests and would leave on disk."""
    data, parts = data_and_parts
    found, epochs = [], []
    for place in ((1, 1), (1, 2), (2, 1), (2, 2)):
        part = parts[2 * place[0] + place[1] - 3]
        found.append(
            fit((data, [part]), place, model=classifier(head=head), checkpoint={"monitor": monitor, "mode": mode})
        )
        own = int(np.random.SeedSequence([1, *place]).generate_state(1)[0])
        seed_everything(own, verbose=False)
        data.parts, model = part, classifier(head=head)
        checkpoint = ModelCheckpoint(tmp_path / str(place), monitor=monitor, mode=mode)
        trainer = Trainer(
            **SETTINGS, logger=False, enable_progress_bar=False, callbacks=[*training_callbacks(own), checkpoint]
        )
        trainer.fit(model, datamodule=data)
        trainer.test(model, datamodule=data, ckpt_path="best", verbose=False)
        assert equal(found[-1], outcome(model, data))
        epochs.append(torch.load(checkpoint.best_model_path, weights_only=True)["epoch"])
    assert (set(epochs) == {7}) == (monitor is None)
    # Deep heads may be so sure that all is 0 or 1.
    assert head is MultiLayerHead or len({one.probabilities.tobytes() for one in found}) > 1


# What is logged on the way


class Logged(Callback):
    """Keeps the names of what is logged, and how many epochs there were."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        NAMES.append(set(trainer.callback_metrics))
        EPOCHS.append(trainer.current_epoch)


NAMES: list[set[str]] = []
EPOCHS: list[int] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    NAMES.clear()
    EPOCHS.clear()


PLATEAU = partial(ReduceLROnPlateau, monitor="val/accuracy", mode="max", patience=0, factor=0.1)


@pytest.mark.parametrize(
    ("logs", "callbacks", "checkpoint", "scheduler"),
    [
        (False, [], BEST, None),
        (False, [], {"monitor": None, "mode": "min"}, partial(optim.lr_scheduler.StepLR, step_size=2)),
        (False, [], BEST, partial(ReduceLROnPlateau, monitor="val/loss", patience=0)),
        (False, [ModelCheckpoint(monitor="val/auroc")], BEST, None),  # is left out
        (True, [Callback()], BEST, None),
        (True, [], {"monitor": "val/f1", "mode": "max"}, None),
        (True, [], BEST, PLATEAU),
    ],
)
def test_metrics_are_logged_where_something_may_watch_them_and_change_nothing(
    logs: bool,
    callbacks: list[Callback],
    checkpoint: dict[str, Any],
    scheduler: Any,
    data_and_parts: Data,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folds, "training_callbacks", lambda seed: [*training_callbacks(seed), Logged()])
    options: dict[str, Any] = {
        "model": classifier(lr_scheduler=scheduler, head=MultiLayerHead),
        "checkpoint": checkpoint,
    }
    found = fit(data_and_parts, settings={"callbacks": callbacks}, **options)
    always = fit(data_and_parts, settings={"callbacks": [Callback()]}, **options)
    assert equal(found, always)
    losses = {"train/loss", "val/loss"}
    assert losses < NAMES[1]
    assert NAMES[0] == (NAMES[1] if logs else losses)


def test_callbacks_are_copied_for_each_fit(data_and_parts: Data) -> None:
    stopping = EarlyStopping("val/accuracy", patience=2, mode="max")
    callbacks = [stopping, Logged()]
    settings = {"callbacks": callbacks, "max_epochs": 50}
    first = fit(data_and_parts, settings=settings)
    assert (stopping.wait_count, stopping.stopped_epoch, stopping.best_score.item()) == (0, 0, -torch.inf)
    assert callbacks == [stopping, callbacks[1]]
    assert equal(fit(data_and_parts, settings=settings), first)
    assert EPOCHS[0] == EPOCHS[1] < 50, "a copy begins where another has ended"


@pytest.mark.parametrize("callback", [ModelCheckpoint, LearningRateMonitor])
def test_callbacks_that_need_what_a_fold_has_not_do_no_harm(
    callback: Any, data_and_parts: Data, tmp_path: Path
) -> None:
    expected = fit(data_and_parts)
    assert equal(fit(data_and_parts, settings={"callbacks": [callback()]}), expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:No (positive|negative) samples in targets")
def test_as_few_pictures_as_lightning_was_told_to_test(data_and_parts: Data) -> None:
    whole = fit(data_and_parts)
    part = fit(data_and_parts, settings={"limit_test_batches": 1})
    assert len(whole.paths) == 10
    assert part.paths == whole.paths[:5]
    assert part.labels.tolist() == whole.labels[:5].tolist()
    assert (part.probabilities == whole.probabilities[:5]).all()


def test_a_loss_that_is_no_number_ends_it(data_and_parts: Data) -> None:
    exploding = classifier(optimizer=partial(optim.SGD, lr=1e30), head=MultiLayerHead)
    text = refused(lambda: fit(data_and_parts, model=exploding))
    assert "loss is no longer a number in epoch 0; no checkpoint was written yet; lower the learning rate" in text


def test_probabilities_are_those_of_the_pictures_beside_them(data_and_parts: Data, test_dir: Path) -> None:
    data, parts = data_and_parts
    data.parts, model = parts[0] | {"test": data.parts["test"]}, classifier(optimizer=optim.Adam)
    trainer = Trainer(**SETTINGS, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    found = outcome(model, data, (3, 4))
    assert found[:2] == (3, 4)
    batches = trainer.predict(model, datamodule=GelDataModule(predict_dir=test_dir, image_size=32, num_workers=0))
    assert batches is not None
    predicted = torch.cat(batches).numpy()  # type: ignore[arg-type]
    assert list(found.paths) == [str(path) for path in sorted(test_dir.glob("*/*"))]
    assert found.labels.tolist() == [0] * 4 + [1] * 4
    np.testing.assert_allclose(found.probabilities, predicted, rtol=1e-5)
    assert len(np.unique(predicted[:, 0].round(3))) == 8, "they could be confused"
