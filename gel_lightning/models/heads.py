"""Classification heads: the trained part, from feature vectors to one logit a class."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from gel_lightning.core.errors import GelError

HeadCallable = Callable[[int, int], nn.Module]
"""What makes a head: the number of features and the number of classes in, a module out."""


class LinearHead(nn.Module):
    """One linear layer: the ``single`` head of the original study.

    Args:
        in_features: length of a feature vector.
        num_classes: number of classes.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Linear(in_features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features, shape ``[N, in_features]``, to logits, shape ``[N, num_classes]``."""
        logits: Tensor = self.layers(features)
        return logits


class MultiLayerHead(nn.Module):
    """Linear layers with ReLU and dropout between them: the ``multi`` head of the original study.

    Args:
        in_features: length of a feature vector.
        num_classes: number of classes.
        hidden: width of each hidden layer.
        dropout: share of activations dropped in training after each hidden layer, one for each.

    Raises:
        GelError: ``hidden`` and ``dropout`` differ in length.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden: Sequence[int] = (512, 256),
        dropout: Sequence[float] = (0.25, 0.5),
    ) -> None:
        super().__init__()
        if len(hidden) != len(dropout):
            raise GelError(
                f"the head has hidden {list(hidden)} and dropout {list(dropout)}; give one dropout for each hidden "
                "layer (--model.head.hidden, --model.head.dropout)"
            )
        layers: list[nn.Module] = []
        for width, share in zip(hidden, dropout, strict=True):
            layers += [nn.Linear(in_features, width), nn.ReLU(), nn.Dropout(share)]
            in_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Maps features, shape ``[N, in_features]``, to logits, shape ``[N, num_classes]``."""
        logits: Tensor = self.layers(features)
        return logits
