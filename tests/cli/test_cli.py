import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import (
    CONFIGS,
    FIT,
    TINY,
    Ran,
    file_size_limit,
    gel_fit,
    made_once,
    read_rows,
    save_data_set,
    start_gel_fit,
)
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torchvision.models import ResNet18_Weights, get_model

from gel_lightning import GelClassifier, __version__
from gel_lightning.training.results import COLUMNS

pytestmark = pytest.mark.usefixtures("no_figures")

Options = tuple[object, ...]

# What may differ between two runs that are the same.
OWN = ("training_time_mins", "inference_time_secs", "version", "checkpoint")
# The learning rate leaps after two epochs, so that the best of the four is the second.
LEAP = ("--model.lr_scheduler", "StepLR", "--model.lr_scheduler.step_size", "2", "--model.lr_scheduler.gamma", "300")
RUN = Path("lightning_logs/resnet18_multi_sgd_cpu/version_0")


def results(folder: Path) -> list[dict[str, str]]:
    """The rows of a folder's results file, without what may differ between equal runs."""
    rows = read_rows(folder / "lightning_logs/results.csv")
    return [{name: value for name, value in row.items() if name not in OWN} for row in rows]


def head_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


def same_weights(first: Path, second: Path) -> bool:
    one, other = head_weights(first), head_weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def version_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("lightning_logs/*/version_*"))


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".part"))]


