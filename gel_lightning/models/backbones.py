"""Frozen networks that turn a picture into one feature vector."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_weights
from torchvision.models import get_model, get_model_weights
from torchvision.transforms import v2

from gel_lightning.core.archives import DamagedFileError, UnsafeFileError, all_finite, load_plain
from gel_lightning.core.errors import GelError, missing_package
from gel_lightning.core.store import Store, default_cache_dir
from gel_lightning.models.weights import WHEELS, in_order, packaged_file

LAST_LINEAR = {
    "resnet18": "fc",
    "vgg16": "classifier.6",
    "mobilenet_v3_large": "classifier.3",
    "mobilenet_v2": "classifier.1",
    "efficientnet_lite0": "classifier",
}
"""Name of each network, and where its last linear layer is. One entry adds a backbone of torchvision."""

TIMM = {"efficientnet_lite0": "tf_efficientnet_lite0"}
"""timm's names of the networks that torchvision does not have."""

TIMM_MEAN, TIMM_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Normalisation that EfficientNet-Lite was trained with: (value - 127) / 128."""

NAMED_WEIGHTS = ("imagenet", "packaged", "none")
"""Choices of weights that are no path."""

MIN_SIZE = {"vgg16": 32}
"""The smallest side of a picture in pixels, where it is not 1."""

IMAGENET_VERSION = "IMAGENET1K_V1"  # the weights of the original study, for every network
RANDOM_SEED = 0  # of the weights "none", so that a checkpoint can build the same random network again


class Backbone(nn.Module):
    """A frozen network without its last linear layer.

    Its parameters need no gradient, its forward runs without one, and it stays in eval mode whatever is
    asked of it, so that dropout never moves: its state is the same to the last bit before and after training.
    BatchNorm is folded into the convolutions before it and pictures go through in ``channels_last``, which
    takes half the time and changes features by their last bits.

    Args:
        network: a network whose last linear layer is an identity.
        num_features: length of a feature vector.
        mean: mean of each colour channel that the network was trained with, of values in [0, 1].
        std: standard deviation of the same.
        fingerprint: of the weights, as :func:`fingerprint` has it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_features: int,
        mean: Sequence[float],
        std: Sequence[float],
        fingerprint: str,
    ) -> None:
        super().__init__()
        self.network = _for_inference(network.eval()).requires_grad_(False)
        self.fingerprint = fingerprint
        self.num_features = num_features
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stays in eval mode: a frozen network has no other."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Turns pictures into feature vectors.

        Args:
            pictures: values in [0, 1], shape ``[N, 1, H, W]`` (grey, repeated on three channels) or
                ``[N, 3, H, W]``.

        Returns:
            Features, shape ``[N, num_features]``: the input of the network's own last linear layer.
        """
        normalised = (pictures - self.mean) / self.std
        features: Tensor = self.network(normalised.contiguous(memory_format=torch.channels_last))
        return features


def build_backbone(name: str = "resnet18", weights: str = "imagenet") -> Backbone:
    """Builds a frozen backbone.

    Args:
        name: one of :data:`LAST_LINEAR`.
        weights: ``imagenet`` for torchvision's file, from the hub cache or the network; ``packaged`` for those of
            an installed wheel; ``none`` for a random network, always the same one, whose BatchNorm statistics are
            those of noise; else the path of a state dict of this network, with or without its last linear layer.

    Returns:
        The backbone, on the CPU.

    Raises:
        GelError: no such backbone; weights that cannot be had, read, or do not fit.
    """
    check_weights(name, weights)
    with _single_precision():
        return _built(name, weights)


def _built(name: str, weights: str) -> Backbone:
    state_before = _weights_state(name, weights)
    mean, std = _normalisation(name)
    if weights == "none":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            network, _ = _without_last_linear(name)
        digest = fingerprint(network)
        _settle_batch_norm(network, mean, std)
    else:
        state = _imagenet_state(name) if weights == "imagenet" else _file_state(_weights_file(name, weights))
        # On the meta device nothing is drawn or allocated for values that the state replaces.
        with torch.device("meta"):
            if weights == "packaged":
                state = in_order(state, _network(name).state_dict())
            network, _ = _without_last_linear(name)
        _load(network, state, name, weights, num_features(name))
        digest = fingerprint(network)
    # A file that has just been downloaded was not there before; any other is known by its state before it was read.
    known_by = state_before or _weights_state(name, weights)
    if known_by and known_fingerprint(name, weights) is None:
        # Where nothing can be kept the weights are read each time.
        with suppress(GelError), _fingerprints().adding() as add:
            add([known_by], np.frombuffer(bytes.fromhex(digest), np.uint8)[None])
    return Backbone(network, num_features(name), mean, std, digest)


@cache
def num_features(name: str) -> int:
    """The length of a backbone's feature vectors.

    Raises:
        GelError: no such backbone.
    """
    if name not in LAST_LINEAR:
        raise GelError(f"no backbone {name!r}; choose one of {', '.join(LAST_LINEAR)} (--model.backbone)")
    with torch.device("meta"):
        return _without_last_linear(name)[1]


def check_image_size(name: str, image_size: int) -> None:
    """Refuses pictures that are too small for a backbone, whose layers halve them several times.

    Raises:
        GelError: names the smallest size that the backbone takes.
    """
    least = MIN_SIZE.get(name, 1)
    if image_size < least:
        raise GelError(
            f"pictures of {image_size} pixels are too small for {name}; give --data.image_size {least} or more"
        )


def known_fingerprint(name: str, weights: str) -> str | None:
    """The fingerprint of weights that were loaded before, without reading them; None if it is not known.

    Args:
        name: of the backbone.
        weights: as for :func:`build_backbone`.
    """
    state = _weights_state(name, weights)
    rows = _fingerprints().find([state] if state else [])
    return rows.take([0]).tobytes().hex() if state and not rows.missing[0] else None


def fingerprint(network: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a network's state."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def check_weights(name: str, weights: str) -> None:
    """Finds out what can be wrong with a choice of weights before they are loaded.

    Raises:
        GelError: no such backbone; no such file; no such weights of this backbone.
    """
    num_features(name)
    if weights == "packaged":
        packaged_file(name)
    elif weights == "imagenet" and name in TIMM:
        raise GelError(
            f"torchvision has no weights of {name}; give --model.weights {'packaged' if name in WHEELS else 'FILE'}"
        )
    elif weights not in NAMED_WEIGHTS and not Path(weights).expanduser().exists():
        raise GelError(f"{weights}: no such weights file; name one with --model.weights, or imagenet, or none")


def weights_identity(weights: str) -> str:
    """The name of weights that holds from any folder: a path made absolute, the other choices as they are."""
    return weights if weights in NAMED_WEIGHTS else str(Path(weights).expanduser().resolve())


@contextmanager
def _single_precision() -> Iterator[None]:
    """Leaves out of account the precision of a trainer in whose midst the block runs."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)


