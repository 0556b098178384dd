"""Options that take several values: a plain repetition of one would keep the last value only."""

from collections.abc import Sequence

from gel_lightning.core.errors import GelError

SEVERAL = {"--data.train_dir": "FOLDER", "--data.test_dir": "NAME=FOLDER"}


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
