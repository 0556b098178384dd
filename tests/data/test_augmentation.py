"""Views are drawn the same way each time, and presets make pictures of pictures."""

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import refused
from torch import Tensor
from torchvision.transforms import v2

from gel_lightning.data.augmentation import PRESETS, Augmentation, RandomGamma, RandomLabels, RandomPanel, RandomQuality
from gel_lightning.data.datamodule import GelDataModule

CROP = v2.RandomResizedCrop(32, antialias=True)


class Shift:
    """A transform that somebody else has written; it draws from all generators."""

    def __call__(self, picture: Tensor) -> Tensor:
        return picture + torch.rand(()) + random.random() + np.random.random()  # noqa: NPY002


def stripes(side: int) -> Tensor:
    return (torch.arange(side) % 8 < 4).float().expand(1, side, side).clone()


def test_augmentations_are_told_apart() -> None:
    transforms = [
        [CROP],  # which holds a tensor
        [v2.RandomResizedCrop(32, ratio=(0.5, 2.0), antialias=True)],
        [v2.RandomRotation(10)],
        [v2.RandomRotation(11)],
        [v2.RandomRotation(10), v2.RandomHorizontalFlip()],
        [v2.RandomHorizontalFlip(), v2.RandomRotation(10)],
        [v2.RandomHorizontalFlip(0.4), v2.RandomRotation(10)],
        [Shift()],
        [],
    ]
    identities = [Augmentation(some, 0).identity for some in transforms]
    assert len(set(identities)) == len(transforms)
    assert [Augmentation(pickle.loads(pickle.dumps(some)), 0).identity for some in transforms] == identities
    for some, identity in zip(transforms, identities, strict=True):
        Augmentation(some, 0)(torch.rand(1, 32, 32), b"digest", 1)
        assert Augmentation(some, 0).identity == identity


def test_augmentation_is_known_again_by_another_process(fresh_process: dict[str, Any]) -> None:
    assert fresh_process["identity"] == Augmentation([CROP, v2.RandomRotation(10)], 3).identity


def test_augmentation_that_cannot_be_told_from_others_is_refused() -> None:
    assert "--data.augmentation" in refused(lambda: Augmentation([lambda picture: picture], 0))
    assert "--data.augmentation" in refused(lambda: Augmentation([v2.Lambda(lambda picture: picture)], 0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_makes_views_that_differ_and_are_drawn_the_same_way_again(name: str, channels: int) -> None:
    picture = torch.rand(channels, 64, 64, generator=torch.Generator().manual_seed(0))
    views = [Augmentation(PRESETS[name](64), 0)(picture.clone(), b"digest", view) for view in range(1, 25)]
    again = Augmentation(PRESETS[name](64), 0)
    for number, view in enumerate(views, start=1):
        assert (view.shape, view.dtype) == ((channels, 64, 64), torch.float32)
        assert view.min() >= 0
        assert view.max() <= 1 + 1e-6
        assert torch.equal(again(picture.clone(), b"digest", number), view)
    assert len({view.numpy().tobytes() for view in views}) > 20


def test_a_view_leaves_the_random_numbers_of_a_run_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of GPUs too, from which a head's dropout draws."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("seeds GPUs"))
    state = torch.get_rng_state()
    Augmentation(PRESETS["crop_flip"](32), 0)(torch.zeros(3, 32, 32), b"digest", 1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [RandomGamma, RandomLabels, RandomPanel, RandomQuality])
def test_a_transform_leaves_most_of_a_picture_to_be_seen(kind: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    transform = kind()
    shares = []
    for _ in range(30):
        changed = transform(torch.full((1, 64, 64), 0.5))
        assert changed.shape == (1, 64, 64)
        value = 0.5 if kind is not RandomGamma else float(changed[0, 0, 0])
        shares.append(float((changed - value).abs().lt(0.01).float().mean()))
    assert min(shares) > 0.07  # the smallest panel is 0.3 of one side, and may keep its shape
    assert sum(shares) / len(shares) > 0.35


def test_a_gamma_keeps_the_order_of_greys() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 100)
    for _ in range(10):
        changed = RandomGamma()(ramp)
        assert changed.diff().min() > 0
        assert changed[[0, -1]].tolist() == [0, 1]


def test_augmentation_without_views_is_refused(tmp_path: Path) -> None:
    for given in ("labs", [v2.RandomHorizontalFlip()]):
        assert "--data.views 1" in refused(lambda given=given: GelDataModule(tmp_path, augmentation=given))  # type: ignore[misc]
