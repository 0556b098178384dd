"""The settings that a comparison has kept: a folder may be anybody's, so they name no class that is not known."""

import re
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import yaml

from gel_lightning.core.errors import GelError
from gel_lightning.training.classes import DESCRIBED, TABLES, check_description, public_name

TEXTS = {
    *("train_dir", "test_dir", "predict_dir", "cache_dir", "default_root_dir", "filename", "monitor"),
    *("weights", "backbone", "backbones", "name", "groups", "class_names"),
}
"""Options that take any text, which is never resolved to a class or a file of settings."""
WORD = re.compile(r"[\w+, -]*|\d[\d:]*")
KINDS = {"heads": "head", "optimizers": "optimizer"}
MAX_BYTES, MAX_VALUES, MAX_DEPTH = 2**20, 100_000, 20


def read_settings(path: Path, given: Sequence[str], needed: Set[str] = frozenset()) -> str:
    """Reads the config.yaml of a comparison, and makes sure that nothing in it has code imported.

    Args:
        path: the file.
        given: the command line: a class that the person names there, or in a config named there, may be in it.
        needed: the settings there must be: in place of one that was cut off there would be a default.

    Returns:
        The settings as text, which ``--config`` takes in place of a file.

    Raises:
        GelError: the file is absent or damaged, or names a class outside of torch and gel_lightning that the person
            has not named.
    """
    settings = _yaml(path)
    if not isinstance(settings, dict):
        raise GelError(f"{path}: no settings of a comparison; begin a new comparison")
    cut = not needed <= settings.keys() or not path.read_text(encoding="utf-8").endswith("\n")
    named = set(_named(given))
    options = {argument.partition("=")[0] for argument in given}
    model = settings.get("model")
    model = model if isinstance(model, dict) else {}
    for kind in DESCRIBED:
        described = model.get(kind)
        if isinstance(described, dict) and described.get("class_path") not in named:
            try:
                check_description(kind, described)
            except GelError as error:
                raise GelError(f"{path}: {error}") from error
    for place, text in list(_texts(settings, path)):
        key = place[-1]
        if key in KINDS and "." in text:
            known = public_name(text) in TABLES[KINDS[key]]
        elif key == "class_path":
            known = len(place) == 3 and place[0] == "model"  # checked above
        else:
            known = key in TEXTS or (WORD.fullmatch(text) is not None and not Path(text).is_file())
        if known or text in named:
            continue
        steps = [place[: n + 1] for n in range(len(place)) if "--" + ".".join(place[: n + 1]) in options]
        if not steps:
            raise GelError(
                f"{path}: {'.'.join(place)} is {text[:100]!r}, which is not taken from the folder of a comparison; "
                "if that is yours, name it on the command line, too, or in a file named with --config"
            )
        _remove(settings, steps[0])  # the command line has another one
    if cut:
        raise GelError(f"{path}: not all settings of a comparison; begin a new comparison")
    return yaml.safe_dump(settings, sort_keys=False, width=2**20)


def _remove(settings: dict[str, Any], place: tuple[str, ...]) -> None:
    *parents, last = place
    for key in parents:
        settings = settings.get(key, {})
    settings.pop(last, None)


def _named(given: Sequence[str]) -> Iterator[str]:
    """The texts of a command line, and of the config files that it names."""
    previous = ""
    for argument in given:
        option, _, value = argument.rpartition("=")
        yield from (argument, value)
        if (option or previous) in ("--config", "-c"):
            file = Path(value)
            yield from (text for _, text in _texts(_yaml(file), file))
        previous = argument


def _yaml(path: Path) -> Any:
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise GelError(f"{path}: no file of settings; name another")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise GelError(
            f"{path}: damaged or not YAML ({reason}); name another file, or begin a new comparison"
        ) from error


def _texts(settings: Any, path: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """All texts of settings, each with the names that lead to it."""
    pending: list[tuple[tuple[str, ...], Any]] = [(("settings",), settings)]
    seen = 0
    while pending:
        place, value = pending.pop()
        seen += 1
        if seen > MAX_VALUES or len(place) > MAX_DEPTH:
            raise GelError(f"{path}: too many settings, one in the other")
        if isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, str) or not re.fullmatch(r"\w+", key):
                    raise GelError(f"{path}: {str(key)[:50]!r} is no name of a setting")
                pending.append(((*place, key) if place != ("settings",) else (key,), item))
        elif isinstance(value, list):
            pending += [(place, item) for item in value]
        elif isinstance(value, str):
            yield place, value
