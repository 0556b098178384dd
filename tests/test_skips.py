"""In CI no test skips that the machine could run."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

TESTS = """
import pytest

@pytest.fixture(scope="session", autouse=True)
def random_networks_settled_once(): pass  # the one of conftest imports torch

@pytest.fixture(params=["", "in CI"])
def browser(request, monkeypatch):
    if request.param:
        monkeypatch.setenv("GEL_NO_SKIPS", "1")
    pytest.skip("there is no browser")

def test_of_a_page(browser): pass

@pytest.mark.skipif(True, reason="there is a GPU")
def test_of_another_machine(): pass

@pytest.mark.real
def test_of_real_pictures(browser): pass
"""


def test_a_test_that_skips_for_want_of_a_browser_fails_in_ci(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    environment = {name: value for name, value in os.environ.items() if name != "GEL_NO_SKIPS"}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT / "tests"), str(ROOT)))
    options = ["-p", "conftest", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", tmp_path]
    command = [sys.executable, "-m", "pytest", *options]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 1, ran.stdout
    assert "4 skipped, 1 error" in ran.stdout
    assert "::test_of_a_page[in CI] - " in ran.stdout
    assert "there is no browser" in ran.stdout


def test_ci_asks_for_it() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert script.index("apt-get install") < script.index("export GEL_NO_SKIPS=1") < script.index("make test\n")
