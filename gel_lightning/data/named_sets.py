"""The test folders: one without a name, and any number of named ones."""

import re
from collections.abc import Sequence
from pathlib import Path

from gel_lightning.core.errors import GelError

MAIN = "test"
"""The part of the unnamed test set. The part of a test set called NAME is ``test_NAME``."""

HOW = "give each further one a name: --data.test_dir+=NAME=FOLDER"


def named_folders(given: str | Path | Sequence[str | Path] | None) -> dict[str, Path]:
    """Parses the test folders of ``--data.test_dir``.

    Args:
        given: FOLDER or NAME=FOLDER, or several of them, at most one of which has no name. A name consists of letters,
            digits and underscores, because it becomes part of column names. A path with its first ``=`` after a slash,
            such as ``./a=b``, has no name.

    Returns:
        The folder of each test part, the unnamed one first.

    Raises:
        GelError: a name is invalid or given twice, or several folders have no name.
    """
    folders: dict[str, Path] = {}
    for text in [] if given is None else [given] if isinstance(given, str | Path) else given:
        name, equals, folder = str(text).partition("=")
        if not equals or "/" in name or "\\" in name:
            name, folder = "", str(text)
        elif not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise GelError(
                f"{name!r} cannot name a test set: take letters, digits and underscores, or write ./{text} if that is "
                "a folder (--data.test_dir)"
            )
        part = part_of(name)
        if part in folders:
            what = f"two test sets are named {name}" if name else "there are two test folders without a name"
            raise GelError(f"{what}, {folders[part]} and {folder}: {HOW}")
        if not folder:
            raise GelError(f"test set {name} has no folder: give --data.test_dir+={name}=FOLDER")
        folders[part] = Path(folder).expanduser()
    return dict(sorted(folders.items(), key=lambda item: item[0] != MAIN))


def part_of(name: str) -> str:
    """The part of a test set, which is also the prefix of its metrics."""
    return f"{MAIN}_{name}" if name else MAIN


def name_of(part: str) -> str:
    """The name of the test set in a part; empty for the unnamed one, ``train`` and ``val``."""
    return "" if part in ("train", "val", MAIN) else part.removeprefix(f"{MAIN}_")


def is_tested(part: str) -> bool:
    """Whether a part is a test set."""
    return part == MAIN or part.startswith(f"{MAIN}_")
