"""What every run has: a folder of its own, known as ours by a marker in it, and the callbacks that fill it."""

from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, Trainer

from gel_lightning.core.files import plain_path
from gel_lightning.data.datamodule import GelDataModule
from gel_lightning.training.callbacks import EmptyRunRemover, EpochSeed, LastCheckpoint, OneThread
from gel_lightning.training.checkpoint_files import best_model_path
from gel_lightning.training.classifier import GelClassifier
from gel_lightning.training.tensorboard import RunLogger

MARKER = ".gel-fit"
"""File in each folder that a run has made for itself. Only in such folders does a resumed run replace files."""


def claim_folder(root: str | Path | None, name: str) -> Path:
    """Makes the next folder ``lightning_logs/NAME/version_N``. Making it claims it, so parallel runs never share one.

    Args:
        root: folder of ``lightning_logs``; None takes the working folder.
        name: of the run.

    Raises:
        GelError: Lightning would take the path as a URL.
        OSError: the folder cannot be made.
    """
    parent = plain_path(root or "", "--trainer.default_root_dir") / "lightning_logs" / name
    plain_path(name, "--name")
    for number in count(_next_version(parent)):
        folder = parent / f"version_{number}"
        if getattr(rank_zero_only, "rank", 0) != 0:
            return folder  # the first process of several makes the folder, and broadcasts its path
        if _made(folder):
            (folder / MARKER).touch()
            return folder
    raise AssertionError


def _next_version(parent: Path) -> int:
    taken: list[int] = []
    with suppress(FileNotFoundError):  # a run that failed may remove the empty parent at any time
        taken = [int(path.name[8:]) for path in parent.glob("version_*") if path.name[8:].isdecimal()]
    return max(taken, default=-1) + 1


def _made(folder: Path) -> bool:
    """Makes a folder, unless it is there, and its parent, which another run may remove while it is empty."""
    while True:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # it is a file, or was removed since
            if folder.parent.is_symlink() or folder.parent.is_file():
                raise
            continue
        try:
            folder.mkdir()
        except FileExistsError:
            return False
        except FileNotFoundError:
            continue
        return True


def resumed_folder(checkpoint: str | Path | None) -> Path | None:
    """The folder of the run that is resumed, if the checkpoint is where that run has written it.

    Elsewhere, such as in a project of the user's with a folder ``checkpoints``, a resumed run replaces nothing.

    Args:
        checkpoint: path of the file.

    Raises:
        GelError: Lightning would take the path as a URL.
    """
    if checkpoint is None:
        return None
    folder = plain_path(checkpoint, "--ckpt_path").parent
    return folder.parent if folder.name == "checkpoints" and (folder.parent / MARKER).is_file() else None


def training_callbacks(seed: int | bool) -> list[Callback]:
    """Makes the callbacks that change how heads are trained, the same for one run as for many."""
    return [OneThread()] if seed is False else [OneThread(), EpochSeed(seed)]


def listed(callbacks: Any) -> list[Callback]:
    """The callbacks of a trainer's settings: one, several or none."""
    return [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])


def add_callbacks(trainer: Trainer, *callbacks: Callback) -> None:
    """Adds callbacks after those that a trainer has."""
    trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]  # Lightning sets it where mypy does not look


def keep_run(trainer: Trainer, folder: Path, dirpath: str | Path | None = None, purge_step: int | None = None) -> None:
    """Has a trainer keep a run in a folder: its last checkpoint, and what it logs.

    Args:
        trainer: which has no logger yet.
        folder: ``.../lightning_logs/NAME/VERSION``. A new one is removed if the run leaves nothing in it.
        dirpath: folder of checkpoints; None takes that of the run.
        purge_step: of a resumed run, the step at which it goes on: what was logged from then on is drawn once.
    """
    add_callbacks(trainer, LastCheckpoint(dirpath))
    purge: dict[str, Any] = {}
    if purge_step is None:
        add_callbacks(trainer, EmptyRunRemover(folder))
    else:
        purge = {"purge_step": purge_step}
    save_dir, name = folder.parent.parent, folder.parent.name
    trainer.logger = RunLogger(save_dir, name, folder.name, default_hp_metric=False, **purge)


def measure_best(trainer: Trainer, model: GelClassifier, data: GelDataModule) -> dict[str, dict[str, Any]]:
    """Measures the best checkpoint on the validation and the test pictures, and returns the metrics of each."""
    checkpoint = best_model_path(trainer) or None
    logger = trainer.logger
    trainer.logger = None  # the curves are of the epochs; what is measured now is none of them
    metrics = {}
    for stage, measure in (("val", trainer.validate), ("test", trainer.test)):
        measure(model, datamodule=data, ckpt_path=checkpoint, verbose=False)
        metrics[stage] = dict(trainer.callback_metrics)
    trainer.logger = logger
    return metrics
