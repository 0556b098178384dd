"""Head, optimizer and scheduler as plain data: ``class_path`` and ``init_args``, as jsonargparse has them."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gel_lightning.core.errors import GelError, one_line
from gel_lightning.models import heads
from gel_lightning.training.classes import DESCRIBED, find_class, name_class, public_name

SchedulerCallable = Callable[[Optimizer], ReduceLROnPlateau] | Callable[[Optimizer], LRScheduler]
"""Two types, so that jsonargparse takes the bare name ReduceLROnPlateau for Lightning's class and not for torch's."""
DEFAULT_OPTIMIZER = partial(torch.optim.SGD, lr=0.001, momentum=0.9)


def known_classes(name: str) -> list[str]:
    """The classes that ``head``, ``optimizer`` or ``lr_scheduler`` takes by their bare names."""
    module, base = (
        {"head": heads, "optimizer": torch.optim, "lr_scheduler": torch.optim.lr_scheduler}[name],
        DESCRIBED[name],
    )
    kinds = (kind for kind in vars(module).values() if isinstance(kind, type))
    names = (kind.__name__ for kind in kinds if issubclass(kind, base) and kind is not base)
    return sorted(name for name in names if not name.startswith("_"))


def plain_description(name: str, value: Any) -> Any:
    """Describes a class, or a partial of one, by its name and arguments, so that a checkpoint stays plain data.

    Raises:
        GelError: the value is a function, or has arguments that are not plain data.
    """
    if isinstance(value, dict):
        return {**value, "class_path": public_name(value["class_path"])}
    if not callable(value) and (name not in DESCRIBED or value is None):
        return value
    target, arguments = (value.func, value.keywords) if isinstance(value, partial) else (value, {})
    described = {
        "class_path": f"{target.__module__}.{getattr(target, '__qualname__', '')}",
        "init_args": {key: list(v) if isinstance(v, tuple) else v for key, v in arguments.items()},
    }
    nameable = isinstance(target, type) and "<" not in described["class_path"]
    if not nameable or (isinstance(value, partial) and value.args) or not _is_plain(described):
        raise GelError(
            f"{name} must be a class that can be imported, or functools.partial of one with keyword arguments, "
            f"so that a checkpoint can name it; got {value!r}"
        )
    return {**described, "class_path": name_class(name, cast(type, target))}


def described_class(name: str, value: Any) -> Any:
    """Finds the class that :func:`plain_description` has described, with its arguments; other values stay.

    Raises:
        GelError: nobody has named the class here, and it is not one of the table.
    """
    if not isinstance(value, dict):
        return value
    return partial(find_class(name, value["class_path"]), **value.get("init_args") or {})


def try_settings(make_optimizer: OptimizerCallable, make_lr_scheduler: SchedulerCallable | None) -> None:
    """Finds out before any picture is read whether optimizer and scheduler accept their arguments.

    Raises:
        GelError: one of them does not.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a scheduler's step without one of the optimizer
        with settings_refused("--model.optimizer"):
            optimizer = make_optimizer([nn.Parameter(torch.zeros(1))])
        with settings_refused("--model.lr_scheduler"):
            scheduler = make_lr_scheduler(optimizer) if make_lr_scheduler else None
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                scheduler.step(0.0)
            elif scheduler is not None:
                scheduler.step()


def optimizer_and_scheduler(
    groups: list[dict[str, Any]], make_optimizer: OptimizerCallable, make_lr_scheduler: SchedulerCallable | None
) -> OptimizerLRScheduler:
    """Makes what ``configure_optimizers`` returns.

    Args:
        groups: the parameters, as optimizers take them.
        make_optimizer: makes the optimizer.
        make_lr_scheduler: makes its scheduler; None makes none.

    Raises:
        GelError: the optimizer or the scheduler refuses its settings.
    """
    with settings_refused("--model.optimizer"):
        optimizer = make_optimizer(groups)
    with settings_refused("--model.lr_scheduler"):
        scheduler = make_lr_scheduler(optimizer) if make_lr_scheduler else None
    if scheduler is None:
        return optimizer
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        monitor = getattr(scheduler, "monitor", "val/loss")  # torch's own has none
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": monitor}}
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}


@contextmanager
def settings_refused(option: str) -> Iterator[None]:
    """Turns what a class raises about its arguments into an error that names the option."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError) as error:
        raise GelError(f"{option}: its arguments are refused ({one_line(error)}); change them") from error


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
