"""Network: a pretrained backbone that is cut once into a frozen trunk and a trained tail, and a head."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gel_lightning.models.backbones import (
    Cut,
    architecture,
    chain,
    check_trained_whole,
    cut_at,
    normalisation,
    num_features,
    without_last_linear,
)
from gel_lightning.models.folding import fold_batch_norm
from gel_lightning.models.heads import HeadCallable, MultiLayerHead
from gel_lightning.models.weights import check_weights, fingerprint, known_fingerprint, load_network


class Trunk(nn.Module):
    """The frozen part of a backbone.

    Its parameters need no gradient, its forward runs without one, and it stays in eval mode whatever is asked of it:
    its state is the same to the last bit before and after training. BatchNorm is folded into the convolutions before
    it and pictures go through in ``channels_last``, which takes half the time and changes features by their last bits.

    Args:
        layers: modules that are called one after the other, with their names; none only normalises pictures.
        mean: mean of each colour channel that the network was trained with, of values in [0, 1].
        std: standard deviation of the same.
        fingerprint: of the weights of the whole backbone.
        folds: whether BatchNorm can be folded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: Iterable[tuple[str, nn.Module]],
        mean: Sequence[float],
        std: Sequence[float],
        fingerprint: str,
        folds: bool = True,
    ) -> None:
        super().__init__()
        self.fingerprint = fingerprint
        frozen = in_sequence(layers).eval()
        self.layers = fold_batch_norm(frozen) if folds else frozen
        self.layers.requires_grad_(False).to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "Trunk":
        """Stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Turns pictures into features.

        Args:
            pictures: values in [0, 1], shape ``[N, 1, H, W]`` (grey, repeated on three channels) or
                ``[N, 3, H, W]``.

        Returns:
            Features, shape ``[N, num_features]`` for a whole backbone, else feature maps ``[N, C, H', W']``.
        """
        normalised = (pictures - self.mean) / self.std
        features: Tensor = self.layers(normalised.contiguous(memory_format=torch.channels_last))
        return features