def table_of(out: str) -> dict[str, list[str]]:
    """The cells of a printed table of metrics, by metric."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    return {name: cells for name, *cells in rows}


def assert_error(ran: Ran, *words: str, status: int = 1) -> None:
    """Checks that a run ended with one line that says what is wrong, and nothing else on stderr."""
    assert ran.status == status, ran.err
    assert ran.err.startswith("gel-fit: error: ")
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.endswith("\n")
    for word in words:
        assert word in ran.err


# --- help, version, wrong options ---


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["--help"],
            ["usage: gel-fit", "fit", "validate", "test", "predict", "data check", "data draw"],
        ),
        (
            ["fit", "--help_all"],
            [
                "--model.backbone",
                "vgg16, mobilenet_v3_large, mobilenet_v2, efficientnet_lite0 and others",
                "--results_file",
            ],
        ),
        (
            ["fit", "--help_all"],
            ["--data.train_dir", "--data.val_fraction", "(type: float, default: 0.2)", "--ckpt_path"],
        ),
        (["predict", "--help"], ["--predictions_file", "--data.predict_dir"]),
        (["--version"], [__version__]),
        (["data", "--help"], ["check", "draw"]),
        (["data", "check", "--help"], ["--data.train_dir", "--data.test_dir"]),
        (["data", "draw", "--help"], ["--to", "--seed"]),
    ],
)
def test_help(args: list[str], words: list[str], tmp_path: Path) -> None:
    ran = gel_fit(*args, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    text = "".join(ran.out.split())  # lines are broken at spaces and after hyphens
    for word in words:
        assert "".join(word.split()) in text
    assert not list(tmp_path.iterdir())


def test_module_is_the_command(tmp_path: Path) -> None:
    process = start_gel_fit("--version", cwd=tmp_path)
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "run.out").read_text().startswith(f"gel-fit {__version__}\n")
    assert (tmp_path / "run.err").read_text() == ""


def test_command_is_installed() -> None:
    command = Path(sys.executable).with_name("gel-fit")
    assert "from gel_lightning.__main__ import run" in command.read_text()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        pytest.param([], ["fit", "validate", "test", "predict", "gel-fit --help"], id="nothing"),
        pytest.param(["train"], ["'train'", "fit"], id="no such command"),
        pytest.param(
            ["fit", "--model.bakbone", "vgg16"], ["--model.bakbone", "gel-fit fit --help"], id="no such option"
        ),
        pytest.param(["fit", "--trainer.max_epochs", "many"], ["trainer.max_epochs", "many"], id="wrong type"),
        pytest.param(["fit", "--config", "absent.yaml"], ["absent.yaml"], id="no such config"),
        pytest.param(["fit", "--model.head", "DeepHead"], ["'DeepHead'", "LinearHead", "MultiLayerHead"], id="head"),
        pytest.param(["fit", "--model.optimizer", "Adma"], ["'Adma'", "Adam", "AdamW", "SGD"], id="optimizer"),
        pytest.param(
            ["fit", "--model.lr_scheduler", "Step"], ["'Step'", "StepLR", "CosineAnnealingLR"], id="scheduler"
        ),
        pytest.param(["data"], ["check", "draw"], id="data alone"),
        pytest.param(["data", "draw"], ["to"], id="nowhere to draw"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(args: list[str], words: list[str], tmp_path: Path) -> None:
    assert_error(gel_fit(*args, cwd=tmp_path), *words, status=2)
    assert not list(tmp_path.iterdir())


def test_config_that_is_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("model: [\n")
    assert_error(gel_fit("fit", "--config", "broken.yaml", cwd=tmp_path), "config", status=2)


# --- gel-fit data ---


def test_data_check_prints_what_is_there(tmp_path: Path, train_dir: Path, test_dir: Path) -> None:
    ran = gel_fit("data", "check", "--data.train_dir", train_dir, "--data.test_dir", test_dir, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "20 readable pictures" in ran.out
    assert "8 readable pictures" in ran.out


def test_data_check_fails_if_a_picture_cannot_be_read(tmp_path: Path) -> None:
    folder = save_data_set(tmp_path / "pictures", per_class=2)
    (folder / "gel/cut.png").write_bytes(b"\x89PNG")
    ran = gel_fit("data", "check", "--data.train_dir", folder, cwd=tmp_path)
    assert (ran.status, ran.err) == (1, "")
    assert "cut.png" in ran.out


def test_data_check_of_no_folder(tmp_path: Path) -> None:
    assert_error(gel_fit("data", "check", "--data.train_dir", "absent", cwd=tmp_path), "absent")


def test_data_draw_draws_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("gel_lightning.data.drawn.dataset.draw_data_set", lambda *args: drawn.append(args) or args[0])
    ran = gel_fit("data", "draw", "--to", "here", "--seed", "7", cwd=tmp_path)
    assert ran == Ran(0, "drawn pictures: here\n", "")
    assert drawn == [(Path("here"), 7)]


def test_what_is_kept_is_listed_and_cleared(tmp_path: Path, pictures: Options) -> None:
    assert gel_fit("data", "cache", "--data.cache_dir", "none", cwd=tmp_path) == Ran(0, "kept in none: 0.0 MB\n", "")
    options = (*FIT, *pictures, "--trainer.logger", "false", "--data.cache_dir", "cache", "--data.views", "2")
    assert gel_fit("fit", *options, cwd=tmp_path).status == 0
    mine = [tmp_path / "cache/notes.txt", tmp_path / "cache" / ("0" * 64) / "mine.npy"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no store")
    # A store that is damaged is listed and cleared as well.
    for key in (tmp_path / "cache").glob("*/key.json"):
        if "hashes" in key.read_text():
            key.write_bytes(key.read_bytes()[:-5])

    ran = gel_fit("data", "cache", "--data.cache_dir", "cache", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert re.fullmatch(r"kept in cache: \d+\.\d MB", lines[0])
    assert lines[1] == "what backbone weights px view device pictures MB"
    plain, augmented = sorted(line for line in lines if line.startswith("features "))
    assert re.fullmatch(r"features resnet18 [0-9a-f]{8} 32 0 cpu 28 0\.\d", plain)
    assert re.fullmatch(r"features resnet18 [0-9a-f]{8} 32 1 cpu 16 0\.\d", augmented)  # the training pictures alone
    assert any(line.startswith("damaged") for line in lines)

    for _ in range(2):
        ran = gel_fit("data", "cache", "--data.cache_dir", "cache", "--clear", cwd=tmp_path)
        assert (ran.status, ran.err) == (0, "")
        assert re.fullmatch(r"\d+\.\d MB removed from cache\n", ran.out)
    assert sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file()) == sorted(mine)


def test_the_default_place_of_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    ran = gel_fit("data", "cache", cwd=tmp_path)
    assert ran == Ran(0, f"kept in {tmp_path / 'home/gel-lightning'}: 0.0 MB\n", "")


# --- a whole fit ---


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_fit_prints_what_it_does_and_where_things_are(two_fits: Path, name: str) -> None:
    assert (two_fits / "status").read_text() == "0 0"
    assert (two_fits / f"{name}.err").read_text() == ""  # no warning, and no progress bar in a file
    out = (two_fits / f"{name}.out").read_text()
    first, *lines = out.splitlines()
    assert first == "resnet18 (weights: none) + multi + sgd on cpu, 4 epochs"
    assert lines[0] == "16 training, 4 validation and 8 test pictures of 2 classes: gel, not_gel"
    assert lines[1].startswith("This is a demonstration with a random backbone: ")
    if "feature vectors" in lines[2]:  # not where the other one, or an earlier test, has left them all
        del lines[2]
    assert all(line[0] in "┏┃┡│└" for line in lines[2:-3])
    logs = Path("lightning_logs")
    assert lines[-3] == f"TensorBoard: tensorboard --logdir {logs}"
    checkpoint = lines[-2].removeprefix("checkpoint: ")
    assert (two_fits / checkpoint).name == "best.ckpt"
    assert (two_fits / checkpoint).exists()
    assert lines[-1] == f"results: {logs}/results.csv"
    assert (two_fits / logs / "results.csv").exists()

    rows = read_rows(two_fits / "lightning_logs/results.csv")
    (row,) = (row for row in rows if Path(row["checkpoint"]) == two_fits / checkpoint)
    table = table_of(out)
    for shown, column in {"loss": "loss", "auroc": "auroc", "precision": "precision", "f1": "f1"}.items():
        assert table[shown][0] == f"{float(row[f'val_{column}']):.4f}"
    assert table["auroc"][1] == f"{float(row['roc_auc']):.4f}"
    right = sum(line[i] for i, line in enumerate(json.loads(row["conf_mat"])))
    assert table["accuracy"][1] == f"{right}/8   {float(row['accuracy']):.4f}"


def test_a_demonstration_says_so_and_no_other_run_does(tmp_path: Path, pictures: Options) -> None:
    short = (*TINY, "--trainer.max_epochs", "1", "--trainer.logger", "false", "--model.head", "LinearHead")
    save_data_set(tmp_path / "data/drawn/dataset")  # as if they were drawn
    save_data_set(tmp_path / "data/drawn/test_images", per_class=2, seed=5000)
    ran = gel_fit("fit", "--config", CONFIGS / "offline.yaml", *short, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "16 training, 4 validation and 4 test pictures" in ran.out
    assert "This is a demonstration with drawn pictures and a random backbone: " in ran.out

    torch.save(get_model("resnet18", weights=None).state_dict(), tmp_path / "own.pth")
    ran = gel_fit("fit", *short, *pictures, "--model.weights", "own.pth", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert f"resnet18 (weights: {tmp_path / 'own.pth'}) + single + sgd on cpu, 1 epoch\n" in ran.out
    assert "This is a demonstration" not in ran.out
    assert [row["weights"] for row in results(tmp_path)] == ["none", str(tmp_path / "own.pth")]


def test_two_fits_at_once_share_no_folder_and_lose_no_row(two_fits: Path) -> None:
    assert version_folders(two_fits) == ["version_0", "version_1"]
    rows = read_rows(two_fits / "lightning_logs/results.csv")
    assert sorted(row["version"] for row in rows) == ["version_0", "version_1"]
    for row in rows:
        assert Path(row["checkpoint"]).parent.parent.name == row["version"]


def test_a_fit_leaves_its_folder(run_dir: Path) -> None:
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert (run_dir / "config.yaml").exists()
    assert list(run_dir.glob("events.out.tfevents.*"))
    assert not temporary_files(run_dir.parent.parent)


def test_the_same_seed_gives_the_same_to_the_last_bit(two_fits: Path, run_dir: Path) -> None:
    first, second = results(two_fits)
    assert first == second
    for name in ("best", "last"):
        other = run_dir.with_name("version_1") / f"checkpoints/{name}.ckpt"
        assert same_weights(run_dir / f"checkpoints/{name}.ckpt", other)


def test_the_saved_config_is_the_whole_run(two_fits: Path, run_dir: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["model"]["optimizer"]["init_args"]["lr"] == 0.001
    assert config["model"]["weights"] == "none"
    assert config["data"]["batch_size"] == 5
    assert config["trainer"]["max_epochs"] == 4
    assert config["seed_everything"] == 42

    # Another process, another folder, the same run: its name too.
    ran = gel_fit("fit", "--config", run_dir / "config.yaml", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert results(tmp_path) == results(two_fits)[:1]
    assert same_weights(tmp_path / RUN / "checkpoints/last.ckpt", run_dir / "checkpoints/last.ckpt")


def test_another_seed_gives_another_run_and_names_say_what_ran(
    two_fits: Path, run_dir: Path, tmp_path: Path, pictures: Options
) -> None:
    ran = gel_fit("fit", *FIT, *pictures, "--seed_everything", "7", "--name", "other", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    (row,) = results(tmp_path)
    assert row["seed"] == "7"
    assert row["val_loss"] != results(two_fits)[0]["val_loss"]
    other = tmp_path / "lightning_logs/other/version_0/checkpoints/last.ckpt"
    assert not same_weights(other, run_dir / "checkpoints/last.ckpt")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        pytest.param(["--config", CONFIGS / "resnet18_single_adam_cpu.yaml"], "resnet18_single_adam_cpu", id="file"),
        pytest.param(
            ["--config", CONFIGS / "resnet18_single_sgd_cpu.yaml", "--config", "later.yaml"],
            "resnet18_single_sgd_cpu",
            id="first file",
        ),
        pytest.param(
            ["--model.head", "LinearHead", "--model.optimizer", "Adam"], "resnet18_single_adam_cpu", id="model"
        ),
    ],
)
def test_a_run_is_named_after_its_first_config_else_its_model(
    options: list[object], name: str, tmp_path: Path, pictures: Options
) -> None:
    (tmp_path / "later.yaml").write_text("trainer:\n  max_epochs: 9\n")
    ran = gel_fit("fit", *options, *TINY, *pictures, "--trainer.max_epochs", "1", cwd=tmp_path)
    assert ran.status == 0
    assert [path.parent.name for path in tmp_path.glob("lightning_logs/*/version_0")] == [name]


def test_a_run_that_fails_at_once_leaves_no_folder(tmp_path: Path, pictures: Options) -> None:
    (tmp_path / "other.csv").write_text("of another kind\n")
    ran = gel_fit("fit", *TINY, *pictures, "--results_file", "other.csv", cwd=tmp_path)
    assert_error(ran, "other.csv")
    assert not any((tmp_path / "lightning_logs").iterdir())


# --- test and predict, with no config ---


@pytest.fixture(scope="module")
def bad_pictures(tmp_path_factory: pytest.TempPathFactory, test_dir: Path) -> Path:
    """A folder of any depth in which three pictures cannot be read."""
    folder = tmp_path_factory.mktemp("bad") / "pictures"
    good = sorted(test_dir.rglob("*.png"))
    for number, place in enumerate(("1.png", "gel/2.png", "not_gel/3.png", "a/b/c/4.png")):
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(good[number].read_bytes())
    (folder / "a/cut.png").write_bytes(good[0].read_bytes()[:200])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "gel/text.png").write_text("no picture\n")
    (folder / "notes.txt").write_text("not even named like one\n")
    return folder


@pytest.fixture(scope="module")
def tested_and_predicted(
    tmp_path_factory: pytest.TempPathFactory, run_dir: Path, test_dir: Path, bad_pictures: Path
) -> Path:
    """The folder of a test and a prediction, with no config: `test` and `predict`."""

    def make(folder: Path) -> None:
        options = ("--ckpt_path", run_dir / "checkpoints/best.ckpt", "--trainer.accelerator", "cpu")
        runs = {
            "test": gel_fit("test", *options, "--data.test_dir", test_dir, cwd=folder),
            "predict": gel_fit("predict", *options, "--data.predict_dir", bad_pictures, cwd=folder),
        }
        for name, ran in runs.items():
            (folder / f"{name}.out").write_text(ran.out)
            (folder / f"{name}.err").write_text(ran.err)
        (folder / "status").write_text(" ".join(str(ran.status) for ran in runs.values()))

    return made_once(tmp_path_factory, "tested_and_predicted", make)


def test_test_gives_the_metrics_of_the_fit(two_fits: Path, tested_and_predicted: Path) -> None:
    assert (tested_and_predicted / "status").read_text() == "0 1"  # three pictures could not be read
    assert (tested_and_predicted / "test.err").read_text() == ""
    out = (tested_and_predicted / "test.out").read_text()
    in_fit = {name: cells[1] for name, cells in table_of((two_fits / "a.out").read_text()).items()}
    assert {name: cell for name, (cell,) in table_of(out).items()} == in_fit
    assert in_fit.keys() >= {"loss", "accuracy", "precision gel", "auroc"}


def test_test_and_predict_leave_no_more_than_they_say(tested_and_predicted: Path) -> None:
    left = {path.name for path in tested_and_predicted.iterdir()}
    assert left == {"status", "test.out", "test.err", "predict.out", "predict.err", "predictions.csv"}


def test_predict_classifies_what_can_be_read_and_names_the_rest(
    tested_and_predicted: Path, bad_pictures: Path, run_dir: Path
) -> None:
    assert (tested_and_predicted / "predict.err").read_text() == ""
    text = (tested_and_predicted / "predictions.csv").read_text(encoding="utf-8-sig")
    assert text.startswith("path,answer,predicted,confidence,probability_gel,probability_not_gel,error,note\n")
    rows = {Path(row["path"]).relative_to(bad_pictures).as_posix(): row for row in read_rows_of(text)}
    assert len(rows) == len(text.splitlines()) - 1
    errors = {name: row["error"] for name, row in rows.items() if row["error"]}
    assert errors.keys() == {"a/cut.png", "empty.jpg", "gel/text.png"}
    assert "cut off" in errors["a/cut.png"]
    assert "0 bytes" in errors["empty.jpg"]
    assert rows.keys() - errors.keys() == {"1.png", "gel/2.png", "not_gel/3.png", "a/b/c/4.png"}

    model = GelClassifier.load_from_checkpoint(run_dir / "checkpoints/best.ckpt").eval()
    for name, row in rows.items():
        if name in errors:
            assert row["predicted"] == row["confidence"] == row["probability_gel"] == row["probability_not_gel"] == ""
            continue
        probabilities = [float(row["probability_gel"]), float(row["probability_not_gel"])]
        assert sum(probabilities) == pytest.approx(1, abs=1.1e-6)  # of six digits each
        assert float(row["confidence"]) == max(probabilities)
        assert row["predicted"] == ("gel" if probabilities[0] > probabilities[1] else "not_gel")
        expected = classify(model, bad_pictures / name)
        assert probabilities == pytest.approx(expected, abs=1e-5)

    table = table_of((tested_and_predicted / "predict.out").read_text())
    assert sum(int(table[name][0]) for name in ("gel", "not_gel", "unsure")) == 4
    assert ", 3 could not be read" in (tested_and_predicted / "predict.out").read_text()
    assert (tested_and_predicted / "predict.out").read_text().endswith("\npredictions: predictions.csv\n")


def read_rows_of(text: str) -> list[dict[str, str]]:
    import csv

    return list(csv.DictReader(text.splitlines()))


def classify(model: GelClassifier, path: Path) -> list[float]:
    from gel_lightning.data.datasets import picture_values

    with Image.open(path) as picture, torch.no_grad():
        values = picture_values(picture, 32)
        probabilities: list[float] = model.predict_step(values.unsqueeze(0), 0)[0].tolist()
    return probabilities


def test_predict_says_what_it_cannot_read_and_what_it_leaves_out(tmp_path: Path, run_dir: Path, test_dir: Path) -> None:
    folder = tmp_path / "-pictures"
    folder.mkdir()
    shutil.copy(test_dir / "gel/gel_0.png", folder / "good.png")
    (folder / "photo.psd").write_bytes(b"8BPS" + bytes(30))
    (folder / "notes.txt").touch()
    options = ("--ckpt_path", run_dir / "checkpoints/last.ckpt", "--data.num_workers", "0")
    ran = gel_fit("predict", *options, "--data.predict_dir=-pictures", cwd=tmp_path)
    assert (ran.status, ran.err) == (1, "")
    assert "-pictures/photo.psd: is a Photoshop document, not a picture that can be read" in ran.out
    assert "1 could not be read, 1 file left out (1 .txt)" in ran.out
    rows = read_rows_of((tmp_path / "predictions.csv").read_text(encoding="utf-8-sig"))
    assert [row["path"] for row in rows] == ["./-pictures/good.png", "./-pictures/photo.psd"]
    assert rows[1]["error"].startswith("is a Photoshop document")


def test_predict_takes_a_single_picture_and_another_file(tmp_path: Path, run_dir: Path, test_dir: Path) -> None:
    picture = test_dir / "gel/gel_0.png"
    options = ("--ckpt_path", run_dir / "checkpoints/last.ckpt", "--data.num_workers", "0")
    ran = gel_fit("predict", *options, "--data.predict_dir", picture, "--predictions_file", "new/one.csv", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    (row,) = read_rows(tmp_path / "new/one.csv")
    assert row["path"] == str(picture)
    assert row["error"] == ""
    assert "could not be read" not in ran.out
    assert ran.out.endswith("\npredictions: new/one.csv\n")


def test_validate_measures_the_validation_pictures_of_the_fit(
    tmp_path: Path, two_fits: Path, run_dir: Path, pictures: Options
) -> None:
    options = ("--ckpt_path", run_dir / "checkpoints/best.ckpt", "--data.num_workers", "0")
    ran = gel_fit("validate", *options, *pictures, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    in_fit = {name: cells[0] for name, cells in table_of((two_fits / "a.out").read_text()).items()}
    assert {name: cell for name, (cell,) in table_of(ran.out).items()} == in_fit
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_can_be_moved_and_be_of_a_training_with_other_callbacks(
    tmp_path: Path, tested_and_predicted: Path, run_dir: Path, test_dir: Path
) -> None:
    checkpoint = torch.load(run_dir / "checkpoints/best.ckpt", weights_only=True)
    checkpoint["callbacks"]["EarlyStopping{'monitor': 'val/loss', 'mode': 'min'}"] = {"wait_count": 1}
    torch.save(checkpoint, tmp_path / "mine.ckpt")
    options = ("--ckpt_path", "mine.ckpt", "--data.test_dir", test_dir, "--data.num_workers", "0")
    ran = gel_fit("test", *options, cwd=tmp_path)
    lines, before = ran.out.splitlines(), (tested_and_predicted / "test.out").read_text().splitlines()
    assert (ran.status, ran.err) == (0, "")
    assert "measured: mine.ckpt on pictures in " in ran.out
    assert [line for line in lines if "measured:" not in line] == [line for line in before if "measured:" not in line]


def test_a_prediction_that_fails_midway_leaves_the_file_as_it_was(
    tmp_path: Path, run_dir: Path, test_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: GelClassifier, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == 1:
            raise RuntimeError("a bug")
        return torch.full((len(batch[1]), 2), 0.5)

    monkeypatch.setattr(GelClassifier, "predict_step", fail)
    options = ("--ckpt_path", run_dir / "checkpoints/last.ckpt", "--data.num_workers", "0", "--data.batch_size", "3")
    predict = ("predict", *options, "--data.predict_dir", test_dir)
    ran = gel_fit(*predict, cwd=tmp_path)
    assert ran.err.endswith("RuntimeError: a bug\n")  # with its traceback: a bug is no error of the user's
    assert not list(tmp_path.iterdir())

    (tmp_path / "predictions.csv").write_text("of yesterday\n")
    gel_fit(*predict, cwd=tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of yesterday\n"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        pytest.param(["predict", "--data.predict_dir", "."], ["--ckpt_path"], id="predict without a checkpoint"),
        pytest.param(["test"], ["--ckpt_path"], id="test without a checkpoint"),
        pytest.param(["predict", "--ckpt_path", "CKPT"], ["--data.predict_dir"], id="predict without pictures"),
        pytest.param(["predict", "--ckpt_path", "CKPT", "--data.predict_dir", "gone"], ["gone"], id="no such folder"),
        pytest.param(["predict", "--ckpt_path", "CKPT", "--data.predict_dir", "."], ["no picture"], id="empty folder"),
        pytest.param(["test", "--ckpt_path", "CKPT", "--data.test_dir", "gone"], ["gone"], id="no such test folder"),
    ],
)
def test_what_test_and_predict_lack_is_one_line(
    args: list[str], words: list[str], tmp_path: Path, run_dir: Path
) -> None:
    args = [str(run_dir / "checkpoints/best.ckpt") if arg == "CKPT" else arg for arg in args]
    assert_error(gel_fit(*args, cwd=tmp_path), *words)
    assert not list(tmp_path.iterdir())


# --- errors of fit ---


def only_one_class(folder: Path) -> None:
    save_data_set(folder, per_class=3)
    for path in (folder / "not_gel").iterdir():
        path.unlink()
    (folder / "not_gel").rmdir()


def an_empty_class(folder: Path) -> None:
    save_data_set(folder, per_class=3)
    (folder / "blot").mkdir()


def unreadable(folder: Path) -> None:
    save_data_set(folder, per_class=5)
    whole = (folder / "gel/gel_0.png").read_bytes()
    (folder / "gel/cut.png").write_bytes(whole[:200])
    (folder / "gel/empty.tif").write_bytes(b"")
    (folder / "not_gel/text.jpg").write_text("no picture\n")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda folder: None, ["pictures"], id="no such folder"),
        pytest.param(only_one_class, ["only the class folder gel"], id="one class"),
        pytest.param(an_empty_class, ["blot", "no picture"], id="an empty class"),
        pytest.param(unreadable, ["cut.png", "empty.tif", "text.jpg", "3 pictures cannot be read"], id="unreadable"),
    ],
)
def test_pictures_that_do_not_do(make: Callable[[Path], None], words: list[str], tmp_path: Path) -> None:
    make(tmp_path / "pictures")
    ran = gel_fit("fit", *FIT, "--data.train_dir", "pictures", cwd=tmp_path)
    assert_error(ran, *words)
    assert ran.out == ""
    assert version_folders(tmp_path) == []
    assert not (tmp_path / "lightning_logs/results.csv").exists()


NO_GPU = not (torch.cuda.is_available() or torch.backends.mps.is_available())


def has_tpu() -> bool:
    from lightning.pytorch.accelerators import XLAAccelerator

    return XLAAccelerator.is_available()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(
            ["--model.backbone", "resnet19"],
            ["'resnet19'", "resnet18", "vgg", "mobilenet", "--model.backbone"],
            id="backbone",
        ),
        pytest.param(["--model.weights", "absent.pth"], ["absent.pth", "--model.weights"], id="no weights file"),
        pytest.param(
            ["--model.weights", "linear.pth"], ["linear.pth", "not the weights of resnet18"], id="other weights"
        ),
        pytest.param(
            ["--trainer.accelerator", "gpu"],
            ["'gpu'", "--trainer.accelerator cpu"],
            marks=pytest.mark.skipif(not NO_GPU, reason="there is a GPU"),
            id="gpu",
        ),
        pytest.param(
            ["--trainer.accelerator", "tpu"],
            ["'tpu'", "--trainer.accelerator cpu"],
            marks=pytest.mark.skipif(has_tpu(), reason="there is a TPU"),
            id="tpu",
        ),
        pytest.param(["--trainer.accelerator", "abacus"], ["'abacus'", "--trainer.accelerator cpu"], id="accelerator"),
        pytest.param(["--results_file", "linear.pth"], ["linear.pth", "name another file"], id="results file"),
        pytest.param(["--ckpt_path", "absent.ckpt"], ["absent.ckpt", "--ckpt_path"], id="no checkpoint"),
        pytest.param(["--model.class_weights", "[1, 2, 3]"], ["class_weights", "gel, not_gel"], id="class weights"),
        pytest.param(["--seed_everything", "-1"], ["-1", "4294967295", "--seed_everything"], id="seed"),
        pytest.param(["--data.batch_size", "0"], ["batch_size", "--data.batch_size"], id="batch size"),
    ],
)
def test_settings_that_do_not_do(options: list[str], words: list[str], tmp_path: Path, pictures: Options) -> None:
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "linear.pth")
    ran = gel_fit("fit", *FIT, *pictures, *options, cwd=tmp_path)
    assert_error(ran, *words)
    # Whether a weights file is one of this network is known when the first vector is to be computed.
    assert [line for line in ran.out.splitlines() if "linear.pth) + " not in line and " training, " not in line] == []
    assert version_folders(tmp_path) == []
    assert not (tmp_path / "lightning_logs/results.csv").exists()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_place_of_the_cache(place: str, tmp_path: Path, pictures: Options) -> None:
    (tmp_path / "file").write_text("precious\n")
    ran = gel_fit("fit", *FIT, *pictures, "--data.cache_dir", place, cwd=tmp_path)
    assert_error(ran, place, "Not a directory", "--data.cache_dir", "--data.cache_features false")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file"]
    assert (tmp_path / "file").read_text() == "precious\n"


def test_imagenet_weights_that_cannot_be_had(
    tmp_path: Path, pictures: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # a port that nobody listens to
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/resnet18-f37072fd.pth"
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
        monkeypatch.setattr(ResNet18_Weights.IMAGENET1K_V1.value, "url", url)
        ran = gel_fit("fit", *FIT, *pictures, "--model.weights", "imagenet", cwd=tmp_path)
    said = "".join(line for line in ran.err.splitlines(True) if not line.startswith("Downloading: "))
    words = ("resnet18", "resnet18-f37072fd.pth", str(tmp_path / "hub"), "--model.weights PATH", "--model.weights none")
    assert_error(ran._replace(err=said), *words)
    assert version_folders(tmp_path) == []


def test_a_failed_fit_without_a_logger_leaves_the_working_folder_alone(tmp_path: Path, pictures: Options) -> None:
    (tmp_path / "thesis.txt").write_text("precious\n")
    (tmp_path / "config.yaml").write_text("trainer:\n  max_epochs: 1\n")
    options = ("--config", "config.yaml", "--trainer.logger", "false", "--model.class_weights", "[1, 2, 3]")
    ran = gel_fit("fit", *TINY, *pictures, *options, cwd=tmp_path)
    assert_error(ran, "class_weights")
    assert (tmp_path / "thesis.txt").read_text() == "precious\n"
    assert (tmp_path / "config.yaml").read_text() == "trainer:\n  max_epochs: 1\n"


def test_a_loss_that_is_no_number_at_once(tmp_path: Path, pictures: Options) -> None:
    ran = gel_fit("fit", *FIT, *pictures, "--model.optimizer.lr", "1e30", cwd=tmp_path)
    assert_error(ran, "loss is no longer a number in epoch 0", "no checkpoint", "--model.optimizer.lr")
    assert version_folders(tmp_path) == []


def test_a_loss_that_is_no_number_later_keeps_the_last_good_checkpoint(tmp_path: Path, pictures: Options) -> None:
    ran = gel_fit("fit", *FIT, *pictures, *LEAP[:-1], "1e38", cwd=tmp_path)
    best = tmp_path / RUN / "checkpoints/best.ckpt"
    assert_error(ran, "loss is no longer a number in epoch 2", str(best))
    for path in (best, best.with_name("last.ckpt")):
        assert all(value.isfinite().all() for value in head_weights(path).values())
    tested = gel_fit("test", "--ckpt_path", best, *pictures, "--data.num_workers", "0", cwd=tmp_path)
    assert (tested.status, tested.err) == (0, "")
    assert not (tmp_path / "lightning_logs/results.csv").exists()


# --- checkpoints that do not do ---


class Opens:
    """What a hostile checkpoint could hold: unpickled carelessly, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def absent(path: Path, whole: Path) -> None:
    pass


