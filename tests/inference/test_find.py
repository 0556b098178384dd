"""The detector: files, pictures and arrays in, rows out."""

import shutil
import threading
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import refused
from PIL import Image
from test_exported import tiny

import gel_lightning
from gel_lightning import Detector
from gel_lightning.core.store import list_stores
from gel_lightning.data import reading
from gel_lightning.data.images import read_picture
from gel_lightning.inference import find
from gel_lightning.inference.exported import ExportedModel
from gel_lightning.inference.find import Rows
from gel_lightning.inference.listing import list_pictures
from gel_lightning.inference.rows import UNSURE, Row


def grey(path: Path, value: int, size: tuple[int, int] = (7, 5)) -> Path:
    """Saves a picture of one grey: `tiny` says that it is a gel with the probability value / 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the model `tiny` and pictures of three greys in `in`."""
    monkeypatch.chdir(tmp_path)
    tiny(tmp_path / "m.onnx")
    for name, value in {"black.png": 0, "deep/middle.png": 127, "white.png": 255}.items():
        grey(Path("in", name), value)
    return tmp_path


@pytest.fixture
def detector(folder: Path) -> Detector:
    return Detector("m.onnx", cache_dir=folder / "cache")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of a model had."""
    calls: list[int] = []
    call = ExportedModel.__call__

    def counting(self: ExportedModel, pictures: Any) -> Any:
        calls.append(len(pictures))
        return call(self, pictures)

    monkeypatch.setattr(ExportedModel, "__call__", counting)
    return calls


def test_a_folder_gives_a_row_for_each_picture(detector: Detector) -> None:
    Path("in/cut.png").write_bytes(b"\x89PNG")
    rows = detector.find("in")
    assert [(row.path, row.answer, row.predicted) for row in rows] == [
        ("in/black.png", "not_gel", "not_gel"),
        ("in/cut.png", "", ""),
        ("in/deep/middle.png", UNSURE, "not_gel"),
        ("in/white.png", "gel", "gel"),
    ]
    assert rows[3].probabilities == {"gel": 1, "not_gel": 0}
    assert "cut off" in rows[1].error or "not a picture" in rows[1].error
    assert (len(rows), len(rows[1:]), rows[-1]) == (4, 3, rows[3])
    assert isinstance(rows[:2], Rows)


def test_confidence_decides_what_is_unsure(folder: Path) -> None:
    def answer(confidence: str) -> str:
        return Detector("m.onnx", confidence, folder / "cache").find("in/deep")[0].answer

    assert (answer("high"), answer("best-guess")) == (UNSURE, "not_gel")
    assert "no confidence 'sure'; choose high, medium, best-guess" in refused(lambda: answer("sure"))


def test_pictures_and_arrays_are_taken_as_they_come(detector: Detector, counted: list[int]) -> None:
    black = np.zeros((5, 7), np.uint8)
    given = [black + 255, Path("in/black.png"), Image.new("RGB", (9, 9), "white"), np.zeros((4, 4, 3), np.uint8)]
    rows = detector.find(iter(given))
    assert [(row.path, row.answer) for row in rows] == [
        ("in/black.png", "not_gel"),
        ("picture 0", "gel"),
        ("picture 1", "gel"),
        ("picture 2", "not_gel"),
    ]
    deep = np.linspace(0, 4000, 70, dtype=np.uint16).reshape(7, 10)
    for one in (black, deep, deep[..., None], np.eye(4, dtype=bool), np.ones((4, 4, 3), bool)):
        assert detector.find(one)[0].answer
    for wrong in (np.zeros(3), np.zeros((0, 4), np.uint8), np.zeros((3, 3, 7), np.uint8), np.array([["a"]])):
        assert detector.find(wrong)[0].error.startswith("is no picture (")
    nothing: Any = [None, [[[["a"]]]]]
    assert all(row.error.startswith("is no picture (") for row in detector.find(nothing))
    with Image.open("in/white.png") as picture:
        assert detector.find(picture)[0].path == "in/white.png"
    assert set(counted) == {1}


def test_no_picture_at_all_is_one_line(detector: Detector) -> None:
    Path("empty").mkdir()
    assert "empty: no picture" in refused(lambda: detector.find("empty"))
    assert "no picture" in refused(lambda: detector.find([]))


def test_a_rerun_computes_what_is_new_alone(folder: Path, counted: list[int]) -> None:
    def rows(model: str = "m.onnx") -> Rows:
        return Detector(model, cache_dir=folder / "cache").find("in")

    first = rows()
    assert len(counted) == 3
    grey(Path("in/new.png"), 200)
    shutil.copy("in/white.png", "in/again.png")  # known by its content
    second = rows()
    assert len(counted) == 4
    assert {row.path: row for row in second}.items() > {row.path: row for row in first}.items()
    tiny(folder / "other.onnx", note="another file")
    rows("other.onnx")
    assert len(counted) == 4 + 5
    assert {store.key["kind"] for store in list_stores(folder / "cache")} == {"answers"}


def test_a_store_that_cannot_be_written_is_done_without(folder: Path) -> None:
    (folder / "cache").write_text("a file where a folder is to be")
    detector = Detector("m.onnx", cache_dir=folder / "cache")
    assert [row.answer for row in detector.find("in")] == ["not_gel", UNSURE, "gel"]
    assert not detector.kept


def test_what_is_computed_is_kept_when_nobody_wants_more(detector: Detector, counted: list[int]) -> None:
    looking = detector.look(list_pictures(["in"]).files)
    assert next(looking).row.path == "in/black.png"
    looking.close()  # waits for the pictures that the threads have begun
    computed = len(counted)
    detector.find("in/black.png")
    assert len(counted) == computed


def test_rows_come_in_order_and_windows_hold_few_pictures(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        grey(Path(f"many/{number:02}.png"), number)
    monkeypatch.setattr(reading, "WINDOW", 7)
    files = list_pictures(["many", "in"]).files
    path = attrgetter("path")
    assert [len(window) for window in reading.windows(files, path)] == [7, 7, 7, 2]
    assert [found.file for found in detector.look(files)] == list(files)
    monkeypatch.setattr(reading, "WINDOW_BYTES", 2 * Path("in/black.png").stat().st_size + 1)
    assert max(map(len, reading.windows(files, path))) <= 3


def test_pages_are_noted_also_of_what_is_kept(detector: Detector) -> None:
    pages = [Image.new("L", (9, 9), value) for value in (255, 0, 0)]
    pages[0].save("in/pages.tif", save_all=True, append_images=pages[1:])
    for _ in range(2):
        notes = {row.path: row.note for row in detector.find("in")}
        assert notes.pop("in/pages.tif") == "page 1 of 3"
        assert set(notes.values()) == {""}


def test_what_else_is_made_of_a_picture_is_made_by_the_threads_and_of_all(detector: Detector) -> None:
    Path("in/cut.png").write_bytes(b"\x89PNG")
    threads = set()

    def size(picture: Image.Image, row: Row) -> tuple[str, tuple[int, int]]:
        threads.add(threading.current_thread())
        return row.path, picture.size

    for _ in range(2):  # the second time all answers are known
        found = list(detector.look(list_pictures(["in"]).files, size))
        assert [one.extra for one in found] == [(one.row.path, (7, 5)) if one.row.answer else None for one in found]
    assert threading.main_thread() not in threads


def test_large_pictures_are_shortened_and_answers_stay(detector: Detector) -> None:
    rng = np.random.default_rng(0)
    values = np.kron(rng.integers(0, 256, (30, 40)), np.ones((20, 20))).astype(np.uint8)
    for name in ("a.jpg", "a.png", "a.webp"):
        Image.fromarray(values).convert("RGB").save(f"in/{name}", quality=95)
    sizes = {
        one.row.path: one.extra for one in detector.look(list_pictures(["in"]).files, lambda picture, _: picture.size)
    }
    assert sizes["in/a.jpg"] == (200, 150)  # 800 x 600, decoded at a quarter
    assert sizes["in/a.png"] == sizes["in/a.webp"] == (134, 150)
    for row in detector.find([f"in/{name}" for name in ("a.jpg", "a.png", "a.webp")]):
        assert row.probabilities["gel"] == pytest.approx(np.asarray(read_picture(row.path)).mean() / 255, abs=0.01)


def test_a_table_for_pandas(detector: Detector) -> None:
    pandas = pytest.importorskip("pandas")
    table = detector.find("in").to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["answer"]) == ["not_gel", UNSURE, "gel"]
    assert list(table["probability_gel"]) == pytest.approx([0, 0.498039, 1])


def test_the_package_has_the_detector() -> None:
    assert gel_lightning.Detector is find.Detector


@pytest.mark.real
def test_shortened_pictures_have_nearly_the_same_probabilities(shared: Path, tmp_path: Path) -> None:
    detector = Detector(cache_dir=tmp_path)
    large = 0
    for row in detector.find(shared / "gel/other_labs"):
        picture = read_picture(row.path)
        large += max(picture.size) >= 2 * find.DETAIL * detector.model.image_size
        (whole,) = detector.model(np.asarray(picture)[None, None])
        assert row.probabilities["gel"] == pytest.approx(float(whole[0]), abs=0.02), row.path
    assert large
