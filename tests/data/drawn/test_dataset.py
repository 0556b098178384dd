"""The drawn data set: what it holds, that it is reproducible, and that it is written whole or not at all."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
import pytest
from conftest import made_once
from PIL import Image

from gel_lightning.core.errors import GelError
from gel_lightning.data.drawn import dataset
from gel_lightning.data.drawn.dataset import draw_data_set
from gel_lightning.data.drawn.gels import draw_gel
from gel_lightning.data.drawn.lookalikes import LOOK_ALIKES

FOLDERS = {"dataset/gel": 46, "dataset/not_gel": 46, "test_images/gel": 11, "test_images/not_gel": 11}
CLASSES = ("gel", "not_gel")


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole data set of the default seed, drawn once."""
    return made_once(tmp_path_factory, "drawn", lambda folder: void(draw_data_set(folder)))


def void(_: object) -> None:
    """Takes what is not wanted."""


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the data set small, for tests that draw it again."""
    monkeypatch.setattr(dataset, "COUNTS", {"dataset": 3, "test_images": 2})


def pictures(folder: Path, name: str = "*") -> Iterator[Image.Image]:
    for path in sorted(folder.glob(f"*/{name}/*")):
        with Image.open(path) as picture:
            picture.load()
            yield picture


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def greys(folder: Path, name: str) -> list[np.ndarray]:
    return [np.asarray(picture.convert("L"), dtype=float) / 255 for picture in pictures(folder, name)]


# The data set.
def test_class_folders_hold_as_many_pictures_as_the_real_ones(data_set: Path):
    assert {name: len(list((data_set / name).iterdir())) for name in FOLDERS} == FOLDERS
    assert len(contents(data_set)) == sum(FOLDERS.values())  # and nothing lies elsewhere
    for name, count in FOLDERS.items():
        stems = {path.stem for path in (data_set / name).iterdir()}
        assert stems == {f"{name.split('/')[1]}_{n + 1}" for n in range(count)}


def test_sizes_formats_and_modes_tell_nothing_about_the_class(data_set: Path):
    for name in CLASSES:
        found = list(pictures(data_set, name))
        assert all(250 <= side <= 700 for picture in found for side in picture.size)
        assert {picture.format for picture in found} == {"JPEG", "PNG"}
        assert {picture.mode for picture in found} == {"L", "RGB", "RGBA"}


def test_no_two_pictures_are_near_duplicates(data_set: Path):
    hashes = [imagehash.phash(picture) for picture in pictures(data_set)]
    assert min(a - b for a, b in combinations(hashes, 2)) > 4


def test_near_duplicates_are_drawn_again(tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch):
    """A kind that starts with the same picture every time still gives different ones."""
    first = draw_gel(np.random.default_rng(0))
    tries: list[object] = []

    def often_the_same(rng: np.random.Generator) -> Image.Image:
        tries.append(rng)
        return first if len(tries) % 2 else LOOK_ALIKES["cells"](rng)

    monkeypatch.setattr(dataset, "draw_gel", often_the_same)
    hashes = [imagehash.phash(picture) for picture in pictures(draw_data_set(tmp_path))]
    assert len(tries) > 5
    assert min(a - b for a, b in combinations(hashes, 2)) > 4


def test_brightness_alone_does_not_tell_the_classes_apart(data_set: Path):
    gels, others = ([grey.mean() for grey in greys(data_set, name)] for name in CLASSES)
    for threshold in [*gels, *others]:
        below = sum(mean <= threshold for mean in gels) + sum(mean > threshold for mean in others)
        accuracy = below / (len(gels) + len(others))
        assert 0.2 < accuracy < 0.8  # below 0.2 the other side of the threshold would do


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path, few: None):
    one, same, other = (contents(draw_data_set(tmp_path / name, seed)) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    assert one == same
    assert not set(one.values()) & set(other.values())


def test_returns_its_folder_and_prints_only_to_stderr(tmp_path: Path, few: None, capsys: pytest.CaptureFixture[str]):
    assert draw_data_set(str(tmp_path / "new" / "deep")) == tmp_path / "new" / "deep"
    assert capsys.readouterr().out == ""


# Whole or nothing.
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_when_drawing_fails_midway(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
):
    def broken(rng: np.random.Generator) -> Image.Image:
        raise error

    monkeypatch.setitem(LOOK_ALIKES, "line_plot", broken)
    with pytest.raises(error):
        draw_data_set(tmp_path / "new" / "deep")
    assert not list(tmp_path.iterdir())

    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(error):
        draw_data_set(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine.txt"]


def test_nothing_is_left_when_the_second_folder_cannot_be_put_in_place(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
):
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if self.name == "test_images":
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="disk full"):
        draw_data_set(tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["dataset", "test_images"])
def test_a_folder_that_is_there_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).mkdir()
    with pytest.raises(GelError) as caught:
        draw_data_set(tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    assert "name another folder" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == [name]


def test_a_file_in_the_way_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GelError, match="name another folder"):
        draw_data_set(tmp_path / "file")


def test_a_folder_that_is_there_may_hold_other_things(tmp_path: Path, few: None):
    (tmp_path / "mine.txt").write_text("mine")
    draw_data_set(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "dataset", "test_images"}


def test_gels_are_bright_on_dark_and_dark_on_bright(data_set: Path):
    middles = np.array([np.median(grey) for grey in greys(data_set, "gel")])
    assert (middles < 0.4).sum() >= 20
    assert (middles > 0.6).sum() >= 8


def test_kinds_are_spread_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kinds: list[str] = []
    plain = np.random.default_rng(0)

    def noted(kind: str) -> Image.Image:
        kinds.append(kind)
        return Image.fromarray(plain.integers(0, 256, (64, 64)).astype(np.uint8))

    for kind in LOOK_ALIKES:
        monkeypatch.setitem(LOOK_ALIKES, kind, lambda rng, kind=kind: noted(kind))
    monkeypatch.setattr(dataset, "draw_gel", lambda rng: noted("gel"))
    draw_data_set(tmp_path)
    counts = [kinds[46:92].count(kind) for kind in LOOK_ALIKES]
    assert kinds[:46] == ["gel"] * 46
    assert max(counts) - min(counts) <= 1
