import multiprocessing
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import file_size_limit, refused
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from made_checkpoints import fit, make_trainer

from gel_lightning.training.checkpoint_files import CheckpointFiles, best_model_path, with_checkpoint_files
from gel_lightning.training.checkpoints import read_checkpoint


def test_a_checkpoint_is_written_beside_its_place_and_flushed_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    flush, rename = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        events.append("flushed " + ("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"))
        flush(descriptor)

    def renamed(path: Path, target: Any) -> Path:
        assert path.parent == Path(target).parent
        events.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setenv("TMPDIR", "/nowhere")
    CheckpointFiles().save_checkpoint({"a": torch.ones(2)}, tmp_path / "x/a.ckpt")
    assert events == ["flushed file", "renamed", "flushed folder"]
    assert torch.load(tmp_path / "x/a.ckpt", weights_only=True)["a"].tolist() == [1, 1]


def test_a_full_disk_leaves_the_old_checkpoint_and_names_it(tmp_path: Path) -> None:
    files, path = CheckpointFiles(), tmp_path / "a.ckpt"
    files.save_checkpoint({"a": 1}, path)
    before = path.read_bytes()
    with file_size_limit(10_000):
        text = refused(lambda: files.save_checkpoint({"a": torch.zeros(10_000)}, path))
    assert text.startswith(f"{path}: the checkpoint cannot be written (File too large)")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def fit_and_be_killed(number: int, folder: Path) -> None:
    """Fits, and is killed before a checkpoint takes its place: the first, the second and so on."""
    rename, count = Path.replace, iter(range(1, 100))

    def replace(path: Path, target: Any) -> Path:
        if str(target).endswith(".ckpt") and next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    torch.set_num_threads(1)
    Path.replace = replace  # type: ignore[method-assign]
    fit(folder, 6)


@pytest.mark.parametrize("number", [3, 4])
def test_a_run_that_is_killed_while_it_replaces_a_checkpoint_can_be_resumed(number: int, tmp_path: Path) -> None:
    run = multiprocessing.get_context("fork").Process(target=fit_and_be_killed, args=(number, tmp_path / "run"))
    run.start()
    run.join()
    assert run.exitcode == -signal.SIGKILL
    # last.ckpt has been there since the first epoch, before best.ckpt was replaced.
    assert read_checkpoint(tmp_path / "run/last.ckpt")["epoch"] == 0
    read_checkpoint(tmp_path / "run/best.ckpt")
    resumed = fit(tmp_path / "run", 6, ckpt_path=tmp_path / "run/last.ckpt")
    assert resumed.current_epoch == 6


def test_only_a_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / "folder.ckpt/inside").mkdir(parents=True)
    (tmp_path / "a.ckpt").touch()
    for name in ("folder.ckpt", "a.ckpt", "absent.ckpt"):
        CheckpointFiles().remove_checkpoint(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.ckpt"]
    assert (tmp_path / "folder.ckpt/inside").exists()


def test_a_plugin_that_writes_checkpoints_is_refused() -> None:
    assert "TorchCheckpointIO" in refused(lambda: with_checkpoint_files(TorchCheckpointIO()))
    (own,) = with_checkpoint_files(None)
    assert isinstance(own, CheckpointFiles)
    assert with_checkpoint_files(["other"])[0] == "other"


def test_the_best_is_of_our_callback_whatever_others_there_are(tmp_path: Path) -> None:
    others = (
        OnExceptionCheckpoint(tmp_path / "others"),
        ModelCheckpoint(tmp_path / "others", "worst", monitor="val/loss", mode="max"),
    )
    trainer = make_trainer(tmp_path / "run", 2, *others)
    assert best_model_path(trainer) == ""
    trainer = fit(tmp_path / "run", 2, *others[1:])
    assert best_model_path(trainer) == str(tmp_path / "run/best.ckpt")


def test_the_best_of_a_trainer_without_ours_is_that_of_its_own(tmp_path: Path) -> None:
    callback = ModelCheckpoint(tmp_path)
    callback.best_model_path = "its.ckpt"
    settings: dict[str, Any] = {"logger": False, "accelerator": "cpu"}
    assert best_model_path(Trainer(callbacks=[OnExceptionCheckpoint(tmp_path), callback], **settings)) == "its.ckpt"
    assert best_model_path(Trainer(enable_checkpointing=False, **settings)) == ""
