from pathlib import Path

import pytest
from conftest import refused

from gel_lightning.data.named_sets import is_tested, name_of, named_folders, part_of


@pytest.mark.parametrize(
    ("given", "folders"),
    [
        (None, {}),
        ("a", {"test": "a"}),
        (Path("a/b=c"), {"test": "a/b=c"}),
        ("./b=c", {"test": "./b=c"}),
        ("one=a", {"test_one": "a"}),
        (["one=a", "two_2=b=c", "d"], {"test": "d", "test_one": "a", "test_two_2": "b=c"}),
    ],
)
def test_folder_without_a_name_comes_first(given: str | list[str] | None, folders: dict[str, str]) -> None:
    assert named_folders(given) == {part: Path(folder) for part, folder in folders.items()}
    assert list(named_folders(given)) == list(folders)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", "b"], "there are two test folders without a name, a and b: give each further one a name: --data.test_"),
        (["x=a", "x=b"], "two test sets are named x, a and b: give each further one"),
        ("other labs=a", "'other labs' cannot name a test set: take letters, digits and underscores, or write ./other"),
        ("é=a", "'é' cannot name a test set"),
        ("=a", "'' cannot name a test set"),
        ("x=", "test set x has no folder: give --data.test_dir+=x=FOLDER"),
    ],
)
def test_names_that_will_not_do_are_errors_of_one_line(given: str | list[str], message: str) -> None:
    assert refused(lambda: named_folders(given)).startswith(message)


def test_parts_and_names() -> None:
    assert [name_of(part) for part in ("train", "val", "test", "test_one")] == ["", "", "", "one"]
    assert [part_of(name) for name in ("", "one")] == ["test", "test_one"]
    assert [is_tested(part) for part in ("train", "val", "test", "test_one")] == [False, False, True, True]
