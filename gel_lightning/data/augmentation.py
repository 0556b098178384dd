"""Random views of pictures: presets of transforms, and applying them to a picture the same way each time."""

import hashlib
import io
import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor, nn
from torchvision.transforms import v2

from gel_lightning.core.errors import GelError
from gel_lightning.data.drawn.camera import font, one_of
from gel_lightning.data.drawn.figures import PANELS
from gel_lightning.data.drawn.lookalikes import LOOK_ALIKES
from gel_lightning.data.resizing import network_input

LABELS = ("A", "B", "C", "M", "+", "-", "WT", "ctrl", "bp", "kb", "kDa", "100", "500", "1000", "1", "2", "3", "lane 4")


class Augmentation:
    """Random changes to pictures: always the same ones for the same picture, view and seed.

    Args:
        transforms: what is done to a picture, values in [0, 1] of shape ``[1 or 3, H, W]``, one after the other.
        seed: of what is drawn.

    Raises:
        GelError: a transform cannot be pickled, so that nothing can tell it from another one.
    """

    def __init__(self, transforms: Sequence[Callable[[Tensor], Tensor]], seed: int) -> None:
        self.transforms = list(transforms)
        self.seed = seed
        try:
            self.identity = hashlib.sha256(_written_out(self.transforms)).hexdigest()
        except (pickle.PicklingError, AttributeError, RecursionError, TypeError, ValueError) as error:
            raise GelError(
                f"an augmentation cannot be told from others ({error}); give objects of importable classes "
                "(--data.augmentation)"
            ) from error

    def __call__(self, picture: Tensor, digest: bytes, view: int) -> Tensor:
        """Makes a view, from 1 on, of a picture with a digest."""
        drawn = hashlib.sha256(digest + f"{self.seed} {view}".encode()).digest()
        with isolate_rng(include_cuda=False):
            # torch.manual_seed would seed GPUs, too, from which a head's dropout draws.
            torch.default_generator.manual_seed(int.from_bytes(drawn[:8], "little"))
            np.random.seed(int.from_bytes(drawn[8:12], "little"))  # noqa: NPY002 - transforms may draw from it
            random.seed(drawn)
            for transform in self.transforms:
                picture = transform(picture)
        return picture


class _Writer(pickle.Pickler):
    """Writes tensors by their values: PyTorch's own way has the place in memory in it."""

    def reducer_override(self, value: Any) -> Any:
        return (tuple, ((str(value.dtype), value.tolist()),)) if isinstance(value, Tensor) else NotImplemented


def _written_out(value: object) -> bytes:
    """Bytes that are the same for equal objects in any process."""
    file = io.BytesIO()
    writer = _Writer(file, protocol=4)
    writer.fast = True  # with no reference to what was written before, whether or not it is the same object
    writer.dump(value)
    return file.getvalue()


class RandomGamma(nn.Module):
    """Raises values to a random power, as cameras and exposures do.

    Args:
        most: the power is log-uniform between ``1 / most`` and ``most``.
    """

    def __init__(self, most: float = 1.8) -> None:
        super().__init__()
        self.most = most

    def forward(self, picture: Tensor) -> Tensor:
        """Changes a picture, values in [0, 1] of any shape."""
        return picture.clamp(0, 1) ** (self.most ** (2 * torch.rand(()) - 1))


class RandomLabels(nn.Module):
    """Puts a picture in a plain margin with lane names and sizes, as in a figure or a notebook.

    Args:
        margin: the largest share of a side that becomes margin.
    """

    def __init__(self, margin: float = 0.15) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, picture: Tensor) -> Tensor:
        """Changes a picture, values in [0, 1] of shape ``[1 or 3, H, W]``."""
        rng, side = _generator(), picture.shape[-1]
        left, top, right, bottom = (int(share * side) for share in rng.uniform(0, self.margin, 4))
        paper, ink = (255, 0) if rng.random() < 0.7 else (0, 255)
        page = _page(picture, paper)
        page.paste(_image(picture).resize((side - left - right, side - top - bottom)), (left, top))
        pen = ImageDraw.Draw(page)
        for label in rng.choice(LABELS, rng.integers(0, 14)):
            place = (rng.uniform(0, side), rng.uniform(0, side if rng.random() < 0.3 else top + 4))
            pen.text(place, str(label), fill=(ink,) * len(picture), font=font(int(rng.integers(8, 14))))
        return _values(page, side)


