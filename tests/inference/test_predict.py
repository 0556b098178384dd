"""The file of predictions and what `gel-fit predict` prints."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Ran, gel_fit, made_once, read_rows, save_class, save_data_set
from torchvision.models import get_model

from gel_lightning import GelClassifier
from gel_lightning.inference.predict import PredictionsFile
from gel_lightning.inference.rows import LEAST_CERTAIN, REASONS, UNSURE

SHORT = (*TINY, "--trainer.max_epochs", "1", "--trainer.logger", "false", "--model.head", "LinearHead")
BEST = Path("checkpoints/best.ckpt")
CLASSES = ("blot", "error")
DEMONSTRATION = "This is a demonstration with {}: its {} say nothing about real pictures."


class Strategy:
    """Of a trainer in one of several processes."""

    def broadcast(self, value: int) -> int:
        return 77

    def barrier(self) -> None:
        pass


class Process:
    """A trainer in a process."""

    strategy = Strategy()

    def __init__(self, rank: int = 0, of: int = 1) -> None:
        self.global_rank, self.world_size, self.is_global_zero = rank, of, rank == 0


def written(folder: Path, names: list[str], paths: list[str], trainer: Any = None) -> list[dict[str, str]]:
    """The rows that are written for pictures, each surer than the one before."""
    trainer, model = trainer or Process(), GelClassifier(weights="none", class_names=names)
    callback = PredictionsFile(folder / "predictions.csv")
    callback.on_predict_start(trainer, model)
    logits = torch.tensor([[float(number), 0.0] for number in range(len(paths))])
    callback.on_predict_batch_end(trainer, model, logits.softmax(dim=1), (None, paths, [""] * len(paths)), 0)
    callback.on_predict_end(trainer, model)
    return read_rows(callback.path)


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    paths = ["=1+1.png", "+2.png", "-3.png", "@SUM(A1).png", "\tx.png", "plain.png", "a/=1.png"]
    rows = written(tmp_path, ["=cmd", "b"], paths)
    assert [row["path"] for row in rows] == [*(f"./{path}" for path in paths[:5]), *paths[5:]]
    assert {row["predicted"] for row in rows} == {"'=cmd"}
    assert {row["answer"] for row in rows} == {"'=cmd", UNSURE}
    rows = written(tmp_path, ["+", "-"], ["a.png"])  # signs alone are none
    assert rows[0]["predicted"] == "+"


def test_probabilities_have_six_digits_and_spreadsheets_know_the_encoding(tmp_path: Path) -> None:
    rows = written(tmp_path, ["a", "b"], ["Gelée.png", "b.png"])
    header = b"path,answer,predicted,confidence,probability_a,probability_b,error,note\r\n"
    content = (tmp_path / "predictions.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf" + header + "Gelée.png,unsure,a,0.500000,0.500000,0.500000,,".encode())
    assert [rows[1][name] for name in ("confidence", "probability_a", "probability_b")] == [
        "0.731059",
        "0.731059",
        "0.268941",
    ]


@pytest.mark.parametrize("trainer", [Process(), Process(0, of=2)], ids=["one process", "two"])
def test_a_name_that_is_no_utf_8_loses_no_row(trainer: Any, tmp_path: Path) -> None:
    if trainer.world_size == 2:
        (tmp_path / ".predictions.csv.77.1.tmp").touch()
    rows = written(tmp_path, ["a", "b"], [os.fsdecode(b"caf\xe9.png"), "b.png"], trainer)
    assert [row["path"] for row in rows] == ["caf\\udce9.png", "b.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_what_a_killed_process_leaves_is_a_temporary_file_of_the_predictions(tmp_path: Path) -> None:
    trainer: Any = Process(1, of=2)
    callback = PredictionsFile(tmp_path / "new/predictions.csv")
    callback.on_predict_start(trainer, GelClassifier(weights="none", class_names=["a", "b"]))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".predictions.csv.77.1.tmp"]
    model: Any = None
    callback.on_exception(trainer, model, RuntimeError())
    assert not list((tmp_path / "new").iterdir())


# --- what is printed ---


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a fit with a class called error."""

    def make(folder: Path) -> None:
        for number, name in enumerate(CLASSES):
            save_class(folder / "pictures" / name, 6, 100 * number, striped=bool(number))
        ran = gel_fit("fit", *SHORT, "--data.train_dir", "pictures", cwd=folder)
        assert (ran.status, ran.err) == (0, "")

    return made_once(tmp_path_factory, "class_error", make) / BEST


def predicted(checkpoint: Path, pictures: object, cwd: Path) -> Ran:
    options = ("--ckpt_path", checkpoint, "--data.num_workers", "0", "--trainer.accelerator", "cpu")
    return gel_fit("predict", *options, "--data.predict_dir", pictures, cwd=cwd)


