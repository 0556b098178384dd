import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import FIT, TINY, gel_fit

from gel_lightning.training.progress import GridProgress

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
OF_A_TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "160", "NO_COLOR": "1"}
FIT = (*FIT, "--trainer.logger", "false")
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


# --- the bar of a comparison ---

COMPARE = (*TINY, "--trainer.max_epochs", "3", "--backbones", "resnet18", "--heads", "single", "--accelerators", "cpu")


@pytest.mark.usefixtures("_terminal", "no_plots")
def test_a_comparison_shows_one_bar_with_the_model_and_the_time_left(tmp_path: Path, pictures: Options) -> None:
    ran = gel_fit("compare", *COMPARE, *pictures, "--data.cache_dir", "cache", cwd=tmp_path)
    assert ran.status == 0
    shown = frames(ran.err)
    bar = r"(?:resnet18_single_(adam|sgd)_cpu )?[━╸╺ ]*([012])/2 models \d:\d\d:\d\d left (?:-:--:--|\d:\d\d:\d\d)"
    rows = [(frame, re.fullmatch(bar, frame)) for frame in shown]
    assert [frame for frame, row in rows if not row] == []  # no bar of the vectors beside it
    seen = [(row[1] or "", row[2]) for _, row in rows if row]
    assert seen == sorted(seen)
    assert {name for name, _ in seen} >= {"adam", "sgd"}
    assert seen[-1] == ("sgd", "2")
    assert max(map(len, shown)) <= 80
    assert ran.err.count("\x1b[?25h") == ran.err.count("\x1b[?25l") == 1  # the cursor is shown again


def test_the_bar_of_a_comparison_advances_by_epochs_and_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    progress = GridProgress(3)
    (task,) = progress.bar.tasks
    steps = []
    model: Any = None
    for name in ("first", "second"):
        progress.begin(name)
        for epoch in range(2):
            trainer: Any = SimpleNamespace(max_epochs=4, current_epoch=epoch)  # it stops early
            progress.on_train_epoch_end(trainer, model)
            steps.append(task.completed)
        endless: Any = SimpleNamespace(max_epochs=-1, current_epoch=9)
        progress.on_train_epoch_end(endless, model)
        assert (task.description, task.completed) == (name, steps[-1])
        progress.end()
        steps.append(task.completed)
    assert steps == [0.25, 0.5, 1, 1.25, 1.5, 2]
    assert (task.total, progress.bar.disable) == (3, False)


def test_the_fits_of_a_cross_validation_are_parts_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    progress = GridProgress(2, fits=4)
    (task,) = progress.bar.tasks
    model: Any = None
    for name, done in (("first", 0), ("second", 1)):
        progress.begin(name)
        assert (task.description, task.completed) == (name, done)
        for fit in (1, 2, 3):
            progress.fitted()
            assert task.completed == done + fit / 4
        trainer: Any = SimpleNamespace(max_epochs=2, current_epoch=0)
        progress.on_train_epoch_end(trainer, model)
        assert task.completed == done + 3.5 / 4
        progress.end()
        assert (task.completed, task.fields["done"]) == (done + 1, done + 1)
    assert task.finished
    failing = GridProgress(2, fits=4)  # one that fails in a fold leaves nothing for the next
    failing.begin("first")
    failing.fitted()
    failing.end()
    failing.begin("second")
    failing.fitted()
    assert failing.bar.tasks[0].completed == 1.25


@pytest.mark.usefixtures("_terminal", "no_plots")
def test_a_comparison_shows_none_where_it_is_not_wanted(tmp_path: Path, pictures: Options) -> None:
    off = ("--trainer.enable_progress_bar", "false", "--optimizers", "sgd", "--trainer.max_epochs", "1")
    ran = gel_fit("compare", *COMPARE, *pictures, *off, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")


@pytest.mark.usefixtures("_terminal")
def test_the_bar_of_a_comparison_is_put_away_before_an_error(tmp_path: Path, pictures: Options) -> None:
    failing = ("--model.optimizer.lr", "1e30", "--optimizers", "sgd", "--heads", "multi")
    ran = gel_fit("compare", *COMPARE, *pictures, *failing, cwd=tmp_path)
    assert ran.status == 1
    *_, bar, error = ESCAPE.sub("", ran.err).splitlines()
    assert "1/1 models" in bar
    assert error.startswith("gel-fit: error: 1 of 1 models failed: resnet18_multi_sgd_cpu (")
    assert ran.err.count("\x1b[?25h") == ran.err.count("\x1b[?25l") == 1
