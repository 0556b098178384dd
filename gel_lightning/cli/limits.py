"""Settings of the trainer that Lightning accepts, and with which it fails after the work."""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gel_lightning.core.errors import GelError
from gel_lightning.data.datamodule import GelDataModule

AT_LEAST_1 = ("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes")
ABOVE_0 = ("val_check_interval", "limit_val_batches", "limit_test_batches")
"""The best epoch is found with validation pictures, and measured on test pictures: there have to be some."""


def check_trainer(settings: Any) -> None:
    """Refuses settings of the trainer that cannot be used.

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
