"""What the README shows works as it stands."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, save_data_set
from PIL import Image
from test_exported import tiny

README = (ROOT / "README.md").read_text(encoding="utf-8")
captured = {"capture_output": True, "text": True, "timeout": 300}


@pytest.fixture
def run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Runs a Python script in this process, in the folder of the test, and gives back what it prints."""

    def run(script: str) -> str:
        monkeypatch.chdir(tmp_path)
        exec(compile(script, "README.md", "exec"), {"__name__": "__main__"})
        return capsys.readouterr().out

    return run


@pytest.mark.filterwarnings("ignore")
def test_python_script_trains_and_tests(tmp_path: Path, run_here: Callable[[str], str]) -> None:
    script = re.search(r"```python\n([^`]*Trainer.*?)```", README, re.DOTALL)
    assert script is not None
    save_data_set(tmp_path / "pictures")
    shorter = script[1].replace("max_epochs=20", "max_epochs=1")
    offline = shorter.replace('backbone="resnet18",', 'backbone="resnet18", weights="none",')
    assert len({script[1], shorter, offline}) == 3
    assert "test/accuracy" in run_here(offline)


def test_python_finds_gels(tmp_path: Path, run_here: Callable[[str], str]) -> None:
    script = re.search(r"```python\n([^`]*Detector.*?)```", README, re.DOTALL)
    assert script is not None
    save_data_set(tmp_path / "pictures", per_class=2)
    tiny(tmp_path / "m.onnx")
    own = script[1].replace("Detector()", 'Detector("m.onnx", "best-guess")').replace("rows.to_pandas()", "")
    assert "pictures/" in run_here(own)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder with a picture, and a model whose probabilities are the share of white and the rest."""
    tiny(tmp_path / "gel.onnx")
    Image.new("L", (7, 5), 51).save(tmp_path / "picture.png")
    return tmp_path


def shares(printed: str) -> list[float]:
    """The probabilities in what a script prints."""
    return [round(float(value), 4) for value in re.findall(r"0\.\d+", printed)]


@pytest.mark.usefixtures("exported")
def test_python_runs_an_exported_model(run_here: Callable[[str], str]) -> None:
    script = re.search(r"```python\n([^`]*onnxruntime.*?)```", README, re.DOTALL)
    assert script is not None
    assert shares(run_here(script[1])) == [0.2, 0.8]


def test_javascript_runs_an_exported_model(exported: Path) -> None:
    script = re.search(r"```javascript\n(.*?)```", README, re.DOTALL)
    assert script is not None
    node, needed = shutil.which("node"), "onnxruntime-node"
    if node is None or subprocess.run([node, "-e", f"require('{needed}')"], cwd=exported, **captured).returncode:
        pytest.skip(f"node or {needed} is not here (set NODE_PATH)")
    picture = "const [height, width] = [5, 7], grey = new Uint8Array(height * width).fill(51);\n"
    code = f"(async () => {{\n{picture}{script[1]}}})();\n"
    ended = subprocess.run([node, "-e", code], cwd=exported, **captured)
    assert ended.returncode == 0, ended.stderr
    assert shares(ended.stdout) == [0.2, 0.8]


@pytest.mark.parametrize("target", re.findall(r"^    make (\w+)", README, re.MULTILINE))
def test_makefile_has_the_targets(target: str) -> None:
    listed = subprocess.run(["make"], cwd=ROOT, **captured)
    assert re.search(rf"make {target}\b", listed.stdout), listed.stdout


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)]+)\)|(?:--config )(configs/\S+)", README))
def test_named_files_are_there(path: tuple[str, str]) -> None:
    assert (ROOT / "".join(path)).exists()