def _fingerprints() -> Store:
    return Store(default_cache_dir(), {"kind": "fingerprints of checked files"}, np.uint8, hashlib.sha256().digest_size)


def _weights_state(name: str, weights: str) -> bytes | None:
    """A digest that is another one whenever the weights may be others; None if their file is not there."""
    if weights == "none":
        state = [RANDOM_SEED, torch.__version__, *_library(name)]
    else:
        path = _weights_file(name, weights)
        try:
            status = path.stat()
        except OSError:
            return None
        times = (status.st_mtime_ns, status.st_ctime_ns)
        state = [str(path.resolve()), status.st_dev, status.st_ino, status.st_size, *times, *_library(name)]
    return hashlib.sha256(json.dumps([name, *state]).encode()).digest()


def _for_inference(network: nn.Module) -> nn.Module:
    """Folds each BatchNorm into its convolution, which is the one defined before it."""
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    for (_, convolution), (name, norm) in pairwise(layers):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
            convolution.weight, bias = fuse_conv_bn_weights(
                convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
            )
            convolution.bias = bias
            network.set_submodule(name, getattr(norm, "act", nn.Identity()))  # timm's has the activation in it
    return network.to(memory_format=torch.channels_last)


def _weights_file(name: str, weights: str) -> Path:
    if weights == "packaged":
        return packaged_file(name)
    return _hub_file(name) if weights == "imagenet" else Path(weights).expanduser()


def _hub_file(name: str) -> Path:
    """Where torch.hub puts the ImageNet weights."""
    url: str = get_model_weights(name)[IMAGENET_VERSION].url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _library(name: str) -> tuple[str, ...]:
    """What the initialisation and the parameter names of a network depend on."""
    return ("timm", version("timm")) if name in TIMM else (torchvision.__version__,)