class Network(nn.Module):
    """Normalisation, frozen trunk, trained tail and head.

    Tail and head are whole from the start. The trunk is loaded when it is first used, since features that are stored
    need none, and is no part of the state dict: it never changes, and is 50 to 500 times as large as a head.

    Args:
        backbone: name of the pretrained network.
        weights: of the backbone, as for :func:`~gel_lightning.models.weights.load_network`.
        head: makes the head from the number of features and of classes.
        num_classes: number of classes.
        unfreeze: share of the backbone's layers that belong to the tail, as for
            :func:`~gel_lightning.models.backbones.cut_at`.

    Attributes:
        cut: where the backbone is cut.
        trunk: the frozen :class:`Trunk`.
        tail: maps what the trunk gives to feature vectors; empty if the trunk gives these.
        head: maps feature vectors to logits.

    Raises:
        GelError: no such backbone; weights that cannot be had or do not fit; ``unfreeze`` is not in [0, 1], or is below
            1 for a network without pretrained weights.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str = "imagenet",
        head: HeadCallable = MultiLayerHead,
        num_classes: int = 2,
        unfreeze: float = 0.0,
    ) -> None:
        super().__init__()
        check_weights(backbone, weights)
        self.backbone, self.weights = backbone, weights
        check_trained_whole(backbone, unfreeze)
        self.cut: Cut = cut_at(backbone, unfreeze)
        self.tail = nn.Sequential()
        self._tail_is_trained = True
        self._fingerprint: str | None = None
        self._loaded: list[Trunk] = []  # in a list it is no submodule
        if self.cut.trained:
            if architecture(backbone).scratch:  # drawn as the head is: another seed gives another network
                network, self._fingerprint = without_last_linear(backbone)[0], fingerprint(nn.Module())
            else:
                network, self._fingerprint = load_network(backbone, weights)
            layers = chain(backbone, network)[self.cut.place :]
            self.tail = in_sequence(layers).to(memory_format=torch.channels_last)
        self.head: nn.Module = head(num_features(backbone), num_classes)
        self.register_state_dict_post_hook(_leave_trunk_out)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_put_trunk_in)  # type: ignore[no-untyped-call]

    def __getattr__(self, name: str) -> Any:
        """Loads the trunk when it is first asked for."""
        if name != "trunk" or "trunk" in self._modules:
            return super().__getattr__(name)
        self.trunk = self.load_trunk()
        return self.trunk

    def load_trunk(self) -> Trunk:
        """Loads the trunk once, on the device and in the precision of the head, but not as a part of this network."""
        if not self._loaded:
            with torch.inference_mode(False):
                self._loaded.append(load_trunk(self.backbone, self.weights, self.cut.place))
        (trunk,) = self._loaded
        for parameter in self.head.parameters():
            return trunk.to(parameter.device, parameter.dtype)
        return trunk

    @property
    def trunk_is_loaded(self) -> bool:
        """Whether the trunk is a part of this network, which it is from its first use on."""
        return "trunk" in self._modules

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the backbone's pretrained weights, which are loaded only if no run has loaded them before."""
        if self._fingerprint is None:
            known = None if self.trunk_is_loaded else known_fingerprint(self.backbone, self.weights)
            self._fingerprint = known or self.trunk.fingerprint
        return self._fingerprint

    def feature_shape(self, image_size: int) -> tuple[int, ...]:
        """The shape of what the trunk gives for one square picture."""
        if not self.cut.trained:
            return (num_features(self.backbone),)
        trunk = structure(self.backbone, 0, self.cut.place).eval()
        return tuple(trunk(torch.empty(1, 3, image_size, image_size, device="meta")).shape[1:])

    def train_tail(self, trained: bool, has_gradients: bool = False) -> None:
        """Has the tail be trained, or stay frozen as the trunk is, until this is called again.

        Args:
            trained: whether it is.
            has_gradients: compute its gradients even if it is not.
        """
        self._tail_is_trained = trained
        self.tail.requires_grad_(trained or has_gradients).train(self.training and trained)

    def train(self, mode: bool = True) -> "Network":
        """Sets the mode; what is frozen stays in eval mode."""
        super().train(mode)
        self.tail.train(mode and self._tail_is_trained)
        return self

    def forward(self, pictures: Tensor) -> Tensor:
        """Turns pictures, values in [0, 1] of shape ``[N, 1 or 3, H, W]``, into logits, shape ``[N, classes]``."""
        return self.classify(self.trunk(pictures))

    def vectors(self, features: Tensor) -> Tensor:
        """Turns what the trunk gives into feature vectors, shape ``[N, num_features]``."""
        if not self.cut.trained:
            return features
        if features.ndim == 4:
            features = features.contiguous(memory_format=torch.channels_last)
        vectors: Tensor = self.tail(features)
        return vectors

    def classify(self, features: Tensor) -> Tensor:
        """Turns what the trunk gives into logits, shape ``[N, classes]``."""
        logits: Tensor = self.head(self.vectors(features))
        return logits


def load_trunk(backbone: str, weights: str, place: int | None = None) -> Trunk:
    """Loads the frozen part of a backbone, on the CPU.

    Args:
        backbone: its name.
        weights: as for :func:`~gel_lightning.models.weights.load_network`.
        place: number of modules of its :func:`~gel_lightning.models.backbones.chain`; None takes all.

    Raises:
        GelError: no such backbone; weights that cannot be had, read, or do not fit.
    """
    network, digest = load_network(backbone, weights)
    layers = chain(backbone, network)[:place]
    return Trunk(layers, *normalisation(backbone), digest, architecture(backbone).folds)


def structure(backbone: str, start: int, stop: int | None = None) -> nn.Sequential:
    """Builds a part of a backbone on the meta device, where it has shapes and no values.

    Args:
        backbone: its name.
        start: first module of its :func:`~gel_lightning.models.backbones.chain`.
        stop: the module after the last one; None takes all that follow.
    """
    with torch.device("meta"):
        return in_sequence(chain(backbone, without_last_linear(backbone)[0])[start:stop])


def in_sequence(layers: Iterable[tuple[str, nn.Module]]) -> nn.Sequential:
    """Makes a network that calls modules one after the other, under their names with ``-`` for each dot."""
    return nn.Sequential(OrderedDict((name.replace(".", "-"), layer) for name, layer in layers))


def _leave_trunk_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Removes the trunk from a state dict that is saved."""
    for key in [key for key in state if key.startswith(f"{prefix}trunk.")]:
        del state[key]


def _put_trunk_in(module: Network, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Adds the network's own trunk, if it is loaded, to a state dict that is being loaded."""
    if module.trunk_is_loaded:
        state.update({f"{prefix}trunk.{key}": value for key, value in module.trunk.state_dict().items()})
