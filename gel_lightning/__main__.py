"""The process of the command `gel-fit`."""

import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

CLOSED = 128 + 13
"""Exit status where nobody reads the output any more, as of a process that SIGPIPE has ended."""


def run() -> NoReturn:
    """Runs the command and ends the process."""
    try:
        try:
            status = _status()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still to be written when the process ends would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = CLOSED
    sys.exit(status)


def _status() -> int:
    """Runs the command and returns its exit status. Help is printed without importing PyTorch."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed; else the first file that is opened would take its place
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
    os.environ["MPLBACKEND"] = "Agg"  # a notebook's is inherited, and need not be installed here
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # warns if it cannot keep its list of fonts
    try:
        Path.cwd()
    except FileNotFoundError:  # on which the imports would fail
        print("gel-fit: error: the working folder was removed; change to one that exists", file=sys.stderr)
        return 1
    from gel_lightning.cli.help import answer

    if (status := answer(sys.argv[1:])) is not None:
        return status
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C within the seconds of the import would be a traceback
    gc.disable()  # what is imported is a million objects that stay: looking through them again and again takes a second
    try:
        if sys.argv[1:2] == ["find"]:  # which needs no PyTorch
            from gel_lightning.cli.find import main
        else:
            from gel_lightning.cli.main import main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "gel_lightning":
            raise
        text = f"{error.name} is not installed, which gel-fit find alone can do without"
        print(f"gel-fit: error: {text}; run pip install gel-lightning", file=sys.stderr)
        return 1

    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, handler)
    try:
        return main()
    finally:
        gc.unfreeze()  # else some libraries take what is left for a leak, and say so


if __name__ == "__main__":
    run()
