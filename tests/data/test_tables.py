"""CSV files of paths and labels."""

from pathlib import Path

import pytest
from conftest import gel_fit, read_rows, refused, save_data_set

from gel_lightning import GelDataModule
from gel_lightning.data.sources import read_source, source_classes
from gel_lightning.data.tables import read_table

HEADER = "path,label\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV file of ten pictures of each of two classes, in folders that say nothing of it."""
    save_data_set(tmp_path / "pictures", 10)
    names = sorted(path for path in (tmp_path / "pictures").rglob("*.png"))
    lines = [f"{path.relative_to(tmp_path)},{'band' if path.parent.name == 'gel' else 'other'}\n" for path in names]
    file = tmp_path / "pictures.csv"
    file.write_text(HEADER + "".join(lines))
    return file


def test_labels_are_those_of_the_file(table: Path) -> None:
    found = read_source([table])
    assert found.class_names == source_classes([table]) == ["band", "other"]
    assert found.labels == [0] * 10 + [1] * 10
    assert all(
        (path.parent.name == "gel") == (label == 0) for path, label in zip(found.paths, found.labels, strict=True)
    )
    assert read_table(table, ["other", "band"]).labels == [0] * 10 + [1] * 10


def test_a_model_is_fitted_and_tested_on_files(table: Path, tmp_path: Path) -> None:
    save_data_set(tmp_path / "more", 3, seed=500)
    lines = [f"more/{name}/{name}_{n}.png,band\n" for name in ("gel",) for n in range(3)]
    (tmp_path / "more.csv").write_text(HEADER + "".join(lines))
    options = ("--trainer.max_epochs", 1, "--model.weights", "none", "--data.image_size", 32, "--data.num_workers", 0)
    data = ("--data.train_dir", "pictures.csv", "--data.test_dir", "more=more.csv", "--data.test_fraction", 0.04)
    ran = gel_fit("fit", *data, "--data.val_fraction", 0.16, *options, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "of 2 classes: band, other" in ran.out
    (row,) = read_rows(tmp_path / "lightning_logs/results.csv")
    assert row["data_folder"] == "pictures.csv"


def test_three_parts_have_the_shares_that_were_asked_for(tmp_path: Path) -> None:
    save_data_set(tmp_path / "pictures", 100)
    data = GelDataModule(tmp_path / "pictures", test_fraction=0.04, val_fraction=1 / 6, cache_features=False)
    data.setup("fit")
    assert {part: len(pictures.paths) for part, pictures in data.parts.items()} == {"train": 160, "val": 32, "test": 8}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "no columns path and label, separated by commas, in its first line, but none (--data.train_dir)"),
        ("path;label\n", "no columns path and label, separated by commas, in its first line, but 'path;label' ("),
        (HEADER, "no rows: it takes pictures of two classes"),
        (HEADER + "pictures/gel/gel_0.png,band\n", "only the label band: it takes pictures of two classes"),
        (HEADER + "pictures/gel/gel_0.png,\n", "line 2: no label: give each row both"),
        (
            HEADER + "pictures/gel/gel_0.png,a\ngone.png,b\nalso.png,b\n",
            "2 of its pictures do not exist (first: line 3, ",
        ),
        (
            HEADER + "pictures/gel/gel_0.png,a\npictures/../pictures/gel/gel_0.png,b\n",
            "line 3: pictures/../pictures/gel/gel_0.png is there twice: give each picture one row",
        ),
        (HEADER + "pictures/gel/gel_0.png,=1+1\npictures/gel/gel_1.png,b\n", "for a formula: rename it"),
    ],
)
def test_each_fault_is_one_line(table: Path, content: str, text: str) -> None:
    table.write_text(content)
    found = refused(lambda: read_table(table))
    assert found.startswith(str(table))
    assert text in found
    assert "\n" not in found


def test_other_labels_in_a_test_file_are_refused_or_left_out(table: Path) -> None:
    text = refused(lambda: read_table(table, ["band", "blot"], every_class=False))
    assert "(missing: blot; extra: other)" in text
    assert set(read_table(table, ["band", "blot"], every_class=False, leave_out=True).labels) == {0}


def test_a_file_stands_alone(table: Path, tmp_path: Path) -> None:
    assert "a CSV file stands alone" in refused(lambda: read_source([tmp_path / "pictures", table]))
