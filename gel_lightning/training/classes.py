"""The classes that a checkpoint may name: those of a fixed table, and those that the person has named."""

import math
import pkgutil
import re
from typing import Any

import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gel_lightning.core.errors import GelError
from gel_lightning.models import heads

DESCRIBED = {"head": nn.Module, "optimizer": Optimizer, "lr_scheduler": LRScheduler}
"""What a checkpoint describes by class, and the base of that class."""

PUBLIC = {
    "head": {"torch.nn": nn},
    "optimizer": {"torch.optim": torch.optim},
    "lr_scheduler": {"torch.optim.lr_scheduler": torch.optim.lr_scheduler},
}
WORD = re.compile(r"[a-z0-9_ -]{0,40}")
"""A string that no parser takes for a class or a file: ``relu``, ``min``, ``cos``."""
MAX_SIZE, MAX_ITEMS = 1024, 100
_named: dict[tuple[str, str], type] = {}


def _table(kind: str) -> dict[str, type]:
    """Public classes of one kind by their stable names."""
    base = DESCRIBED[kind]
    found = {
        f"{prefix}.{name}": value
        for prefix, module in PUBLIC[kind].items()
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base and not name.startswith("_")
    }
    if kind == "head":
        own = (heads.LinearHead, heads.MultiLayerHead, heads.NormalizedLinearHead)
        found |= {f"gel_lightning.{head.__name__}": head for head in own}
    if kind == "lr_scheduler":  # torch's own names no metric to watch
        found["lightning.pytorch.cli.ReduceLROnPlateau"] = ReduceLROnPlateau
    return found


TABLES = {kind: _table(kind) for kind in DESCRIBED}
ALIASES = {
    **{f"{c.__module__}.{c.__qualname__}": name for table in TABLES.values() for name, c in table.items()},
    # Where the heads were when earlier checkpoints were written.
    **{f"gel_lightning.heads.{c}": f"gel_lightning.{c}" for c in ("LinearHead", "MultiLayerHead")},
}


def public_name(path: str) -> str:
    """The stable name of a class of the table; that of another class is its import path."""
    return ALIASES.get(path, path)


def name_class(kind: str, found: type) -> str:
    """Notes that the person has named a class, so that a checkpoint may name it too.

    Returns:
        The name that a checkpoint gives it.
    """
    name = public_name(f"{found.__module__}.{found.__qualname__}")
    _named[kind, name] = found
    return name


def name_import_path(kind: str, path: str) -> None:
    """Notes a class that the person has named by its import path, on the command line or in a config.

    Raises:
        GelError: there is no such class, or it is of another kind.
    """
    if public_name(path) in TABLES[kind]:
        return
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise GelError(f"{kind} {path} cannot be imported ({error}); install or import what defines it") from error
    if not (isinstance(found, type) and issubclass(found, DESCRIBED[kind])):
        raise GelError(f"{kind} {path} is no {DESCRIBED[kind].__name__}; name one with --model.{kind}")
    _named[kind, public_name(path)] = found


def find_class(kind: str, path: str) -> type:
    """Finds a class of the table, or one that the person has named; nothing is imported.

    Raises:
        GelError: it is neither.
    """
    name = public_name(path)
    found = TABLES[kind].get(name) or _named.get((kind, name))
    if found is None:
        places = "torch.nn" if kind == "head" else next(iter(PUBLIC[kind]))
        raise GelError(
            f"{kind} {path[:200]!r} is no class of {places} or gel_lightning, and a checkpoint can have nothing else "
            f"imported; if it is yours, name it yourself: --model.{kind}, or load_from_checkpoint(..., {kind}=...)"
        )
    return found


def check_description(kind: str, described: Any, own: Any = None, largest: int = MAX_SIZE) -> None:
    """Checks a description of a class, without importing or making anything.

    Args:
        kind: ``head``, ``optimizer`` or ``lr_scheduler``.
        described: ``{"class_path": ..., "init_args": {...}}``.
        own: what the person has described, whose arguments need no check.
        largest: number that a head of the table may be given, so that making it takes no more than it holds.

    Raises:
        GelError: it is none, or of a class that a checkpoint may not name, or an argument is not a plain value.
    """
    if not isinstance(described, dict) or not described.keys() <= {"class_path", "init_args"}:
        raise GelError(f"{kind} is no class_path with init_args")
    path, arguments = described.get("class_path"), described.get("init_args")
    arguments = {} if arguments is None else arguments
    if not isinstance(path, str) or not isinstance(arguments, dict):
        raise GelError(f"{kind} is no class_path with init_args")
    find_class(kind, path)
    if repr(described) == repr(own):  # what nobody has checked may hold tensors, which have no one truth value
        return
    limit = max(largest, MAX_SIZE) if kind == "head" and public_name(path) in TABLES[kind] else 2**53
    for name, value in arguments.items():
        watched = name == "monitor" and isinstance(value, str) and value.isprintable()
        if not isinstance(name, str) or not name.isidentifier() or not (watched or _is_plain(value, limit)):
            raise GelError(f"{kind}.{str(name)[:50]!r} is no number or word that {path[:100]!r} could have been given")


def _is_plain(value: Any, limit: int) -> bool:
    """Whether a value is a number within a limit, a word, or a short list of such; strings are never resolved."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -limit <= value <= limit
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return WORD.fullmatch(value) is not None
    return isinstance(value, list) and len(value) <= MAX_ITEMS and all(_is_plain(item, limit) for item in value)
