import pytest

from gel_lightning.core.errors import GelError
from gel_lightning.data.folders import folder_notes, read_class_folders
from gel_lightning.data.picture_files import find_pictures, visible_files


class TestFindPictures:
    def test_a_file_of_any_suffix(self, make_files):
        assert find_pictures(make_files("scan.001") / "scan.001").paths == [make_files() / "scan.001"]

    def test_a_folder_of_any_depth(self, make_files):
        folder = make_files("z.png", "a/b/c.tif", "a/notes.txt", ".hidden/d.png")
        assert find_pictures(str(folder)).paths == [folder / "a/b/c.tif", folder / "z.png"]
        assert find_pictures(folder).left_out == {".txt": 1}

    def test_other_pictures_are_found_too(self, make_files):
        folder = make_files("a.psd", "b.PDF", "c.png", "d.docx", "e.heic", "f.jfif")
        assert [path.name for path in find_pictures(folder).paths] == ["a.psd", "b.PDF", "c.png", "e.heic", "f.jfif"]
        assert folder_notes(folder, find_pictures(folder)) == [
            f"{folder}: 1 file left out, not taken for pictures: 1 .docx"
        ]

    @pytest.mark.parametrize(("name", "message"), [("missing", "cannot be opened"), ("", "no picture in it")])
    def test_errors(self, make_files, name, message):
        with pytest.raises(GelError, match=message):
            find_pictures(make_files("notes.txt") / name)


class TestVisibleFiles:
    def test_links_are_followed_and_loops_end(self, make_files, tmp_path):
        folder = make_files("gel/a.png", "gel/deep/b.png")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "c.png").touch()
        (folder / "gel" / "deep" / "up").symlink_to(folder / "gel")
        (folder / "gel" / "self").symlink_to("self")
        (folder / "gel" / "there").symlink_to(tmp_path / "elsewhere")
        (folder / "gel" / "there_too").symlink_to(tmp_path / "elsewhere")
        assert len(visible_files(folder / "gel")) == 4
        assert [path.name for path in find_pictures(folder / "gel").paths] == ["a.png", "b.png", "c.png"]

    def test_a_class_folder_may_be_a_link(self, make_files, tmp_path):
        folder = make_files("gel/a.png")
        (tmp_path / "plots").mkdir()
        (tmp_path / "plots" / "b.png").touch()
        (folder / "not_gel").symlink_to(tmp_path / "plots")
        assert read_class_folders(folder).paths == [folder / "gel/a.png", folder / "not_gel/b.png"]

    def test_a_folder_that_cannot_be_listed(self, make_files, monkeypatch):
        def refuse(path, *_):
            raise PermissionError(13, "Permission denied", str(path))

        folder = make_files("gel/a.png", "not_gel/b.png")
        monkeypatch.setattr("os.scandir", refuse)  # root may list anything
        for read in (read_class_folders, find_pictures, visible_files):
            with pytest.raises(GelError, match=r"data: cannot be listed \(Permission denied\)"):
                read(folder)
