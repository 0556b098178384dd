"""The folder of a run: made by one run alone, and known as ours by a marker in it."""

from contextlib import suppress
from itertools import count
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only

from gel_lightning.core.files import plain_path

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
        folder.parent.mkdir(parents=True, exist_ok=True)
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
