from pathlib import Path

import pytest
import torch
from conftest import FIT, TINY, gel_fit, read_rows, save_class
from test_cli import assert_error, table_of

from gel_lightning.cli.refusals import refusal
from gel_lightning.core.errors import GelError

Options = tuple[object, ...]

pytestmark = pytest.mark.usefixtures("no_plots", "no_figures")

COMPARE = (*TINY, "--trainer.max_epochs", "1", "--backbones", "resnet18", "--heads", "single", "--optimizers", "sgd")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trainer.limit_train_batches", "0"], ["limit_train_batches", "at least 1"]),
        (["--trainer.limit_val_batches", "0"], ["limit_val_batches", "validation"]),
        (["--trainer.limit_test_batches", "0.0"], ["limit_test_batches", "test"]),
        (["--trainer.barebones", "true"], ["--trainer.barebones", "leave"]),
        (["--trainer.enable_checkpointing", "false"], ["--trainer.enable_checkpointing", "leave"]),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/nothing"],
            ["`val/nothing`", "`val/loss`"],
        ),
        (["--checkpoint.monitor", "val/nothing"], ["'val/nothing'", "'val/loss'"]),
        (
            ["--model.lr_scheduler", "ReduceLROnPlateau", "--model.lr_scheduler.monitor", "val/nothing"],
            ["val/nothing", "val/loss"],
        ),
        (["--trainer.callbacks+=LearningRateMonitor", "--trainer.logger", "false"], ["LearningRateMonitor", "logger"]),
    ],
)
def test_what_leaves_a_fit_nothing_to_do_or_to_keep_is_one_line(
    options: list[str], words: list[str], tmp_path: Path, pictures: Options
) -> None:
    ran = gel_fit("fit", *FIT, *pictures, *options, cwd=tmp_path)
    assert_error(ran, *words)
    assert not (tmp_path / "lightning_logs/results.csv").exists()


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_no_batches_of_what_a_command_is_for(command: str, tmp_path: Path, pictures: Options, run_dir: Path) -> None:
    part = {"validate": "val"}.get(command, command)
    options = (f"--trainer.limit_{part}_batches", "0", "--data.predict_dir", ".", *pictures)
    ran = gel_fit(command, *options, "--ckpt_path", run_dir / "checkpoints/best.ckpt", cwd=tmp_path)
    assert_error(ran, f"limit_{part}_batches", f"gel-fit {command}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options", [["--trainer.limit_val_batches", "0"], ["--trainer.barebones", "true"]], ids=lambda options: options[0]
)
def test_a_comparison_refuses_them_too(options: list[str], tmp_path: Path, pictures: Options) -> None:
    assert_error(gel_fit("compare", *COMPARE, *pictures, *options, cwd=tmp_path), options[0], "gel-fit compare")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "package"),
    [("--trainer.logger=WandbLogger", "wandb"), ("--trainer.callbacks+=DeviceStatsMonitor", "psutil")],
)
def test_a_logger_or_callback_whose_package_is_absent(
    option: str, package: str, tmp_path: Path, pictures: Options
) -> None:
    try:
        __import__(package)
    except ImportError:
        assert_error(gel_fit("fit", *FIT, *pictures, option, cwd=tmp_path), package, "pip install")
    else:
        pytest.skip(f"{package} is here")


def test_only_what_we_or_lightning_itself_say_is_a_refusal() -> None:
    from lightning.pytorch import Trainer

    with pytest.raises(ValueError, match="barebones") as raised:
        Trainer(barebones=True, log_every_n_steps=1)
    assert "barebones" in str(refusal(raised.value))
    wrapped = ValueError("in other words")
    wrapped.__cause__ = raised.value
    assert refusal(wrapped) == refusal(raised.value)
    assert refusal(ValueError("never raised")) is None
    wrapped.__cause__ = GelError("no such folder")
    assert refusal(wrapped) == "no such folder"
    for action in (lambda: int("a bug of ours"), lambda: torch.ones(2) @ torch.ones(3), lambda: {}["a key"]):
        with pytest.raises(Exception, match=r".") as bug:
            action()
        assert refusal(bug.value) is None


