"""What the benchmarks share: running a command, its time and memory, and ratios."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from targets import TARGETS

ROOT = Path(__file__).resolve().parent.parent
BACKBONES = ("resnet18", "mobilenet_v3_large", "vgg16")
BATCH, EPOCHS, RUNS_PER_BACKBONE = 23, 20, 4
IMPORT = (sys.executable, "-c", "import torch, torchvision, lightning")
GEL_FIT = (sys.executable, "-m", "gel_lightning")
# Runs a command and prints its seconds and its peak memory. This takes a small process, because on Linux the peak
# memory of a process is at least that of its parent.
MEASURED = """
import os, subprocess, sys, time
begun = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - begun, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Figure(NamedTuple):
    """A measurement: what, the value, the target, and whether it is reached."""

    what: str
    measured: str
    target: str
    reached: bool


class Ran(NamedTuple):
    """Seconds that a process took, its peak memory in MB, and what it printed to stderr."""

    seconds: float
    megabytes: float
    err: str


def run(*command: object, cwd: Path, cache: Path) -> Ran:
    """Runs a process to its end."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONWARNINGS": "ignore"}
    arguments = [sys.executable, "-c", MEASURED, *map(str, command)]
    ran = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{command} failed:\n{ran.stderr}")
    seconds, memory = ran.stdout.splitlines()[-1].split()
    return Ran(float(seconds), float(memory) / (2**20 if sys.platform == "darwin" else 2**10), ran.stderr)


def fit(work: Path, backbone: str = "resnet18") -> tuple[object, ...]:
    """The command line of a fit on the drawn pictures."""
    config = ROOT / f"configs/{backbone}_multi_sgd_cpu.yaml"
    return ("fit", "--config", config, "--model.weights", "none", *drawn(work))


def drawn(work: Path) -> tuple[object, ...]:
    """The options that name the drawn pictures."""
    return ("--data.train_dir", work / "pictures/dataset", "--data.test_dir", work / "pictures/test_images")


def figure(name: str, case: str, value: float, measured: str, more: str = "") -> Figure:
    """A measurement that has a target.

    Args:
        name: of the target.
        case: of its cases; empty where there is one.
        value: measured.
        measured: the value as text, with what it comes from.
        more: what else to say of how it was measured.
    """
    target = TARGETS[name]
    what = ", ".join(filter(None, (target.what, case, more)))
    return Figure(what, measured, target.demanded([case]), target.reached(case, value))


def ratio(ours: float, other: float) -> str:
    """The ratio of two speeds, in pictures per second."""
    return f"{ours:.0f}/s : {other:.0f}/s = {ours / other:.2f}"


def seconds_of(action: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun
