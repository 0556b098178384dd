import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, file_size_limit, refused
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


# One process, in a copy of which each run is killed: a copy of this one might not train any more.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from made_checkpoints import fit

rename = Path.replace
torch.set_num_threads(1)
for number in map(int, sys.argv[2:]):
    count = iter(range(1, 100))

    def replace(path, target):
        if str(target).endswith(".ckpt") and next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    Path.replace = replace
    child = os.fork()
    if not child:
        fit(Path(sys.argv[1], str(number)), 6)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_run_that_is_killed_while_it_replaces_a_checkpoint_can_be_resumed(tmp_path: Path) -> None:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/training")))
    command, environment = [sys.executable, "-c", KILLED, str(tmp_path), "3", "4"], os.environ | {"PYTHONPATH": path}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.split()[-2:] == [str(-signal.SIGKILL)] * 2
    for number in ("3", "4"):
        # last.ckpt has been there since the first epoch, before best.ckpt was replaced.
        assert read_checkpoint(tmp_path / number / "last.ckpt")["epoch"] == 0
        read_checkpoint(tmp_path / number / "best.ckpt")
        resumed = fit(tmp_path / number, 6, ckpt_path=tmp_path / number / "last.ckpt")
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
