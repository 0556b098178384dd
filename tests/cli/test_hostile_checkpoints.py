"""Checkpoints and comparison folders of strangers, and checkpoint callbacks of the user's, through the command."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FIT, Ran, gel_fit, made_once, read_rows

Options = tuple[object, ...]
TINY_FIT = (*FIT, "--model.head", "LinearHead", "--trainer.max_epochs", "2")
COMMAND = {"class_path": "os.system", "init_args": {"command": "touch PWNED"}}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, pictures: Options) -> Path:
    """The folder of a run."""

    def make(folder: Path) -> None:
        options = ("--trainer.callbacks+=OnExceptionCheckpoint", "--trainer.callbacks.dirpath=others")
        worst = ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/loss")
        worst = (*worst, "--trainer.callbacks.mode=max", "--trainer.callbacks.dirpath=others")
        ran = gel_fit("fit", *TINY_FIT, *pictures, *options, *worst, cwd=folder)
        (folder / "err").write_text(f"{ran.status} {ran.err}")

    return made_once(tmp_path_factory, "hostile", make)


def assert_one_line(ran: Ran, *words: str) -> None:
    assert ran.status == 1, ran.err
    assert ran.err.startswith("gel-fit: error: ")
    assert ran.err.count("\n") == 1, ran.err
    for word in words:
        assert word in ran.err


def change(path: Path, alter: Callable[[dict[str, Any]], Any]) -> None:
    checkpoint = torch.load(path, weights_only=True)
    alter(checkpoint)
    torch.save(checkpoint, path)


def test_checkpoint_callbacks_of_the_user_change_nothing_that_is_reported(fitted: Path) -> None:
    assert (fitted / "err").read_text().startswith("0 ")
    (row,) = read_rows(fitted / "lightning_logs/results.csv")
    (best,) = fitted.glob("lightning_logs/*/version_0/checkpoints/best.ckpt")
    assert row["checkpoint"] == str(best)
    assert list((fitted / "others").glob("*.ckpt"))


@pytest.mark.parametrize("kind", ["head", "optimizer", "lr_scheduler"])
@pytest.mark.parametrize("command", ["predict", "test", "validate", "fit"])
def test_no_command_of_a_checkpoint_is_run(
    command: str, kind: str, fitted: Path, tmp_path: Path, pictures: Options, test_dir: Path
) -> None:
    (last,) = fitted.glob("lightning_logs/*/version_0/checkpoints/last.ckpt")
    path = Path(shutil.copy(last, tmp_path / "s.ckpt"))
    change(path, lambda checkpoint: checkpoint["hyper_parameters"].update({kind: COMMAND}))
    options = {"fit": (*TINY_FIT, *pictures), "predict": ("--data.predict_dir", test_dir)}.get(command, pictures)
    ran = gel_fit(command, *options, "--ckpt_path", "s.ckpt", cwd=tmp_path)
    assert_one_line(ran, "s.ckpt", f"{kind} 'os.system' is no class of torch.", f"--model.{kind}")
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_size_that_takes_all_memory_is_refused(fitted: Path, tmp_path: Path, test_dir: Path) -> None:
    (last,) = fitted.glob("lightning_logs/*/version_0/checkpoints/last.ckpt")
    path = Path(shutil.copy(last, tmp_path / "s.ckpt"))
    change(path, lambda checkpoint: checkpoint["GelDataModule"].update(image_size=100_000))
    ran = gel_fit("predict", "--ckpt_path", path, "--data.predict_dir", test_dir, cwd=tmp_path)
    assert_one_line(ran, "image_size is 100000")


def test_a_run_that_was_moved_reports_its_own_best(fitted: Path, tmp_path: Path, pictures: Options) -> None:
    (run,) = fitted.glob("lightning_logs/*/version_0")
    moved = Path(shutil.copytree(run, tmp_path / "moved/name/version_0"))
    before = (run / "checkpoints/best.ckpt").read_bytes()
    last = moved / "checkpoints/last.ckpt"
    ran = gel_fit("fit", *TINY_FIT, *pictures, "--ckpt_path", last, "--results_file", "r.csv", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    (row,) = read_rows(tmp_path / "r.csv")
    assert row["checkpoint"] == str(moved / "checkpoints/best.ckpt")
    assert (moved / "checkpoints/best.ckpt").read_bytes() == before == (run / "checkpoints/best.ckpt").read_bytes()


def test_no_command_of_a_comparison_folder_is_run(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "results.csv").touch()
    for settings in (f"model:\n  lr_scheduler: {COMMAND}\n", f"trainer:\n  callbacks: [{COMMAND}]\n"):
        (folder / "config.yaml").write_text(settings)
        assert_one_line(gel_fit("compare", "--resume", "theirs", cwd=tmp_path), "config.yaml", "os.system")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.yaml", "results.csv", "theirs"]
