from pathlib import Path

import numpy as np
import pytest
from conftest import refused

from gel_lightning.data.groups import joined_groups, read_groups


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Empty files, since no picture is read."""
    for name in ("pictures/gel/a.png", "pictures/gel/b.png", "pictures/plot/c.png", "elsewhere.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_paths_start_at_the_file_or_at_a_folder_or_are_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "groups.csv"
    paths = [folder / "pictures/gel/a.png", folder / "pictures/gel/b.png", folder / "pictures/plot/c.png"]
    lines = [
        "path,note,group",
        "pictures/gel/a.png,,one",
        'gel/b.png,"x, y", two ',
        f"{paths[2]},,one",
        "elsewhere.png,,z",
    ]
    file.write_text("\ufeff" + "\r\n".join(lines))
    assert read_groups(file, paths, [folder / "pictures"]) == ["one", "two", "one"]
    monkeypatch.chdir(folder)
    assert read_groups(Path("groups.csv"), [Path("pictures/plot/c.png")], [Path("pictures")]) == ["one"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read as a CSV file (No such file or directory); name another with --data.groups"),
        (b"\xff\xfe", "is not in UTF-8; save it as CSV UTF-8"),
        ("", "no columns path and group, separated by commas, in its first line"),
        ("path\tgroup\ngel/a.png\tx\n", "no columns path and group, separated by commas"),
        ("path,lab\ngel/a.png,x\n", "no columns path and group"),
        ("path,group\npictures/gel/a.png,\n", "line 2: no group: give each row both"),
        ("path,group\npictures/gel/a.png\n", "line 2: no group"),
        ("path,group\n,x\n", "line 2: no path"),
        ("path,group\nold/z.png,x\ngone.png,x\n", "2 pictures in it cannot be found from "),
        ("path,group\npictures/gel/a.png,x\npictures/gel/a.png,y\n", "line 3: pictures/gel/a.png is in two groups"),
        ("path,group\npictures/gel/a.png,x\n", "no group for 1 picture (first: "),
    ],
)
def test_files_that_will_not_do_are_errors_of_one_line(folder: Path, text: str | bytes | None, message: str) -> None:
    file = folder / "groups.csv"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    error = refused(lambda: read_groups(file, [folder / "pictures/gel/a.png", folder / "pictures/gel/b.png"]))
    assert error.startswith(str(file))
    assert message in error


def test_pictures_that_are_together_in_any_grouping_are_together() -> None:
    names = np.array(["b", "a", "b", "c", "d", "e"])
    assert joined_groups(names).tolist() == [0, 1, 0, 2, 3, 4]
    assert joined_groups(names, [9, 8, 7, 8, 5, 5]).tolist() == [0, 1, 0, 1, 2, 2]
    rng = np.random.default_rng(0)
    one, other = rng.integers(20, size=60), rng.integers(40, size=60)
    joined = joined_groups(one, other)
    for grouping in (one, other):
        assert all(len(np.unique(joined[grouping == group])) == 1 for group in grouping)
    # No coarser than that: within a joined group each picture is linked to another one.
    for group in np.unique(joined):
        members = np.flatnonzero(joined == group)
        assert all(
            len(members) == 1 or any(one[i] == one[j] or other[i] == other[j] for j in members if i != j)
            for i in members
        )
