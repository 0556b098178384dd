"""Of several processes one says what went wrong, whichever it was that it went wrong in."""

import atexit
import os
import re
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import FIT, TINY, gel_fit, refused
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch import Callback, LightningModule, Trainer
from test_two_processes import in_processes
from torch.nn import Dropout

from gel_lightning.core import distributed as processes
from gel_lightning.core.distributed import AlreadySaidError, LostProcesses, check_launcher
from gel_lightning.core.errors import GelError

PEER = "[pair.cc:561] Connection closed by peer [127.0.0.1]:4998"


class EndsAlone(Callback):
    """Has one of the processes end in the second epoch.

    Args:
        rank: of that process.
        how: ``error``, ``bug`` or ``killed``.
    """

    def __init__(self, rank: int, how: str) -> None:
        self.rank = rank
        self.how = how
        processes.PATIENCE = 2.0  # rank 0 only waits here, and there is nothing that it could print

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.global_rank, trainer.current_epoch) != (self.rank, 1):
            return
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise GelError("only here; do something") if self.how == "error" else ZeroDivisionError("a bug")


class EndsSlowly(Callback):
    """Has the first process take a second to end, and Lightning watch it, which kills it if another one is gone."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for thread in threading.enumerate():
            if isinstance(thread, _ChildProcessObserver):
                thread._sleep_period = 0.05  # type: ignore[assignment]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.global_rank == 0:
            time.sleep(1)
            atexit.register(time.sleep, 1)


class WithoutDropout(Callback):
    """Has dropout leave everything as it is."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for module in pl_module.modules():
            if isinstance(module, Dropout):
                module.p = 0.0


class WaitsForOther(EndsSlowly):
    """Has the first process wait in a collective operation for the second one, which does something else."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            if trainer.global_rank == 1:
                time.sleep(60)
            Path("waiting").touch()
            trainer.strategy.barrier()


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "how"), [(1, "error"), (0, "bug"), (1, "killed")])
def test_what_goes_wrong_in_one_rank_is_said_once(
    rank: int, how: str, pictures: tuple[object, ...], tmp_path: Path
) -> None:
    alone = f"{{class_path: test_distributed.EndsAlone, init_args: {{rank: {rank}, how: {how}}}}}"
    ran = in_processes("fit", *FIT, *pictures, "--trainer.callbacks+", alone, cwd=tmp_path)
    assert ran.status != 0
    assert not (tmp_path / "lightning_logs/results.csv").exists()
    if how == "error":
        assert ran.err == "gel-fit: error: only here; do something\n"
    elif how == "killed":
        assert re.fullmatch(r"gel-fit: error: process 1 .* SIGKILL; .*memory\?\n", ran.err), ran.err
    else:
        assert len(re.findall("^.*ZeroDivisionError: a bug$", ran.err, re.MULTILINE)) == 1, ran.err
        assert "gloo" not in ran.err


@pytest.mark.parametrize("command", ["fit", "compare"])
@pytest.mark.parametrize(
    "strategy",
    [
        *("ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_fork_find_unused_parameters_true"),
        "{class_path: lightning.pytorch.strategies.DDPStrategy, init_args: {start_method: spawn}}",
    ],
)
def test_launchers_that_start_functions_are_refused(strategy: str, command: str, tmp_path: Path) -> None:
    ran = gel_fit(command, *TINY, "--trainer.strategy", strategy, cwd=tmp_path)
    assert ran.status == 1
    assert re.fullmatch("gel-fit: error: --trainer.strategy .*; give ddp\n", ran.err), ran.err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp", "single_device"])
def test_others_are_not(strategy: str) -> None:
    check_launcher(strategy)


def trainer_of(rank: int, world_size: int, *statuses: int | None) -> Any:
    """A stand-in for the trainer of a process that has started others, which have ended with these statuses."""
    started = [SimpleNamespace(poll=lambda status=status: status, returncode=status) for status in statuses]
    strategy = SimpleNamespace(launcher=SimpleNamespace(procs=started) if started else None)
    return SimpleNamespace(world_size=world_size, is_global_zero=rank == 0, local_rank=rank, strategy=strategy)


def test_who_says_that_a_process_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.2)

    def said(trainer: Any, error: BaseException | None = None) -> str:
        return refused(lambda: LostProcesses().on_exception(trainer, None, error or RuntimeError(PEER)))  # type: ignore[arg-type]

    assert said(trainer_of(1, 2)) == ""  # the first one speaks
    assert said(trainer_of(0, 2, 1)) == ""  # it has spoken itself
    with pytest.raises(AlreadySaidError):
        LostProcesses().on_exception(trainer_of(0, 3, None, 2), None, RuntimeError(PEER))  # type: ignore[arg-type]
    assert "process 2 of this run was ended by SIGKILL" in said(trainer_of(0, 3, None, -9))
    for unknown in (trainer_of(0, 2), trainer_of(0, 2, None)):  # it was started by others, or still ends
        assert "another process" in said(unknown)


@pytest.mark.parametrize(("world_size", "error"), [(1, RuntimeError(PEER)), (2, RuntimeError("shapes differ"))])
def test_other_errors_are_left_as_they_are(world_size: int, error: Exception) -> None:
    LostProcesses().on_exception(trainer_of(0, world_size, 1), None, error)  # type: ignore[arg-type]


def test_rank_0_prints_at_once_and_the_others_unless_it_ends_meanwhile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.2)

    def said() -> str:
        processes.print_error("an error\x1b[2J")
        return capsys.readouterr().err

    for rank in (0, 1):
        monkeypatch.setattr(processes.rank_zero_only, "rank", rank)
        assert said() == "an error\\x1b[2J\n"
    parents = iter([processes._parent, processes._parent, 1])
    monkeypatch.setattr(processes.os, "getppid", lambda: next(parents))  # its parent, rank 0, ends now
    assert said() == ""
    monkeypatch.setattr(processes.os, "getppid", lambda: 1)  # or has ended before
    assert said() == ""
