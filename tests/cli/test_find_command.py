"""`gel-fit find` as a person or a program runs it."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Ran, gel_fit, read_rows
from PIL import Image
from test_cli import assert_error, wait_for
from test_exported import tiny

from gel_lightning.__main__ import CLOSED
from gel_lightning.cli import find

FEW = {"black.png": 0, "deep/middle.png": 127, "white.png": 255, "white_2.png": 254}
UNREAD = "could not be read: in/cut.png: is empty (0 bytes)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the model `tiny` and pictures of four greys, one that cannot be read and a text, in `in`."""
    tiny(tmp_path / "m.onnx")
    for name, value in FEW.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (7, 5), value).save(path)
    (tmp_path / "in/cut.png").touch()
    (tmp_path / "in/notes.txt").touch()
    return tmp_path


def found(folder: Path, *args: object) -> Ran:
    return gel_fit("find", "--model", "m.onnx", *args, cwd=folder)


def test_into_a_pipe_go_the_paths_of_what_is_looked_for(folder: Path) -> None:
    ran = found(folder, "in")
    assert (ran.status, ran.out) == (1, "in/white.png\nin/white_2.png\n")
    assert ran.err.splitlines() == [
        "2 of 5 pictures are gels, 1 unsure, 1 could not be read, 1 file left out (1 .txt)",
        UNREAD,
    ]
    assert found(folder, "in", "--null").out == "in/white.png\0in/white_2.png\0"
    assert found(folder, "in", "--class", "not_gel").out == "in/black.png\n"
    ran = found(folder, "--confidence", "best-guess", "in/deep", "in/white.png", "--class=not_gel")
    assert ran == (0, "in/deep/middle.png\n", "1 of 2 pictures is not_gel\n")


def test_a_person_is_shown_what_was_found_and_what_is_unsure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "_is_terminal", lambda: True)
    ran = found(folder, "in")
    assert ran.out.splitlines() == [
        "gel:",
        "  1.000  gel  in/white.png",
        "  0.996  gel  in/white_2.png",
        "unsure:",
        "  0.502  not_gel  in/deep/middle.png",
        "2 of 5 pictures are gels, 1 unsure, 1 could not be read, 1 file left out (1 .txt)",
        UNREAD,
    ]
    assert "in/" not in ran.err
    assert found(folder, "in/white.png").out == "in/white.png is classified as gel, with probability 1.000\n"
    assert found(folder, "in/white.png", "--json").out.startswith("{")


def test_json_has_a_line_for_each_picture_and_shards_are_all_of_them(folder: Path) -> None:
    whole = found(folder, "in", "--json").out.splitlines()
    rows = [json.loads(line) for line in whole]
    assert [row["path"] for row in rows] == sorted(f"in/{name}" for name in (*FEW, "cut.png"))
    assert [row["answer"] for row in rows] == ["not_gel", "", "unsure", "gel", "gel"]
    shards = [found(folder, "in", "--json", "--shard", f"{k}/3").out.splitlines() for k in (1, 2, 3)]
    assert list(map(len, shards)) == [2, 2, 1]
    assert sorted(line for shard in shards for line in shard) == sorted(whole)
    assert found(folder, "in/white.png", "--shard", "2/2") == (0, "", "0 of 0 pictures are gels\n")


def test_the_table_has_a_row_for_each_picture(folder: Path) -> None:
    ran = found(folder, "in", "--csv", "new/gels.csv")
    assert ran.out == "in/white.png\nin/white_2.png\n"
    rows = read_rows(folder / "new/gels.csv")
    assert [row["answer"] for row in rows] == ["not_gel", "", "unsure", "gel", "gel"]
    assert rows[2]["probability_gel"] == "0.498039"


@pytest.mark.parametrize(
    ("named", "fail_if", "status"),
    [("in/white.png", "gel", 3), ("in/black.png", "gel", 0), ("in/deep", "unsure", 3), ("in", "gel", 3)],
)
def test_the_status_says_whether_there_is_one_of_a_class(folder: Path, named: str, fail_if: str, status: int) -> None:
    assert found(folder, named, "--fail_if", fail_if).status == status


def test_a_list_on_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b"in/white.png\0in/gone.png\0")

    monkeypatch.setattr(sys, "stdin", Stdin)
    ran = found(folder, "-", "in/deep")
    assert (ran.status, ran.out) == (1, "in/white.png\n")
    assert "could not be read: in/gone.png: cannot be opened (No such file or directory)" in ran.err