def test_counts_the_least_certain_the_unreadable_and_what_was_left_out(checkpoint: Path, tmp_path: Path) -> None:
    save_class(tmp_path / "new", LEAST_CERTAIN + 2, 0, striped=True)
    for number in range(REASONS + 2):
        (tmp_path / f"new/empty_{number:02}.png").touch()
    for name in ("notes.txt", "a.docx", "b.DOCX", "README", ".hidden.txt"):
        (tmp_path / "new" / name).write_text("no picture\n")
    ran = predicted(checkpoint, "new", tmp_path)
    assert (ran.status, ran.err) == (1, "")
    lines = ran.out.splitlines()
    rows = read_rows(tmp_path / "predictions.csv")
    readable = sorted((row for row in rows if not row["error"]), key=lambda row: (row["confidence"], row["path"]))
    assert len(readable) == LEAST_CERTAIN + 2

    shown = [[cell.strip() for cell in line.split("│")[1:3]] for line in lines if line.startswith("│")]
    answers = [row["answer"] for row in readable]
    assert shown == [[name, str(answers.count(name))] for name in (*CLASSES, UNSURE)]  # error is a class
    for row in readable:
        assert row["answer"] == (row["predicted"] if float(row["confidence"]) >= 0.9 else UNSURE)
    start = lines.index("least certain first:")
    assert [line.split() for line in lines[start + 1 : start + 1 + LEAST_CERTAIN]] == [
        [f"{float(row['confidence']):.3f}", row["predicted"], row["path"]] for row in readable[:LEAST_CERTAIN]
    ]
    blots, unsure = answers.count("blot"), answers.count(UNSURE)
    assert lines[start + 1 + LEAST_CERTAIN :] == [
        f"{blots} of {len(rows)} pictures {'is' if blots == 1 else 'are'} blot, "
        + f"{unsure} unsure, " * (unsure > 0)
        + f"{REASONS + 2} could not be read, 4 files left out (2 .docx, 1 without a suffix, 1 .txt)",
        *(f"could not be read: new/empty_{number:02}.png: is empty (0 bytes)" for number in range(REASONS)),
        "could not be read: 2 more, each with its reason in its row",
        "predictions: predictions.csv",
    ]


def test_one_picture_gets_a_sentence(checkpoint: Path, tmp_path: Path) -> None:
    save_class(tmp_path, 1, 0, striped=True)
    picture = f"{tmp_path.name}_0.png"
    ran = predicted(checkpoint, picture, tmp_path)
    (row,) = read_rows(tmp_path / "predictions.csv")
    share = f"with probability {float(row['confidence']):.3f}"
    said = {UNSURE: f"unsure; most probable is {row['predicted']}, {share}"}
    assert ran.out.splitlines() == [
        DEMONSTRATION.format("a random backbone", "answers"),
        f"{picture}: {said[UNSURE]}"
        if row["answer"] == UNSURE
        else f"{picture} is classified as {row['answer']}, {share}",
        "predictions: predictions.csv",
    ]
    assert row["note"] == "demonstration: a random backbone"

    (tmp_path / "cut.png").write_bytes(b"")
    ran = predicted(checkpoint, "cut.png", tmp_path)
    assert ran.out.splitlines()[1:] == [
        "1 could not be read",
        "could not be read: cut.png: is empty (0 bytes)",
        "predictions: predictions.csv",
    ]


# --- what the checkpoint of a demonstration says ---


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fit on drawn pictures, and weights that are not random."""

    def make(folder: Path) -> None:
        save_data_set(folder / "data/drawn/dataset")  # as if they were drawn
        save_data_set(folder / "data/drawn/test_images", per_class=2, seed=5000)
        torch.save(get_model("resnet18", weights=None).state_dict(), folder / "own.pth")
        ran = gel_fit("fit", *SHORT, "--model.weights", "own.pth", "--data.drawn", "true", cwd=folder)
        assert (ran.status, ran.err) == (0, "")

    return made_once(tmp_path_factory, "drawn_fit", make)


def test_a_checkpoint_of_drawn_pictures_says_so(drawn: Path, tmp_path: Path) -> None:
    save_data_set(tmp_path / "pictures", per_class=1)
    ran = predicted(drawn / BEST, "pictures", tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == DEMONSTRATION.format("drawn pictures", "answers")
    assert {row["note"] for row in read_rows(tmp_path / "predictions.csv")} == {"demonstration: drawn pictures"}

    ran = gel_fit("test", "--ckpt_path", drawn / BEST, "--data.test_dir", "pictures", *TINY[2:6], cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == DEMONSTRATION.format("drawn pictures", "figures")


def test_another_checkpoint_says_nothing(drawn: Path, train_dir: Path, tmp_path: Path) -> None:
    fit = ("fit", *SHORT, "--model.weights", drawn / "own.pth", "--data.train_dir", train_dir)
    assert gel_fit(*fit, cwd=tmp_path).status == 0
    ran = predicted(tmp_path / BEST, train_dir, tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "demonstration" not in ran.out
    assert {row["note"] for row in read_rows(tmp_path / "predictions.csv")} == {""}
