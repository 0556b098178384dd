"""Numbers that cannot be used are one line before the work."""

import os
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import FIT, ROOT, Ran, gel_fit, refused, start_gel_fit
from test_cli import Options, assert_error, version_folders

from gel_lightning.cli.trainer_settings import ABOVE_0, AT_LEAST_1, check_numbers
from gel_lightning.data.images import describe_picture, picture_digest, read_picture

STEP = ("--model.lr_scheduler", "StepLR", "--model.lr_scheduler.step_size")
HUGE = str(10**20)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.image_size", "31", "--model.backbone", "vgg16"], ["31 pixels", "vgg16", "--data.image_size 32"]),
        (["--data.image_size", "100000"], ["--data.image_size is 100000", "1,024"]),
        (["--model.head.hidden", f"[{HUGE}, 3]"], ["--model.head.hidden", "65,536"]),
        (["--model.head.dropout", "[1.5, 0.1]"], ["--model.head.dropout is 1.5"]),
        ([*STEP, "0"], ["--model.lr_scheduler", "refused"]),
        (["--model.lr_scheduler", "OneCycleLR", "--model.lr_scheduler.max_lr", "1"], ["--model.lr_scheduler", "steps"]),
        (["--trainer.accumulate_grad_batches", "0"], ["--trainer.accumulate_grad_batches is 0", "at least 1"]),
        (["--trainer.val_check_interval", "0"], ["--trainer.val_check_interval is 0", "above 0"]),
        (["--trainer.val_check_interval", "5"], ["--trainer.val_check_interval is 5", "4 batches", "0.5"]),
        (["--trainer.limit_val_batches", "0"], ["--trainer.limit_val_batches is 0", "at least 1 batch"]),
        (["--model.class_weights", "[.nan, 1]"], ["--model.class_weights", "gel, not_gel"]),
        (["--model.class_weights", "[-1, 1]"], ["--model.class_weights", "gel, not_gel"]),
        (["--trainer.devices", "-1"], ["devices", "--trainer.devices 1"]),
        (["--name", "x" * 300], ["x" * 300, "too long"]),
        (["--results_file", "x" * 300], ["x" * 300, "too long"]),
        (["--data.cache_dir", "x" * 300], ["x" * 300, "too long"]),
    ],
    ids=lambda value: None if isinstance(value[0], list) else " ".join(value)[:40],
)
def test_a_number_that_cannot_be_used(
    options: list[str], words: list[str], tmp_path: Path, pictures: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    monkeypatch.setattr("gel_lightning.features.extraction._compute", lambda *args: computed.append(args))
    ran = gel_fit("fit", *FIT, *pictures, *options, cwd=tmp_path)
    assert_error(ran, *words)
    assert computed == []
    assert version_folders(tmp_path) == []
    assert not list(tmp_path.rglob("*.csv"))


def test_the_smallest_numbers_can_be_used(tmp_path: Path, pictures: Options) -> None:
    options = (*("--data.batch_size", "1", "--model.head.hidden", "[1]", "--model.head.dropout", "[1]"),)
    options += (*("--trainer.val_check_interval", "16", "--data.image_size", "1", "--trainer.max_epochs", "1"),)
    ran = gel_fit("fit", *FIT, *pictures, *options, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")


@pytest.mark.parametrize("name", [*AT_LEAST_1, *ABOVE_0])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_settings_of_the_trainer(name: str, value: float) -> None:
    assert f"--trainer.{name} is {value}" in refused(lambda: check_numbers({name: value}))
    for allowed in (None, 1, 5, 1.0):
        check_numbers({name: allowed})


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_that_draws_nothing(seed: str, tmp_path: Path) -> None:
    ran = gel_fit("data", "draw", "--to", "here", f"--seed={seed}", cwd=tmp_path)
    assert_error(ran, seed, "--seed")
    assert not list(tmp_path.iterdir())


KILLER = """
import os, signal
from multiprocessing import active_children
from lightning.pytorch import Callback

class Killer(Callback):
    def on_train_batch_start(self, *_):
        for child in active_children():
            os.kill(child.pid, signal.SIGKILL)
"""


def test_a_reading_process_that_is_killed(tmp_path: Path, pictures: Options) -> None:
    (tmp_path / "killer.py").write_text(KILLER)
    options = ("--data.cache_features", "false", "--data.num_workers", "1", "--data.batch_size", "1")
    process = start_gel_fit("fit", *FIT, *pictures, *options, "--trainer.callbacks+=killer.Killer", cwd=tmp_path)
    status = process.wait(timeout=120)
    # The signal may come while Python destroys an object: it then prints the error there too, and raises the next one.
    *_, last = (tmp_path / "run.err").read_text().splitlines(keepends=True)
    ran = Ran(status, "", last)
    assert_error(ran, "a process that reads pictures was lost", "--data.num_workers")


def test_a_working_folder_that_was_removed(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"cd {gone} && rmdir {gone} && exec {sys.executable} -m gel_lightning fit"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert "the working folder was removed" in ran.stderr


def test_too_many_open_files_are_no_fault_of_a_picture(train_dir: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        for action in (picture_digest, read_picture, describe_picture):
            with pytest.raises(OSError, match="Too many open files"):
                action(next(train_dir.rglob("*.png")))
    finally:
        for number in opened:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
