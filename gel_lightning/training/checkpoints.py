"""Reading a checkpoint: everything in it that is used is checked, before anything is made of it."""

import io
import math
import reprlib
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from torch import Tensor, nn

from gel_lightning.core.archives import DamagedFileError, UnsafeFileError, all_finite, load_plain
from gel_lightning.core.errors import GelError
from gel_lightning.data.datamodule import MAX_SIDE
from gel_lightning.models.architectures import ARCHITECTURES
from gel_lightning.models.backbones import cut_at, num_features
from gel_lightning.models.network import structure
from gel_lightning.models.timm_networks import TIMM
from gel_lightning.training.classes import DESCRIBED, TABLES, check_description, find_class, name_class, public_name
from gel_lightning.training.loss import MAX_MIXUP

MAX_COUNT = 2**40
MAX_VALUES, MAX_DEPTH = 10**6, 32
MAX_CLASSES = 10_000
MAX_NAME = 4096

FOREIGN = ("hparams", "module_arguments", "hparams_type", "hparams_name", "_instantiator")
"""What Lightning would take arguments or classes from besides ``hyper_parameters``; ours have nothing there."""


def read_checkpoint(path: Path, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Loads a checkpoint of :class:`~gel_lightning.training.classifier.GelClassifier` on the CPU, and checks it.

    Args:
        path: the file.
        own: descriptions of ``head``, ``optimizer`` and ``lr_scheduler`` that the person has given.

    Raises:
        GelError: the file is absent, holds more than plain data, is damaged, is not ours, has a field of the wrong
            type or size, or names a class that it may not name.
    """
    try:
        checkpoint = load_plain(path)
    except FileNotFoundError as error:
        raise GelError(f"{path}: no such checkpoint; name one that gel-fit fit has written (--ckpt_path)") from error
    except UnsafeFileError as error:
        raise GelError(
            f"{path}: refused, because it holds more than plain data; name a checkpoint of gel-fit"
        ) from error
    except (DamagedFileError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise GelError(f"{path}: not a whole checkpoint ({reason}); name another with --ckpt_path") from error
    try:
        check_fields(checkpoint, own)
    except GelError as error:
        raise GelError(f"{path}: {error}") from error
    for key in FOREIGN:
        checkpoint.pop(key, None)
    result: dict[str, Any] = checkpoint
    return result


def checked_copy(path: Any, own: Mapping[str, Any]) -> tuple[io.BytesIO, dict[str, Any]]:
    """Reads a checkpoint for Lightning, which is given nothing but what was checked.

    Args:
        path: the file.
        own: the head, optimizer and scheduler that the person has named, by ``head``, ``optimizer``, ``lr_scheduler``.

    Returns:
        The checkpoint as a file in memory, and those of ``own`` that are not in it: a bare class that the checkpoint
        names, too, gets the arguments that the checkpoint has for it.
    """
    names = {kind: name_class(kind, value) for kind, value in own.items() if isinstance(value, type)}
    for kind, value in own.items():
        if isinstance(value, partial) and isinstance(value.func, type):
            name_class(kind, value.func)
    if not isinstance(path, str | Path):
        raise GelError(f"load_from_checkpoint takes the path of a file, not {type(path).__name__}")
    checkpoint = read_checkpoint(Path(path))
    described = checkpoint["hyper_parameters"]
    alike = [kind for kind, name in names.items() if public_name((described[kind] or {}).get("class_path", "")) == name]
    copy = io.BytesIO()
    torch.save(checkpoint, copy)
    copy.seek(0)
    return copy, {kind: value for kind, value in own.items() if kind not in alike}


def check_fields(checkpoint: Any, own: Mapping[str, Any] | None = None) -> None:
    """Checks all fields that a model is rebuilt from.

    Raises:
        GelError: one is absent or of the wrong type or size.
    """
    if not isinstance(checkpoint, dict) or "backbone_fingerprint" not in checkpoint:
        raise GelError(
            "not a checkpoint of GelClassifier but a checkpoint of another model, or of none; "
            "name one that gel-fit fit has written (--ckpt_path)"
        )
    _check_plain(checkpoint)
    for field, (kind, holds) in FIELDS.items():
        need(checkpoint, field, kind, holds)
    _rename_state(checkpoint)
    need(checkpoint["hyper_parameters"], "backbone", str, lambda name: name in ARCHITECTURES or name.startswith(TIMM))
    for field, (kind, holds) in LATER_FIELDS.items():
        if field in checkpoint["hyper_parameters"]:
            need(checkpoint["hyper_parameters"], field, kind, holds)
    need(checkpoint["hyper_parameters"], "weights", str, lambda name: "\0" not in name and 0 < len(name) < MAX_NAME)
    if "drawn" in checkpoint:
        need(checkpoint, "drawn", bool)
    names = need(checkpoint["hyper_parameters"], "class_names", list, _are_class_names)
    weights = checkpoint["hyper_parameters"].get("class_weights")
    if not (weights is None or weights == "balanced" or _are_numbers(weights, len(names))):
        raise GelError(f"class_weights is {shown(weights)}: {DAMAGED}")
    if (data := checkpoint.get("GelDataModule")) is not None:
        if not isinstance(data, dict):
            raise GelError(f"GelDataModule is {shown(data)}: {DAMAGED}")
        for field, (kind, holds) in DATA.items():
            if field in data or field == "image_size":  # without it pictures would be resized in another way
                need(data, field, kind, holds)
    _check_classes(checkpoint, own or {})
    _check_validation(checkpoint, len(names))


def check_state(state: Mapping[str, Any], trained: nn.Module) -> None:
    """Compares the state of what was trained with one that a checkpoint holds.

    Args:
        state: of the checkpoint.
        trained: a module with ``head`` and ``tail``.

    Raises:
        GelError: a tensor is absent, or of another shape, or there is one too many.
    """
    expected = {f"network.{name}": tuple(value.shape) for name, value in trained.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    differing = [name for name in expected | found if expected.get(name) != found.get(name)]
    if differing:
        name = differing[0]
        raise GelError(
            f"state_dict[{shown(name)}] has shape {found.get(name)}, where the model has {expected.get(name)}: "
            f"{DAMAGED}"
        )


def need(fields: Any, field: str, kind: Any, holds: Callable[[Any], bool] = lambda value: True) -> Any:
    """Takes a field of a type, for which something holds.

    Raises:
        GelError: it is absent, of another type, or it does not hold.
    """
    if not isinstance(fields, dict) or field not in fields:
        raise GelError(f"{field} is missing: {DAMAGED}")
    value = fields[field]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or not holds(value):
        raise GelError(f"{field} is {shown(value)}: {DAMAGED}")
    return value


def shown(value: Any) -> str:
    """A short text for a value of which nothing is known."""
    try:
        return reprlib.repr(value) if not isinstance(value, Tensor) else f"a tensor of shape {tuple(value.shape)}"
    except ValueError:  # a whole number of more digits than Python prints
        return f"of type {type(value).__name__}"


def _check_classes(checkpoint: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Checks what is said of head, optimizer and scheduler, and that the head is the one whose values are here."""
    state, described = checkpoint["state_dict"], checkpoint["hyper_parameters"]
    largest = max((size for value in state.values() for size in value.shape), default=0)
    for kind in DESCRIBED:
        if kind not in described or (described[kind] is None and kind == "head"):
            raise GelError(f"{kind} is missing: {DAMAGED}")
        if described[kind] is not None:
            check_description(kind, described[kind], own.get(kind), largest)
    head = described["head"]
    if public_name(head["class_path"]) not in TABLES["head"]:
        return  # the person's own, which may not know the meta device; its state is compared when it is made
    sizes = num_features(described["backbone"]), len(described["class_names"])
    try:
        # On the meta device nothing is allocated or drawn: the state is compared before memory is taken for it.
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = find_class("head", head["class_path"])(*sizes, **head.get("init_args") or {})
    except Exception as error:  # a class of torch.nn that is no head raises nearly anything
        text = " ".join(str(error).split())
        raise GelError(f"head {shown(head)} cannot be made ({text}): {DAMAGED}") from error
    cut = cut_at(described["backbone"], described.get("unfreeze") or 0)
    tail = structure(described["backbone"], cut.place) if cut.trained else nn.Sequential()
    check_state(state, nn.ModuleDict({"tail": tail, "head": made}))


def _rename_state(checkpoint: dict[str, Any]) -> None:
    """Gives the head's values their present names: earlier checkpoints had no network around it."""
    for key in ("state_dict", "current_model_state"):  # the second is of WeightAveraging
        state = checkpoint.get(key)
        if isinstance(state, dict) and any(str(name).startswith("head.") for name in state):
            checkpoint[key] = {f"network.{name}": value for name, value in state.items()}


def _check_validation(checkpoint: Mapping[str, Any], classes: int) -> None:
    """Checks what calibration is fitted on, and the numbers of training pictures; both may be absent."""
    if (validation := checkpoint.get("validation")) is not None:
        logits = need(validation, "logits", Tensor, lambda v: v.dtype == torch.float32 and v.shape[1:] == (classes,))
        labels = need(validation, "labels", Tensor, lambda v: v.dtype == torch.int64 and v.shape == logits.shape[:1])
        if not all_finite([logits]):
            raise GelError(f"logits are not finite: {DAMAGED}")
        need(validation, "labels", Tensor, lambda _: bool(((labels >= 0) & (labels < classes)).all()))
    if checkpoint.get("train_class_counts") is not None:
        need(checkpoint, "train_class_counts", list, lambda v: len(v) == classes and all(map(_is_count, v)))


def _check_plain(checkpoint: Any) -> None:
    """Goes through everything, which may hold itself, or the same list a million times."""
    pending, seen = [(checkpoint, 0)], 0
    while pending:
        value, depth = pending.pop()
        seen += 1
        if seen > MAX_VALUES or depth > MAX_DEPTH:
            raise GelError(f"it holds too many values, one in the other: {DAMAGED}")
        if isinstance(value, dict):
            if any(isinstance(key, str) and len(key) > MAX_NAME for key in value):
                raise GelError(f"a name in it is too long: {DAMAGED}")
            if not all(isinstance(key, str | int | float | None) for key in value):
                raise GelError(f"a name in it is not a text or number: {DAMAGED}")
            pending += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple):
            pending += [(item, depth + 1) for item in value]
        elif isinstance(value, Tensor):
            dense = value.layout == torch.strided and not value.is_meta and not value.is_quantized
            if not dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise GelError(f"{shown(value)} in it is not a plain one: {DAMAGED}")
        elif not (value is None or isinstance(value, str | int | float)):
            raise GelError(f"it holds a {type(value).__name__}, which is not plain data: {DAMAGED}")