def cut_off(path: Path, whole: Path) -> None:
    path.write_bytes(whole.read_bytes()[:5000])


def emptied(path: Path, whole: Path) -> None:
    path.write_bytes(b"")


def text_file(path: Path, whole: Path) -> None:
    path.write_text("This is no checkpoint.\n")


def hostile(path: Path, whole: Path) -> None:
    torch.save(torch.load(whole, weights_only=True) | {"extra": Opens(path.with_name("executed"))}, path)


def foreign(path: Path, whole: Path) -> None:
    """As Lightning writes it of another module."""
    kept = {
        "epoch",
        "global_step",
        "pytorch-lightning_version",
        "loops",
        "callbacks",
        "optimizer_states",
        "lr_schedulers",
    }
    checkpoint = {key: value for key, value in torch.load(whole, weights_only=True).items() if key in kept}
    torch.save(checkpoint | {"state_dict": torch.nn.Linear(3, 2).state_dict(), "hyper_parameters": {"lr": 0.1}}, path)


def state_dict(path: Path, whole: Path) -> None:
    torch.save(torch.nn.Linear(3, 2).state_dict(), path)


BROKEN = [
    pytest.param(absent, "no such checkpoint", id="absent"),
    pytest.param(cut_off, "not a whole checkpoint", id="cut off"),
    pytest.param(emptied, "not a whole checkpoint", id="empty"),
    pytest.param(text_file, "not a file of torch.save", id="text"),
    pytest.param(hostile, "more than plain data", id="hostile"),
    pytest.param(foreign, "checkpoint of another model", id="foreign"),
    pytest.param(state_dict, "checkpoint of another model", id="state dict"),
]


