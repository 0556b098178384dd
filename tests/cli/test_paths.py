"""Names and places of files: what is refused, what is escaped, and what stays as it was."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import FIT, TINY, gel_fit, read_rows, save_data_set
from test_cli import RUN, Options, assert_error, read_rows_of

from gel_lightning.training.runs import MARKER

ESCAPE = "\x1b]0;owned\x07\x1b[31m"
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


@pytest.mark.parametrize("odd", [ESCAPE, BYTES, "tab\tend\n", "\u202egnp", "error"], ids=ascii)
def test_odd_names_of_classes_and_files(odd: str, tmp_path: Path) -> None:
    """They are escaped wherever they are printed and written, and everything is done."""
    shown = {ESCAPE: r"\x1b]0;owned\x07\x1b[31m", BYTES: r"\udcff\udcfe", "tab\tend\n": r"tab\tend\n"}.get(odd, odd)
    shown = shown.replace("\u202e", r"\u202e")
    folder = tmp_path / f"pictures {odd}"
    save_data_set(folder)
    (folder / "gel").rename(folder / odd)
    (folder / "not_gel/not_gel_0.png").rename(folder / "not_gel" / f"{odd}.png")
    ran = gel_fit("fit", *TINY, "--data.train_dir", folder, "--trainer.max_epochs", "1", "--name", odd, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert f"2 classes: {shown}, not_gel" in ran.out or f"2 classes: not_gel, {shown}" in ran.out
    assert_harmless(ran.out)
    (row,) = read_rows(tmp_path / "lightning_logs/results.csv")
    assert row["test_pictures"] == "4"
    run = tmp_path / "lightning_logs" / odd / "version_0"
    lines = (run / "00000/features/metadata.tsv").read_bytes().decode().splitlines()
    assert lines[0] == "class\tpart\tname"
    assert all(len(line.split("\t")) == 3 for line in lines)
    assert {line.split("\t")[0] for line in lines[1:]} == {shown, "not_gel"}
    assert any(line.endswith(f"\t{shown}.png") for line in lines)

    (folder / "cut.png").write_bytes(b"\x89PNG")
    options = ("--ckpt_path", run / "checkpoints/best.ckpt", "--data.predict_dir", folder, "--data.num_workers", "0")
    ran = gel_fit("predict", *options, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert_harmless(ran.out)
    rows = read_rows_of((tmp_path / "predictions.csv").read_bytes().decode())
    assert len(rows) == 21 or "\n" in odd
    counted = [line.split("│") for line in ran.out.splitlines() if line.startswith("│")]
    numbers = {cells[1].strip(): int(cells[2]) for cells in counted}
    assert numbers.keys() <= {shown, "not_gel", "cannot be read"}
    assert numbers["cannot be read"] == 1
    assert sum(numbers.values()) == 21

    ran = gel_fit("fit", *TINY, "--data.train_dir", folder / odd, cwd=tmp_path)
    assert_error(ran, shown)
    assert_harmless(ran.err)


def assert_harmless(text: str) -> None:
    """Nothing in it controls a terminal."""
    assert all(char.isprintable() or char == "\n" for char in text), ascii(text)
