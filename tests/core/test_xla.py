import os
import re
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CONFIGS, TINY, gel_fit, read_rows, refused, save_data_set
from lightning.pytorch import Callback, LightningModule, Trainer
from test_cli import assert_error
from torch.utils.data import default_collate

from gel_lightning import GelClassifier, GelDataModule, LinearHead
from gel_lightning.core import xla as accelerators
from gel_lightning.core.distributed import check_devices
from gel_lightning.core.store import Store, list_stores
from gel_lightning.core.xla import NO_LABEL, PaddedBatches, XLAOnCPU, device_name, on_xla, padded, tpu_accelerator
from gel_lightning.data import datamodule
from gel_lightning.data.images import picture_digest
from gel_lightning.features import extraction as features
from gel_lightning.models.backbones import num_features

XLA = find_spec("torch_xla") is not None and os.environ.get("PJRT_DEVICE") == "CPU"
needs_xla = pytest.mark.skipif(not XLA, reason="needs torch_xla and PJRT_DEVICE=CPU: make test-xla")
SAME = ("accuracy", "precision", "recall", "roc_auc", "val_accuracy", "val_auroc", "val_loss", "conf_mat")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
MARKS = {"tpu": (pytest.mark.xla, needs_xla), "gpu": (pytest.mark.gpu, needs_gpu)}
EXACT = {"tpu": 1e-4, "gpu": 1e-3}
ON_EACH = pytest.mark.parametrize("kind", [pytest.param(kind, marks=marks) for kind, marks in MARKS.items()])
ELSEWHERE = [
    pytest.param(path.name, kind, marks=marks, id=path.stem)
    for kind, marks in MARKS.items()
    for path in sorted(CONFIGS.glob(f"*_{kind}.yaml"))
]
BATCHES: list[tuple[str, int, int]] = []  # kind, programs compiled and single numbers read by the start of each batch


# --- without XLA ---


def test_without_torch_xla_both_ways_on_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "find_spec", lambda _: None)
    text = refused(tpu_accelerator)
    assert "gel-lightning[tpu]" in text
    assert "PJRT_DEVICE=CPU" in text
    ran = gel_fit("fit", "--config", CONFIGS / "resnet18_multi_sgd_tpu.yaml", "--model.weights", "none", cwd=tmp_path)
    assert_error(ran, "'tpu'", "gel-lightning[tpu]", "PJRT_DEVICE=CPU", "accelerator cpu")
    assert list(tmp_path.iterdir()) == []


def test_without_a_tpu_both_ways_on_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "find_spec", lambda _: True)
    monkeypatch.setattr(accelerators.XLAAccelerator, "is_available", lambda: False)
    for asked in ("TPU", None):
        monkeypatch.delenv("PJRT_DEVICE", raising=False)
        if asked:
            monkeypatch.setenv("PJRT_DEVICE", asked)
        text = refused(tpu_accelerator)
        assert "no TPU here" in text
        assert "PJRT_DEVICE=CPU" in text
        assert "accelerator cpu" in text


def test_a_tpu_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "find_spec", lambda _: True)
    monkeypatch.setattr(accelerators.XLAAccelerator, "is_available", lambda: True)
    monkeypatch.delenv("PJRT_DEVICE", raising=False)
    assert tpu_accelerator() == "tpu"


