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
from gel_lightning.models.network import Network

REASONS: dict[type[Callback], str] = {
    BaseFinetuning: "its layers would be trained on features that are out of date; give --model.unfreeze",
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


def check_averaging(callbacks: Iterable[Callback], network: Network, features_are_stored: bool) -> None:
    """Refuses to average weights where the frozen trunk would be averaged with them, or mistaken for the tail.

    Raises:
        GelError: the trunk was loaded before the training, or is loaded in the midst of training a tail.
    """
    if not any(isinstance(callback, WeightAveraging) for callback in callbacks):
        return
    if network.trunk_is_loaded:
        raise GelError("the weights are averaged by a callback, and the trunk is not to be; fit a new GelClassifier")
    if network.cut.trained and network.cut.place and not features_are_stored:
        raise GelError(
            "the weights of an unfrozen backbone are averaged by a callback, which needs stored features; give "
            "--data.cache_features true, or leave the callback out"
        )
