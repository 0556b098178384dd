"""Names and places of files: what is refused, what is escaped, and what stays as it was."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import FIT, TINY, gel_fit, read_rows, save_class
from test_cli import RUN, Options, assert_error

from gel_lightning.training.runs import MARKER

ESCAPE = "\x1b]0;owned\x07\x1b[31m"
ONE_EPOCH = ("--trainer.max_epochs", "1")
BYTES = os.fsdecode(b"\xff\xfe")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("option", "value"),
    [("--name", "data::v2"), ("--checkpoint.dirpath", "memory://x"), ("--trainer.default_root_dir", "a::b")],
)
def test_a_folder_that_lightning_would_take_as_a_url(
    option: str, value: str, tmp_path: Path, pictures: Options
) -> None:
    assert_error(gel_fit("fit", *FIT, *pictures, option, value, cwd=tmp_path), option, value)
    assert not list(tmp_path.iterdir())


def test_a_working_folder_that_lightning_would_take_as_a_url(tmp_path: Path, pictures: Options) -> None:
    work = tmp_path / "data::v2"
    work.mkdir()
    (tmp_path / "data").write_text("precious")
    assert_error(gel_fit("fit", *FIT, *pictures, cwd=work), "data::v2")
    assert contents(tmp_path) == {tmp_path / "data": b"precious"}


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_a_file_to_write_that_is_no_file(
    kind: str, tmp_path: Path, pictures: Options, run_dir: Path, test_dir: Path
) -> None:
    place = tmp_path / "place"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/null")
    ran = gel_fit("fit", *FIT, *pictures, "--results_file", place, cwd=tmp_path)
    assert_error(ran, str(place), kind, "--results_file")
    options = ("--ckpt_path", run_dir / "checkpoints/best.ckpt", "--data.predict_dir", test_dir)
    ran = gel_fit("predict", *options, "--predictions_file", place, cwd=tmp_path)
    assert_error(ran, str(place), kind, "--predictions_file")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_link_to_a_results_file_stays_a_link(tmp_path: Path, pictures: Options) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "results.csv").symlink_to("all/results.csv")
    options = ("--trainer.max_epochs", "1", "--results_file", "results.csv")
    for _ in range(2):
        assert gel_fit("fit", *FIT, *pictures, *options, cwd=tmp_path).status == 0
    assert (tmp_path / "results.csv").is_symlink()
    assert len(read_rows(tmp_path / "all/results.csv")) == 2


def test_a_finished_run_that_is_resumed_adds_no_second_row(tmp_path: Path, pictures: Options) -> None:
    assert gel_fit("fit", *FIT, *pictures, cwd=tmp_path).status == 0
    before = (tmp_path / "lightning_logs/results.csv").read_bytes()
    ran = gel_fit("fit", *FIT, *pictures, "--ckpt_path", RUN / "checkpoints/last.ckpt", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert (tmp_path / "lightning_logs/results.csv").read_bytes() == before
    longer = ("--trainer.max_epochs", "5", "--ckpt_path", RUN / "checkpoints/last.ckpt")
    assert gel_fit("fit", *FIT, *pictures, *longer, cwd=tmp_path).status == 0
    assert [row["epochs"] for row in read_rows(tmp_path / "lightning_logs/results.csv")] == ["4", "5"]


def test_a_project_of_the_users_own_is_no_run(tmp_path: Path, pictures: Options, run_dir: Path) -> None:
    project = tmp_path / "project"
    (project / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "hparams.yaml", "00000/features/tensors.tsv", "projector_config.pbtxt"):
        (project / name).parent.mkdir(exist_ok=True, parents=True)
        (project / name).write_text("mine")
    for name in ("last.ckpt", "best.ckpt"):
        shutil.copy(run_dir / "checkpoints" / name, project / "checkpoints" / name)
    before = contents(project)
    options = ("--trainer.max_epochs", "5", "--ckpt_path", project / "checkpoints/last.ckpt")
    ran = gel_fit("fit", *FIT, *pictures, *options, cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert contents(project) == before
    assert (tmp_path / RUN / MARKER).exists()
    assert (tmp_path / RUN / "checkpoints/last.ckpt").exists()


def test_odd_names_of_classes_and_files(tmp_path: Path) -> None:
    """They are escaped wherever they are printed and written, and no picture is left out."""
    odd = {
        ESCAPE: r"\x1b]0;owned\x07\x1b[31m",
        BYTES: r"\udcff\udcfe",
        "a\tb\n\u202e": r"a\tb\n\u202e",
        "error": "error",
    }
    folder = tmp_path / f"pictures {ESCAPE} {BYTES}"
    for number, name in enumerate(odd):
        save_class(folder / "gel", 6, 100 * number, striped=True)
        (folder / "gel/gel_0.png").rename(folder / "gel" / f"{name}.png")
        (folder / "gel").rename(folder / name)
    ran = gel_fit("fit", *TINY, "--data.train_dir", folder, *ONE_EPOCH, "--name", "a \u202e\x1b", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert f"of 4 classes: {', '.join(sorted(odd.values()))}" in ran.out
    assert_harmless(ran.out)
    assert len(read_rows(tmp_path / "lightning_logs/results.csv")) == 1
    run = tmp_path / "lightning_logs/a \u202e\x1b/version_0"
    header, *rows = (run / "00000/features/metadata.tsv").read_bytes().decode().splitlines()
    assert header == "class\tpart\tname"
    assert len(rows) == 24
    cells = [row.split("\t") for row in rows]
    assert {label for label, _, _ in cells} == set(odd.values())
    assert {name for _, _, name in cells} >= {f"{name}.png" for name in odd.values()}

    (folder / "cut.png").write_bytes(b"\x89PNG")
    options = ("--ckpt_path", run / "checkpoints/best.ckpt", "--data.predict_dir", folder, "--data.num_workers", "0")
    ran = gel_fit("predict", *options, cwd=tmp_path)
    assert (ran.status, ran.err) == (1, "")  # one cannot be read
    assert_harmless(ran.out)
    predictions = read_rows(tmp_path / "predictions.csv")
    assert len(predictions) == 25
    assert sum(row["error"] != "" for row in predictions) == 1
    counted = [line.split("│") for line in ran.out.splitlines() if line.startswith("│")]
    numbers = {cells[1].strip(): int(cells[2]) for cells in counted}
    assert numbers.keys() == {*odd.values(), "unsure"}
    assert sum(numbers.values()) == 24
    assert ", 1 could not be read" in ran.out

    ran = gel_fit("fit", *TINY, "--data.train_dir", folder / ESCAPE, cwd=tmp_path)
    assert_error(ran, odd[ESCAPE], odd[BYTES], "class folders")
    assert_harmless(ran.err)


def assert_harmless(text: str) -> None:
    """Nothing in it controls a terminal."""
    assert all(char.isprintable() or char == "\n" for char in text), ascii(text)
