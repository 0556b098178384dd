"""Networks of timm, by ``timm/NAME``: how each is made is found out by building it and watching what it calls."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from gel_lightning.core.errors import GelError, missing_package
from gel_lightning.models.architectures import Architecture, modules_of

TIMM = "timm/"
FILES = ("model.safetensors", "pytorch_model.bin")
"""Names that timm's weights have on the hub."""
SMALLEST = 32
"""The smallest side in pixels of networks of which timm names none: most halve their pictures five times."""


@cache
def timm_architecture(name: str) -> Architecture:
    """Finds out how a network of timm is made, where it can be cut, and what pictures it takes.

    It must call its children one after the other. Whether it does is seen on the meta device, which takes no time.

    Args:
        name: timm's name of it, such as ``resnet50`` or ``resnet50.a1_in1k``.

    Raises:
        GelError: timm is not installed, or has no such network; it ends in no single linear layer, or is no chain.
    """
    with torch.device("meta"):
        network = make_timm(name).eval()
    config = _config(network)
    last = config.get("classifier")
    if not isinstance(last, str) or not isinstance(_submodule(network, last), nn.Linear):
        raise GelError(f"{TIMM}{name} does not end in one linear layer; choose another backbone (--model.backbone)")
    network, _ = remove_linear(network, last)
    one_size, usual = bool(config.get("fixed_input_size")), config["input_size"][-1]
    calls = _calls(network, usual)
    called = {call.module for call in calls}
    chain = " ".join(child + _levels(module) for child, module in network.named_children() if module in called)
    if not _is_chain([module for _, module in modules_of(chain, network)], calls):
        raise GelError(
            f"{TIMM}{name} is more than its layers one after the other, and cannot be cut; choose another backbone, "
            "such as a ResNet, ConvNeXt, RegNet, EfficientNet or Swin (--model.backbone)"
        )
    return Architecture(
        *(last, chain, name),
        min_size=usual if one_size else (config.get("min_input_size") or (3, SMALLEST, SMALLEST))[-1],
        one_size=one_size,
        normalised=(tuple(config["mean"]), tuple(config["std"])),
        imagenet="timm",
        folds=_folds(network, calls),
    )


def make_timm(name: str, pretrained: bool = False) -> nn.Module:
    """Builds a network of timm.

    Args:
        name: timm's name of it.
        pretrained: whether with its ImageNet weights, from timm's cache or the network; else they are random.

    Raises:
        GelError: timm is not installed, or has no such network.
    """
    timm = _timm()
    if not timm.is_model(name):
        alike = ", ".join(f"{TIMM}{one}" for one in get_close_matches(name, timm.list_models(), 4))
        raise GelError(f"timm has no model {name!r}; choose {alike or 'one of timm.list_models()'} (--model.backbone)")
    if "." in name and name not in timm.list_pretrained(f"{name.partition('.')[0]}.*"):
        known = ", ".join(f"{TIMM}{one}" for one in timm.list_pretrained(f"{name.partition('.')[0]}.*")[:4])
        raise GelError(f"timm has no weights {name!r}; choose {known or 'the name without them'} (--model.backbone)")
    network: nn.Module = timm.create_model(name, pretrained=pretrained)
    return network


