import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import refused
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional

from gel_lightning import GelClassifier, GelDataModule, LinearHead
from gel_lightning.training.loss import TrainingLoss

LOGITS, LABELS = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])


@pytest.mark.parametrize("class_weights", [None, [1.0, 2.0, 5.0], "balanced"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_it_is_torchs_cross_entropy(class_weights: Any, label_smoothing: float) -> None:
    loss = TrainingLoss(class_weights, label_smoothing, 0)
    loss.set_classes("abc", (1, 2, 4))
    weights = {"balanced": [7 / 3, 7 / 6, 7 / 12], "None": None}.get(str(class_weights), class_weights)
    expected = functional.cross_entropy(LOGITS, LABELS, weights and torch.tensor(weights), None, -100, None, "mean",
                                        label_smoothing)  # fmt: skip
    assert loss(LOGITS, LABELS).equal(expected)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 2, 2)])
def test_mixed_features_have_the_loss_of_mixed_labels(shape: tuple[int, ...]) -> None:
    loss, features, shares = TrainingLoss(None, 0, 0.4), torch.randn(shape), []
    for _ in range(200):
        mixed, share = loss.mix(features)
        assert share is not None
        torch.testing.assert_close(mixed[0], share * features[0] + (1 - share) * features[-1])
        shares.append(share.item())
    one_hot = functional.one_hot(LABELS).float()
    soft = share * one_hot + (1 - share) * one_hot.roll(1, 0)
    torch.testing.assert_close(loss(LOGITS, LABELS, share), functional.cross_entropy(LOGITS, soft))
    assert 0.4 < np.mean(shares) < 0.6
    assert np.mean(np.abs(np.subtract(shares, 0.5)) > 0.3) > 0.4  # most of a pair is one picture


def test_without_mixup_features_are_the_same_object() -> None:
    mixed, share = TrainingLoss(None, 0, 0).mix(LOGITS)
    assert mixed is LOGITS
    assert share is None


@pytest.mark.parametrize("unfreeze", [0.0, 0.1])
def test_training_alone_mixes_and_smooths(unfreeze: float, train_dir: Path, test_dir: Path, tmp_path: Path) -> None:
    """Whether features are stored or not, the same pictures are mixed in the same shares."""
    losses: list[dict[str, Tensor]] = []
    for stored in (True, False):
        torch.manual_seed(3)
        model = GelClassifier("resnet18", "none", LinearHead, unfreeze=unfreeze, label_smoothing=0.1, mixup=0.3)
        data = GelDataModule(train_dir, test_dir, image_size=32, batch_size=4, num_workers=0, cache_features=stored,
                             cache_dir=tmp_path / str(stored))  # fmt: skip
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(max_epochs=3, accelerator="cpu", default_root_dir=tmp_path, **quiet)
        trainer.fit(model, data)
        losses.append(dict(trainer.callback_metrics))
        (validated,) = trainer.validate(model, data, verbose=False)
        probabilities = model.probabilities["val"]
        labels = torch.tensor(data.parts["val"].labels)
        assert validated["val/loss"] == pytest.approx(functional.nll_loss(probabilities.log(), labels).item(), rel=1e-5)
    for name, value in losses[0].items():
        torch.testing.assert_close(value, losses[1][name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("option", ["label_smoothing", "mixup"])
@pytest.mark.parametrize("value", [-0.1, 101, float("nan")])
def test_a_number_out_of_range_is_refused(option: str, value: float) -> None:
    text = refused(lambda: GelClassifier("resnet18", "none", LinearHead, **{option: value}))  # type: ignore[arg-type]
    assert re.search(rf"--model\.{option}\b", text)
