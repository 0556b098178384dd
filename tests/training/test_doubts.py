import sys
from pathlib import Path

import pytest
from conftest import gel_fit, refused, save_class, save_data_set
from test_cli import assert_error

from gel_lightning.data.check import readable_pictures
from gel_lightning.training.doubts import doubtful_labels

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's, of few workers


def test_labels_that_were_swapped_are_found(tmp_path: Path) -> None:
    """Stripes and blobs are told apart by their features."""
    folder = save_data_set(tmp_path / "train", per_class=12)
    swapped = {
        (folder / "gel/gel_3.png").rename(folder / "not_gel/wrong.png"),
        (folder / "not_gel/not_gel_5.png").rename(folder / "gel/wrong.png"),
    }
    (folder / "gel/unreadable.png").write_bytes(b"nothing")
    pictures, groups = readable_pictures(folder)
    assert len(pictures.paths) == 24
    doubts = doubtful_labels(pictures, groups, "efficientnet_lite0", "packaged", tmp_path / "cache")
    assert {pictures.paths[doubt.place] for doubt in doubts[:2]} == swapped
    assert [doubt.probability for doubt in doubts] == sorted(doubt.probability for doubt in doubts)
    assert all(doubt.probability < 0.5 and doubt.likelier != pictures.labels[doubt.place] for doubt in doubts)


def test_near_duplicates_do_not_vouch_for_each_other(tmp_path: Path) -> None:
    """The copy of a wrongly labelled picture is in its fold, so the wrong label is not learned from it."""
    folder = save_data_set(tmp_path / "train", per_class=12)
    wrong = (folder / "gel/gel_3.png").rename(folder / "not_gel/wrong.png")
    (folder / "not_gel/wrong_too.png").write_bytes(wrong.read_bytes())
    pictures, groups = readable_pictures(folder)
    doubts = doubtful_labels(pictures, groups, "efficientnet_lite0", "packaged", tmp_path / "cache")
    assert {pictures.paths[doubt.place].name for doubt in doubts[:2]} == {"wrong.png", "wrong_too.png"}


def test_a_class_with_one_picture_is_refused(tmp_path: Path) -> None:
    folder = save_data_set(tmp_path / "train", per_class=4)
    save_class(folder / "rare", 1, 99, striped=True)
    text = refused(
        lambda: doubtful_labels(*readable_pictures(folder), "efficientnet_lite0", "packaged", tmp_path / "cache")
    )
    assert "class rare has 1 different pictures" in text
    assert "--labels" in text


def test_without_cleanlab_the_extra_is_named(train_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    ran = gel_fit("data", "check", "--data.train_dir", train_dir, "--labels", "--model.weights", "none", cwd=tmp_path)
    assert_error(ran, "gel-lightning[clean]")


def test_the_command_lists_both(tmp_path: Path) -> None:
    folder = save_data_set(tmp_path / "train", per_class=12)
    (folder / "gel/gel_3.png").rename(folder / "not_gel/wrong [b].png")
    options = ("--data.train_dir", folder, "--quality", "--labels")
    options += ("--model.backbone", "efficientnet_lite0", "--model.weights", "packaged")
    ran = gel_fit("data", "check", *options, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert " of 24 pictures are blurred, dark, overexposed or blank." in ran.out
    assert " of 24 pictures look more like another class to a model that was trained on the other" in ran.out
    assert "not_gel/wrong [b].png" in ran.out
