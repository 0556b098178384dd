"""The folders to test on: one without a name, and others that have one."""

import re
from collections.abc import Sequence
from pathlib import Path

from gel_lightning.core.errors import GelError

MAIN = "test"
"""The part that holds the test pictures without a name; those named NAME are the part ``test_NAME``."""

HOW = "give each further one a name: --data.test_dir+=NAME=FOLDER"


def named_folders(given: str | Path | Sequence[str | Path] | None) -> dict[str, Path]:
    """Reads which folders are to be tested on.

    Args:
        given: FOLDER or NAME=FOLDER, or several of them of which at most one has no name. A name is of letters,
            digits and underscores, since it becomes a part of names of columns; a path whose first ``=`` comes after
            a slash, such as ``./a=b``, has none.

    Returns:
        For each part of the data that is tested on its folder, the one without a name first.

    Raises:
        GelError: a name cannot be one or is given twice, or there are several folders without one.
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
    """The part of the data, and prefix of the metrics, of the test set of a name."""
    return f"{MAIN}_{name}" if name else MAIN


def name_of(part: str) -> str:
    """The name of the test set that a part holds; empty for the one without a name, and for ``train`` and ``val``."""
    return "" if part in ("train", "val", MAIN) else part.removeprefix(f"{MAIN}_")


def is_tested(part: str) -> bool:
    """Whether a part is tested on."""
    return part == MAIN or part.startswith(f"{MAIN}_")
