"""Files, folders and lists."""

import os
from pathlib import Path

import pytest
from conftest import refused, save_picture

from gel_lightning.inference.listing import File, Listed, list_pictures, read_list


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with pictures of any depth in `in`, and other files."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a/2.png", "a/10.png", "a/deep/er/x.JPG", "out.png"):
        save_picture(Path("in", name) if name != "out.png" else Path(name), 0, striped=True)
    for name in ("a.pdf", "a/b.zip", "c.ZIP", "README", ".hidden.png", "a/.git/x.png"):
        path = Path("in", name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no picture")
    Path("in/a/scan").write_bytes(Path("in/b.png").read_bytes())
    return tmp_path


def paths(listed: Listed) -> list[str]:
    return [file.path for file in listed.files]


IN = ["in/a/10.png", "in/a/2.png", "in/a/deep/er/x.JPG", "in/a/scan", "in/b.png"]


@pytest.mark.usefixtures("folder")
def test_pictures_of_any_depth_each_once_and_in_order() -> None:
    listed = list_pictures(["out.png", "in/b.png", "in", Path("in/a")])
    assert paths(listed) == [*IN, "out.png"]
    assert listed.files[0] == File("in/a/10.png", "in")
    assert listed.files[-1] == File("out.png", ".")
    assert listed.left_out == {".pdf": 1, ".zip": 3, "": 1}  # what lies below two folders that are named, twice


@pytest.mark.usefixtures("folder")
def test_a_file_that_is_named_is_taken_whatever_it_is_called() -> None:
    assert paths(list_pictures(["in/a.pdf", "nothing.png"])) == ["in/a.pdf", "nothing.png"]


@pytest.mark.usefixtures("folder")
def test_a_loop_of_links_ends_and_pipes_are_not_opened() -> None:
    Path("in/a/deep/up").symlink_to("../..", target_is_directory=True)
    Path("in/self").symlink_to("self")
    os.mkfifo("in/pipe.png")
    os.mkfifo("in/pipe")
    assert paths(list_pictures(["in"])) == [*IN, "in/pipe.png"]


@pytest.mark.usefixtures("folder")
def test_the_folder_that_is_not_searched_may_lie_in_another() -> None:
    assert paths(list_pictures(["in"], Path("in/a"))) == ["in/b.png"]
    Path("link").symlink_to("in/a", target_is_directory=True)
    assert paths(list_pictures(["in", "link", "in/a"], Path("link"))) == ["in/b.png"]
    assert "link: no picture" in refused(lambda: list_pictures(["link"], Path("in/a")))


@pytest.mark.usefixtures("folder")
def test_a_folder_that_cannot_be_listed_is_said_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    listed = list_pictures(["in"])
    assert [file for file in listed.files if file.error] == [
        File("in/a/deep", "in", "cannot be listed (Permission denied)")
    ]
    assert paths(listed) == [path if "deep" not in path else "in/a/deep" for path in IN]


@pytest.mark.usefixtures("folder")
def test_no_picture_is_one_line() -> None:
    Path("empty").mkdir()
    Path("other").mkdir()
    Path("other/a.txt").touch()
    text = refused(lambda: list_pictures(["empty", "other"]))
    assert text == "empty, other: no picture among 1 file; name pictures, or folders of them"
    assert refused(lambda: list_pictures([])) == "nothing named: no picture; name pictures, or folders of them"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a.png\nb c.png\n", ["a.png", "b c.png"]),
        (b"a\nb.png\0c.png\0", ["a\nb.png", "c.png"]),
        (b"caf\xe9.png\n\nb.png", [os.fsdecode(b"caf\xe9.png"), "b.png"]),
        (b"", []),
    ],
)
def test_a_list_has_a_path_in_each_line_or_ended_by_nul(content: bytes, expected: list[str]) -> None:
    assert read_list(content) == expected
