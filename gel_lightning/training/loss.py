"""The loss of training: cross-entropy with class weights, smoothed labels and mixed features."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional

from gel_lightning.core.errors import GelError, check_range

MAX_MIXUP = 100.0


class TrainingLoss(nn.Module):
    """Cross-entropy of a batch, with options that apply to training alone.

    Args:
        class_weights: ``balanced`` for the inverse of each class's share of the training pictures, or a weight for each
            class; None weighs all alike.
        label_smoothing: share of each label, in [0, 1], that is spread over all classes.
        mixup: the parameter alpha of the beta distribution that shares are drawn from, in [0, 100]; 0 mixes nothing.
            Mixup is from Zhang et al., 2018, https://arxiv.org/abs/1710.09412; here the trunk's features are mixed, as
            in Manifold Mixup, https://arxiv.org/abs/1806.05236, so that stored ones can be.

    Raises:
        GelError: a number is out of range.
    """

    def __init__(self, class_weights: str | Sequence[float] | None, label_smoothing: float, mixup: float) -> None:
        super().__init__()
        check_range("--model.label_smoothing", label_smoothing, 0, 1)
        check_range("--model.mixup", mixup, 0, MAX_MIXUP)
        self.class_weights, self.label_smoothing, self.mixup = class_weights, label_smoothing, mixup
        self.weights: Tensor | None = None  # no buffer: callbacks that average weights copy those before it is known

    def set_classes(self, class_names: Sequence[str], counts: Sequence[int] | None) -> None:
        """Weighs classes of these names, of which there are so many training pictures, or None if nobody knows."""
        if self.class_weights is not None:
            self.weights = loss_weights(self.class_weights, class_names, counts)

    def mix(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mixes each item of a batch with the one before it, the first with the last.

        Args:
            features: shape ``[N, ...]``.

        Returns:
            The mixed features, and the share that is left of each item, a scalar; None if nothing is mixed.
        """
        if not self.mixup:
            return features, None
        share = Beta(self.mixup, self.mixup).sample().to(features)
        return share * features + (1 - share) * features.roll(1, 0), share

    def forward(self, logits: Tensor, labels: Tensor, share: Tensor | None = None) -> Tensor:
        """Returns the mean loss of a batch, a scalar.

        Args:
            logits: shape ``[N, classes]``.
            labels: shape ``[N]``, of the items as they were before they were mixed.
            share: what :meth:`mix` returned.
        """
        loss = self._loss(logits, labels)
        return loss if share is None else share * loss + (1 - share) * self._loss(logits, labels.roll(1, 0))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits)
        return functional.cross_entropy(logits, labels, weights, label_smoothing=self.label_smoothing)


def loss_weights(asked: str | Sequence[float], class_names: Sequence[str], counts: Sequence[int] | None) -> Tensor:
    """One weight a class, shape ``[classes]``.

    Args:
        asked: ``balanced``, or the weights.
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
