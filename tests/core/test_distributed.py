"""Of several processes one says what went wrong, whichever it was that it went wrong in."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import FIT, TINY, Ran, refused, start_gel_fit
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch import Callback, LightningModule, Trainer
from test_two_processes import in_processes

from gel_lightning.core import distributed as processes
from gel_lightning.core.distributed import AlreadySaidError, LostProcesses
from gel_lightning.core.errors import GelError

STRATEGIES = ("ddp", "ddp_fork")
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

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.global_rank, trainer.current_epoch) != (self.rank, 1):
            return
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise GelError("only here; do something") if self.how == "error" else ZeroDivisionError("a bug")


class ComesLate(Callback):
    """Has one of the processes take longer than the other one is patient, before it comes upon an error.

    Args:
        rank: of that process.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.global_rank == self.rank:
            time.sleep(processes.PATIENCE + 2)


class EndsSlowly(Callback):
    """Has the first process take a second to end, and Lightning watch it, which kills it if another one is gone."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for thread in threading.enumerate():
            if isinstance(thread, _ChildProcessObserver):
                thread._sleep_period = 0.05  # type: ignore[assignment]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.global_rank == 0:
            time.sleep(1)


FitInTwo = Callable[[str, int, str], Ran]


@pytest.fixture
def fit_in_two(pictures: tuple[object, ...], tmp_path: Path) -> FitInTwo:
    """Runs a fit in two processes of a strategy, of which that of a rank ends alone."""

    def run(strategy: str, rank: int, how: str) -> Ran:
        alone = f"{{class_path: test_distributed.EndsAlone, init_args: {{rank: {rank}, how: {how}}}}}"
        ran = in_processes("fit", *FIT, *pictures, "--trainer.callbacks+", alone, cwd=tmp_path, strategy=strategy)
        assert ran.status != 0
        return ran

    return run


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_alone_is_said_by_it(strategy: str, rank: int, fit_in_two: FitInTwo, tmp_path: Path) -> None:
    ran = fit_in_two(strategy, rank, "error")
    assert ran.err == "gel-fit: error: only here; do something\n"
    assert not (tmp_path / "lightning_logs/results.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("how", ["bug", "killed"])
def test_what_one_cannot_say_another_one_says(strategy: str, how: str, fit_in_two: FitInTwo) -> None:
    ran = fit_in_two(strategy, 1, how)
    if how == "killed":
        assert re.fullmatch(r"gel-fit: error: process 1 .* SIGKILL; .*memory\?\n", ran.err), ran.err
    else:
        assert len(re.findall("^.*ZeroDivisionError: a bug$", ran.err, re.MULTILINE)) == 1, ran.err
        assert "gloo" not in ran.err


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_both_is_said_once_however_late(
    strategy: str, rank: int, pictures: tuple[object, ...], tmp_path: Path
) -> None:
    (tmp_path / "results.csv").write_text("something else\n")
    late = f"{{class_path: test_distributed.ComesLate, init_args: {{rank: {rank}}}}}"
    options = (*FIT, *pictures, "--trainer.callbacks+", late, "--results_file", "results.csv")
    ran = in_processes("fit", *options, cwd=tmp_path, strategy=strategy)
    assert ran.status != 0
    assert re.fullmatch("gel-fit: error: results.csv: not a results file .*\n", ran.err), ran.err


@pytest.mark.slow
@pytest.mark.parametrize("command", [("fit",), ("compare", "--backbones", "resnet18", "--heads", "single", "multi")])
def test_one_process_starts_no_other(command: tuple[str, ...], pictures: tuple[object, ...], tmp_path: Path) -> None:
    options = (*TINY, *pictures, "--trainer.max_epochs", "1", "--trainer.strategy", "ddp_fork")
    process = start_gel_fit(*command, *options, cwd=tmp_path)
    assert process.wait(timeout=300) == 0, (tmp_path / "run.err").read_text()
    assert (tmp_path / "run.err").read_text() == ""


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


@pytest.mark.parametrize(
    ("world_size", "error"), [(1, RuntimeError(PEER)), (2, RuntimeError("shapes differ")), (2, KeyboardInterrupt())]
)
def test_other_errors_are_left_as_they_are(world_size: int, error: BaseException) -> None:
    LostProcesses().on_exception(trainer_of(0, world_size, 1), None, error)  # type: ignore[arg-type]


def test_the_first_process_speaks_at_once_and_the_others_after_their_patience(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.2)

    def said() -> str:
        processes.print_error("an error")
        return capsys.readouterr().err

    for rank in (0, 1):
        monkeypatch.setattr(processes.rank_zero_only, "rank", rank)
        assert said() == "an error\n"
    monkeypatch.setenv("PJRT_LOCAL_PROCESS_RANK", "1")
    assert said() == ""
    monkeypatch.delenv("PJRT_LOCAL_PROCESS_RANK")
    parents = iter([processes._parent, processes._parent, 1])
    monkeypatch.setattr(processes.os, "getppid", lambda: next(parents))  # its parent, the first one, ends now
    assert said() == ""
    monkeypatch.setattr(processes.os, "getppid", lambda: 1)  # or has ended before
    assert said() == ""


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """This process as the first one of several, and the store that it shares with them."""
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield processes.distributed_c10d._get_default_store()
    torch.distributed.destroy_process_group()


def test_of_connected_processes_the_first_to_come_upon_an_error_prints_it(
    connected: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        processes.print_error("an error")
    assert capsys.readouterr().err == "an error\n"


def test_a_process_that_ends_before_it_prints_leaves_it_to_another(
    connected: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    connected.add("error", 1)
    processes.print_error("an error")
    assert capsys.readouterr().err == "an error\n"
