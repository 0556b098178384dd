import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, gel_fit, save_data_set

import gel_lightning

# The process of the command with a main of the test's own, and so without a second of imports.
PROCESS = """
import atexit, os, sys, threading, time, types
package, cli = types.ModuleType("gel_lightning"), types.ModuleType("gel_lightning.cli")
package.__path__ = PATH
sys.modules.update({"gel_lightning": package, "gel_lightning.cli": cli})

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
    commands = {1: ["data", "check", "--data.train_dir", "pictures"], 2: ["fit", "--model.bakbone", "vgg16"]}
    processes = {
        status: subprocess.Popen(
            [sys.executable, "-m", "gel_lightning", *args],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for status, args in commands.items()
    }
    for status, process in processes.items():
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out, err) == gel_fit(*commands[status], cwd=tmp_path)
        assert process.returncode == status


def test_importing_the_package_leaves_the_garbage_collector_as_it_was() -> None:
    code = """
import gc, sys
for collects in (True, False):
    if not collects:
        gc.disable()
        del sys.modules["gel_lightning"]
    import gel_lightning
    assert (gc.isenabled(), gc.get_freeze_count()) == (collects, 0)
gc.enable()
gc.freeze()
frozen = gc.get_freeze_count()
del sys.modules["gel_lightning"]
import gel_lightning
assert gc.isenabled()
assert gc.get_freeze_count() > frozen / 2  # some are freed
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