@pytest.mark.parametrize(
    ("args", "text", "status"),
    [
        ([], "name pictures, or folders of them; - takes a list from standard input (see gel-fit find --help)", 2),
        (["gone"], "gone: no such file or folder; check the path", 1),
        (["empty"], "empty: no picture; name pictures, or folders of them", 1),
        (["in", "--link"], "--link says how --sort_to is done, which is not given (see gel-fit find --help)", 2),
        (["in", "--explain"], "--explain says how --page is done, which is not given (see gel-fit find --help)", 2),
        (["in", "--json", "--null"], "--null ends paths, and --json prints none", 2),
        (["in", "--shard", "4/3"], "--shard 4/3: give K/N, such as 3/16", 2),
        (["in", "--confidence", "sure"], "--confidence sure: choose high, medium, best-guess (see", 2),
        (["in", "--class", "gul"], "--class gul: the model has no such class; choose gel, not_gel (see", 2),
        (["in", "--fail_if", "gul"], "--fail_if gul: the model has no such class; choose gel, not_gel (see", 2),
        (["in", "--null", "--dry_run", "--sort_to", "new"], "--null and --dry_run both say what is printed", 2),
        (["in", "--csv"], "--csv needs a value after it (see", 2),
        (["in", "--csv", "in"], "in: is a folder, not a file; name another with --csv", 1),
        (["in", "--page", "in"], "in: is a folder, not a file; name another with --page", 1),
        (["in", "--conf", "high"], "no option --conf; did you mean --confidence? (see", 2),
        (["--input", "in"], "no option --input; pictures and folders need none: gel-fit find pictures (see", 2),
        (["in", "--model", "in/notes.txt"], "in/notes.txt: not a model that gel-fit export has written, or damaged", 1),
        (["in", "--model", "in"], "in: is a folder, not a file", 1),
    ],
    ids=str,
)
def test_wrong_usage_is_one_line(folder: Path, args: list[str], text: str, status: int) -> None:
    (folder / "empty").mkdir()
    assert_error(found(folder, *args), text, status=status)
    assert {path.name for path in folder.iterdir()} == {"m.onnx", "in", "empty"}


def test_names_of_any_bytes_come_out_as_they_are(folder: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.png"), "new\nline.png", "\x1b[31m.png", "=1.png"]
    for name in names:
        Image.new("L", (7, 5), 255).save(folder / name)
    (folder / "\x1bcut.png").touch()
    command = [sys.executable, "-m", "gel_lightning", "find", "--model", "m.onnx", *names, "\x1bcut.png", "--null"]
    ran = subprocess.run([*command, "--csv", "a.csv"], cwd=folder, capture_output=True, timeout=60, check=False)
    assert sorted(ran.stdout.split(b"\0")) == sorted([b"", *map(os.fsencode, names)])
    assert ran.returncode == 1
    assert b"\x1b" not in ran.stderr
    with (folder / "a.csv").open(newline="", encoding="utf-8-sig") as file:
        assert {row["path"] for row in csv.DictReader(file)} >= {"./=1.png", r"caf\udce9.png"}


def test_nothing_of_pytorch_is_imported_and_nothing_told_to_anybody(folder: Path) -> None:
    code = """
import sys
sys.argv[1:] = ["find", "--model", "m.onnx", "in", "--csv", "a.csv"]
from gel_lightning.__main__ import run
import os
os._exit = sys.exit
try:
    run()
finally:
    print(sorted({"torch", "lightning", "torchvision", "jsonargparse", "scipy"} & set(sys.modules)))
"""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    options: dict[str, Any] = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 60}
    ran = subprocess.run([sys.executable, "-c", code], check=False, **options)
    assert ran.stdout.splitlines() == ["in/white.png", "in/white_2.png", "[]"], ran.stderr
    assert [path.name for path in (folder / "cache").iterdir()] == ["gel-lightning"]  # ONNX Runtime writes there too


@pytest.fixture
def slow(folder: Path) -> list[str]:
    """A command that takes long, with 3,000 pictures of its own."""
    content = np.random.default_rng(0).integers(0, 256, (400, 400), np.uint8)
    Image.fromarray(content).save(folder / "one.png", compress_level=0)
    (folder / "many").mkdir()
    for number in range(3000):
        os.link(folder / "one.png", folder / f"many/{number:04}.png")
    Image.new("L", (7, 5), 255).save(folder / "many/!.png")  # the first
    return [sys.executable, "-m", "gel_lightning", "find", "--model", "m.onnx", "many", "--csv", "gels.csv"]


def test_a_reader_that_has_enough_ends_it_quietly(folder: Path, slow: list[str]) -> None:
    with subprocess.Popen([*slow, "--json"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["path"] == "many/!.png"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == CLOSED
    assert {path.name for path in folder.iterdir()} == {"m.onnx", "in", "one.png", "many"}


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_what_is_stopped_leaves_no_half_table(folder: Path, slow: list[str], by: signal.Signals) -> None:
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        heed: Any = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
        process = subprocess.Popen(slow, cwd=folder, stdout=out, stderr=err, preexec_fn=heed)
    wait_for(lambda: (folder / "out").stat().st_size > 0, process)
    process.send_signal(by)
    assert process.wait(timeout=60) == (find.INTERRUPTED if by == signal.SIGINT else -by)
    assert (folder / "err").read_text() == ""
    assert not (folder / "gels.csv").exists()


def test_the_command_is_the_same_as_a_process_of_its_own(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gel_lightning", "find", "--model", "m.onnx", "in"]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == found(folder, "in")


@pytest.mark.parametrize(("option", "suffix"), [("--csv", ".csv"), ("--page", ".html")])
def test_a_picture_is_not_taken_for_what_is_written(option: str, suffix: str, folder: Path) -> None:
    before = (folder / "in/white.png").read_bytes()
    assert_error(found(folder, "in", option, "in/white.png"), f"{option} in/white.png", suffix)
    assert (folder / "in/white.png").read_bytes() == before


def test_the_searched_folder_is_no_place_to_sort_to(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    for target in ("in", "in/deep"):
        assert_error(found(folder, "in", "--sort_to", target), f"{target}: holds files", "--sort_to")
    assert sorted(folder.rglob("*")) == before
