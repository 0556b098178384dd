import copy
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import FIT, ROOT, gel_fit, refused, save_data_set
from test_extraction import assert_alike, data_of, fit, make_trainer

from gel_lightning import GelClassifier, LinearHead
from gel_lightning.core.store import list_stores
from gel_lightning.features import runtime as runtime_module
from gel_lightning.features.runtime import CHUNK, MANY_PICTURES, Choice, Runtime
from gel_lightning.models.backbones import cut_at
from gel_lightning.models.network import Network, load_trunk

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


def trainer_of(device: str = "cpu", precision: str = "32-true") -> Any:
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)), precision=precision)


def chosen(asked: Choice, pictures: int, backbone: str = "resnet18", unfreeze: float = 0.0, **options: str) -> Runtime:
    runtime = Runtime(asked)
    runtime.choose(trainer_of(**options), Network(backbone, "none", unfreeze=unfreeze), pictures)
    return runtime


@pytest.mark.parametrize(
    ("asked", "pictures", "options", "onnx"),
    [
        ("auto", MANY_PICTURES, {}, True),
        ("auto", MANY_PICTURES - 1, {}, False),
        ("auto", MANY_PICTURES, {"device": "cuda"}, False),
        ("auto", MANY_PICTURES, {"device": "xla"}, False),
        ("auto", MANY_PICTURES, {"precision": "bf16-mixed"}, False),
        ("auto", MANY_PICTURES, {"precision": "64-true"}, False),
        ("auto", MANY_PICTURES, {"backbone": "convnext_tiny"}, False),
        ("auto", MANY_PICTURES, {"unfreeze": 1.0}, False),
        ("torch", MANY_PICTURES, {}, False),
        ("onnx", 0, {}, True),
    ],
)
def test_what_is_chosen(asked: Choice, pictures: int, options: Any, onnx: bool) -> None:
    runtime = chosen(asked, pictures, **options)
    assert runtime.onnx == onnx
    assert runtime.chosen == ("onnx" if onnx else "torch")
    assert list(runtime.identity) == ["runtime"] * onnx


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"device": "cuda"}, "on the CPU alone, not on cuda"),
        ({"precision": "bf16-mixed"}, "not in --trainer.precision bf16-mixed"),
        ({"backbone": "convnext_tiny"}, "convnext_tiny are not known"),
        ({"unfreeze": 1.0}, "no layer is frozen"),
    ],
)
def test_onnx_is_refused_where_it_cannot_be(options: Any, why: str) -> None:
    assert why in refused(lambda: chosen("onnx", 0, **options))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("unfreeze", [0.0, 0.2])
