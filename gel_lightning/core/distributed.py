"""The ranks of one run, which Lightning's ``ddp`` or torchrun has started: one of them prints what went wrong."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from subprocess import Popen
from typing import TypeVar

import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, LightningModule, Trainer

from gel_lightning.core.errors import GelError
from gel_lightning.core.text import printable
from gel_lightning.core.xla import on_xla

LOST = re.compile(r"gloo/transport|NCCL|by peer")
"""What PyTorch's error says where another rank has ended."""
PATIENCE = 8.0
"""Seconds to wait for rank 0 to hit the same error, print it and end."""
LONG = 15.0
"""Seconds to wait for rank 0 to end after Ctrl-C."""
OTHER_LAUNCHERS = re.compile(r"_(spawn|fork|notebook)(_|$)")
"""Strategies whose launcher starts new processes for each of fit, validate and test, which lose what they gathered."""
Found = TypeVar("Found")

_parent = os.getppid()


class AlreadySaidError(GelError):
    """An error of which another rank has said what it is."""


def check_launcher(strategy: object) -> None:
    """Refuses a strategy, as ``--trainer.strategy`` names it, that starts functions and not the whole command.

    Raises:
        GelError: names the strategies that do.
    """
    arguments = getattr(strategy, "init_args", None) or {}
    method = arguments.get("start_method", "popen")
    if method != "popen" or OTHER_LAUNCHERS.search(str(strategy)):
        name = strategy if isinstance(strategy, str) else f"start_method {method}"
        raise GelError(f"--trainer.strategy {name}: gel-fit runs several processes with ddp or torchrun only; give ddp")


def check_devices(trainer: Trainer) -> None:
    """Refuses several XLA devices in one machine, which Lightning starts as functions, and nobody has tried.

    Raises:
        GelError: says so.
    """
    if on_xla(trainer) and trainer.num_devices > 1:
        raise GelError(f"gel-fit takes one XLA device, not {trainer.num_devices}; give --trainer.devices 1")


class LostProcesses(Callback):
    """Turns PyTorch's traceback about a rank that has ended into one line, or none where that rank has said why."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finds out what has become of the other rank.

        Raises:
            GelError: it was killed, and so has not said why.
            AlreadySaidError: it has.
        """
        if isinstance(exception, KeyboardInterrupt):
            if trainer.local_rank:
                if dist.is_initialized() and dist.get_backend() == "gloo":
                    dist.destroy_process_group()  # rank 0 may wait for this one, and hears of Ctrl-C only after that
                _soon(_parent_ended, LONG)  # one that ends before rank 0 would count as failed
            for process in _unwatched(trainer):
                process.kill()
            return
        if trainer.world_size == 1 or not isinstance(exception, RuntimeError) or not LOST.search(str(exception)):
            return
        if not trainer.is_global_zero:
            raise AlreadySaidError from exception
        started = _unwatched(trainer)
        ended = _soon(lambda: [(rank, p.returncode) for rank, p in enumerate(started, start=1) if p.poll()])
        for rank, status in ended:
            if status > 0:
                raise AlreadySaidError from exception
            name = signal.Signals(-status).name
            text = f"process {rank} of this run was ended by {name}; was the machine short of memory?"
            raise GelError(text) from exception
        raise GelError(
            "another process of this run has ended; see what it has said, or whether its machine was short of memory"
        ) from exception


def print_error(text: str) -> None:
    """Prints an error on stderr. Ranks other than 0 first give rank 0 time to hit the same error and end.

    Args:
        text: one line; control characters are escaped.
    """
    if getattr(rank_zero_only, "rank", 0) == 0 or not _soon(_parent_ended):
        print(printable(text), file=sys.stderr, flush=True)


def _unwatched(trainer: Trainer) -> list[Popen[bytes]]:
    """The processes that this one has started, taken from Lightning: it kills this one once it sees one of them end."""
    watched: list[Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    started = list(watched)
    watched.clear()
    return started


def _parent_ended() -> bool:
    """Whether the process that has started this one has ended."""
    return os.getppid() != _parent


def _soon(look: Callable[[], Found], seconds: float | None = None) -> Found:
    """Calls a function until it returns something true, and returns the last value.

    Args:
        look: the function.
        seconds: the longest to wait; None is :data:`PATIENCE`.
    """
    end = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return found
