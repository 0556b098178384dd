import pytest
from PIL import Image

from gel_lightning.core.errors import GelError
from gel_lightning.data.folders import LabelledPictures, class_folders, folder_notes, read_class_folders
from gel_lightning.data.picture_files import find_pictures


class TestReadClassFolders:
    def test_classes_in_alphabetical_order_and_pictures_in_path_order(self, make_files):
        folder = make_files("not_gel/b.png", "gel/z.TIFF", "gel/a.Jpg", "gel/deep/er/c.tif", "not_gel/a.webp")
        assert read_class_folders(folder) == LabelledPictures(
            paths=[
                folder / name
                for name in ("gel/a.Jpg", "gel/deep/er/c.tif", "gel/z.TIFF", "not_gel/a.webp", "not_gel/b.png")
            ],
            labels=[0, 0, 0, 1, 1],
            class_names=["gel", "not_gel"],
        )
        assert read_class_folders(str(folder)) == read_class_folders(folder)

    def test_three_classes(self, make_files):
        pictures = read_class_folders(make_files("dna/a.png", "blot/a.png", "sds/a.png"))
        assert pictures.class_names == ["blot", "dna", "sds"]
        assert pictures.labels == [0, 1, 2]

    def test_what_is_hidden_or_no_picture_is_ignored(self, make_files):
        folder = make_files(
            *("gel/a.png", "not_gel/b.png", "README.txt", ".DS_Store", "gel/Thumbs.db", "gel/._a.png"),
            *("gel/.cache/c.png", ".ipynb_checkpoints/d.png", ".e.png", "gel/notes.txt", "gel/png"),
            *("gel/@eaDir/a.png/thumb.jpg", "__MACOSX/gel/a.png", "not_gel/__MACOSX/b.png"),
        )
        found = read_class_folders(folder)
        assert [path.name for path in found.paths] == ["a.png", "b.png"]
        assert found.class_names == ["gel", "not_gel"]
        assert found.left_out == {".txt": 2, "": 1}
        assert folder_notes("data", found) == [
            "data: 3 files left out, not taken for pictures: 2 .txt, 1 without a suffix"
        ]

    def test_files_without_a_suffix_are_looked_into(self, make_files):
        folder = make_files("gel/scan", "gel/a.png", "not_gel/README", "not_gel/b.png", "beside")
        for name in ("gel/scan", "beside"):
            Image.new("L", (4, 4)).save(folder / name, "PNG")
        with pytest.raises(GelError, match=r"1 picture \(beside\) beside the class folders"):
            read_class_folders(folder)
        (folder / "beside").unlink()
        assert [path.name for path in read_class_folders(folder).paths] == ["a.png", "scan", "b.png"]
        assert [path.name for path in find_pictures(folder).paths] == ["a.png", "scan", "b.png"]

    def test_folders_that_all_classes_share_get_a_word(self, make_files):
        folder = make_files("train/gel/a.png", "train/not_gel/a.png", "val/gel/b.png", "val/not_gel/b.png")
        (note,) = folder_notes("data", read_class_folders(folder))
        assert note.startswith("data: the class folders train, val all have the folders gel, not_gel in them.")
        (folder / "val" / "c.png").touch()
        assert folder_notes("data", read_class_folders(folder)) == []

    def test_labels_follow_the_class_names_given(self, make_files):
        folder = make_files("a/1.png", "b/2.png")
        assert read_class_folders(folder, ["b", "a"])[:3] == (
            [folder / "b/2.png", folder / "a/1.png"],
            [0, 1],
            ["b", "a"],
        )

    @pytest.mark.parametrize(
        ("names", "class_names", "message"),
        [
            (["a.png"], None, "has no class folders: give each class a folder of its own"),
            (["gel/a.png"], None, "has only the class folder gel: give each"),
            (["gel/a.png", "not_gel/notes.txt"], None, "not_gel: no picture in this class folder"),
            (["gel/a.png", "not_gel/.b.png"], None, "not_gel: no picture in this class folder"),
            (["gel/a.png", "not_gel/b.png", "c.png"], None, r"1 picture \(c.png\) beside .*: move each"),
            (
                ["gel/a.png", "not_gel/b.png", *(f"{n}.JPG" for n in range(5))],
                None,
                r"5 pictures \(0.JPG, 1.JPG, 2.JPG, ...\) beside the class folders",
            ),
            (["gel/a.png", "plot/b.png"], ["gel", "not_gel"], r"missing: not_gel; extra: plot"),
            (["gel/a.png"], ["gel", "not_gel"], r"missing: not_gel; extra: none"),
            (["gel/a", "not_gel/a", "blot/a"], ["gel", "not_gel"], r"missing: none; extra: blot"),
            (["gel /a.png", "not_gel/b.png"], ["gel", "not_gel"], r"missing: gel; extra: 'gel '"),
            (["=gel/a.png", "not_gel/b.png"], None, r"=gel: a spreadsheet would take .*: rename the folder"),
            (["-/a.png", "not_gel/b.png"], None, r"-: a spreadsheet would take .*: rename the folder"),
        ],
    )
    def test_errors(self, make_files, names, class_names, message):
        folder = make_files(*names)
        with pytest.raises(GelError, match=message) as caught:
            read_class_folders(folder, class_names)
        assert str(caught.value).startswith(str(folder))
        assert "\n" not in str(caught.value)

    def test_some_classes_may_be_absent_if_that_is_asked_for(self, make_files):
        folder = make_files("gel/1.png")
        assert read_class_folders(folder, ["blot", "gel"], every_class=False)[:3] == (
            [folder / "gel/1.png"],
            [1],
            ["blot", "gel"],
        )

    @pytest.mark.parametrize(
        ("names", "message"),
        [(["blot/a.png"], "missing: gel, not_gel; extra: blot"), (["notes.txt"], "its class folders are none, those")],
    )
    def test_other_classes_may_not(self, make_files, names, message):
        with pytest.raises(GelError, match=message):
            read_class_folders(make_files(*names), ["gel", "not_gel"], every_class=False)

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(GelError, match=r"missing: cannot be opened \(No such file or directory\): check"):
            read_class_folders(tmp_path / "missing")

    def test_a_file(self, make_files):
        with pytest.raises(GelError, match=r"a\.png: is a file, not a folder: name"):
            read_class_folders(make_files("a.png") / "a.png")


class TestClassFolders:
    def test_names_without_a_look_into_the_folders(self, make_files):
        assert class_folders(make_files("not_gel/notes.txt", "gel/a.png", ".git/x.png", "b.png")) == ["gel", "not_gel"]

    @pytest.mark.parametrize(("names", "message"), [(["gel/a.png"], "only the class folder gel"), (["a"], "no class")])
    def test_fewer_than_two(self, make_files, names, message):
        with pytest.raises(GelError, match=message):
            class_folders(make_files(*names))