def test_features_are_torchs(unfreeze: float, channels: int) -> None:
    trunk = load_trunk("resnet18", "none", cut_at("resnet18", unfreeze).place)
    runtime, pictures = chosen("onnx", 0), torch.rand(2 * CHUNK + 1, channels, 40, 40)
    expected = trunk(pictures)
    for number in (1, CHUNK, len(pictures)):
        features = runtime(trunk, pictures[:number])
        assert runtime._sessions, "torch has computed them"
        torch.testing.assert_close(features, expected[:number], rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_a_copy_computes_too() -> None:
    trunk, runtime, pictures = load_trunk("resnet18", "none"), chosen("onnx", 0), torch.rand(2, 1, 32, 32)
    features = runtime(trunk, pictures)
    for other in (copy.deepcopy(runtime), pickle.loads(pickle.dumps(runtime))):
        assert other.onnx
        assert torch.equal(other(trunk, pictures), features)


def losses(folder: Path, cache: Path | None, runtime: Choice, unfreeze: float) -> tuple[list[float], Any]:
    """The losses of a training, and what was stored."""
    torch.manual_seed(0)
    model = GelClassifier("resnet18", "none", LinearHead, unfreeze=unfreeze, runtime=runtime,
                          class_names=["gel", "not_gel"])  # fmt: skip
    found: list[float] = []
    model.on_train_batch_end = lambda outputs, *_: found.append(outputs["loss"].item())  # type: ignore[assignment]
    make_trainer(folder).fit(model, datamodule=data_of(folder, cache))
    assert model.runtime.onnx == (runtime == "onnx")
    return found, list_stores(cache) if cache else []


@pytest.mark.parametrize("unfreeze", [0.0, 0.1])
@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_stored_and_recomputed_training_agree(
    runtime: Choice, unfreeze: float, train_dir: Path, tmp_path: Path
) -> None:
    stored, stores = losses(train_dir, tmp_path, runtime, unfreeze)
    recomputed, _ = losses(train_dir, None, runtime, unfreeze)
    assert len(set(stored)) > 3
    torch.testing.assert_close(stored, recomputed, rtol=0, atol=1e-5)
    named = ["runtime" in store.key for store in stores if store.key["kind"] == "features"]
    assert set(named) == {runtime == "onnx"}


@pytest.mark.parametrize("cached", [True, False])
def test_where_features_differ_torch_computes_them_and_says_so(
    cached: bool, train_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "MANY_PICTURES", 1)
    monkeypatch.setattr(runtime_module, "TOLERANCE", -1.0)
    with pytest.warns(UserWarning, match="torch computes features, since ONNX Runtime gives features that differ"):
        record = fit(data_of(train_dir, tmp_path / "a" if cached else None), train_dir)
    monkeypatch.setattr(runtime_module, "MANY_PICTURES", 1000)
    assert_alike(record, fit(data_of(train_dir, tmp_path / "b"), train_dir))
    stores = [list_stores(tmp_path / name) for name in "ab"]
    if cached:
        assert {store.folder.name for store in stores[0]} == {store.folder.name for store in stores[1]}


def test_where_features_differ_onnx_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "TOLERANCE", -1.0)
    runtime, trunk = chosen("onnx", 0), load_trunk("resnet18", "none")
    assert "give --model.runtime torch" in refused(lambda: runtime(trunk, torch.rand(1, 1, 32, 32)))


def test_validation_and_test_find_what_a_fit_has_stored(tmp_path: Path) -> None:
    """The runtime does not depend on the stage: each has fewer pictures than all together."""
    folder = save_data_set(tmp_path / "pictures", MANY_PICTURES // 2)
    data = data_of(folder, tmp_path / "cache", predict_dir=None)
    model = GelClassifier("resnet18", "none", class_names=["gel", "not_gel"])
    trainer = make_trainer(tmp_path, epochs=1)
    for stage in (partial(trainer.fit, model), partial(trainer.validate, model), partial(trainer.test, model)):
        stage(datamodule=data)
        assert model.runtime.onnx
    assert data.cache is not None
    assert data.cache.computed == MANY_PICTURES
    assert sum(store.key["kind"] == "features" for store in list_stores(tmp_path / "cache")) == 1


def test_the_option(pictures: tuple[object, ...], tmp_path: Path) -> None:
    options = (*FIT, *pictures, "--data.cache_dir", tmp_path / "cache")
    ran = gel_fit("fit", *options, "--model.runtime", "onnx", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    assert "runtime" not in torch.load(checkpoint, weights_only=True)["hyper_parameters"]
    test = ("test", "--ckpt_path", checkpoint, *pictures, "--data.cache_dir", tmp_path / "cache")
    for runtime in ("torch", "onnx"):
        tested = gel_fit(*test, "--model.runtime", runtime, "--trainer.accelerator", "cpu", cwd=tmp_path)
        assert (tested.status, tested.err) == (0, "")
    ran = gel_fit("fit", *options, "--model.runtime", "onnx", "--trainer.precision", "bf16-true", cwd=tmp_path)
    assert ran.status == 1
    assert ran.err.count("\n") == 1
    assert "--model.runtime onnx: it computes in 32 bits" in ran.err


NOTHING_COMPUTED = """
import sys
from gel_lightning.cli.main import main
status = main()
print(*[name for name in ("onnx", "onnxruntime") if name in sys.modules], sep=",")
sys.exit(status)
"""


def test_onnx_runtime_is_imported_only_to_compute(pictures: tuple[object, ...], tmp_path: Path) -> None:
    arguments = ["fit", *FIT, *pictures, "--data.cache_dir", tmp_path / "cache", "--model.runtime", "onnx"]
    imported = []
    for _ in range(2):
        command = [sys.executable, "-c", NOTHING_COMPUTED, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        ran = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=True
        )
        imported.append(ran.stdout.splitlines()[-1])
    assert imported == ["onnx,onnxruntime", ""]
