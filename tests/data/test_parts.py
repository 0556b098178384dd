from collections import Counter
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import refused, save_class, save_data_set, save_picture
from PIL import Image

from gel_lightning import GelDataModule
from gel_lightning.data import datamodule as module
from gel_lightning.data.drawn import dataset
from gel_lightning.data.folders import LabelledPictures, class_folders, count_left_out, find_class_folders
from gel_lightning.data.pool import Pool


def make(train_dir: Any = None, **options: Any) -> GelDataModule:
    return GelDataModule(train_dir, **({"image_size": 32, "num_workers": 0, "batch_size": 5} | options))


def ready(train_dir: Any = None, **options: Any) -> GelDataModule:
    data = make(train_dir, **options)
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of each of the two classes, and three of a third."""
    folder = save_data_set(tmp_path_factory.mktemp("second"), 5, seed=300)
    save_class(folder / "blot", 3, 900, striped=True)
    return folder


# Several folders, some classes


def test_folders_are_united_class_by_class(train_dir: Path, second: Path) -> None:
    data = ready([train_dir, second])
    assert data.class_names == ("blot", "gel", "not_gel")
    paths = list(chain(*(pictures.paths for pictures in data.parts.values())))
    assert sorted(paths) == sorted([*train_dir.glob("*/*"), *second.glob("*/*")])
    for pictures in data.parts.values():
        assert [pictures.class_names[label] for label in pictures.labels] == [p.parent.name for p in pictures.paths]


def test_near_duplicates_of_two_folders_are_on_one_side(train_dir: Path, tmp_path: Path) -> None:
    for path in train_dir.glob("*/*"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        Image.open(path).resize((80, 72)).save(tmp_path / path.parent.name / path.name)
    for seed in range(3):
        data = ready([train_dir, tmp_path], seed=seed)
        sides = [Counter(path.name for path in pictures.paths) for pictures in data.parts.values()]
        assert all(set(side.values()) == {2} for side in sides)


def test_classes_that_are_not_named_are_left_out_and_counted(train_dir: Path, second: Path) -> None:
    data = ready([train_dir, second], class_names=["not_gel", "gel"])
    assert data.class_names == ("not_gel", "gel")
    assert data.folders.left_out() == {"blot": 3}
    assert {path.parent.name for part in data.parts.values() for path in part.paths} == {"gel", "not_gel"}
    assert sum(len(part.paths) for part in data.parts.values()) == 30
    data = ready(train_dir, test_dir=["labs=" + str(second)], class_names=["gel", "not_gel"])
    assert len(data.parts["test_labs"].paths) == 10
    assert data.folders.left_out() == {"blot": 3}


def test_one_of_several_folders_may_have_one_class_alone(train_dir: Path, tmp_path: Path) -> None:
    save_class(tmp_path / "not_gel", 4, 700, striped=False)
    data = ready([train_dir, tmp_path])
    assert sum(part.labels.count(1) for part in data.parts.values()) == 14


def test_folders_and_classes_that_will_not_do_are_errors_of_one_line(
    train_dir: Path, second: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(train_dir)
    save_class(tmp_path / "tested/other", 2, 0, striped=True)
    cases = {
        f"{tmp_path / 'link'}: named twice": lambda: ready([train_dir, tmp_path / "link"]),
        f"{tmp_path / 'empty'}: has no class folders": lambda: ready([train_dir, tmp_path / "empty"]),
        "no class folder plot, but blot, gel, not_gel: name classes that are there with --data.class_names": (
            lambda: ready([train_dir, second], class_names=["gel", "plot"])
        ),
        f"{tmp_path / 'tested'}: no class folder blot, gel, but other: name classes": (
            lambda: ready(second, test_dir=tmp_path / "tested", class_names=["gel", "blot"])
        ),
        "missing: none; extra: blot": lambda: ready(train_dir, test_dir=[f"labs={second}"]),
        "the classes are gel; name two or more, each once (--data.class_names)": lambda: make(class_names=["gel"]),
        "the classes are gel, gel; name two": lambda: make(class_names=["gel", "gel"]),
        "test set gel has the name of a class": lambda: ready(train_dir, test_dir=[f"gel={train_dir}"]),
        "--data.extra_drawn is -1": lambda: make(extra_drawn=-1),
    }
    for message, action in cases.items():
        assert message in refused(action)


def test_class_folders_and_what_is_left_out(train_dir: Path, second: Path) -> None:
    folders = find_class_folders([train_dir, second])
    assert list(folders) == class_folders([train_dir, second]) == ["blot", "gel", "not_gel"]
    assert folders["gel"] == [train_dir / "gel", second / "gel"]
    assert count_left_out([train_dir, second], ["blot"]) == {"gel": 15, "not_gel": 15}


# Test sets by name


def test_named_test_sets_are_added_and_change_nothing_else(train_dir: Path, test_dir: Path, tmp_path: Path) -> None:
    other = save_data_set(tmp_path, 3, seed=8000)
    plain, named = ready(train_dir), ready(train_dir, test_dir=[f"labs={test_dir}", f"other={other}"])
    assert list(named.parts) == ["train", "val", "test", "test_labs", "test_other"]
    assert {part: named.parts[part] for part in plain.parts} == plain.parts
    assert sorted(named.parts["test_other"].paths) == sorted(other.glob("*/*"))
    loaders = named.test_dataloader()
    assert isinstance(loaders, dict)
    assert {part: len(loader.dataset) for part, loader in loaders.items()} == {
        part: len(named.parts[part].paths) for part in ("test", "test_labs", "test_other")
    }
    both = ready(train_dir, test_dir=[test_dir, f"other={other}"])
    assert sorted(both.parts["test"].paths) == sorted(test_dir.glob("*/*"))
    assert len(both.parts["train"].paths + both.parts["val"].paths) == 20


def test_testing_reads_the_named_folders_alone(test_dir: Path, tmp_path: Path) -> None:
    data = make(tmp_path / "absent", test_dir=[f"labs={test_dir}"])
    data.setup("test")
    assert list(data.parts) == ["test_labs"]
    assert list(data.test_dataloader()) == ["test_labs"]
    assert data.class_names == ("gel", "not_gel")


def test_near_duplicates_of_training_pictures_in_test_sets_are_counted(
    train_dir: Path, test_dir: Path, tmp_path: Path
) -> None:
    for path in [*sorted(train_dir.glob("*/*_1.png")), *sorted(test_dir.glob("*/*_2.png"))]:
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        Image.open(path).resize((90, 90)).save(tmp_path / path.parent.name / path.name)
    data = ready(train_dir, test_dir=[test_dir, f"again={tmp_path}"])
    assert data.split is not None
    assert data.split.near_training == {"test": 0, "test_again": 2}
    assert len(data.parts["test_again"].paths) == 4, "they stay"


# Groups


def write_groups(file: Path, folders: list[Path], size: int = 3) -> dict[str, str]:
    """Puts pictures that follow one another in groups, of both classes; those of the last group are fewer."""
    groups = {}
    for folder in folders:
        for path in sorted(folder.glob("*/*")):
            number = int(path.stem.rpartition("_")[2]) // size
            groups[str(path)] = f"lab {folder.name} {number}"
    file.write_text("path,group\n" + "".join(f"{path},{group}\n" for path, group in groups.items()))
    return groups


def test_a_group_is_on_one_side_of_every_split(train_dir: Path, tmp_path: Path) -> None:
    groups = write_groups(tmp_path / "groups.csv", [train_dir], 2)
    for seed in range(3):
        data = ready(train_dir, groups=tmp_path / "groups.csv", seed=seed)
        for parts in (data.parts, *data.cross_validation(4, 2)):
            sides = [{groups[str(path)] for path in pictures.paths} for pictures in parts.values()]
            assert all(sides)
            assert not any(one & other for one, other in combinations(sides, 2))


def test_groups_are_left_out_one_at_a_time(train_dir: Path, test_dir: Path, tmp_path: Path) -> None:
    groups = write_groups(tmp_path / "groups.csv", [train_dir])
    data = ready(train_dir, test_dir=test_dir, groups=tmp_path / "groups.csv")
    fits = data.cross_validation("groups")
    assert data.split is not None
    names = data.split.group_names
    assert names == sorted(set(groups.values()))
    assert [{groups[str(path)] for path in parts["test"].paths} for parts in fits] == [{name} for name in names]
    for parts in fits:
        assert sorted(chain(*(pictures.paths for pictures in parts.values()))) == sorted(train_dir.glob("*/*"))


def test_groups_that_near_duplicates_link_are_one(train_dir: Path, test_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for path in train_dir.glob("*/*"):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / path.parent.name / path.name).symlink_to(path)
    Image.open(train_dir / "gel/gel_0.png").resize((80, 72)).save(folder / "gel/again_9.png")
    write_groups(tmp_path / "groups.csv", [folder])
    data = ready(folder, test_dir=test_dir, groups=tmp_path / "groups.csv")
    assert data.split is not None
    assert data.split.group_names == ["lab pictures 0 + lab pictures 3", "lab pictures 1", "lab pictures 2"]
    first, *_ = data.cross_validation("groups")
    assert {path.name for path in first["test"].paths} >= {"gel_0.png", "again_9.png", "not_gel_9.png"}


def test_groups_that_will_not_do_are_errors_of_one_line(train_dir: Path, test_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    write_groups(file, [train_dir], 100)
    data = ready(train_dir, test_dir=test_dir)
    assert "name a CSV file of path and group with --data.groups" in refused(lambda: data.cross_validation("groups"))
    text = refused(lambda: ready(train_dir, test_dir=test_dir, groups=file))
    assert (
        "class gel (pictures: 10, groups: 1) cannot be on both sides of a split: add pictures of other groups" in text
    )
    write_groups(file, [train_dir], 5)
    text = refused(lambda: ready(train_dir, test_dir=test_dir, groups=file).cross_validation(3, 1))
    assert "class gel has 2 groups, too few for 3 folds" in text
    file.write_text("path,group\ngel/gel_0.png,x\nnowhere.png,x\n")
    assert "1 picture in it cannot be found" in refused(lambda: ready(train_dir, groups=file))
    file.write_text("path,group\ngel/gel_0.png,x\n")
    assert "no group for 19 pictures (first: " in refused(lambda: ready(train_dir, groups=file))


def test_one_group_cannot_be_left_out() -> None:
    pictures = LabelledPictures([Path("a"), Path("b")], [0, 1], ["gel", "not_gel"])
    pool = Pool(pictures, np.zeros(2, np.intp), {0: "a lab"})
    assert refused(lambda: list(pool.group_folds())) == "all pictures are of one group, a lab: none can be left out"


def test_a_checkpoint_keeps_the_groups_together(train_dir: Path, tmp_path: Path) -> None:
    write_groups(tmp_path / "groups.csv", [train_dir], 2)
    data = ready(train_dir, groups=tmp_path / "groups.csv")
    plain = ready(train_dir)
    assert plain.parts != data.parts
    assert "give --data.groups as for its training" in refused(lambda: plain.load_state_dict(data.state_dict()))
    assert "give --data.groups as for its training" in refused(lambda: data.load_state_dict(plain.state_dict()))
    other = ready(train_dir, groups=tmp_path / "groups.csv", seed=9)
    other.load_state_dict(data.state_dict())
    assert other.parts == data.parts


# Drawn pictures beside others


def test_drawn_pictures_are_trained_on_and_nothing_else(
    train_dir: Path, test_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = ready(train_dir, test_dir=[f"labs={test_dir}"])
    data = ready(train_dir, test_dir=[f"labs={test_dir}"], extra_drawn=2, class_names=["not_gel", "gel"])
    drawn = sorted(Path("data/drawn/extra_2").glob("*/*"))
    assert len(drawn) == 4
    train = data.parts["train"]
    assert sorted(set(train.paths) - set(plain.parts["train"].paths)) == drawn
    assert [train.class_names[label] for label in train.labels] == [path.parent.name for path in train.paths]
    assert all(
        sorted(data.parts[part].paths) == sorted(plain.parts[part].paths) for part in ("val", "test", "test_labs")
    )
    before = {path: path.read_bytes() for path in drawn}
    again = ready(train_dir, test_dir=[f"labs={test_dir}"], extra_drawn=2, seed=7)
    assert {path: path.read_bytes() for path in drawn} == before, "they are drawn once, whatever the seed"
    for parts in again.cross_validation(2):
        assert sorted(path for path in parts["train"].paths if path in drawn) == drawn
        assert not set(drawn) & set(parts["val"].paths + parts["test"].paths)


def test_what_is_drawn_and_looks_like_another_picture_is_not_trained_on(
    train_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(folder: Path, count: int) -> None:
        save_data_set(folder, count, seed=4000)
        Image.open(train_dir / "gel/gel_3.png").resize((90, 80)).save(folder / "gel/gel_0.png")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "draw_extra", draw)
    data = ready(train_dir, extra_drawn=3)
    assert data.split is not None
    assert len(data.split.extra) == 5
    assert Path("data/drawn/extra_3/gel/gel_0.png") not in data.parts["train"].paths


def test_pictures_that_another_run_draws_meanwhile_are_taken(
    train_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw_as_another_run_does(folder: Path, *_: object) -> None:
        save_data_set(Path("data/drawn/extra_3"), 3, seed=4000)
        save_data_set(folder / "extra_3", 3, seed=4000)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dataset, "_draw_all", draw_as_another_run_does)
    data = ready(train_dir, extra_drawn=3)
    assert data.split is not None
    assert len(data.split.extra) == 6
    assert [path.name for path in Path("data/drawn").iterdir()] == ["extra_3"]


def test_drawn_pictures_need_their_classes(second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "draw_extra", save_data_set)
    for number in range(8):
        save_picture(tmp_path / "own/dna" / f"{number}.png", number, striped=True)
        save_picture(tmp_path / "own/not_gel" / f"{number}.png", 50 + number, striped=False)
    text = refused(lambda: ready(tmp_path / "own", extra_drawn=2))
    assert text.startswith(
        "drawn pictures are of the classes gel and not_gel, and there is no class gel here but dna, "
    )
    assert [path.name for path in tmp_path.iterdir()] == ["own"], "they were drawn before"


def test_drawn_pictures_do_not_take_the_place_of_those_that_are_named(tmp_path: Path) -> None:
    assert "leave it out, or --data.train_dir" in refused(lambda: GelDataModule(tmp_path, drawn=True))


def test_an_augmentation_that_does_not_exist(tmp_path: Path) -> None:
    named: Any = "labz"
    assert "no augmentation 'labz'; choose study, labs" in refused(
        lambda: GelDataModule(tmp_path, views=2, augmentation=named)
    )


def test_what_is_not_used_or_doubtful_is_noted(train_dir: Path, test_dir: Path, tmp_path: Path) -> None:
    data = ready(train_dir, test_dir=test_dir, test_fraction=0.5)
    assert data.notes == ["--data.test_fraction 0.5 is not used: there are test pictures"]
    assert not ready(train_dir, test_fraction=0.5).notes
    for seed, name in enumerate(("gel", "Gel", "not_gel")):
        save_class(tmp_path / name, 8, 1000 * seed, striped=name != "not_gel")
    assert ready(tmp_path).notes == ["classes that differ in case only: Gel, gel"]


@pytest.mark.real
def test_labs_of_real_pictures_are_left_out_one_at_a_time(shared: Path) -> None:
    labs = shared / "gel/training_labs"
    data = ready(labs, test_dir=[shared / "gel/other_labs"], groups=labs / "groups.csv", class_names=["gel", "not_gel"])
    assert data.folders.left_out() == {"blot": 15}
    assert data.split is not None
    fits, names = data.cross_validation("groups"), data.split.group_names
    assert len(fits) == len(names) > 20
    assert sum(len(parts["test"].paths) for parts in fits) == 238
    assert all(len(set(parts["train"].labels)) == len(set(parts["val"].labels)) == 2 for parts in fits)


def test_a_table_is_no_place_to_predict_from(tmp_path: Path) -> None:
    data = make(predict_dir=tmp_path / "a.csv")
    assert refused(lambda: data.setup("predict")).endswith("takes a picture or a folder, not a CSV file")
