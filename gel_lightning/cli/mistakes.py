"""Errors of jsonargparse in the user's words, with what was meant."""

import re
import shlex
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from inspect import signature
from pathlib import Path

from gel_lightning.cli.help import PAGES
from gel_lightning.cli.spelling import ALIASES, ANYTHING, DASHES, PICTURES, meant

GIVEN = ("params", "optimizer", "in_features", "num_classes", "kwargs")
"""Arguments of heads, optimizers and schedulers that nobody names on the command line."""
CLASSES = ("model.head", "model.optimizer", "model.lr_scheduler")
"""Options that take a class, of which the parser knows a list."""
KINDS = {
    **{"int": "a whole number", "bool": "true or false", "str": "text"},
    **dict.fromkeys(("float", "Number"), "a number"),
    **dict.fromkeys(("list", "Sequence"), "a list"),
}


def explained(message: str, command: str, options: Iterable[str]) -> str | None:
    """Says what is wrong with the options of a command in the user's words, and what was meant.

    Args:
        message: jsonargparse's, in one line.
        command: such as ``fit``.
        options: the names of all options of the command, without dashes.

    Returns:
        None for a message that is best left as it is.
    """
    options = set(options)
    if found := re.match("unrecognized arguments: (.*)", message, re.IGNORECASE):
        return _unrecognized(found[1].split(), command, options)
    if found := re.search(r"File does not exist: '(.+?)'", message):
        return f"{found[1]}: no such file; check the path"
    if found := re.match(r"argument (--[^\s/]+)\S*: expected one argument", message):
        return f"{found[1]} needs a value after it"
    if message.endswith("arguments are required: comparison"):
        return "name a comparison by its number or folder, such as gel-fit report 0"
    if found := re.match("the following arguments are required: (.*)", message):
        return re.sub(r"^\w+\.", "--", found[1]) + " is missing"
    keys = re.findall(r'Parser key "([\w.]+)"', message)
    key = ".".join(dict.fromkeys([*keys[:1], *keys[-1:]]))
    if group := re.match(r"Group '([\w.]+)'", message):
        key = group[1]
    if found := re.search(r"(?:accept option|Option) '([\w.-]+)'", message):
        owner = re.search(r"class_path[ =]'([\w.]+)\.(\w+)'", message)
        if owner and key not in ("optimizer", "lr_scheduler"):
            return _no_argument(key, found[1], *owner.groups())
        return _no_option(".".join(filter(None, (key, found[1]))), command, options)
    if found := re.search(r"Unable to load config '(\S+)'", message):
        name = _by_suffix(found[1]) or meant(key, command, options - {key})
        return f"--{key} takes a YAML file, and {found[1]} is none" + (f"; is it {name} {found[1]}?" if name else "")
    if key not in CLASSES and (found := re.search(r"dot import path string: (\S+)", message)) and len(set(keys)) == 1:
        return f"--{key} {found[1]}: no such class; give the name of one, or its import path"
    last = message.rpartition("Parser key")[2]
    value = re.search(r"(?:Got|Given) value: (.*?)(?: Given value type|\. Got value|$)", last)
    if not value:
        return None
    if found := re.search(r"No module named '([\w.]+)'", last):
        described = re.search(r"class_path='([\w.]+)'", value[1])
        return f"--{key} {described[1] if described else value[1]}: there is no Python module {found[1]}"
    nested = re.fullmatch(r"NestedArg\(key='(\w+)', val='?(.*?)'?\)", value[1])
    if nested and len(set(keys)) == 1:
        key = f"{key}.{nested[1]}"
    kinds = [
        name for choice in re.findall(r"typing\.Literal\[(.*?)\]", last) for name in re.findall(r"'(\w+)'", choice)
    ]
    kinds += [
        KINDS[kind]
        for kind in re.findall(r"(?:Expected an? <class '(?:\w+\.)*|Not of type )(\w+)", last)
        if kind in KINDS
    ]
    given = f"--{key} {nested[2] if nested else value[1]}"
    return f"{given}: give {' or '.join(dict.fromkeys(kinds))}" if kinds else None


def _unrecognized(arguments: list[str], command: str, options: set[str]) -> str:
    """One line about all arguments that were not recognised; what follows an option is taken for its value."""
    lines, stray, after_option = [], list[str](), False
    for argument in arguments:
        if argument[0] in DASHES:
            lines.append(_no_option(argument.partition("=")[0], command, options))
            after_option = "=" not in argument
        elif not after_option and _by_suffix(argument):
            lines.append(_stray(argument, command, options))
        elif not after_option:
            stray.append(argument)
    return "; ".join(dict.fromkeys([*lines, *([_stray(" ".join(stray), command, options)] if stray else [])]))


def _stray(argument: str, command: str, options: set[str]) -> str:
    """A line about a value with no option before it."""
    name = _by_suffix(argument) or f"--{PICTURES.get(command, 'data.train_dir')}"
    if name.lstrip("-") not in options:
        return f"{argument!r} is one argument too many"
    hint = "" if " " in argument else " (a name with spaces needs quotes)"
    return f"{argument!r} needs an option before it: {name} {shlex.quote(argument)}{hint}"


def _by_suffix(value: str) -> str | None:
    """The option that takes a file of this suffix."""
    return {".ckpt": "--ckpt_path", ".yaml": "--config", ".yml": "--config"}.get(Path(value).suffix)


def _no_option(typed: str, command: str, options: set[str]) -> str:
    """A line about an option that does not exist."""
    name = typed if typed[0] in DASHES else f"--{typed}"
    found = meant(name, command, options)
    if found:
        return f"no option {name}; did you mean {found}?"
    if command == "find" and name.lstrip(DASHES).lower() in ANYTHING:
        return f"no option {name}; pictures and folders need none: gel-fit find pictures"
    if name in (option.name for option in PAGES["compare"].options):
        return f"no option {name}; only gel-fit compare has it"
    return f"no option {name}"


def _no_argument(key: str, typed: str, module: str, name: str) -> str:
    """A line about an argument that the class of an option does not take."""
    kind = getattr(sys.modules.get(module), name, None)  # the parser has imported it
    takes = list(signature(kind).parameters) if isinstance(kind, type) else []
    takes = [argument for argument in takes if argument not in GIVEN]
    plain = typed.lower().replace("-", "_")
    alias = ALIASES.get(plain, "").rpartition(".")[2]
    found = [alias] if alias in takes else get_close_matches(plain, takes, n=1, cutoff=0.75)
    rest = f"did you mean --{key}.{found[0]}?" if found else f"{name} takes {', '.join(takes) or 'none'}"
    return f"no option --{key}.{typed}; {rest}"
