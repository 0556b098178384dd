"""The command `gel-fit`: which command is meant, and what becomes of errors."""

import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gel_lightning.cli.help import answer
from gel_lightning.cli.parser import complain
from gel_lightning.cli.precedence import configs_first, refuse_repeats
from gel_lightning.cli.quiet import hide_known_warnings
from gel_lightning.cli.refusals import refusal
from gel_lightning.core.distributed import AlreadySaidError
from gel_lightning.core.errors import UNWRITABLE, GelError, explained, one_line
from gel_lightning.core.xla import ask_no_cloud


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        args: the command line without the program's name; None takes this process's.

    Returns:
        The exit status: 0, 1 for an error that the user can mend or a picture that could not be read, 2 for wrong
        arguments, 130 for Ctrl-C, 143 for SIGTERM.
    """
    hide_known_warnings()
    given = sys.argv[1:] if args is None else list(args)
    ask_no_cloud()
    # torch_xla tells of the device that it takes, though another one may be asked for.
    logging.root.addFilter(lambda record: "PJRT_DEVICE" not in record.getMessage())
    try:
        if (status := answer(given)) is not None:
            return status
        if given[:1] == ["find"]:
            from gel_lightning.cli.find import main as find_command

            return find_command(given[1:])
        if given[:1] == ["data"]:
            from gel_lightning.cli.data import data_command

            return data_command(given[1:])
        if given[:1] == ["export"]:
            from gel_lightning.cli.export import export_command

            export_command(given[1:])
            return 0
        given = configs_first(given)
        refuse_repeats(given)
        with _thread_errors_raised():
            if given[:1] == ["compare"]:
                from gel_lightning.cli.compare import compare_command

                compare_command(given[1:])
            elif given[:1] == ["report"]:
                from gel_lightning.cli.compare import report_command

                report_command(given[1:])
            else:
                from gel_lightning.cli.fit import run_command

                return run_command(given)
    except AlreadySaidError:
        return 1
    except (GelError, MisconfigurationException) as error:
        complain(one_line(error))
        return 1
    except BrokenPipeError:
        raise
    except Exception as error:
        text = explained(error) or refusal(error)
        if text is None:
            raise
        complain(" ".join(text.split()))
        return 1
    except KeyboardInterrupt:
        return 130
    except SIGTERMException:
        return 143
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning has put things away, and exits with 1
            return 130
        raise
    return 0


@contextmanager
def _thread_errors_raised() -> Iterator[None]:
    """Raises what TensorBoard's thread could not write when the block ends: the thread would print a traceback."""
    usual, unwritten = threading.excepthook, list[OSError]()

    def keep(thrown: threading.ExceptHookArgs) -> None:
        if isinstance(thrown.exc_value, OSError) and thrown.exc_value.errno in UNWRITABLE:
            unwritten.append(thrown.exc_value)
        else:
            usual(thrown)

    threading.excepthook = keep
    try:
        yield
    finally:
        threading.excepthook = usual
    if unwritten:
        raise unwritten[0]
