"""What the README shows works as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, save_data_set
from torchvision.models import ResNet18_Weights, resnet18

README = (ROOT / "README.md").read_text(encoding="utf-8")
captured = {"capture_output": True, "text": True, "timeout": 300}


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub cache with a random network in the place of the ImageNet weights."""
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(resnet18().state_dict(), checkpoints / ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1])
    return tmp_path


def test_python_script_trains_and_tests(tmp_path: Path, hub: Path) -> None:
    script = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert script is not None
    save_data_set(tmp_path / "pictures")
    shorter = script[1].replace("max_epochs=20", "max_epochs=1")
    assert shorter != script[1]
    ended = subprocess.run(
        [sys.executable, "-c", shorter], cwd=tmp_path, env=os.environ | {"TORCH_HOME": str(hub)}, **captured
    )
    assert ended.returncode == 0, ended.stderr
    assert "test/accuracy" in ended.stdout


@pytest.mark.parametrize("target", re.findall(r"^    make (\w+)", README, re.MULTILINE))
def test_makefile_has_the_targets(target: str) -> None:
    listed = subprocess.run(["make"], cwd=ROOT, **captured)
    assert re.search(rf"make {target}\b", listed.stdout), listed.stdout


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)]+)\)|(?:--config )(configs/\S+)", README))
def test_named_files_are_there(path: tuple[str, str]) -> None:
    assert (ROOT / "".join(path)).exists()
