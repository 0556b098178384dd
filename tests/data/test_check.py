import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gel_lightning.core.errors import GelError
from gel_lightning.data import check as check_module
from gel_lightning.data.check import check, short_path


def save(path, seed, size=(60, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (9, 9), dtype=np.uint8)
    Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def train(tmp_path):
    for number in range(3):
        save(tmp_path / "train" / "gel" / f"g{number}.png", number)
        save(tmp_path / "train" / "not_gel" / f"n{number}.jpg", 10 + number, size=(30 + number, 50))
    return tmp_path / "train"


@pytest.fixture
def test(tmp_path):
    for number in range(2):
        save(tmp_path / "test" / "gel" / f"g{number}.png", 20 + number)
        save(tmp_path / "test" / "not_gel" / f"n{number}.bmp", 30 + number)
    return tmp_path / "test"


def test_all_is_well(train, test, capsys):
    assert check("train", "test") == 0
    output, error = capsys.readouterr()
    assert error == ""
    assert output.count("No unreadable pictures.") == 2
    assert "No near-identical pictures in train." in output
    assert "No near-identical pictures in test." in output
    assert "No near-identical pictures across train and test." in output
    assert max(map(len, output.splitlines())) <= 80


def test_a_csv_file_is_checked_as_the_folders_are(train, test, capsys):
    check("train", "test")
    output, _ = capsys.readouterr()
    for folder in (train, test):
        rows = "".join(f"{path},{path.parent.name}\n" for path in sorted(folder.rglob("*.*")))
        Path(f"{folder.name}.csv").write_text("path,label\n" + rows)
    assert check("train.csv", "test.csv") == 0
    assert capsys.readouterr().out == output.replace("train", "train.csv").replace("test", "test.csv")
    assert short_path(Path("a/train/gel/g.png"), train) == Path("a/train/gel/g.png")


def test_what_there_is(train, capsys):
    assert check(train) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["gel", "3", "60", "to", "60,", "median", "60", "40", "to", "40,", "median", "40"] in rows
    assert ["not_gel", "3", "30", "to", "32,", "median", "31", "50", "to", "50,", "median", "50"] in rows
    assert ["PNG", "8-bit", "grey", "3", "0"] in rows
    assert ["JPEG", "8-bit", "grey", "0", "3"] in rows
    assert "across" not in str(rows)


def test_unreadable_pictures_do_not_stop_it(train, capsys):
    (train / "gel" / "empty.png").touch()
    (train / "not_gel" / "text.tif").write_text("text")
    save(train / "gel" / "copy.bmp", 0)
    assert check("train") == 1
    output = capsys.readouterr().out
    assert "train: 7 readable pictures" in output
    assert "2 unreadable pictures, to remove or replace:" in output
    assert "train/gel/empty.png: is empty (0 bytes)" in output
    assert "train/not_gel/text.tif: is not a picture" in output
    assert "gel/copy.bmp, gel/g0.png" in output


def test_unreadable_test_picture(train, test):
    (test / "gel" / "empty.png").touch()
    assert check("train", "test") == 1


def test_a_class_with_nothing_readable(train, capsys):
    for path in (train / "gel").iterdir():
        path.write_bytes(b"")
    assert check("train") == 1
    assert ["gel", "0"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_near_identical_pictures(train, capsys):
    save(train / "gel" / "copy.png", 1, size=(90, 60))
    save(train / "not_gel" / "wrong.png", 2)
    assert check("train") == 0
    output = capsys.readouterr().out
    assert "2 groups of near-identical pictures in train:" in output
    rows = [line.strip() for line in output.splitlines()]
    same, different = rows.index("gel/copy.png, gel/g1.png"), "gel/g2.png, not_gel/wrong.png"
    marked = [number for number, row in enumerate(rows) if row.startswith(different) and row.endswith("labels differ")]
    assert len(marked) == 1
    assert marked[0] < same
    assert "one may be labelled wrongly" in output


def test_near_identical_pictures_across_the_folders(train, test, capsys):
    save(test / "gel" / "known.png", 0)
    save(test / "gel" / "wrong.png", 11)
    assert check("train", "test") == 0
    output = capsys.readouterr().out
    assert "2 groups of near-identical pictures across train and test:" in output
    rows = [line.split() for line in output.splitlines()]
    assert ["gel/g0.png", "gel/known.png"] in rows
    assert ["not_gel/n1.jpg", "gel/wrong.png", "labels", "differ"] in rows
    assert "No near-identical pictures in train." in output


def test_the_same_folder_twice(train, capsys):
    assert check("train", "train") == 0
    assert "6 groups of near-identical pictures across train and train:" in capsys.readouterr().out


def test_long_lists_are_cut(train, capsys, monkeypatch):
    monkeypatch.setattr(check_module, "MAX_GROUPS", 1)
    monkeypatch.setattr(check_module, "MAX_NAMES", 2)
    for number in range(4):
        save(train / "gel" / f"same{number}.png", 0)
    save(train / "not_gel" / "same.png", 11)
    check("train")
    output = " ".join(capsys.readouterr().out.split())
    assert "pictures gel/g0.png, gel/same0.png and 3 more ... and 1 more" in output


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_odd_file_names_are_shown_as_they_are(train, capfd):
    names = ["[red]a.png", ":smile: c.png", "new\nline.png", "\x1b[31m.png", os.fsdecode(b"\xff.png")]
    for name in names:
        save(train / "gel" / name, 0)
    (train / "not_gel" / "[bold]no.png").touch()
    assert check("train") == 1
    output = capfd.readouterr().out
    for shown in ("[red]a.png", ":smile: c.png", r"new\nline.png", r"\x1b[31m.png", r"\udcff.png"):
        assert shown in output
    assert "train/not_gel/[bold]no.png: is empty" in output


def test_files_that_are_left_out(train, capsys):
    for name in ("notes.txt", "gel/photo.psd", "gel/photo2.PSD", "gel/LICENSE", "gel/.DS_Store"):
        (train / name).touch()
    assert check("train") == 0
    output = capsys.readouterr().out
    assert "train: 4 files left out, not taken for pictures: 2 .psd, 1 without a suffix, 1 .txt." in output


def test_pictures_of_several_pages(train, capsys):
    pages = [Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 9), np.uint8)) for seed in (70, 71, 72)]
    pages[0].save(train / "gel" / "pages.tif", save_all=True, append_images=pages[1:])
    assert check("train") == 0
    output = capsys.readouterr().out
    assert "1 picture of several pages or frames, of which one is read:\n  gel/pages.tif: page 1 of 3\n" in output


def test_errors_are_those_of_the_folders(train, tmp_path):
    with pytest.raises(GelError, match="cannot be opened"):
        check(tmp_path / "missing")
    save(tmp_path / "other" / "gel" / "a.png", 0)
    save(tmp_path / "other" / "plot" / "a.png", 1)
    with pytest.raises(GelError, match="missing: not_gel; extra: plot"):
        check(train, tmp_path / "other")


@pytest.mark.real
def test_real_pictures(shared, capsys):
    assert check(shared / "gel" / "dataset", shared / "gel" / "other_labs") == 0
    output = capsys.readouterr().out
    assert "19 groups of near-identical pictures in" in output
    assert "labels differ" not in output
    assert "No near-identical pictures across" in output
