"""The several processes of one run: they are started once for a whole command, and one of them says what went wrong."""

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch.distributed import distributed_c10d
from torch.multiprocessing.spawn import ProcessExitedException

from gel_lightning.core.errors import GelError
from gel_lightning.core.progress import hide_progress
from gel_lightning.core.text import printable
from gel_lightning.core.xla import on_xla

LOST = re.compile(r"gloo/transport|NCCL|by peer")
"""What PyTorch says where a process has ended for which another one waits."""
PATIENCE = 3.0
"""Seconds in which all processes come upon an error that is not of one alone, and one prints it."""
Found = TypeVar("Found")

_joined = False
_parent = os.getppid()


class AlreadySaidError(GelError):
    """An error of which another process has said what it is."""


class ProcessesNeededError(Exception):
    """Lightning is to call functions in processes of their own, as for several TPUs: the whole command is to be one.

    Attributes:
        launcher: Lightning's, that does so.
    """

    def __init__(self, launcher: _MultiProcessingLauncher) -> None:
        super().__init__(launcher)
        self.launcher = launcher


def join_processes(trainer: Trainer) -> None:
    """Has a trainer start no process where they have been started for the whole command, or one is enough.

    Lightning's own way is a new set of processes for each of fit, validate and test. What their callbacks and the
    model have gathered would end with them.

    Raises:
        ProcessesNeededError: they have not been started; :func:`run_in_processes` does so.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _MultiProcessingLauncher):
        return
    if not _joined and trainer.num_devices * trainer.num_nodes > 1:
        raise ProcessesNeededError(launcher)
    trainer.strategy._launcher = None
    if on_xla(trainer):  # which tells Lightning no sooner than in the fit
        from torch_xla import runtime

        rank_zero_only.rank = runtime.global_ordinal()  # type: ignore[attr-defined]


def run_in_processes(launcher: _MultiProcessingLauncher, command: Callable[[], int], args: Sequence[str]) -> int:
    """Runs a whole command in each process of a launcher.

    Args:
        launcher: of a trainer's strategy.
        command: which reads its arguments from ``sys.argv``.
        args: these.

    Returns:
        The exit status.

    Raises:
        GelError: a process was killed.
    """
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it tells of each that it ends
    try:
        status: int = launcher.launch(_in_process, command, list(args))
    except ProcessExitedException as ended:
        if ended.exit_code < 0:
            raise _killed(ended.error_index, -ended.exit_code) from ended
        status = ended.exit_code
    return status


def _in_process(command: Callable[[], int], args: list[str]) -> int:
    global _joined, _parent
    _joined, _parent = True, os.getppid()
    if getattr(rank_zero_only, "rank", 0) != 0:
        hide_progress()
    sys.argv[1:] = args
    status = command()
    if status:
        sys.exit(status)  # so that the other ones are ended, too
    return status


class LostProcesses(Callback):
    """Ends a process that has waited for one which has ended with one line or none, in place of a traceback."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finds out what has become of the other process, unless it is Ctrl-C that ends both.

        Raises:
            GelError: a process was killed, and so has not said why.
            AlreadySaidError: it has.
        """
        if isinstance(exception, KeyboardInterrupt):
            if trainer.local_rank and not (_joined or dist.is_torchelastic_launched()):
                # The process that has started this one ends it; one that ends before, Lightning takes for a failure.
                _parent_ends()
            return
        if trainer.world_size > 1 and isinstance(exception, RuntimeError) and LOST.search(str(exception)):
            _tell_of_the_lost(trainer, exception)


def _tell_of_the_lost(trainer: Trainer, exception: BaseException) -> NoReturn:
    if _joined:
        time.sleep(PATIENCE)  # the process that has started both sees the other one first, and ends this one
    if _joined or not trainer.is_global_zero:
        raise AlreadySaidError from exception
    watched = getattr(trainer.strategy.launcher, "procs", [])
    started = list(watched)
    watched.clear()  # Lightning would kill this process when it sees that another one has ended
    failed = _soon(lambda: [(number, p.returncode) for number, p in enumerate(started, start=1) if p.poll()])
    for number, status in failed:
        raise (AlreadySaidError() if status > 0 else _killed(number, -status)) from exception
    raise GelError(
        "another process of this run has ended; see what it has said, or whether its machine was short of memory"
    ) from exception


def _killed(number: int, by: int) -> GelError:
    name = signal.Signals(by).name
    return GelError(f"process {number} of this run was ended by {name}; was the machine short of memory?")


def _soon(look: Callable[[], Found]) -> Found:
    """What there is to be found at last: looks until it is something, but no longer than :data:`PATIENCE`."""
    end = time.monotonic() + PATIENCE
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def _parent_ends() -> bool:
    """Waits for the process that has started this one to end, and tells whether it has."""
    return _soon(lambda: os.getppid() != _parent)


def print_error(text: str) -> None:
    """Prints an error, in one of the processes that come upon it: the first one, or one alone in having it.

    Another one gives the first one some seconds, in which that comes upon the same error and ends, and with it this one
    or its parent. If it is not as quick as that, whichever comes first prints the error.

    Args:
        text: one line; what would control the terminal is escaped.
    """
    text = printable(text)
    if getattr(rank_zero_only, "rank", 0) != 0:
        if "PJRT_LOCAL_PROCESS_RANK" in os.environ:  # torch_xla waits for all of its processes, so each would print
            return
        if _parent_ends():
            return
    if not dist.is_initialized():
        print(text, file=sys.stderr)
        return
    store = distributed_c10d._get_default_store()  # PyTorch has no public way to what all processes share
    with suppress(RuntimeError):  # the one that was to print it has ended without
        if store.add("error", 1) > 1:
            store.wait(["error printed"], timedelta(seconds=PATIENCE))
            return
    print(text, file=sys.stderr, flush=True)
    with suppress(RuntimeError):
        store.set("error printed", "")
