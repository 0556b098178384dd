"""The process of the command `gel-fit`."""

import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn


def run() -> NoReturn:
    """Runs the command and ends the process. Help is printed without importing PyTorch."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed; else the first file that is opened would take its place
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
    os.environ["MPLBACKEND"] = "Agg"  # a notebook's is inherited, and need not be installed here
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # warns if it cannot keep its list of fonts
    try:
        Path.cwd()
    except FileNotFoundError:  # on which the imports would fail
        print("gel-fit: error: the working folder was removed; change to one that exists", file=sys.stderr)
        sys.exit(1)
    from gel_lightning.cli.help import answer

    if (status := answer(sys.argv[1:])) is not None:
        sys.exit(status)
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
        sys.exit(1)

    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, handler)
    try:
        status = main()
    except SystemExit as stop:  # the help, and wrong arguments
        if isinstance(stop.code, str):
            raise
        status = int(stop.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # a bug, with its traceback
        status = 1
    gc.unfreeze()  # else some libraries take what is left for a leak, and say so
    sys.exit(status)


if __name__ == "__main__":
    run()
