"""The wheel, and the few packages that the README names, are enough for `gel-fit find`."""

import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from PIL import Image
from test_exported import tiny

ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def needed(name: str, found: dict[str, Distribution]) -> None:
    """Adds a package that is installed here to those found, with all that it needs."""
    if name in found:
        return
    found[name] = distribution(name)
    for text in found[name].requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed(requirement.name, found)


def link(package: Distribution, folder: Path) -> None:
    """Links what a package has installed here into another folder for packages."""
    for top in {Path(file).parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
        place, source = folder / top, Path(str(package.locate_file(top)))
        if not place.exists() and source.exists():
            place.symlink_to(source, target_is_directory=source.is_dir())


@pytest.fixture
def light(tmp_path: Path) -> Path:
    """The folder of an environment's programs: with pip's wheel of this project, and the packages of the README."""
    options: dict[str, Any] = {"check": True, "capture_output": True, "cwd": tmp_path, "env": ALONE, "timeout": 300}
    shutil.copytree(ROOT / "gel_lightning", tmp_path / "source/gel_lightning")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", "wheels", "./source"], **options)
    venv.create(tmp_path / "venv", symlinks=os.name != "nt")
    python = next(path for path in (tmp_path / "venv").glob("*/python*") if path.is_file())
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], **options)
    (packages,) = (tmp_path / "venv").rglob("site-packages")
    named = re.search(r"^    pip install (numpy .*)$", README, re.MULTILINE)
    assert named is not None
    found: dict[str, Distribution] = {}
    for name in named[1].split():
        needed(name, found)
    for package in found.values():
        link(package, packages)
    assert not found.keys() & {"torch", "lightning"}
    return python.parent


@pytest.mark.slow
def test_find_works_with_the_few_packages_that_the_readme_names(light: Path, tmp_path: Path) -> None:
    tiny(tmp_path / "m.onnx")
    Image.new("L", (7, 5), 255).save(tmp_path / "white.png")
    Image.new("I;16", (40, 30), 7).save(tmp_path / "deep.tif")
    options: dict[str, Any] = {"cwd": tmp_path, "env": ALONE, "capture_output": True, "text": True}
    command = [light / "gel-fit", "find", "white.png", "deep.tif", "--page", "gels.html", "--sort_to", "sorted"]
    ran = subprocess.run([*command, "--model", "m.onnx", "--explain"], check=False, timeout=120, **options)
    assert (ran.returncode, ran.stdout) == (0, "white.png\n"), ran.stderr
    assert (tmp_path / "sorted/gel/white.png").exists()
    ran = subprocess.run([light / "gel-fit", "fit"], check=False, timeout=120, **options)
    assert ran.returncode == 1
    assert " is not installed, which gel-fit find alone can do without; run pip install gel-lightning" in ran.stderr
    assert ran.stderr.count("\n") == 1
