"""`gel-fit export`: the file that it writes, and what it refuses to write."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT, Ran, gel_fit, made_once, read_rows, save_picture
from lightning.pytorch import Trainer
from PIL import Image
from scipy.special import logit, softmax
from torch import Tensor, nn

from gel_lightning import GelClassifier, GelDataModule, LinearHead
from gel_lightning.comparison.predictions import Outcome, write_predictions
from gel_lightning.inference import parity
from gel_lightning.inference.export import Pipeline
from gel_lightning.inference.exported import ExportedModel
from gel_lightning.inference.trained import Trained
from gel_lightning.training.calibration import calibrate


@pytest.fixture(scope="module")
def best(run_dir: Path) -> Path:
    """A checkpoint of a model that was trained on 16 pictures of 32 x 32."""
    return run_dir / "checkpoints/best.ckpt"


@pytest.fixture(scope="module")
def folder(best: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the exported model `gel.onnx`, what the command printed, and pictures of several sizes."""

    def make(folder: Path) -> None:
        for seed, size in enumerate([(40, 36), (33, 70), (200, 31), (1, 1)]):
            save_picture(folder / f"pictures/{seed}.png", seed, striped=bool(seed % 2))
            with Image.open(folder / f"pictures/{seed}.png") as picture:
                picture.resize(size).save(folder / f"pictures/{seed}.png")
        (folder / "pictures/broken.png").write_bytes(b"no picture")
        ran = gel_fit("export", "--ckpt_path", best, "--to", "gel.onnx", "--check", "pictures", cwd=folder)
        (folder / "printed.json").write_text(json.dumps(ran._asdict()))

    return made_once(tmp_path_factory, "exported", make)


@pytest.fixture(scope="module")
def model(folder: Path) -> ExportedModel:
    return ExportedModel.load(folder / "gel.onnx")


def refused(ran: Ran, *parts: str) -> None:
    """Makes sure that a run ended with one line of error that has these parts."""
    assert ran.status == 1, ran
    assert ran.err.startswith("gel-fit: error: ")
    assert ran.err.count("\n") == 1
    for part in parts:
        assert part in ran.err


def with_validation(best: Path, to: Path, logits: Tensor, labels: Tensor) -> Path:
    """Saves the checkpoint with other validation pictures."""
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["validation"] = {"logits": logits, "labels": labels}
    torch.save(checkpoint, to)
    return to


# The file


def test_it_is_one_file_and_quiet(folder: Path) -> None:
    ran = Ran(**json.loads((folder / "printed.json").read_text()))
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith("not calibrated: ")
    assert lines[1].startswith(
        "compared with PyTorch on 4 pictures (1 cannot be read): probabilities differ by at most "
    )
    assert lines[2].startswith("exported: gel.onnx (46.")
    assert len(lines) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["gel.onnx", "pictures", "printed.json"]


def test_it_takes_grey_pictures_of_any_size_and_number(folder: Path) -> None:
    proto = onnx.load_model_from_string((folder / "gel.onnx").read_bytes())
    onnx.checker.check_model(proto)
    (taken,), (given,) = proto.graph.input, proto.graph.output
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    shape = [dim.dim_param or dim.dim_value for dim in taken.type.tensor_type.shape.dim]
    assert shape[1] == 1
    names = [shape[0], *shape[2:]]
    assert all(isinstance(name, str) for name in names)  # which names depends on the version of torch
    assert len(set(names)) == 3
    assert [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim] == [shape[0], 2]
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    content = (folder / "gel.onnx").read_bytes()
    for path in (str(ROOT), "site-packages", "torch/nn", str(Path.home()) + "/"):
        assert path.encode() not in content, "it names a place on this machine"


def predicted(checkpoint: Path, folder: Path, cwd: Path) -> list[dict[str, str]]:
    """The rows of the pictures that `gel-fit predict` could read."""
    options = ("--ckpt_path", checkpoint, "--data.predict_dir", folder / "pictures", "--data.num_workers", "0")
    ran = gel_fit("predict", *options, "--trainer.accelerator", "cpu", cwd=cwd)
    assert (ran.status, ran.err) == (1, "")  # some cannot be read
    return [row for row in read_rows(cwd / "predictions.csv") if row["predicted"]]


