from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FIT, gel_fit, refused
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning, EMAWeightAveraging, WeightAveraging
from test_classifier import gels, make_trainer, small

from gel_lightning import GelClassifier

Options = tuple[object, ...]
REFUSED = {
    "BackboneFinetuning": ("--model.unfreeze",),
    "StochasticWeightAveraging": ("EMAWeightAveraging",),
    "LearningRateFinder": ("--model.optimizer.lr",),
    "BatchSizeFinder": ("--data.batch_size",),
}


class OwnFinetuning(BaseFinetuning):
    def freeze_before_training(self, pl_module: LightningModule) -> None:
        pass


class Unfreezer(Callback):
    """Unfreezes the backbone without being one of Lightning's callbacks for it."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.network.trunk.requires_grad_(True)


class Averaged(Callback):
    """Keeps the head as it was in the validation of each epoch."""

    def __init__(self) -> None:
        self.heads: list[torch.Tensor] = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.heads.append(
            torch.cat([value.detach().flatten().clone() for value in pl_module.network.head.parameters()])
        )


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("command", ["fit", "compare"])
def test_a_callback_that_would_be_in_vain_is_refused_with_the_reason(
    command: str, name: str, tmp_path: Path, pictures: Options
) -> None:
    rates = ["--trainer.callbacks.swa_lrs=0.1"] if name == "StochasticWeightAveraging" else []
    options = FIT if command == "fit" else FIT[2:]
    ran = gel_fit(command, *options, *pictures, f"--trainer.callbacks+={name}", *rates, cwd=tmp_path)
    assert ran.status == 1, ran.err
    assert ran.err.startswith(f"gel-fit: error: {name} ")
    assert ran.err.count("\n") == 1
    for word in REFUSED[name]:
        assert word in ran.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "callback", [BackboneFinetuning(), OwnFinetuning()], ids=lambda callback: type(callback).__name__
)
def test_finetuning_is_refused_in_python_too(callback: Callback, train_dir: Path, tmp_path: Path) -> None:
    text = refused(lambda: make_trainer(tmp_path, callbacks=[callback]).fit(small(), gels(train_dir)))
    assert type(callback).__name__ in text


def test_a_callback_that_unfreezes_the_backbone_is_refused(train_dir: Path, tmp_path: Path) -> None:
    text = refused(lambda: make_trainer(tmp_path, callbacks=[Unfreezer()]).fit(small(), gels(train_dir)))
    assert "unfrozen" in text


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kind", [EMAWeightAveraging, WeightAveraging])
def test_averaged_weights_are_those_of_the_checkpoint(
    kind: type[WeightAveraging], cached: bool, train_dir: Path, tmp_path: Path
) -> None:
    seed_everything(1, verbose=False)
    averaged, model, data = Averaged(), small(), gels(train_dir, cache_features=cached)
    averaging = kind(decay=0.5) if kind is EMAWeightAveraging else kind()
    trainer = make_trainer(tmp_path, 3, [averaged, averaging])  # it looks before they are put back
    trainer.fit(model, data)
    frozen = small().network.trunk.state_dict()
    assert all(value.equal(frozen[key]) for key, value in model.network.trunk.state_dict().items())
    last = tmp_path / "checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    for state in ("state_dict", "current_model_state"):
        assert all(key.startswith("network.head.") for key in checkpoint[state]), state
    of_then = averaged.heads[checkpoint["epoch"]]
    kept = GelClassifier.load_from_checkpoint(last)
    assert torch.cat([value.flatten() for value in kept.network.head.parameters()]).equal(of_then)
    current = torch.cat(
        [checkpoint["current_model_state"][f"network.head.{key}"].flatten() for key in kept.network.head.state_dict()]
    )
    assert not current.equal(of_then)
    trainer.test(model, data, ckpt_path="best", verbose=False)


def test_the_weights_of_an_unfrozen_tail_are_averaged_with_any_loss(train_dir: Path, tmp_path: Path) -> None:
    """The averages are made before the loss knows its class weights, which are no part of them."""
    model = small(unfreeze=0.1, class_weights="balanced", mixup=0.2, label_smoothing=0.1)
    before = {name: value.clone() for name, value in model.network.tail.state_dict().items()}
    make_trainer(tmp_path, 2, [EMAWeightAveraging(decay=0.5)]).fit(model, gels(train_dir, batch_size=50))
    after = model.network.tail.state_dict()
    assert not any(value.equal(before[name]) for name, value in after.items() if value.is_floating_point())


def test_a_run_with_averaged_weights_is_resumed(train_dir: Path, tmp_path: Path) -> None:
    heads = []
    for epochs in ((4,), (2, 4)):
        folder = tmp_path / str(len(epochs))
        for number, until in enumerate(epochs):
            torch.manual_seed(0)
            model = small()
            path: Any = folder / "checkpoints/last.ckpt" if number else None
            make_trainer(folder, until, [EMAWeightAveraging(decay=0.5)]).fit(model, gels(train_dir), ckpt_path=path)
        heads.append(torch.cat([value.detach().flatten() for value in model.network.head.parameters()]))
    assert heads[0].equal(heads[1])


def test_a_backbone_that_was_loaded_before_is_not_averaged(train_dir: Path, tmp_path: Path) -> None:
    model = small()
    assert model.network.trunk
    text = refused(lambda: make_trainer(tmp_path, callbacks=[EMAWeightAveraging()]).fit(model, gels(train_dir)))
    assert "new GelClassifier" in text
