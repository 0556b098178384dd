"""Weights of the classes in the training loss."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gel_lightning.core.errors import GelError


def loss_weights(asked: str | Sequence[float], class_names: Sequence[str], counts: Sequence[int] | None) -> Tensor:
    """One weight a class, shape ``[classes]``.

    Args:
        asked: ``balanced`` for the inverse of each class's share of the training pictures, or the weights.
        class_names: of the classes.
        counts: training pictures of each class; None if that is not known.

    Raises:
        GelError: the counts are not known; there are not as many weights as classes, or one is below 0.
    """
    if asked == "balanced":
        if counts is None:
            raise GelError(
                "class_weights 'balanced' needs a data module with train_class_counts; give a list of weights"
            )
        numbers = torch.tensor(counts, dtype=torch.float32)
        return numbers.sum() / (len(numbers) * numbers)
    weights = [] if isinstance(asked, str) else asked
    if len(weights) != len(class_names) or not all(0 <= weight < math.inf for weight in weights):
        raise GelError(
            f"class_weights is {asked!r}; give 'balanced' or one number of at least 0 for each of "
            f"{', '.join(class_names)} (--model.class_weights)"
        )
    return torch.tensor(weights, dtype=torch.float32)