@pytest.fixture(scope="module")
def rows(best: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What `gel-fit predict` makes of the pictures with the checkpoint."""
    return predicted(best, folder, tmp_path_factory.mktemp("predicted"))


def test_its_probabilities_are_those_of_predict(rows: list[dict[str, str]], model: ExportedModel) -> None:
    assert len(rows) == 4
    for row in rows:
        with Image.open(row["path"]) as picture:
            found = model(np.asarray(picture)[None, None])[0]
        expected = [float(row[f"probability_{name}"]) for name in model.class_names]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert model.class_names[found.argmax()] == row["predicted"]


def test_pictures_of_a_batch_do_not_depend_on_each_other(model: ExportedModel) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 1, 50, 41), np.uint8)
    alone = [model(picture[None])[0] for picture in pictures]
    np.testing.assert_allclose(model(pictures), alone, atol=1e-6)
    assert abs(alone[0] - alone[1]).max() > 1e-5


def test_it_says_what_it_is(model: ExportedModel) -> None:
    assert model.class_names == ("gel", "not_gel")
    assert model.thresholds == (0.9, 0.9)
    told = model.metadata
    assert json.loads(told["training_pictures"]) == {"gel": 8, "not_gel": 8}
    assert told["calibration"].startswith("not calibrated")
    assert (told["backbone"], told["head"], told["weights"], told["image_size"]) == (
        "resnet18",
        "MultiLayerHead",
        "none",
        "32",
    )
    assert len(told["weights_sha256"]) == 64
    assert "demonstration" in told["weights_licence"]
    assert told["torch"] == torch.__version__
    assert told["gel_lightning"]


# Calibration


def test_fit_keeps_the_validation_of_the_best_epoch(best: Path, train_dir: Path, test_dir: Path) -> None:
    checkpoint = torch.load(best, weights_only=True)
    validation = checkpoint["validation"]
    assert validation["labels"].tolist().count(0) == validation["labels"].tolist().count(1) == 2
    assert validation["logits"].shape == (4, 2)
    loss = nn.functional.cross_entropy(validation["logits"], validation["labels"]).item()
    (callback,) = (state for state in checkpoint["callbacks"].values() if state.get("monitor") == "val/loss")
    assert loss == pytest.approx(float(callback["best_model_score"]), rel=1e-5)
    assert checkpoint["train_class_counts"] == [8, 8]


def test_export_and_predict_divide_by_the_same_temperature(
    best: Path, folder: Path, rows: list[dict[str, str]], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    true = 2 * rng.normal(size=(600, 2))
    labels = torch.tensor([rng.choice(2, p=row) for row in softmax(true, axis=1)])
    path = with_validation(best, tmp_path / "c.ckpt", torch.tensor(true / 5, dtype=torch.float32), labels)
    plain, trained = Trained.load(best), Trained.load(path)
    calibration = trained.model.calibration
    assert calibration.temperature == pytest.approx(0.2, rel=0.2)
    assert all(0.5 < threshold < 1 for threshold in calibration.thresholds)
    pictures = torch.randint(0, 256, (2, 1, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        before, after = (Pipeline(each).eval()(pictures)[:, 0].numpy() for each in (plain, trained))
    np.testing.assert_allclose(logit(after), logit(before) / calibration.temperature, rtol=1e-3)

    for first, second in zip(rows, predicted(path, folder, tmp_path), strict=True):
        assert first["predicted"] == second["predicted"]
        expected = logit(float(first["probability_gel"])) / calibration.temperature
        assert logit(float(second["probability_gel"])) == pytest.approx(expected, abs=1e-3)


def test_calibration_on_the_folds_of_a_cross_validation(best: Path, tmp_path: Path) -> None:
    labels = np.arange(300) % 2
    right = np.where(np.arange(300) % 10, 0.9999, 0.4)  # one of ten is wrong, but not sure
    probabilities = np.where(labels[:, None] == [0, 1], right[:, None], 1 - right[:, None])
    names = tuple(f"{n}.png" for n in range(300))
    fixed = Outcome(0, 0, ("a.png",), np.array([0]), np.array([[0.1, 0.9]]))
    folds = [Outcome(1, fold, *(part[fold - 1 :: 2] for part in (names, labels, probabilities))) for fold in (1, 2)]
    write_predictions(tmp_path / "predictions.csv", ("gel", "not_gel"), [fixed, *folds])
    command = ("export", "--ckpt_path", best, "--to", "gel.onnx", "--calibration", "predictions.csv")
    ran = gel_fit(*command, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("calibrated on 300 held-out pictures, thresholds of 99% precision\n")
    expected = calibrate(np.log(probabilities), labels, ("gel", "not_gel"))
    exported = ExportedModel.load(tmp_path / "gel.onnx")
    assert json.loads(exported.metadata["temperature"]) == pytest.approx(expected.temperature, rel=1e-3)
    assert exported.thresholds == pytest.approx(expected.thresholds, rel=1e-3)
    write_predictions(tmp_path / "predictions.csv", ("gel", "not_gel"), [fixed])
    refused(gel_fit(*command, cwd=tmp_path), "predictions.csv: no folds in it")


def test_what_is_saved_after_further_steps_has_no_validation(train_dir: Path, tmp_path: Path) -> None:
    data = GelDataModule(train_dir, image_size=32, num_workers=0, cache_features=False)
    model = GelClassifier("resnet18", "none", LinearHead)
    trainer = Trainer(
        max_epochs=3,
        check_val_every_n_epoch=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "third.ckpt")
    assert "validation" not in torch.load(tmp_path / "third.ckpt", weights_only=True)
    assert Trained.load(tmp_path / "third.ckpt").model.calibration.note.startswith("not calibrated: 0 validation")


# Half


def test_half_stores_16_bits_and_is_as_right(best: Path, folder: Path, tmp_path: Path, model: ExportedModel) -> None:
    options = ("--to", tmp_path / "half.onnx", "--check", folder / "pictures", "--half")
    ran = gel_fit("export", "--ckpt_path", best, *options, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert (tmp_path / "half.onnx").stat().st_size < 0.52 * (folder / "gel.onnx").stat().st_size
    half = ExportedModel.load(tmp_path / "half.onnx")
    picture = np.random.default_rng(0).integers(0, 256, (1, 1, 50, 41), np.uint8)
    assert 0 < abs(half(picture) - model(picture)).max() < parity.TOLERANCE


# What is refused


def test_a_file_that_differs_from_pytorch_is_not_kept(
    best: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gel_lightning.cli.export.export", lambda *_: (folder / "gel.onnx").read_bytes())
    target = tmp_path / "gel.onnx"
    target.write_text("before")
    logits = torch.tensor([[8.0, 0.0], [0.0, 8.0]]).repeat(200, 1)
    other = with_validation(best, tmp_path / "c.ckpt", logits, torch.tensor([0, 1]).repeat(200))
    options = ("--to", target, "--check", folder / "pictures")
    refused(gel_fit("export", "--ckpt_path", other, *options, cwd=tmp_path), "0.png: ", "nothing was written")
    assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.ckpt", "gel.onnx"]


class Undecided(nn.Module):
    """A head with a branch that depends on its input."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Linear(in_features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers(features)
        return logits if logits.sum() > 0 else -logits


def test_a_model_that_the_exporter_cannot_take_is_one_line(
    best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trained.load(best)
    trained.model.network.head = Undecided(512, 2)
    monkeypatch.setattr(Trained, "load", lambda *_: trained)
    ran = gel_fit("export", "--ckpt_path", best, "--to", "gel.onnx", cwd=tmp_path)
    if "the model cannot classify" not in ran.err:  # torch 2.6 exports a branch for one size, and the comparison fails
        refused(ran, "the exporter cannot take this model", "--model.head")
    refused(ran)
    assert not any(tmp_path.iterdir())


def test_a_target_that_cannot_be_written_is_found_before_the_work(
    best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gel_lightning.cli.export.export", lambda *_: pytest.fail("it was exported"))
    (tmp_path / "file").touch()
    refused(gel_fit("export", "--ckpt_path", best, "--to", "file/gel.onnx", cwd=tmp_path), "file")
    refused(gel_fit("export", "--ckpt_path", best, "--to", tmp_path, cwd=tmp_path), "is a folder", "--to")


@pytest.mark.parametrize("absent", ["onnx", "onnxscript"])
def test_without_the_exporter_it_says_what_to_install(
    absent: str, best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    ran = gel_fit("export", "--ckpt_path", best, "--to", "gel.onnx", cwd=tmp_path)
    refused(ran, absent, "pip install 'gel-lightning[export]'")
    assert not any(tmp_path.iterdir())


def test_a_checkpoint_whose_weights_are_gone_is_one_line_and_others_can_be_named(best: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["hyper_parameters"]["weights"] = str(tmp_path / "gone.pth")
    torch.save(checkpoint, tmp_path / "c.ckpt")
    ran = gel_fit("export", "--ckpt_path", "c.ckpt", "--to", "gel.onnx", cwd=tmp_path)
    refused(ran, "gone.pth: no such weights file", "--model.weights")
    assert not (tmp_path / "gel.onnx").exists()
    assert Trained.load(tmp_path / "c.ckpt", "none").model.network.fingerprint == checkpoint["backbone_fingerprint"]


@pytest.mark.parametrize("folder_of", ["nothing", "text"])
def test_a_folder_to_check_on_without_a_picture_is_one_line(
    folder_of: str, best: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (folder / "gel.onnx").read_bytes()
    monkeypatch.setattr("gel_lightning.cli.export.export", lambda *_: content)
    (tmp_path / "pictures").mkdir()
    if folder_of == "text":
        (tmp_path / "pictures/a.png").write_text("no picture")
    options: Any = ("--to", "gel.onnx", "--check", "pictures")
    refused(gel_fit("export", "--ckpt_path", best, *options, cwd=tmp_path), "pictures")
    assert not (tmp_path / "gel.onnx").exists()


def test_an_absent_checkpoint_is_one_line(tmp_path: Path) -> None:
    refused(gel_fit("export", "--ckpt_path", "absent.ckpt", "--to", "gel.onnx", cwd=tmp_path), "absent.ckpt")
    assert not any(tmp_path.iterdir())
