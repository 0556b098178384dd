"""Settings of the trainer with which a command could not do what it is for, each refused in one line."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer

from gel_lightning.core.distributed import check_launcher
from gel_lightning.core.errors import GelError, one_line
from gel_lightning.core.xla import tpu_accelerator
from gel_lightning.data.datamodule import GelDataModule
from gel_lightning.training.compatibility import check_callbacks

PARTS = {
    "fit": {"train": "trains", "val": "chooses the best epoch by validation", "test": "ends with a test"},
    "validate": {"val": "validates"},
    "test": {"test": "tests"},
    "predict": {"predict": "predicts"},
    "compare": {"train": "trains", "val": "chooses the best epoch by validation", "test": "ends with a test"},
}
"""The parts of the pictures that each command needs, and what for."""
AT_LEAST_1 = ("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes")
ABOVE_0 = ("val_check_interval", "limit_val_batches", "limit_test_batches")
"""The best epoch is found with validation pictures, and measured on test pictures: there have to be some."""


def check_trainer_settings(settings: Any, command: str) -> None:
    """Refuses settings of the trainer that leave a command with nothing to do or to keep.

    Args:
        settings: of the trainer, as they were parsed.
        command: such as ``fit``.

    Raises:
        GelError: names the option or the callback, and what to do.
    """
    check_launcher(settings.strategy)
    if settings.barebones:
        raise GelError(
            f"--trainer.barebones leaves out checkpoints and metrics, which gel-fit {command} needs; leave it out"
        )
    if settings.enable_checkpointing is False:
        raise GelError(
            f"--trainer.enable_checkpointing false: gel-fit {command} measures a checkpoint; leave the option out"
        )
    callbacks = settings.callbacks or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        check_callbacks([resolve_name(callback.class_path)])
    for part, purpose in PARTS[command].items():
        option = f"limit_{part}_batches"
        if settings[option] == 0:
            raise GelError(
                f"--trainer.{option} is 0, but gel-fit {command} {purpose}; give at least 1 batch, or leave it out"
            )
    check_numbers(settings)


def check_numbers(settings: Any) -> None:
    """Refuses numbers that Lightning accepts, and with which it fails after the work.

    Args:
        settings: as the parser has them.

    Raises:
        GelError: names the option.
    """
    for names, least, range_ in ((AT_LEAST_1, 1, "of at least 1"), (ABOVE_0, 1e-9, "above 0")):
        for name in names:
            value = settings.get(name)
            if isinstance(value, int | float) and not value >= least:
                raise GelError(f"--trainer.{name} is {value}; give a number {range_}")


@contextmanager
def accelerator_found(settings: Any, option: str) -> Iterator[None]:
    """Takes what there is for ``tpu`` while a trainer is made, and turns what Lightning raises into one line.

    Args:
        settings: of the trainer; the accelerator in them may be replaced.
        option: of the command line that chooses accelerators.

    Raises:
        GelError: the accelerator, or as many devices of it, are not here.
    """
    accelerator = settings.accelerator
    if accelerator == "tpu":
        settings.accelerator = tpu_accelerator(option)
    try:
        yield
    except (MisconfigurationException, ModuleNotFoundError, RuntimeError, TypeError, ValueError) as error:
        if accelerator in ("auto", "cpu"):
            if isinstance(error, TypeError):  # of a number of devices
                raise GelError(f"{one_line(error).rstrip('.')}; give --trainer.devices 1") from error
            raise
        raise GelError(
            f"accelerator {accelerator!r} cannot be used here ({one_line(error)}); "
            f"change that, or run on the processor with {option} cpu"
        ) from error


class IntervalCheck(Callback):
    """Refuses a ``val_check_interval`` of more batches than an epoch has, before features are computed."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Counts the batches as soon as the pictures are known.

        Raises:
            GelError: there are fewer of them.
        """
        data, interval = getattr(trainer, "datamodule", None), getattr(trainer, "val_check_interval", None)
        if stage != "fit" or not isinstance(data, GelDataModule) or not isinstance(interval, int):
            return
        batches = math.ceil(len(data.parts["train"].paths) / trainer.world_size / data.batch_size)
        limit: int | float = trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        if interval > batches and trainer.check_val_every_n_epoch is not None:
            raise GelError(
                f"--trainer.val_check_interval is {interval}, but an epoch has {batches} batches; give that many or "
                "fewer, or a share of an epoch such as 0.5"
            )