def _normalisation(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of each colour channel, of values in [0, 1]."""
    if name in TIMM:
        return TIMM_MEAN, TIMM_STD
    preset = get_model_weights(name)[IMAGENET_VERSION].transforms()
    return preset.mean, preset.std


def _network(name: str) -> nn.Module:
    """Builds the whole network, its weights drawn."""
    if name not in TIMM:
        network: nn.Module = get_model(name, weights=None)
        return network
    try:
        import timm  # a second that the other networks need not wait for
    except ImportError as error:
        raise missing_package("timm", "packaged") from error
    network = timm.create_model(TIMM[name])
    return network


def _without_last_linear(name: str) -> tuple[nn.Module, int]:
    network = _network(name)
    last = network.get_submodule(LAST_LINEAR[name])
    assert isinstance(last, nn.Linear)
    network.set_submodule(LAST_LINEAR[name], nn.Identity())
    return network, last.in_features


def _settle_batch_norm(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Gives a random network the BatchNorm statistics of noise at several scales.

    Without them its features hardly differ from one picture to the next: a head learns nothing in 20 epochs.
    The statistics differ in their last bits from machine to machine, and so are not in the fingerprint.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not layers:
        return
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    scales = [torch.rand(8, 1, side, side, generator=generator) for side in (2, 4, 8, 16, 32, 64)]
    noise = torch.stack([functional.interpolate(scale, size=224, mode="bilinear") for scale in scales]).mean(0)
    noise = noise - noise.amin((1, 2, 3), keepdim=True)
    noise = noise / noise.amax((1, 2, 3), keepdim=True)
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.train()
        layer.momentum = None  # the statistics of this batch alone
    with torch.no_grad():
        network(v2.functional.normalize(noise.expand(-1, 3, -1, -1), list(mean), list(std)))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.eval()
        layer.momentum = momentum


def _imagenet_state(name: str) -> dict[str, Tensor]:
    url, file = get_model_weights(name)[IMAGENET_VERSION].url, _hub_file(name)
    try:
        if not file.exists():  # torch compares the checksum of what it downloads, and of nothing else
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), _checksum(file))
        elif known_fingerprint(name, "imagenet") is None:
            _compare_checksum(file)
        return _finite_state(load_plain(file))
    except Exception as error:  # networks fail in many ways
        raise GelError(
            f"the ImageNet weights of {name} cannot be had ({_first_line(error)}); connect to the network once, "
            f"put {file.name} in {file.parent}, name a state dict with --model.weights PATH, "
            "or take a random backbone with --model.weights none"
        ) from error


def _checksum(file: Path) -> str:
    """The first digits of the SHA-256 of one of torchvision's files, which its name ends in."""
    return file.stem.rpartition("-")[2]


def _compare_checksum(file: Path) -> None:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(2**20):
            digest.update(block)
    if not digest.hexdigest().startswith(_checksum(file)):
        raise DamagedFileError(f"its SHA-256 begins with {digest.hexdigest()[:8]}, another than its name; remove it")


def _file_state(path: Path) -> dict[str, Tensor]:
    try:
        return _finite_state(load_plain(path.expanduser()))
    except OSError as error:
        raise GelError(f"{path}: cannot be read ({error.strerror}); name weights with --model.weights") from error
    except (DamagedFileError, UnsafeFileError) as error:
        raise GelError(
            f"{path}: not a state dict of plain tensors, or damaged ({error}); "
            "save one with torch.save(network.state_dict(), PATH)"
        ) from error


def _finite_state(state: Any) -> dict[str, Tensor]:
    """Makes sure that what a file holds is a state dict without NaN and infinity."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DamagedFileError("it holds other things than tensors by name")
    if any(value.layout != torch.strided or value.is_meta or value.is_quantized for value in state.values()):
        raise DamagedFileError("its tensors are not dense")
    if not all_finite(state.values()):
        raise DamagedFileError("it has values that are not finite")
    return state


def _load(network: nn.Module, state: dict[str, Tensor], name: str, source: str, num_features: int) -> None:
    """Loads a state dict of which only the last linear layer may be absent, and is left out."""
    last = LAST_LINEAR[name]
    own = network.state_dict()
    expected = {key: tuple(value.shape) for key, value in own.items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    weight = found.pop(f"{last}.weight", None)
    found.pop(f"{last}.bias", None)
    # Counted batches play no part in eval mode, and files from before PyTorch 0.4.1 lack them.
    counters = {key for key in expected if key.endswith(".num_batches_tracked")} - found.keys()
    faults = [f"{key} is missing" for key in expected if key not in found and key not in counters]
    faults += [f"{key} is not part of it" for key in found if key not in expected]
    faults += [
        f"{key} has shape {found[key]}, not {expected[key]}"
        for key in expected
        if key in found and found[key] != expected[key]
    ]
    if weight is not None and weight[1:] != (num_features,):
        faults.append(f"{last}.weight has shape {weight}, not (classes, {num_features})")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise GelError(
            f"{source}: not the weights of {name}: {'; '.join(faults[:3])}{more}; "
            "name those of this backbone (--model.weights), or their backbone (--model.backbone)"
        )
    # Files of half precision are read in the precision of the network.
    kept = {key: state[key].to(own[key].dtype) for key in expected if key not in counters}
    network.load_state_dict(kept | {key: torch.tensor(0) for key in counters}, assign=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
