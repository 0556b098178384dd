"""The speed figures of the README, each measured together with what it is compared to.

    make bench                                  all of them, some ten minutes on two cores
    python benchmarks/run.py loop compare       some of them: extraction, find, process, loop, ...
    python benchmarks/run.py gpu                on a GPU, in less than five minutes
    python benchmarks/run.py gpu --trial        its benchmark on the CPU with a few pictures, to see that it runs

Each figure is printed when it is measured. The exit status is 1 if one does not reach its target (targets.py, which has
the figures of README), and these are named at the end.

Pictures are drawn and weights are random, so that no network is needed; this does not change how long anything takes.
Every figure is a ratio, because the same code may take half or twice as long on another machine or an hour later.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from extraction import extraction, runtime, sharding
from finding import find
from fitting import compare, folds, loop, memory, process
from gpu import gpu
from measuring import Figure
from rich.console import Console
from rich.table import Table

from gel_lightning.comparison.about import this_machine
from gel_lightning.data.drawn.dataset import draw_data_set

BENCHMARKS: dict[str, Callable[[Path], Iterator[Figure]]] = {
    "extraction": extraction,
    "runtime": runtime,
    "gpu": gpu,
    "sharding": sharding,
    "process": process,
    "loop": loop,
    "compare": compare,
    "folds": folds,
    "memory": memory,
    "find": find,
}


def main() -> int:
    """Runs the benchmarks that are named, or all, and prints each figure and a table; 1 if a target is not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--trial", action="store_true", help="runs gpu on the CPU with a few pictures")
    given = parser.parse_args()
    names = given.names or [name for name in BENCHMARKS if name != "gpu" or torch.cuda.is_available()]
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {unknown[0]!r}; choose of {', '.join(BENCHMARKS)}")
    if "gpu" in names and not given.trial and not torch.cuda.is_available():
        parser.error("the benchmark gpu needs a CUDA GPU; --trial runs it without one")
    benchmarks = BENCHMARKS | ({"gpu": partial(gpu, accelerator="cpu", number=8)} if given.trial else {})
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.simplefilter("ignore")
    table, missed = Table("figure", "measured", "target", "", title=machine()), []
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        draw_data_set(work / "pictures")
        for name in names:
            for figure in benchmarks[name](work):
                table.add_row(figure.what, figure.measured, figure.target, "✓" if figure.reached else "✗")
                missed += [] if figure.reached else [figure]
                print(f"{time.perf_counter() - begun:4.0f} s", *figure[:3], sep="  ", file=sys.stderr, flush=True)
    Console().print(table)
    for figure in missed:
        print(f"not reached: {figure.what}: {figure.measured}, not {figure.target}", file=sys.stderr)
    return int(bool(missed))


def machine() -> str:
    """The CPU and the versions that this runs on."""
    here = this_machine()
    versions = ", ".join(f"{name} {here['versions'][name]}" for name in ("torch", "torchvision", "lightning"))
    return f"{here['devices']['cpu']}, {torch.get_num_threads()} threads; {versions}"


if __name__ == "__main__":
    sys.exit(main())
