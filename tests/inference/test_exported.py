"""Reading an exported file: without PyTorch, and only what gel-fit has written."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import ROOT, refused
from onnx import TensorProto, helper, numpy_helper

from gel_lightning.inference.exported import ExportedModel


def tiny(path: Path, **metadata: str) -> bytes:
    """A model of the right input and output: the share of white, and the rest."""
    pictures = helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["n", 1, "height", "width"])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])
    constants = [
        numpy_helper.from_array(np.array([1, 2, 3]), "axes"),
        numpy_helper.from_array(np.array([[1 / 255, -1 / 255]], np.float32), "slope"),
        numpy_helper.from_array(np.array([[0, 1]], np.float32), "start"),
    ]
    nodes = [
        helper.make_node("Cast", ["pictures"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "axes"], ["mean4"]),
        helper.make_node("Flatten", ["mean4"], ["mean"]),
        helper.make_node("MatMul", ["mean", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "start"], ["probabilities"]),
    ]
    graph = helper.make_graph(nodes, "tiny", [pictures], [probabilities], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    own = {"class_names": '["gel", "not_gel"]', "thresholds": "[0.9, 0.8]", "image_size": "32"}
    helper.set_model_props(model, own | metadata)
    path.write_bytes(model.SerializeToString())
    return path.read_bytes()


def test_a_file_classifies(tmp_path: Path) -> None:
    tiny(tmp_path / "m.onnx")
    model = ExportedModel.load(tmp_path / "m.onnx")
    assert model.class_names == ("gel", "not_gel")
    assert model.thresholds == (0.9, 0.8)
    assert model.metadata["thresholds"] == "[0.9, 0.8]"
    found = model(np.full((3, 1, 5, 7), 51, np.uint8))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.2, 0.8]] * 3, atol=1e-6)


@pytest.mark.parametrize(
    "metadata",
    [
        {"class_names": "gel"},
        {"class_names": "3"},
        {"class_names": '["gel"]'},
        {"class_names": '["gel", "gel"]'},
        {"thresholds": "[0.9]"},
        {"thresholds": '["high", "low"]'},
        {"thresholds": '{"gel": 1}'},
        {"image_size": "large"},
        {"image_size": "0"},
    ],
)
def test_other_metadata_is_refused(metadata: dict[str, str], tmp_path: Path) -> None:
    content = tiny(tmp_path / "m.onnx", **metadata)
    assert "m.onnx: not a model that gel-fit export has written" in refused(lambda: ExportedModel(content, "m.onnx"))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x0a" * 500])
def test_other_files_are_refused(content: bytes) -> None:
    assert "not a model" in refused(lambda: ExportedModel(content))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    content = tiny(tmp_path / "m.onnx")
    assert "damaged" in refused(lambda: ExportedModel(content[:-40]))


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refused(lambda: ExportedModel.load(tmp_path / "absent.onnx"))


def test_no_other_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny(tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.save_model(proto, tmp_path / "out.onnx", save_as_external_data=True, location="data", size_threshold=0)
    assert (tmp_path / "data").exists()
    assert "not a model" in refused(lambda: ExportedModel.load("out.onnx"))


def test_pytorch_is_not_imported(tmp_path: Path) -> None:
    tiny(tmp_path / "m.onnx")
    code = (
        "import sys; from gel_lightning.inference.exported import ExportedModel; "
        "ExportedModel.load(sys.argv[1]); print([name for name in sys.modules if name in ('torch', 'lightning')])"
    )
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120, "cwd": ROOT}
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "m.onnx"], **options).stdout == "[]\n"
