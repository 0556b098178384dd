"""The process of the command `gel-fit`."""

import atexit
import gc
import os
import sys
import threading
from typing import NoReturn

from gel_lightning.cli import main


def run() -> NoReturn:
    """Runs the command and ends the process.

    Python would take more than a second to free, object by object, what the system takes back at once. What is
    registered to run at the end does run.
    """
    gc.freeze()  # what is imported stays to the end, and need not be looked through
    try:
        status = main()
    except SystemExit as stop:  # the help, and wrong arguments
        if isinstance(stop.code, str):
            raise
        status = int(stop.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # a bug, with its traceback
        status = 1
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        gc.unfreeze()
        sys.exit(status)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run()
