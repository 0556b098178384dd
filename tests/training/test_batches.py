import re
from functools import partial
from typing import Any

import pytest
import torch
from conftest import refused
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from gel_lightning import GelClassifier
from gel_lightning.data.datasets import Features
from gel_lightning.training.batches import check_labels, check_pictures

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PICTURES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
WRONG = {
    "from 0 to 255": (PICTURES * 255, "divide them by 255"),
    "bytes": ((PICTURES * 255).to(torch.uint8), "uint8"),
    "normalised": (v2.functional.normalize(PICTURES, MEAN, STD), "leave out Normalize"),
    "from -1 to 1": (2 * PICTURES - 1, "leave out Normalize"),
}


class NormalisingHead(nn.Sequential):
    """A head with BatchNorm."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(nn.BatchNorm1d(features), nn.Linear(features, classes))


def small(**options: Any) -> GelClassifier:
    return GelClassifier("resnet18", "none", **options)


def trainer() -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def loader(pictures: Tensor, labels: list[int], batch_size: int = 6) -> DataLoader[Any]:
    return DataLoader(TensorDataset(pictures, torch.tensor(labels)), batch_size=batch_size)


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("kind", WRONG)
def test_the_first_batch_far_outside_0_to_1_is_refused(kind: str, stage: str) -> None:
    pictures, word = WRONG[kind]
    run = getattr(trainer(), stage)
    text = refused(lambda: run(small(), loader(pictures, [0, 1, 0, 1, 0, 1])))
    assert word in text
    assert re.search("0 to 1", text)


@pytest.mark.parametrize(
    "pictures",
    [PICTURES, PICTURES * 1.4 - 0.2, torch.zeros(1, 1, 8, 8)],
    ids=["pictures", "beyond by interpolation", "black"],
)
def test_pictures_in_0_to_1_and_features_pass(pictures: Tensor) -> None:
    check_pictures(pictures)
    check_pictures(pictures.double())
    check_pictures(Features(100 * pictures))


@pytest.mark.parametrize("shape", [(4, 512), (3, 32, 32), (2, 4, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    text = refused(lambda: check_pictures(torch.zeros(shape)))
    assert str(shape) in text
    assert "[N, 1 or 3, H, W]" in text


def test_only_the_first_batch_is_looked_at() -> None:
    pictures = torch.cat([PICTURES[:3], PICTURES[3:] * 255])
    trainer().predict(small(), DataLoader(pictures, batch_size=3))  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_labels_of_three_classes_name_class_names(stage: str) -> None:
    text = refused(lambda: getattr(trainer(), stage)(small(), loader(PICTURES, [0, 1, 0, 1, 0, 2], batch_size=3)))
    assert "label 2" in text
    assert "gel, not_gel" in text
    assert "GelClassifier(class_names=[...])" in text
    three = small(class_names=["gel", "blot", "photo"])
    getattr(trainer(), stage)(three, loader(PICTURES, [0, 1, 0, 1, 0, 2], batch_size=3))


def test_padding_has_no_class() -> None:
    check_labels(torch.tensor([0, 1, -100]), ["gel", "not_gel"])


def test_a_head_with_batchnorm_and_a_last_batch_of_one() -> None:
    model = partial(small, head=NormalisingHead)
    text = refused(lambda: trainer().fit(model(), loader(PICTURES, [0, 1, 0, 1, 0, 1], batch_size=5)))
    assert "BatchNorm" in text
    assert "--data.batch_size" in text
    fitted = model()
    trainer().fit(fitted, loader(PICTURES, [0, 1, 0, 1, 0, 1], batch_size=3))
    trainer().test(fitted, loader(PICTURES, [0, 1, 0, 1, 0, 1], batch_size=5), verbose=False)
    trainer().fit(small(), loader(PICTURES, [0, 1, 0, 1, 0, 1], batch_size=5))
