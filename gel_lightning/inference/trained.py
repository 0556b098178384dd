"""A trained model, with what its checkpoint says about the pictures that it was trained on."""

from pathlib import Path
from typing import Any, NamedTuple

from gel_lightning.core.errors import GelError
from gel_lightning.training.checkpoints import read_checkpoint
from gel_lightning.training.classifier import GelClassifier


class Trained(NamedTuple):
    """What it takes to classify pictures.

    Attributes:
        model: the classifier, on the CPU and in eval mode, its trunk loaded.
        image_size: side in pixels to which pictures are resized.
        colour: whether they are read as RGB, not as grey.
        class_counts: training pictures of each class; None if that is not known.
    """

    model: GelClassifier
    image_size: int
    colour: bool
    class_counts: list[int] | None

    @classmethod
    def load(cls, path: Path, weights: str | None = None) -> "Trained":
        """Loads a checkpoint and the weights of its backbone.

        Args:
            path: a checkpoint that `gel-fit fit` has written.
            weights: of the backbone; None takes those that the checkpoint names.

        Raises:
            GelError: the checkpoint or its weights cannot be had, or it does not say how pictures are resized.
        """
        checkpoint = read_checkpoint(path)
        own: dict[str, Any] = {"weights": weights} if weights else {}
        model = GelClassifier.load_from_checkpoint(path, **own).eval()
        model.network.trunk.eval()
        data = checkpoint.get("GelDataModule", {})
        size = data.get("image_size")
        if size is None:
            raise GelError(f"{path}: does not say how its pictures were resized; train with a GelDataModule")
        return cls(model, size, bool(data.get("colour")), checkpoint.get("train_class_counts"))