class RandomPanel(nn.Module):
    """Makes a picture one panel of a figure whose other panels are drawn plots, texts, cells and other look-alikes.

    Args:
        least: the smallest share of a side of the figure that the picture has.
    """

    def __init__(self, least: float = 0.3) -> None:
        super().__init__()
        self.least = least

    def forward(self, picture: Tensor) -> Tensor:
        """Changes a picture, values in [0, 1] of shape ``[1 or 3, H, W]``."""
        rng, side = _generator(), picture.shape[-1]
        page = _page(picture, int(rng.choice([255, 255, 240, 0])))
        share, gap = int(side * rng.uniform(self.least, 0.7)), int(rng.uniform(0, 0.04) * side)
        half = side // 2 if rng.random() < 0.4 else side
        boxes = [(0, 0, share - gap, side), (share, 0, side, half), (share, half, side, side)]
        across = rng.random() < 0.5
        for number, (left, top, right, bottom) in enumerate(boxes[: 2 if half == side else 3]):
            panel = _look_alike(rng) if number else _image(picture)
            if not across:
                left, top, right, bottom = top, left, bottom, right
            fitted = ImageOps.contain(panel, (right - left, bottom - top)) if rng.random() < 0.6 else None
            page.paste(fitted or panel.resize((right - left, bottom - top)), (left, top))
        return _values(ImageOps.mirror(page) if rng.random() < 0.5 else page, side)


class RandomQuality(nn.Module):
    """Reduces a picture to fewer pixels and compresses it as a JPEG, as pages of papers and chats do.

    Args:
        least: the smallest share of pixels of a side that is left.
    """

    def __init__(self, least: float = 0.3) -> None:
        super().__init__()
        self.least = least

    def forward(self, picture: Tensor) -> Tensor:
        """Changes a picture, values in [0, 1] of shape ``[1 or 3, H, W]``."""
        rng, side, file = _generator(), picture.shape[-1], io.BytesIO()
        fewer = max(int(side * rng.uniform(self.least, 1)), 1)
        _image(picture).resize((fewer, fewer)).save(file, "JPEG", quality=int(rng.integers(15, 80)))
        return _values(Image.open(file), side)


def _look_alike(rng: np.random.Generator) -> Image.Image:
    """A clean drawing, or a photograph of one."""
    draw = one_of(rng, PANELS) if rng.random() < 0.6 else one_of(rng, list(LOOK_ALIKES.values()))
    return draw(rng).convert("L")


def _generator() -> np.random.Generator:
    """NumPy's generator, seeded by what torch draws next."""
    return np.random.default_rng(int(torch.randint(2**62, ())))


def _page(picture: Tensor, value: int) -> Image.Image:
    """An empty page with the size and the channels of a picture."""
    return Image.new("L", (picture.shape[-1], picture.shape[-2]), value).convert("L" if len(picture) == 1 else "RGB")


def _image(picture: Tensor) -> Image.Image:
    values = (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))


def _values(page: Image.Image, side: int) -> Tensor:
    return torch.from_numpy(network_input(page, side))


def study(image_size: int) -> list[nn.Module]:
    """What the original study did: crops, mirrors and turns by up to 10 degrees."""
    return [v2.RandomResizedCrop(image_size, antialias=True), v2.RandomHorizontalFlip(), v2.RandomRotation(10)]


def labs(image_size: int) -> list[nn.Module]:
    """What differs between labs: framing, light, inversion, labels, other panels beside it, resolution, JPEG."""
    return [
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(0.15),
        v2.RandomApply([v2.RandomRotation(8, v2.InterpolationMode.BILINEAR)], 0.4),
        v2.RandomApply([v2.RandomResizedCrop(image_size, scale=(0.5, 1), ratio=(0.6, 1.6), antialias=True)], 0.6),
        v2.RandomInvert(0.2),
        v2.RandomApply([v2.ColorJitter(brightness=0.3, contrast=0.4), RandomGamma()], 0.8),
        v2.RandomChoice([RandomPanel(), RandomLabels(), nn.Identity()], [0.2, 0.25, 0.55]),
        v2.RandomApply([RandomQuality()], 0.4),
        v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.5))], 0.3),
        v2.RandomApply([v2.GaussianNoise(sigma=0.03)], 0.3),
    ]


def crop_flip(image_size: int) -> list[nn.Module]:
    """What is usual for small photographs: moves by up to an eighth of a side, and mirrors."""
    return [v2.RandomCrop(image_size, padding=image_size // 8, padding_mode="reflect"), v2.RandomHorizontalFlip()]


PRESETS: dict[str, Callable[[int], list[nn.Module]]] = {"study": study, "labs": labs, "crop_flip": crop_flip}
"""Transforms for pictures of a side in pixels, by the name that ``--data.augmentation`` takes."""
