import re
from pathlib import Path

import pytest
from conftest import FIT, gel_fit

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
OF_A_TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "160", "NO_COLOR": "1"}
Options = tuple[object, ...]


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes rich take stderr for a terminal."""
    for name, value in OF_A_TERMINAL.items():
        monkeypatch.setenv(name, value)


def frames(err: str) -> list[str]:
    """What a terminal shows, one drawn line after the other."""
    return [frame.strip() for frame in re.split(r"[\r\n]+", ESCAPE.sub("", err)) if frame.strip()]


def last_frame(err: str, what: str) -> str:
    return [frame for frame in frames(err) if frame.startswith(what)][-1]


@pytest.mark.usefixtures("_terminal")
def test_a_fit_shows_epochs_metrics_and_batches_to_the_end(tmp_path: Path, pictures: Options) -> None:
    ran = gel_fit("fit", *FIT, *pictures, "--trainer.max_epochs", "3", cwd=tmp_path)
    assert ran.status == 0
    last = last_frame(ran.err, "epoch")
    assert last.startswith("epoch 3/3 · ")
    assert len(last) <= 80
    assert re.search(r"val/accuracy \d\.\d{3}", last)
    assert "12/12 batches" in last  # 16 pictures in batches of 5
    assert "1/1 batches" in last_frame(ran.err, "validating")
    assert "2/2 batches" in last_frame(ran.err, "testing")


@pytest.mark.usefixtures("_terminal")
def test_a_resumed_fit_begins_where_it_was(tmp_path: Path, pictures: Options) -> None:
    fit = ("fit", *FIT, *pictures, "--trainer.max_epochs")
    assert gel_fit(*fit, "1", "--trainer.enable_progress_bar", "false", cwd=tmp_path).err == ""
    (last,) = tmp_path.rglob("last.ckpt")
    ran = gel_fit(*fit, "2", "--ckpt_path", last, cwd=tmp_path)
    shown = [frame for frame in frames(ran.err) if "/8 batches" in frame]
    assert shown
    assert all(int(re.findall(r"(\d+)/8 batches", frame)[0]) >= 4 or "training" in frame for frame in shown)
    assert shown[-1].startswith("epoch 2/2")
    assert "8/8 batches" in shown[-1]


@pytest.mark.usefixtures("_terminal")
def test_a_prediction_shows_its_batches(tmp_path: Path, run_dir: Path, test_dir: Path) -> None:
    options = ("--ckpt_path", run_dir / "checkpoints/best.ckpt", "--data.num_workers", "0", "--data.batch_size", "3")
    ran = gel_fit("predict", *options, "--data.predict_dir", test_dir, cwd=tmp_path)
    assert ran.status == 0
    assert "3/3 batches" in last_frame(ran.err, "classifying")


@pytest.mark.usefixtures("_terminal")
def test_the_bar_is_put_away_before_an_error(tmp_path: Path, pictures: Options) -> None:
    ran = gel_fit("fit", *FIT, *pictures, "--model.optimizer.lr", "1e30", cwd=tmp_path)
    assert ran.status == 1
    *_, bar, error = ESCAPE.sub("", ran.err).splitlines()
    assert "batches" in bar
    assert error.startswith("gel-fit: error: ")
    assert ran.err.count("\x1b[?25h") == ran.err.count("\x1b[?25l") > 0  # the cursor is shown again


@pytest.mark.usefixtures("_terminal")
def test_there_is_none_where_it_is_not_wanted(tmp_path: Path, run_dir: Path, test_dir: Path) -> None:
    options = ("--ckpt_path", run_dir / "checkpoints/best.ckpt", "--data.num_workers", "0")
    off = ("--trainer.enable_progress_bar", "false")
    ran = gel_fit("predict", *options, *off, "--data.predict_dir", test_dir, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")


def test_there_is_none_in_a_file(
    tmp_path: Path, run_dir: Path, test_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    options = ("--ckpt_path", run_dir / "checkpoints/best.ckpt", "--data.num_workers", "0")
    ran = gel_fit("predict", *options, "--data.predict_dir", test_dir, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "\x1b" not in ran.out
