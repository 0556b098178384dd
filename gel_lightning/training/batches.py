"""What a batch must be: pictures in [0, 1] or features, and labels of the classifier's classes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from gel_lightning.core.errors import GelError
from gel_lightning.data.datasets import Features

RANGE = (-0.5, 1.5)
"""Values of pictures beyond these are refused; some beyond 0 and 1 come from interpolation or noise."""


def check_pictures(pictures: Tensor | Features) -> None:
    """Refuses pictures whose values are not from 0 to 1, ``[N, 1 or 3, H, W]``; features pass.

    Raises:
        GelError: another shape, bytes, values up to 255, or values that were normalised.
    """
    if isinstance(pictures, Features):
        return
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3):
        raise GelError(
            f"the pictures of a batch have the shape {tuple(pictures.shape)}; give [N, 1 or 3, H, W], or what the "
            "trunk gives as gel_lightning.data.datasets.Features"
        )
    if not pictures.is_floating_point():
        raise GelError(
            f"the pictures of a batch are {str(pictures.dtype).removeprefix('torch.')}; give floats from 0 to 1, for "
            "bytes torchvision.transforms.v2.ToDtype(torch.float32, scale=True)"
        )
    low, high = (value.item() for value in pictures.detach().aminmax())
    if low < RANGE[0] or high > RANGE[1]:
        mend = "divide them by 255" if low >= 0 else "leave out Normalize, which the backbone does itself"
        raise GelError(f"the values of a batch's pictures are from {low:.3g} to {high:.3g}; give 0 to 1: {mend}")


def check_labels(labels: Tensor, class_names: Sequence[str]) -> None:
    """Refuses labels, ``[N]``, beyond the last class; negative ones mark padding.

    Raises:
        GelError: a label has no class.
    """
    highest = int(labels.max())
    if highest >= len(class_names):
        raise GelError(
            f"a batch has the label {highest}, but the classes are {', '.join(class_names)}; name all classes in the "
            "order of their labels: GelClassifier(class_names=[...])"
        )


@contextmanager
def single_picture_refused(pictures: int) -> Iterator[None]:
    """Names the reason when a layer cannot be trained on a batch of one picture.

    Raises:
        GelError: it is BatchNorm, with one value in each channel.
    """
    try:
        yield
    except ValueError as error:
        if pictures != 1:
            raise
        raise GelError(
            "a layer that is trained has BatchNorm, which cannot train on a batch of one picture; give another "
            "--data.batch_size, so that more pictures are left for the last batch"
        ) from error