@pytest.mark.parametrize(("make", "word"), BROKEN)
@pytest.mark.parametrize("command", ["fit", "test", "predict"])
def test_a_checkpoint_that_does_not_do(
    command: str,
    make: Callable[[Path, Path], None],
    word: str,
    tmp_path: Path,
    pictures: Options,
    run_dir: Path,
    test_dir: Path,
) -> None:
    make(tmp_path / "some.ckpt", run_dir / "checkpoints/last.ckpt")
    before = sorted(tmp_path.iterdir())
    options = {"fit": (*FIT, *pictures), "test": pictures, "predict": ("--data.predict_dir", test_dir)}[command]
    assert_error(gel_fit(command, *options, "--ckpt_path", "some.ckpt", cwd=tmp_path), "some.ckpt", word)
    assert sorted(tmp_path.iterdir()) == before  # what a hostile one holds is not executed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.backbone", "mobilenet_v2"], ["--model.backbone is mobilenet_v2", "resnet18"]),
        (["--model.head", "LinearHead"], ["--model.head is LinearHead", "MultiLayerHead"]),
        (["--model.optimizer", "Adam"], ["--model.optimizer is Adam", "SGD"]),
    ],
)
def test_a_fit_resumes_no_other_model(
    options: list[str], words: list[str], tmp_path: Path, pictures: Options, run_dir: Path
) -> None:
    checkpoint = run_dir / "checkpoints/last.ckpt"
    before = checkpoint.read_bytes()
    ran = gel_fit("fit", *FIT, *pictures, *options, "--ckpt_path", checkpoint, cwd=tmp_path)
    assert_error(ran, str(checkpoint), *words)
    assert checkpoint.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_not_tested_on_other_classes(tmp_path: Path, run_dir: Path) -> None:
    save_data_set(tmp_path / "pictures", per_class=1)
    (tmp_path / "pictures/gel").rename(tmp_path / "pictures/blot")
    options = ("--ckpt_path", run_dir / "checkpoints/best.ckpt", "--data.test_dir", "pictures")
    assert_error(gel_fit("test", *options, cwd=tmp_path), "blot, not_gel", "gel, not_gel")


