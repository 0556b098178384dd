"""What `gel-fit find` writes beside its output: the page and the sorted copies."""

from pathlib import Path

import pytest
from conftest import Ran, gel_fit, read_rows
from PIL import Image
from test_exported import tiny

GREYS = {"black.png": 0, "deep/middle.png": 127, "white.png": 255}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the model `tiny`, and pictures of three greys and one that cannot be read in `in`."""
    tiny(tmp_path / "m.onnx")
    for name, value in GREYS.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (70, 50), value).save(path)
    (tmp_path / "in/cut.png").touch()
    return tmp_path


def found(folder: Path, *args: object) -> Ran:
    return gel_fit("find", "--model", "m.onnx", *args, cwd=folder)


def sorted_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.png")}


SORTED = {"gel/white.png", "not_gel/black.png", "unsure/deep/middle.png"}


def test_pictures_are_sorted_and_the_copies_are_not_searched(folder: Path) -> None:
    for _ in range(2):
        ran = found(folder, "in", "--sort_to", "in/sorted", "--csv", "a.csv")
        assert (ran.status, ran.out) == (1, "in/white.png\n")
        assert ran.err.splitlines()[0] == "1 of 4 pictures is a gel, 1 unsure, 1 could not be read"
        assert ran.err.splitlines()[-1].startswith("sorted to ")
        assert sorted_files(folder / "in/sorted") == SORTED
    assert len(read_rows(folder / "a.csv")) == 4


def test_a_dry_run_prints_and_writes_nothing(folder: Path) -> None:
    before = set(folder.rglob("*"))
    ran = found(folder, "in", "--sort_to", "sorted", "--dry_run")
    lines = ran.out.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("would ") for line in lines)
    assert set(folder.rglob("*")) == before


def test_links(folder: Path) -> None:
    assert found(folder, "in", "--sort_to", "sorted", "--link").status == 1
    assert sorted_files(folder / "sorted") == SORTED
    assert (folder / "sorted/gel/white.png").samefile(folder / "in/white.png")


@pytest.mark.parametrize("explain", [(), ("--explain",)])
def test_the_page_has_all_pictures(folder: Path, explain: tuple[str, ...]) -> None:
    for _ in range(2):  # the second time all answers are known, and thumbnails are not
        (folder / "gels.html").unlink(missing_ok=True)
        ran = found(folder, "in", "--page", "gels.html", *explain)
        assert (ran.status, ran.out) == (1, "in/white.png\n")
        text = (folder / "gels.html").read_text(encoding="utf-8")
        assert text.count("data:image/jpeg;base64,") == len(GREYS) * (1 + len(explain))
        assert all(Path(name).name in text for name in (*GREYS, "cut.png"))


def test_a_run_that_fails_leaves_no_page(folder: Path) -> None:
    (folder / "sorted").write_text("a file where a folder is to be")
    ran = found(folder, "in", "--page", "gels.html", "--csv", "a.csv", "--sort_to", "sorted")
    assert ran.status == 1
    assert ran.err.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == {"m.onnx", "in", "sorted"}