@pytest.mark.parametrize("there", [True, False])
def test_no_cloud_is_asked_off_the_cloud(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TPU_SKIP_MDS_QUERY", "TPU_ACCELERATOR_TYPE"):
        monkeypatch.setenv(name, "")  # so that they are put back
        monkeypatch.delenv(name)
    monkeypatch.setattr(accelerators, "find_spec", lambda _: True)
    for number, vendor in enumerate(("0x8086", accelerators.GOOGLE if there else "0x10de")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "vendor").write_text(f"{vendor}\n")
    monkeypatch.setattr(accelerators, "DEVICES", tmp_path)
    accelerators.ask_no_cloud()
    assert ("TPU_SKIP_MDS_QUERY" in os.environ) == (not there)


def test_batches_are_filled_up_to_one_shape() -> None:
    assert padded(torch.ones(2, 3, 4), 5).shape == (5, 3, 4)
    assert padded(torch.ones(2, 3, 4), 5)[2:].abs().sum() == 0
    assert padded(torch.ones(2), 2).tolist() == [1, 1]
    values, labels, indices = PaddedBatches(default_collate, 4)([(torch.ones(3), 1, 7), (torch.ones(3), 0, 9)])
    assert values.tolist() == [[1] * 3] * 2 + [[0] * 3] * 2
    assert labels.tolist() == [1, 0, NO_LABEL, NO_LABEL]
    assert indices.tolist() == [7, 9, NO_LABEL, NO_LABEL]


@pytest.mark.parametrize("cached", [True, False])
def test_what_fills_a_batch_up_changes_nothing(
    cached: bool, train_dir: Path, test_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for filled in (False, True):
        monkeypatch.setattr(datamodule, "on_xla", lambda _, filled=filled: filled)
        shapes = set()

        class Shapes(Callback):
            def on_train_batch_start(self, _: Trainer, __: LightningModule, batch: Any, ___: int) -> None:
                shapes.add(len(batch[1]))  # noqa: B023

        torch.manual_seed(0)
        data = GelDataModule(
            train_dir, test_dir, image_size=32, batch_size=7, num_workers=0, cache_features=cached, val_fraction=0.25
        )
        model = GelClassifier(weights="none", head=LinearHead)
        options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(max_epochs=3, accelerator="cpu", log_every_n_steps=1, callbacks=[Shapes()], **options)
        trainer.fit(model, datamodule=data)
        metrics = dict(trainer.callback_metrics)
        trainer.test(model, datamodule=data, verbose=False)
        assert len(model.probabilities["test"]) == 8
        found.append({name: value.item() for name, value in (metrics | dict(trainer.callback_metrics)).items()})
        assert shapes == ({7} if filled else {7, 1})
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_several_xla_devices_are_refused() -> None:
    several = SimpleNamespace(accelerator=XLAOnCPU.__new__(XLAOnCPU), num_devices=8)
    assert refused(lambda: check_devices(several)) == "gel-fit takes one XLA device, not 8; give --trainer.devices 1"  # type: ignore[arg-type]


def test_devices_have_the_names_of_torch() -> None:
    assert device_name(torch.device("cpu")) == "cpu"
    assert not on_xla(None)


# --- on XLA ---


def note(kind: str) -> None:
    """Notes how many programs XLA has compiled, and how many single numbers were read of it."""
    from torch_xla.debug import metrics

    compiled = (metrics.metric_data("CompileTime") or (0,))[0]
    BATCHES.append((kind, compiled, metrics.counter_value("aten::_local_scalar_dense") or 0))


class Compiled(Callback):
    """Notes it before each batch, and where batches of another kind may begin."""

    def on_train_epoch_start(self, *_: Any) -> None:
        note("epoch")

    def on_validation_start(self, *_: Any) -> None:
        note("validation")

    def on_train_batch_start(self, *_: Any) -> None:
        note("train")

    def on_validation_batch_start(self, *_: Any) -> None:
        note("val")

    def on_test_batch_start(self, *_: Any) -> None:
        note("test")


def options(name: str, pictures: tuple[object, ...], *more: object) -> tuple[object, ...]:
    """A fit of a config file on tiny pictures."""
    tiny = [option for option in TINY if option not in ("--trainer.accelerator", "cpu")]
    return ("--config", CONFIGS / name, *tiny, *pictures, "--trainer.max_epochs", "4", *more)


@pytest.fixture
def _no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has convolutions on a GPU take float32: in TF32, their default, some features differ by 0.02 from the CPU's."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.usefixtures("_no_tf32")
@pytest.mark.parametrize(("name", "kind"), ELSEWHERE)
def test_each_file_does_elsewhere_what_the_cpu_does(
    name: str, kind: str, tmp_path: Path, pictures: tuple[object, ...], train_dir: Path, test_dir: Path
) -> None:
    device = "XLA:CPU" if kind == "tpu" else torch.cuda.get_device_name()
    exact = EXACT[kind]
    rows, vectors = [], []
    for accelerator in (kind, "cpu"):
        cache = ("--data.cache_dir", tmp_path / accelerator, "--trainer.accelerator", accelerator)
        ran = gel_fit("fit", *options(name, pictures, *cache, "--name", accelerator), cwd=tmp_path)
        assert ran.status == 0, ran.err
        assert ran.err == ""
        assert (f"({device})" in ran.out) == (accelerator == kind)
        rows.append(read_rows(tmp_path / "lightning_logs/results.csv")[-1])
        vectors.append(stored(tmp_path / accelerator, train_dir, test_dir))
    assert [(row["hardware_type"], row["device"]) for row in rows] == [(kind, device), ("cpu", "cpu")]
    np.testing.assert_allclose(*vectors, rtol=exact, atol=exact)
    if "single" in name:  # dropout draws otherwise on each kind of device
        for column in SAME:
            here, there = rows[0][column], rows[1][column]
            assert here == there if column == "conf_mat" else float(here) == pytest.approx(float(there), abs=exact)
    # A checkpoint of each is read by the other.
    for made, other in ((kind, "cpu"), ("cpu", kind)):
        best = tmp_path / f"lightning_logs/{made}/version_0/checkpoints/best.ckpt"
        for value in torch.load(best, weights_only=True)["state_dict"].values():
            assert value.device.type == "cpu"
        command = ("test", "--ckpt_path", best, *pictures, "--data.num_workers", "0", "--trainer.accelerator", other)
        tested = gel_fit(*command, "--data.cache_dir", tmp_path / other, cwd=tmp_path)
        assert (tested.status, tested.err) == (0, ""), tested.err
        assert f"{float(rows[made == 'cpu']['accuracy']):.4f}" in tested.out


def stored(folder: Path, *pictures: Path) -> np.ndarray:
    """The vectors that are kept of all pictures of some folders, [n, num_features]."""
    (contents,) = [store for store in list_stores(folder) if store.key["kind"] == "features"]
    store = Store(folder, contents.key, np.float32, num_features(contents.key["backbone"]))
    rows = store.find([picture_digest(path) for folder in pictures for path in sorted(folder.rglob("*.png"))])
    assert not rows.missing.any()
    return rows.take(range(len(rows.missing)))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backbone", ["resnet18", "vgg16", "mobilenet_v3_large"])
def test_mixed_precision_gives_nearly_the_same_vectors(
    backbone: str, tmp_path: Path, pictures: tuple[object, ...], train_dir: Path, test_dir: Path
) -> None:
    vectors = []
    for precision in ("32-true", "16-mixed"):
        more = ("--trainer.precision", precision, "--data.cache_dir", tmp_path / precision)
        ran = gel_fit("fit", *options(f"{backbone}_single_sgd_gpu.yaml", pictures, *more), cwd=tmp_path)
        assert (ran.status, ran.err) == (0, ""), ran.err
        vectors.append(stored(tmp_path / precision, train_dir, test_dir))
    np.testing.assert_allclose(*vectors, rtol=1e-2, atol=1e-2 * np.abs(vectors[0]).max())


@pytest.mark.xla
@needs_xla
@pytest.mark.parametrize("name", ["resnet18_single_sgd_tpu.yaml", "resnet18_multi_adam_tpu.yaml"])
def test_each_kind_of_batch_is_compiled_once(
    name: str, tmp_path: Path, train_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20 and 26 pictures, in batches of 5, in which some parts do not come out even."""
    save_data_set(tmp_path / "test", per_class=13, seed=5000)

    def noted(kind: str, step: Any, *args: Any) -> Any:
        note(kind)
        return step(*args)

    monkeypatch.setattr(features, "_compute", partial(noted, "part", features._compute))
    monkeypatch.setattr(features, "_forward", partial(noted, "extraction", features._forward))
    BATCHES.clear()
    pictures = ("--data.train_dir", train_dir, "--data.test_dir", tmp_path / "test", "--data.cache_dir", "cache")
    ran = gel_fit("fit", *options(name, pictures, "--trainer.callbacks+=test_xla.Compiled"), cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err

    seen = {kind: 0 for kind, *_ in BATCHES}
    assert set(seen) == {"part", "extraction", "epoch", "train", "validation", "val", "test"}
    for (kind, *before), (following, *after) in pairwise(BATCHES):
        seen[kind] += 1
        # In its first step an optimizer makes its state, which the second one is the first to find.
        if kind == following and seen[kind] > (2 if kind == "train" else 1):
            assert after == before, f"{kind}, batch {seen[kind]}: programs and numbers {before} became {after}"
    epochs = [counts for kind, *counts in BATCHES if kind == "epoch"]
    assert len(epochs) == 4
    assert epochs[1] == epochs[2] == epochs[3], f"programs and numbers by the beginning of each epoch: {epochs}"


@ON_EACH
def test_the_same_seed_gives_the_same_elsewhere(kind: str, tmp_path: Path, pictures: tuple[object, ...]) -> None:
    for _ in range(2):
        ran = gel_fit("fit", *options(f"resnet18_multi_adam_{kind}.yaml", pictures), cwd=tmp_path)
        assert (ran.status, ran.err) == (0, ""), ran.err
    first, second = read_rows(tmp_path / "lightning_logs/results.csv")
    assert {column: first[column] for column in SAME} == {column: second[column] for column in SAME}


@pytest.mark.xla
@needs_xla
@pytest.mark.parametrize(("option", "value"), [("devices", "2"), ("precision", "16-mixed")])
def test_what_xla_does_not_take_is_one_line(
    option: str, value: str, tmp_path: Path, pictures: tuple[object, ...]
) -> None:
    ran = gel_fit("fit", *options("resnet18_multi_sgd_tpu.yaml", pictures, f"--trainer.{option}", value), cwd=tmp_path)
    assert_error(ran, option, value)
    assert "object at" not in ran.err
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.usefixtures("_no_tf32")
@ON_EACH
def test_predictions_elsewhere_are_those_of_the_cpu(
    kind: str, tmp_path: Path, pictures: tuple[object, ...], test_dir: Path
) -> None:
    assert gel_fit("fit", *options(f"resnet18_single_sgd_{kind}.yaml", pictures), cwd=tmp_path).status == 0
    best = tmp_path / f"lightning_logs/resnet18_single_sgd_{kind}/version_0/checkpoints/best.ckpt"
    rows = []
    for accelerator in (kind, "cpu"):
        command = ("predict", "--ckpt_path", best, "--data.predict_dir", test_dir, "--data.num_workers", "0")
        ran = gel_fit(*command, "--trainer.accelerator", accelerator, cwd=tmp_path)
        assert (ran.status, ran.err) == (0, ""), ran.err
        rows.append(read_rows(tmp_path / "predictions.csv"))
    assert [row["path"] for row in rows[0]] == [row["path"] for row in rows[1]]
    for here, there in zip(*rows, strict=True):
        assert here["predicted"] == there["predicted"]
        assert float(here["confidence"]) == pytest.approx(float(there["confidence"]), abs=EXACT[kind])


@pytest.mark.xla
@pytest.mark.skipif(find_spec("torch_xla") is None, reason="needs torch_xla: make test-xla")
def test_where_there_is_no_tpu_it_ends_at_once(tmp_path: Path) -> None:
    save_data_set(tmp_path / "pictures", per_class=3)
    environment = {name: value for name, value in os.environ.items() if name != "PJRT_DEVICE"}
    command = [sys.executable, "-m", "gel_lightning", "fit", "--config", CONFIGS / "resnet18_multi_sgd_tpu.yaml"]
    ran = subprocess.run(
        [*map(str, command), "--model.weights", "none", "--data.train_dir", "pictures"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 1
    assert re.fullmatch("gel-fit: error: .*no TPU here.*PJRT_DEVICE=CPU.*accelerator cpu\n", ran.stderr)
    assert not (tmp_path / "lightning_logs").exists()


def test_the_accelerator_of_lightning_is_told_of_one_device() -> None:
    assert issubclass(XLAOnCPU, accelerators.XLAAccelerator)
    assert XLAOnCPU.auto_device_count() == 1
    assert {XLAOnCPU.parse_devices(devices) for devices in (1, "1", "auto", -1, [0])} == {1}  # type: ignore[arg-type]
    for devices in (2, "0,1", [0, 1]):
        assert "--trainer.devices 1" in refused(lambda: XLAOnCPU.parse_devices(devices))  # type: ignore[arg-type]  # noqa: B023
    assert XLAOnCPU.is_available()
