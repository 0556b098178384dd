"""The short help is one screen, true, and quick."""

import shlex
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from conftest import gel_fit

from gel_lightning import __version__
from gel_lightning.cli.help import COMMANDS, PAGES, help_page
from gel_lightning.cli.parser import Parser
from gel_lightning.core.store import default_cache_dir
from gel_lightning.detector import identity
from gel_lightning.models.spec import class_name


def in_a_process(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "args", [["--help"], ["fit", "-h"], ["data", "check", "--help"], ["--version"], ["train"], ["data"], []], ids=str
)
def test_help_version_and_mistyped_commands_import_nothing_heavy(args: list[str]) -> None:
    ran = in_a_process(f"""
import sys
sys.argv = ["gel-fit", *{args!r}]
from gel_lightning.__main__ import run
try:
    run()
except SystemExit as stop:
    print(stop.code, {{"torch", "lightning", "jsonargparse", "numpy", "rich"}} & set(sys.modules), file=sys.stderr)
""")
    asked = bool({"--help", "-h", "--version"} & set(args))
    assert ran.stderr.splitlines()[-1] == ("0 set()" if asked else "2 set()")
    assert bool(ran.stdout) == asked


@pytest.mark.parametrize("command", ["", "data", *COMMANDS])
def test_each_page_is_one_screen_and_names_all_commands(command: str, tmp_path: Path) -> None:
    ran = gel_fit(*command.split(), "--help", cwd=tmp_path)
    assert (ran.status, ran.out, ran.err) == (0, help_page(command) + "\n", "")
    lines = ran.out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"usage: gel-fit {command}")
    if command != "data":
        for other in COMMANDS:
            assert other.split()[0] in ran.out.split("commands:")[1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("args", [["help"], ["help", "fit"], ["-h", "fit"], ["fit", "--config", "absent.yaml", "-h"]])
def test_other_ways_to_ask_for_help(args: list[str], tmp_path: Path) -> None:
    page = help_page("fit" if "fit" in args else "")
    assert gel_fit(*args, cwd=tmp_path) == (0, f"{page}\n", "")


@pytest.mark.parametrize("args", [["--version"], ["version"]])
def test_version(args: list[str], tmp_path: Path) -> None:
    assert gel_fit(*args, cwd=tmp_path) == (0, f"gel-fit {__version__}\n{identity()}\n", "")


@pytest.mark.parametrize(("command", "option"), [(c, o) for c, page in PAGES.items() for o in page.options])
def test_each_option_is_the_parsers_with_its_default(command: str, option: Any, parsers: dict[str, Parser]) -> None:
    name = option.name.removeprefix("--")
    assert name in parsers[command].option_names()
    default: Any = parsers[command].get_defaults()
    for part in name.replace("optimizer.lr", "optimizer.init_args.lr").split("."):
        default = default[part]
    if isinstance(default, list):
        default = " ".join(default)
    if "class_path" in (default if isinstance(default, dict | Namespace) else ()):
        default = class_name(default)
    if default == default_cache_dir():  # of the user, and so described in words
        default = None
    expected = option.default if option.value else "False"
    assert (None if default is None else str(default)) == expected


@pytest.mark.parametrize("example", [example for page in PAGES.values() for example in page.examples])
def test_examples_name_real_commands_and_options(example: str, parsers: dict[str, Parser]) -> None:
    program, *words = shlex.split(example)
    command = " ".join(words[:2]) if words[0] == "data" else words[0]
    assert program == "gel-fit"
    names = {word.removeprefix("--").partition("+=")[0] for word in words if word.startswith("--")}
    assert names <= parsers[command].option_names()


@pytest.mark.parametrize("command", ["fit", "predict", "compare", "data check"])
def test_help_all_has_every_option(command: str, parsers: dict[str, Parser], tmp_path: Path) -> None:
    ran = gel_fit(*command.split(), "--help_all", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    text = "".join(ran.out.split())  # lines are broken at spaces and after hyphens
    assert "".join(PAGES[command].summary.split()) in text
    given_in_full = {name for name in parsers[command].option_names() if name.count(".") <= 1} - {"comparison"}
    groups = {name.partition(".")[0] for name in given_in_full if "." in name}
    for name in given_in_full - groups:
        assert f"--{name}" in text