# --- a full disk ---


def test_a_disk_full_at_the_first_checkpoint(tmp_path: Path, pictures: Options) -> None:
    # In a process of its own, since TensorBoard's thread cannot write either and says so in its own way.
    limited = partial(file_size_limit(20_000).__enter__)
    process = start_gel_fit("fit", *FIT, *pictures, cwd=tmp_path, preexec_fn=limited)
    status = process.wait(timeout=120)
    assert_error(Ran(status, "", (tmp_path / "run.err").read_text()), "File too large")
    assert version_folders(tmp_path) == []
    assert not (tmp_path / "lightning_logs/results.csv").exists()
    assert not temporary_files(tmp_path)


def test_a_disk_full_at_a_later_checkpoint_keeps_the_earlier_one(tmp_path: Path, pictures: Options) -> None:
    with file_size_limit(resource.RLIM_INFINITY):  # which FullDisk changes
        ran = gel_fit("fit", *FIT, *pictures, "--trainer.callbacks+=test_cli.FullDisk", cwd=tmp_path)
    assert_error(ran, "File too large")
    for name in ("best", "last"):
        assert torch.load(tmp_path / RUN / f"checkpoints/{name}.ckpt", weights_only=True)["epoch"] <= 1
    assert not (tmp_path / "lightning_logs/results.csv").exists()
    assert not temporary_files(tmp_path)


