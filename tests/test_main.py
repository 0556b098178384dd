import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, gel_fit, save_data_set
from test_cli import wait_for

import gel_lightning
from gel_lightning.__main__ import CLOSED

# The process of the command with a main of the test's own, and so without a second of imports.
PROCESS = """
import atexit, os, sys, threading, time, types
sys.argv = ["gel-fit", "fit"]
package, cli = types.ModuleType("gel_lightning"), types.ModuleType("gel_lightning.cli.main")
package.__path__ = PATH
sys.modules.update({"gel_lightning": package, "gel_lightning.cli.main": cli})

def main():
    BODY

cli.main = main
from gel_lightning.__main__ import run
run()
"""


def ran(body: str) -> "subprocess.CompletedProcess[str]":
    code = PROCESS.replace("PATH", repr(list(gel_lightning.__path__))).replace("BODY", body.replace("\n", "\n    "))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("return 0", 0),
        ("return 1", 1),
        ("return 130", 130),
        ("sys.exit(2)", 2),
        ("sys.exit()", 0),
        ("sys.exit('no')", 1),
        ("raise ValueError('a bug')", 1),
    ],
)
def test_the_exit_status_is_that_of_main(body: str, status: int) -> None:
    process = ran(body)
    assert (process.returncode, process.stdout) == (status, "")
    assert process.stderr.splitlines()[-1:] == {"sys.exit('no')": ["no"]}.get(
        body, ["ValueError: a bug"] if "bug" in body else []
    )


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_output_is_no_file_that_the_run_opens(closed: str, tmp_path: Path) -> None:
    number = {"stdout": 1, "stderr": 2}[closed]
    body = f"""
file = open({str(tmp_path / "results")!r}, "w")
assert file.fileno() != {number}
print("said"); print("said", file=sys.stderr)
os.write({number}, b"said by a library")
file.close()
return 3"""
    code = PROCESS.replace("PATH", repr(list(gel_lightning.__path__))).replace("BODY", body.replace("\n", "\n    "))
    (tmp_path / "code.py").write_text(code)
    process = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" code.py {number}>&-'],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 3, process.stderr
    assert (tmp_path / "results").read_text() == ""


def test_figures_are_drawn_without_the_backend_of_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://absent.backend")
    process = ran("import matplotlib; print(matplotlib.get_backend()); return 0")
    assert (process.returncode, process.stdout.lower()) == (0, "agg\n"), process.stderr


def test_what_is_registered_for_the_end_runs_and_all_output_is_written() -> None:
    body = """
atexit.register(print, "first registered", end="")
atexit.register(sys.stderr.write, "said at the end")
print("x" * 1_000_000, end="")
return 3"""
    process = ran(body)
    assert process.returncode == 3
    assert process.stdout == "x" * 1_000_000 + "first registered"
    assert process.stderr == "said at the end"


def test_a_thread_that_still_writes_is_waited_for(tmp_path: Path) -> None:
    body = f"""
def write():
    time.sleep(0.3)
    open({str(tmp_path / "late")!r}, "w").close()
    print("written")

def sleep():
    time.sleep(60)

threading.Thread(target=sleep, daemon=True).start()
threading.Thread(target=write).start()
return 1"""
    process = ran(body)
    assert (process.returncode, process.stdout, process.stderr) == (1, "written\n", "")
    assert (tmp_path / "late").exists()


def test_the_command_says_through_a_pipe_what_it_says_in_a_terminal(tmp_path: Path) -> None:
    save_data_set(tmp_path / "pictures", per_class=3)
    for number in range(60):
        (tmp_path / f"pictures/gel/cut_{number}.png").write_bytes(b"\x89PNG")
    args = ["data", "check", "--data.train_dir", "pictures"]
    process = subprocess.run(
        [sys.executable, "-m", "gel_lightning", *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == gel_fit(*args, cwd=tmp_path)
    assert process.returncode == 1


def test_main_finds_collector_and_ctrl_c_as_usual() -> None:
    body = """
import gc, signal
assert gc.isenabled()
assert gc.get_freeze_count()
assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL
return 0"""
    process = ran(body)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_it_is_still_importing(ignored: bool, tmp_path: Path) -> None:
    """Ends it with no traceback, unless it was started to pay no heed, as what runs in the background of a script."""
    slow = "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(1)\ndef main(): return 5\n"
    (tmp_path / "cli").mkdir()
    rest = Path(gel_lightning.__path__[0], "cli")
    (tmp_path / "cli" / "__init__.py").write_text(f"__path__.append({str(rest)!r})\n")
    (tmp_path / "cli" / "main.py").write_text(slow)
    code = f"""
import signal, sys, types
sys.argv = ["gel-fit", "fit"]
signal.signal(signal.SIGINT, signal.{"SIG_IGN" if ignored else "default_int_handler"})
sys.modules["gel_lightning"] = types.ModuleType("gel_lightning")
sys.modules["gel_lightning"].__path__ = {[str(tmp_path), *gel_lightning.__path__]!r}
from gel_lightning.__main__ import run
run()
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE)
    wait_for((tmp_path / "importing").exists, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (5 if ignored else -signal.SIGINT, b"")


def test_importing_the_package_takes_no_time_but_its_names_do(fresh_process: dict[str, Any]) -> None:
    assert fresh_process["after the package"] == []
    names: dict[str, Any] = {}
    exec("from gel_lightning import *", names)
    assert set(gel_lightning.__all__) <= names.keys()
    assert names["GelClassifier"].__module__ == "gel_lightning.training.classifier"
    with pytest.raises(AttributeError, match="nothing"):
        _ = gel_lightning.nothing


@pytest.mark.parametrize("args", [["--help"], ["fit", "--help_all"]])
def test_output_that_nobody_reads_is_no_error(args: list[str]) -> None:
    command = [sys.executable, "-m", "gel_lightning", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) in (0, CLOSED)  # argparse does not say that its help was not read
    process.stderr.close()