def timm_state(name: str) -> dict[str, Tensor]:
    """The ImageNet weights of a network of timm, from timm's cache or the network."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    if timm_file(name) is None and (repository := _repository(name)):
        # One request that fails at once where there is no network: the download retries for most of a minute.
        with suppress(EntryNotFoundError):  # the file may have another name
            get_hf_file_metadata(hf_hub_url(repository, FILES[0]), timeout=10)
    return make_timm(name, pretrained=True).state_dict()


def timm_file(name: str) -> Path | None:
    """Where timm keeps the ImageNet weights of a network; None before they were downloaded."""
    from huggingface_hub import try_to_load_from_cache

    if repository := _repository(name):
        for file in FILES:
            if isinstance(found := try_to_load_from_cache(repository, file), str):
                return Path(found)
    return None


def _repository(name: str) -> str:
    """Where on the hub the weights of a network of timm are; empty if they are elsewhere or nowhere."""
    with torch.device("meta"):
        return str(_config(make_timm(name)).get("hf_hub_id") or "")


def _config(network: nn.Module) -> Mapping[str, Any]:
    """What timm knows of a network: its classifier, its pictures, where its weights are."""
    config: Mapping[str, Any] = cast(Any, network).pretrained_cfg
    return config


def remove_linear(network: nn.Module, last: str) -> tuple[nn.Module, int]:
    """Takes the last linear layer out of a network, and returns both the network and the length of its input."""
    linear = network.get_submodule(last)
    assert isinstance(linear, nn.Linear)
    network.set_submodule(last, nn.Identity())
    return network, linear.in_features


def _timm() -> ModuleType:
    try:
        import timm  # seconds that the other networks need not wait for
    except ImportError as error:
        raise missing_package("timm", "packaged") from error
    module: ModuleType = timm
    return module


def _submodule(network: nn.Module, path: str) -> nn.Module | None:
    try:
        return network.get_submodule(path)
    except AttributeError:
        return None


def _levels(module: nn.Module) -> str:
    """How deep the plain sequences in a module are, as a chain has it."""
    if type(module) is not nn.Sequential or not len(module):
        return ""
    return ".*" + min((_levels(child) for child in module), key=len)


class Call(NamedTuple):
    """A call of a module: what it took and gave, and how often each had been changed in place by then."""

    module: nn.Module
    taken: Any
    taken_version: int
    given: Any
    given_version: int


def _calls(network: nn.Module, side: int) -> list[Call]:
    """The calls of all modules of a network on the meta device for a picture, in the order in which they ended."""
    calls: list[Call] = []
    begun: dict[nn.Module, int] = {}

    def begin(module: nn.Module, taken: tuple[Any, ...]) -> None:
        begun[module] = _version(taken)

    def end(module: nn.Module, taken: tuple[Any, ...], given: Any) -> None:
        calls.append(Call(module, taken, begun[module], given, _version((given,))))

    handles = [module.register_forward_pre_hook(begin) for module in network.modules()]
    handles += [module.register_forward_hook(end) for module in network.modules()]
    with torch.no_grad():
        network(torch.empty(2, 3, side, side, device="meta"))
    for handle in handles:
        handle.remove()
    return calls


def _version(values: tuple[Any, ...]) -> int:
    """How often the first of some values was changed in place; -1 for other things than tensors."""
    return int(values[0]._version) if values and isinstance(values[0], Tensor) else -1


def _is_chain(modules: Sequence[nn.Module], calls: Sequence[Call]) -> bool:
    """Whether a network, whose call is the last one, is its modules one after the other."""
    whole = calls[-1]
    own = [call for call in calls if call.module in modules]
    if [call.module for call in own] != list(modules) or not modules:
        return False
    before: tuple[Any, int] = (whole.taken[0], whole.taken_version)
    for call in own:
        if len(call.taken) != 1 or call.taken[0] is not before[0] or call.taken_version != before[1]:
            return False
        before = (call.given, call.given_version)
    return before[0] is whole.given and before[1] == whole.given_version and whole.given.ndim == 2


def _folds(network: nn.Module, calls: Sequence[Call]) -> bool:
    """Whether each BatchNorm that follows a convolution where they are defined takes what that one gives."""
    from timm.layers import ScaledStdConv2d, StdConv2d  # type: ignore[attr-defined]  # their weights are scaled

    by_module = {call.module: call for call in calls}
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    for convolution, norm in pairwise(layers):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            first, second = by_module.get(convolution), by_module.get(norm)
            if first is None or second is None or isinstance(convolution, ScaledStdConv2d | StdConv2d):
                return False
            if second.taken[0] is not first.given or second.taken_version != first.given_version:
                return False
    return True