# --- what works ---


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_max_time_ends_a_run(command: str, tmp_path: Path, pictures: Options) -> None:
    options = FIT if command == "fit" else COMPARE
    endless = ("--trainer.max_epochs", "100000", "--trainer.max_time", "00:00:00:01")
    ran = gel_fit(command, *options, *pictures, *endless, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    (path,) = tmp_path.rglob("results.csv")
    (row,) = read_rows(path)
    assert 1 <= float(row["training_time_mins"]) * 60 < 20


@pytest.mark.parametrize(
    "options",
    [
        ["--model.lr_scheduler", "ReduceLROnPlateau", "--model.lr_scheduler.monitor", "train/loss"],
        ["--model.lr_scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau"],
        ["--config", "plateau.yaml"],
        ["--trainer.callbacks+=Timer"],
        ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.9"],
    ],
    ids=lambda options: options[-1],
)
def test_schedulers_and_callbacks_of_lightning_that_work(
    options: list[str], tmp_path: Path, pictures: Options, no_figures: None
) -> None:
    (tmp_path / "plateau.yaml").write_text(
        "model:\n  lr_scheduler:\n    class_path: ReduceLROnPlateau\n    init_args:\n      monitor: val/loss\n"
    )
    ran = gel_fit("fit", *TINY, *pictures, *options, "--trainer.max_epochs", "2", "--name", "run", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    config = tmp_path / "lightning_logs/run/version_0/config.yaml"
    ran = gel_fit("fit", "--config", config, "--name", "again", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    first, again = read_rows(tmp_path / "lightning_logs/results.csv")
    assert first["val_loss"] == again["val_loss"]


def test_home_after_an_equals_sign_in_every_path(
    tmp_path: Path, pictures: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for option, target in zip(("train", "test"), pictures[1::2], strict=True):
        (tmp_path / "home" / option).symlink_to(str(target))
    (tmp_path / "home/short.yaml").write_text("trainer:\n  max_epochs: 1\n")
    work = tmp_path / "work"
    work.mkdir()
    ran = gel_fit(
        *("fit", *TINY, "--config=~/short.yaml", "--data.train_dir=~/train", "--data.test_dir=~/test"),
        *("--results_file=~/rows.csv", "--trainer.default_root_dir=~/runs", "--checkpoint.dirpath=~/kept"),
        "--data.cache_dir=~/cache",
        cwd=work,
    )
    assert (ran.status, ran.err) == (0, "")
    assert not list(work.iterdir())
    home = tmp_path / "home"
    assert {path.name for path in home.iterdir()} == {
        *("train", "test", "short.yaml", "rows.csv", ".rows.csv.lock", "runs", "kept", "cache"),
    }
    ran = gel_fit(
        *("predict", "--ckpt_path=~/kept/best.ckpt", "--data.predict_dir=~/test", "--predictions_file=~/said.csv"),
        *("--data.num_workers", "0"),
        cwd=work,
    )
    assert (ran.status, ran.err) == (0, "")
    assert (home / "said.csv").exists()
    assert gel_fit("data", "cache", "--data.cache_dir=~/cache", cwd=work).out.startswith(f"kept in {home / 'cache'}")


# --- test pictures of one class ---


def test_test_pictures_of_one_class(tmp_path: Path, train_dir: Path, run_dir: Path) -> None:
    save_class(tmp_path / "gels/gel", 4, 7000, striped=True)
    tested = gel_fit(
        *("test", "--ckpt_path", run_dir / "checkpoints/best.ckpt", "--data.test_dir", "gels"),
        *("--data.num_workers", "0"),
        cwd=tmp_path,
    )
    pictures = ("--data.train_dir", train_dir, "--data.test_dir", "gels")
    fitted = gel_fit("fit", *FIT, *pictures, cwd=tmp_path)
    for ran, column in ((tested, 0), (fitted, 1)):
        assert (ran.status, ran.err) == (0, "")
        table = {name: cells[column] for name, cells in table_of(ran.out).items()}
        assert table["accuracy"].split()[0].endswith("/4")
        assert table["accuracy"].split()[-1] == table["recall"] == table["recall gel"] != "undefined"
        assert table["auroc"] == table["balanced accuracy"] == table["f1"] == table["precision gel"] == "undefined"
    checked = gel_fit("data", "check", "--data.train_dir", train_dir, "--data.test_dir", "gels", cwd=tmp_path)
    assert (checked.status, checked.err) == (0, "")
    assert_error(gel_fit("compare", *COMPARE, *pictures, cwd=tmp_path), "none of not_gel", "add some")
