"""Callbacks of Lightning that training a head on a frozen backbone has no use for, each refused with the reason."""

from collections.abc import Iterable

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)

from gel_lightning.core.errors import GelError

REASONS: dict[type[Callback], str] = {
    BaseFinetuning: "the backbone stays frozen, so there is nothing to unfreeze; leave it out",
    StochasticWeightAveraging: (
        "it averages the weights after the best checkpoint was written, so the average would be in none; take "
        "EMAWeightAveraging or WeightAveraging"
    ),
    LearningRateFinder: (
        "the learning rate it sets would be in no config.yaml, checkpoint or results row; give one with "
        "--model.optimizer.lr"
    ),
    BatchSizeFinder: (
        "it takes the largest batch that fits into memory, and all feature vectors do; give a size with "
        "--data.batch_size"
    ),
    ModelPruning: "it replaces parameters that checkpoints name; leave it out",
}


def check_callbacks(kinds: Iterable[type]) -> None:
    """Refuses classes of callbacks that would do nothing, or something that no checkpoint keeps.

    Raises:
        GelError: names the callback and the reason.
    """
    for kind in kinds:
        for refused, reason in REASONS.items():
            if issubclass(kind, refused):
                raise GelError(f"{kind.__name__} (--trainer.callbacks) is refused: {reason}")


def check_averaging(callbacks: Iterable[Callback], backbone_is_loaded: bool) -> None:
    """Refuses to average weights of a model whose backbone was loaded before: it would be averaged too.

    Raises:
        GelError: it was.
    """
    averaging = any(isinstance(callback, WeightAveraging) for callback in callbacks)
    if averaging and backbone_is_loaded:
        raise GelError("the weights are averaged by a callback, and the backbone is not to be; fit a new GelClassifier")
