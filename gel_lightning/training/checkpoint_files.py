"""Writing checkpoints atomically, and finding the best one."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import CheckpointIO, XLACheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from gel_lightning.core.errors import GelError
from gel_lightning.core.files import replacing
from gel_lightning.training.checkpoints import read_checkpoint


class BestCheckpoint(ModelCheckpoint):
    """Saves the best epoch, which is tested and reported, whatever other checkpoint callbacks a trainer has."""


class CheckpointFiles(XLACheckpointIO):
    """Reads and writes the checkpoints of a trainer: ``Trainer(plugins=[CheckpointFiles()])``.

    A checkpoint is written to a temporary file, flushed to disk and renamed, so that a kill or a full disk leaves
    either the old or the new one. It is read by :func:`~gel_lightning.training.checkpoints.read_checkpoint`.
    Lightning's XLA strategies accept no other base class.
    """

    def __init__(self) -> None:
        """Works without torch_xla, which the base class requires here."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint, with its tensors on the CPU.

        Raises:
            GelError: it cannot be written; the old file stays unchanged.
        """
        content = io.BytesIO()
        torch.save(apply_to_collection(checkpoint, Tensor, Tensor.cpu), content)
        path = Path(path)
        try:
            with replacing(path, "wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            _flush_folder(path.parent)
        except OSError as error:
            raise GelError(
                f"{path}: the checkpoint cannot be written ({error.strerror}); free some space or name another place"
            ) from error

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Reads a checkpoint on the CPU and checks it.

        Raises:
            GelError: it is missing, damaged, or not one of gel-fit.
        """
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint if it is a file."""
        path = Path(path)
        if path.is_file():
            path.unlink()


def with_checkpoint_files(plugins: Any) -> list[Any]:
    """Adds :class:`CheckpointFiles` to the plugins of a trainer.

    Raises:
        GelError: there is another plugin that writes checkpoints.
    """
    plugins = list(plugins) if isinstance(plugins, list | tuple) else [plugins] if plugins else []
    for plugin in plugins:
        if isinstance(plugin, CheckpointIO) and not isinstance(plugin, CheckpointFiles):
            raise GelError(
                f"{type(plugin).__name__} would write checkpoints instead of gel-fit; remove it (--trainer.plugins)"
            )
    return [*plugins, CheckpointFiles()]


def best_model_path(trainer: Trainer) -> str:
    """The best checkpoint of a trainer; empty if there is none.

    It is that of its :class:`BestCheckpoint`, else of the first ModelCheckpoint that has one.
    """
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    own = [callback for callback in callbacks if isinstance(callback, BestCheckpoint)]
    return next((callback.best_model_path for callback in own or callbacks if callback.best_model_path), "")


def _flush_folder(folder: Path) -> None:
    """Flushes a rename to disk, on systems where folders can be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
