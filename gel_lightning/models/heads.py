"""Classification heads: the trained part, from feature vectors to one logit a class."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from gel_lightning.core.errors import GelError, check_range

HeadCallable = Callable[[int, int], nn.Module]
"""What makes a head: the number of features and the number of classes in, a module out."""

MAX_WIDTH = 65_536
"""The largest width of a hidden layer: two layers of it have more weights than any GPU holds."""


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


class NormalizedLinearHead(nn.Module):
    """One linear layer on feature vectors of one length, so that the contrast of a picture does not count.

    Args:
        in_features: length of a feature vector.
        num_classes: number of classes.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(in_features, elementwise_affine=False)
        self.layers = nn.Linear(in_features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features, shape ``[N, in_features]``, to logits, shape ``[N, num_classes]``."""
        logits: Tensor = self.layers(self.norm(features))
        return logits


class MultiLayerHead(nn.Module):
    """Linear layers with ReLU and dropout between them: the ``multi`` head of the original study.

    Args:
        in_features: length of a feature vector.
        num_classes: number of classes.
        hidden: width of each hidden layer.
        dropout: share of activations dropped in training after each hidden layer, one for each.

    Raises:
        GelError: ``hidden`` and ``dropout`` differ in length; a width is not from 1 to :data:`MAX_WIDTH`; a share is
            not from 0 to 1.
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
            check_range("--model.head.hidden", width, 1, MAX_WIDTH)
            check_range("--model.head.dropout", share, 0, 1)
            layers += [nn.Linear(in_features, width), nn.ReLU(), nn.Dropout(share)]
            in_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Maps features, shape ``[N, in_features]``, to logits, shape ``[N, num_classes]``."""
        logits: Tensor = self.layers(features)
        return logits
