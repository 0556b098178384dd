"""Modules of the user's in the working folder, for options that name classes in them: `--model.head mine.Head`."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from gel_lightning.cli.precedence import CONFIG

DOTTED = re.compile(r"\b([A-Za-z_]\w*)(?:\.[A-Za-z_]\w*)+")
OURS = {"gel_lightning", "lightning", "pytorch_lightning", "torch", "torchvision"}


def find_own_modules(args: Sequence[str]) -> None:
    """Lets Python import from the working folder, after all else, if the command line or a config names a class there.

    A checkpoint has no say in it: what it names is only found if the command line or a config names it too.

    Args:
        args: the command line.
    """
    here = Path.cwd()
    names = {match.group(1) for text in _texts(args) for match in DOTTED.finditer(text)} - OURS
    if any((here / f"{name}.py").is_file() or (here / name).is_dir() for name in names) and str(here) not in sys.path:
        sys.path.append(str(here))


def _texts(args: Sequence[str]) -> Iterator[str]:
    """Yields the values on a command line and the content of the config files that it names."""
    option = ""
    for arg in args:
        option, _, value = arg.partition("=") if arg.startswith("-") else (option, "", arg)
        if option in CONFIG:
            path = Path(value).expanduser()
            if value and os.path.isfile(path):  # noqa: PTH113 - Path.is_file() raises for text as long as settings
                yield path.read_text(encoding="utf-8", errors="replace")
        elif not option.removesuffix("+").endswith("ckpt_path"):
            yield value