class FullDisk(Callback):
    """From the third epoch on there is room for no checkpoint, though for all else."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_disk_full_at_the_results(tmp_path: Path, pictures: Options) -> None:
    path = tmp_path / "lightning_logs/results.csv"
    path.parent.mkdir()
    row = ",".join(["x" * 100_000] + [""] * (len(COLUMNS) - 1))
    path.write_text(",".join(COLUMNS) + "\n" + f"{row}\n" * 20)
    before = path.read_bytes()
    options = ("--model.head", "LinearHead", "--trainer.max_epochs", "1")  # a small checkpoint
    with file_size_limit(len(before)):
        ran = gel_fit("fit", *FIT, *pictures, *options, cwd=tmp_path)
    assert_error(ran, "results.csv", "File too large")
    assert path.read_bytes() == before
    assert not temporary_files(tmp_path)
    assert (tmp_path / RUN / "checkpoints/best.ckpt").exists()


def test_a_disk_full_at_the_predictions(tmp_path: Path, run_dir: Path, test_dir: Path) -> None:
    options = ("--ckpt_path", run_dir / "checkpoints/last.ckpt", "--data.num_workers", "0")
    with file_size_limit(200):
        ran = gel_fit("predict", *options, "--data.predict_dir", test_dir, cwd=tmp_path)
    assert_error(ran, "predictions.csv", "File too large")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path, pictures: Options) -> None:
    tmp_path.chmod(0o500)
    try:
        assert_error(gel_fit("fit", *FIT, *pictures, cwd=tmp_path), "Permission denied")
    finally:
        tmp_path.chmod(0o700)
    assert not list(tmp_path.iterdir())


# --- killed, interrupted, resumed ---


class Killer(Callback):
    """Kills its process."""

    def __init__(self, before_test: bool) -> None:
        self.before_test = before_test

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch == 3 and not self.before_test:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate" and self.before_test:
            os.kill(os.getpid(), signal.SIGKILL)


MOMENTS = {"between epochs": "false", "before the test": "true"}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, pictures: Options) -> Path:
    """Folders of two fits that were killed, one between epochs, one after the last epoch before the test.

    They ran in copies of this process, which spares them the imports.
    """

    def make(folder: Path) -> None:
        fits = []
        for moment, before_test in MOMENTS.items():
            (folder / moment).mkdir()
            killer = ("--trainer.callbacks+=test_cli.Killer", f"--trainer.callbacks.before_test={before_test}")
            options = ("fit", *FIT, *LEAP, *pictures, *killer)
            copy = multiprocessing.get_context("fork").Process(
                target=gel_fit, args=options, kwargs={"cwd": folder / moment}
            )
            copy.start()
            fits.append(copy)
        for fit in fits:
            fit.join()
        (folder / "status").write_text(" ".join(str(fit.exitcode) for fit in fits))

    return made_once(tmp_path_factory, "killed", make)


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory, pictures: Options) -> Path:
    folder = tmp_path_factory.mktemp("never_killed")
    assert gel_fit("fit", *FIT, *LEAP, *pictures, cwd=folder).status == 0
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_resumes_as_if_never_killed(
    moment: str, killed: Path, never_killed: Path, pictures: Options, tmp_path: Path
) -> None:
    assert (killed / "status").read_text() == f"{-signal.SIGKILL} {-signal.SIGKILL}"
    folder = killed / moment
    assert not (folder / "lightning_logs/results.csv").exists()
    best, last = folder / RUN / "checkpoints/best.ckpt", folder / RUN / "checkpoints/last.ckpt"
    of_before = Path(shutil.copy(best, tmp_path))
    # Of the first epoch and of the last, and of every ten seconds between; the best is another.
    assert torch.load(best, weights_only=True)["epoch"] == 1
    assert torch.load(last, weights_only=True)["epoch"] == {"between epochs": 0, "before the test": 3}[moment]

    ran = gel_fit("fit", *FIT, *LEAP, *pictures, "--ckpt_path", last.relative_to(folder), cwd=folder)
    assert (ran.status, ran.err) == (0, "")
    assert results(folder) == results(never_killed)
    assert version_folders(folder) == ["version_0"]
    assert yaml.safe_load((folder / RUN / "config.yaml").read_text())["ckpt_path"] is None
    if moment == "before the test":
        assert best.read_bytes() == of_before.read_bytes()
    assert same_weights(best, of_before)  # the epoch that was trained again gave the same
    for name in ("best", "last"):
        checkpoint = RUN / f"checkpoints/{name}.ckpt"
        assert same_weights(folder / checkpoint, never_killed / checkpoint)
    assert curves(folder / RUN) == curves(never_killed / RUN)


def test_settings_that_the_optimizer_refuses(tmp_path: Path, pictures: Options) -> None:
    ran = gel_fit("fit", *FIT, *pictures, "--model.optimizer.lr", "-1", cwd=tmp_path)
    assert_error(ran, "learning rate", "--model.optimizer")
    assert not any(tmp_path.rglob("version_*"))


def test_a_trial_run_leaves_nothing(tmp_path: Path, pictures: Options) -> None:
    ran = gel_fit("fit", *FIT, *pictures, "--trainer.fast_dev_run", "true", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert not any(tmp_path.rglob("*.csv"))
    assert not any(tmp_path.rglob("*.ckpt"))


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for part in (".", "train", "val"):
        events = EventAccumulator(str(run / part)).Reload()
        for tag in events.Tags()["scalars"]:
            found[f"{part}/{tag}"] = [(event.step, event.value) for event in events.Scalars(tag)]
    assert {"train/loss", "val/loss", "./test/loss"} <= found.keys()
    return found


@pytest.mark.parametrize(("by", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_end_quietly_and_leave_a_checkpoint(
    tmp_path: Path, pictures: Options, by: signal.Signals, expected: int
) -> None:
    options = ("--trainer.max_epochs", "1000", "--data.num_workers", "1")
    process = start_gel_fit("fit", *FIT, *pictures, *options, cwd=tmp_path, start_new_session=True)
    last = tmp_path / RUN / "checkpoints/last.ckpt"
    wait_for(last.exists, process)
    if by == signal.SIGINT:
        os.killpg(process.pid, by)  # as a terminal does: to the workers too
    else:
        process.send_signal(by)
    status = process.wait(timeout=60)
    assert status == expected
    assert (tmp_path / "run.err").read_text() == ""
    assert "stopped; to go on: gel-fit fit --config " in (tmp_path / "run.out").read_text()
    assert not (tmp_path / "lightning_logs/results.csv").exists()
    assert not temporary_files(tmp_path)
    tested = gel_fit("test", "--ckpt_path", last, *pictures, "--data.num_workers", "0", cwd=tmp_path)
    assert (tested.status, tested.err) == (0, "")


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < end
        time.sleep(0.05)
