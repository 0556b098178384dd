"""Which of several values of an option counts: config files come first, whatever the command line's order."""

from collections.abc import Sequence

from gel_lightning.core.errors import GelError

CONFIG = ("--config", "-c")
SEVERAL = {"--data.train_dir": "FOLDER", "--data.test_dir": "NAME=FOLDER"}
"""Options that take several values: a plain repetition of one would keep the last value only."""


def configs_first(args: Sequence[str]) -> list[str]:
    """Puts config files before all other options, which then override them.

    Args:
        args: the command line.
    """
    configs, others = list[str](), list[str]()
    for place, arg in enumerate(args):
        is_value = place > 0 and args[place - 1] in CONFIG
        names_one = arg.startswith("-c") or arg.partition("=")[0] in CONFIG  # -cFILE is allowed, too
        (configs if is_value or names_one else others).append(arg)
    start = next((place for place, arg in enumerate(others) if arg.startswith("-")), len(others))
    return [*others[:start], *configs, *others[start:]]


def refuse_repeats(args: Sequence[str]) -> None:
    """Refuses an option that is given again without the ``+`` that adds to it.

    Args:
        args: the command line.

    Raises:
        GelError: one of :data:`SEVERAL` would lose a value.
    """
    given = [arg.partition("=")[0] for arg in args]
    for option, value in SEVERAL.items():
        places = [place for place, name in enumerate(given) if name in (option, f"{option}+")]
        if any(given[place] == option for place in places[1:]):
            raise GelError(f"{option} is given twice, and only the last would count; add to it with {option}+={value}")