def _is_state(state: dict[Any, Any]) -> bool:
    named = all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    return named and all_finite(state.values())


def _are_class_names(names: list[Any]) -> bool:
    texts = all(isinstance(name, str) and 0 < len(name) < 1000 for name in names)
    return texts and 2 <= len(names) == len(set(names)) <= MAX_CLASSES


def _are_numbers(values: Any, number: int) -> bool:
    if not isinstance(values, list) or len(values) != number:
        return False
    return all(type(value) in (int, float) and math.isfinite(value) and value >= 0 for value in values)


def _is_version(text: str) -> bool:
    """Versions of before 2 would have Lightning rewrite the checkpoint in ways that nobody has checked."""
    try:
        return len(text) < 100 and Version(text) >= Version("2.0")
    except InvalidVersion:
        return False


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_COUNT


def _is_share(value: float) -> bool:
    return 0 < value < 1


DAMAGED = "damaged, or altered after gel-fit wrote it; name another with --ckpt_path"
FIELDS: dict[str, tuple[type, Callable[[Any], bool]]] = {
    "state_dict": (dict, _is_state),
    "hyper_parameters": (dict, lambda fields: all(isinstance(name, str) for name in fields)),
    "backbone_fingerprint": (str, lambda text: len(text) == 64 and not set(text) - set("0123456789abcdef")),
    "pytorch-lightning_version": (str, _is_version),
    "epoch": (int, _is_count),
    "global_step": (int, _is_count),
}
LATER_FIELDS: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "unfreeze": (int | float, lambda share: 0 <= share <= 1),
    "unfreeze_at_epoch": (int, lambda epoch: 0 <= epoch < MAX_COUNT),
    "backbone_lr": (int | float | None, lambda rate: rate is None or 0 <= rate < math.inf),
    "label_smoothing": (int | float, lambda share: 0 <= share <= 1),
    "mixup": (int | float, lambda alpha: 0 <= alpha <= MAX_MIXUP),
}
"""Hyper-parameters that earlier checkpoints lack."""
DATA: dict[str, tuple[type, Callable[[Any], bool]]] = {
    "image_size": (int, lambda size: 1 <= size <= MAX_SIDE),
    "colour": (bool, lambda _: True),
    "seed": (int, lambda seed: 0 <= seed < 2**32),
    "val_fraction": (float, _is_share),
    "test_fraction": (float, _is_share),
}
