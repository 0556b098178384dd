import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import refused

from gel_lightning.training.runs import MARKER, claim_folder, resumed_folder


def test_folders_are_numbered_and_marked(tmp_path: Path) -> None:
    parent = tmp_path / "lightning_logs/name"
    for other in ("version_7", "version_x", "version_9.txt"):
        (parent / other).mkdir(parents=True)
    assert [claim_folder(tmp_path, "name").name for _ in range(2)] == ["version_8", "version_9"]
    assert (parent / "version_8" / MARKER).is_file()
    assert not (parent / "version_7" / MARKER).exists()


def test_parallel_runs_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: claim_folder(tmp_path, "name"), range(40)))
    assert len(set(folders)) == 40


def test_a_failing_run_that_removes_the_parent_takes_no_folder_from_another(tmp_path: Path) -> None:
    parent, ended = tmp_path / "lightning_logs/name", threading.Event()

    def fail() -> None:
        while not ended.is_set():
            with suppress(OSError):
                parent.rmdir()

    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(fail)
        try:
            for _ in range(300):
                folder = claim_folder(tmp_path, "name")
                assert (folder / MARKER).is_file()
                (folder / MARKER).unlink()
                folder.rmdir()
        finally:
            ended.set()
        failing.result()


def test_a_parent_that_vanishes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after the parent was made, another run removes it."""
    usual: Callable[..., None] = Path.mkdir
    removed = []

    def mkdir(self: Path, *args: object, **options: object) -> None:
        usual(self, *args, **options)
        if self.name == "name" and self.exists() and len(removed) < 3:
            removed.append(self)
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    folder = claim_folder(tmp_path, "name")
    assert len(removed) == 3
    assert (folder / MARKER).is_file()


def test_a_parent_that_vanishes_while_it_is_looked_at_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``mkdir`` finds the parent there, and looks whether it is a folder after another run has removed it."""
    usual: Callable[..., None] = os.mkdir
    parent, removed = tmp_path / "lightning_logs/name", []
    parent.mkdir(parents=True)

    def mkdir(path: Path, *args: object) -> None:
        if path == parent and not removed:
            removed.append(path)
            parent.rmdir()
            raise FileExistsError(path)
        usual(path, *args)

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert (claim_folder(tmp_path, "name") / MARKER).is_file()
    assert removed


@pytest.mark.parametrize("broken_link", [False, True])
def test_a_parent_that_is_a_file_is_an_error(broken_link: bool, tmp_path: Path) -> None:
    (tmp_path / "lightning_logs").mkdir()
    parent = tmp_path / "lightning_logs/name"
    parent.symlink_to("nothing") if broken_link else parent.touch()
    with pytest.raises(FileExistsError):
        claim_folder(tmp_path, "name")


def test_only_a_folder_of_ours_is_resumed(tmp_path: Path) -> None:
    folder = claim_folder(tmp_path, "name")
    assert resumed_folder(folder / "checkpoints/last.ckpt") == folder
    assert resumed_folder(folder / "other/last.ckpt") is None
    assert resumed_folder(tmp_path / "project/checkpoints/last.ckpt") is None
    assert resumed_folder(None) is None
    (folder / MARKER).unlink()
    (folder / MARKER).mkdir()
    assert resumed_folder(folder / "checkpoints/last.ckpt") is None
    assert "--ckpt_path" in refused(lambda: resumed_folder("s3://bucket/checkpoints/last.ckpt"))


@pytest.mark.parametrize(("root", "name"), [("a::b", "name"), (None, "a::b"), ("memory://x", "name")])
def test_a_folder_that_lightning_would_take_as_a_url_is_not_made(
    root: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "URL" in refused(lambda: claim_folder(root, name))
    assert not list(tmp_path.iterdir())
