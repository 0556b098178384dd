"""Settings of the trainer with which a command could not do what it is for, each refused in one line."""

from pkgutil import resolve_name
from typing import Any

from gel_lightning.core.errors import GelError
from gel_lightning.training.compatibility import check_callbacks

PARTS = {
    "fit": {"train": "trains", "val": "chooses the best epoch by validation", "test": "ends with a test"},
    "validate": {"val": "validates"},
    "test": {"test": "tests"},
    "predict": {"predict": "predicts"},
    "compare": {"train": "trains", "val": "chooses the best epoch by validation", "test": "ends with a test"},
}
"""The parts of the pictures that each command needs, and what for."""


def check_trainer_settings(settings: Any, command: str) -> None:
    """Refuses settings of the trainer that leave a command with nothing to do or to keep.

    Args:
        settings: of the trainer, as they were parsed.
        command: such as ``fit``.

    Raises:
        GelError: names the option or the callback, and what to do.
    """
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
