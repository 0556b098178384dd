import csv
import io
import pickle
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import gel_fit, read_rows
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from torch.utils.data import DataLoader, TensorDataset

from gel_lightning import GelClassifier, LinearHead
from gel_lightning.training.tensorboard import RunLogger
from gel_lightning.training.tensorboard_pages import MOST_PROJECTED, THUMBNAIL, TensorBoardPages

METRICS = {
    *("loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc"),
    *("precision_gel", "recall_gel", "f1_gel", "calibration_error"),
}
EPOCHS, BATCHES = 4, 4
IMAGES = {
    *("confusion matrix/val", "confusion matrix/test", "classes/val", "classes/test", "ROC/val", "ROC/test"),
    *("pictures/train", "pictures/val", "pictures/test"),
}


def read_events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()


@pytest.fixture(scope="module", params=["train", "val"])
def curves(run_dir: Path, request: pytest.FixtureRequest) -> EventAccumulator:
    """The curves of training or of validation, which are a run within the run."""
    return read_events(run_dir / request.param)


@pytest.fixture(scope="module")
def events(run_dir: Path) -> EventAccumulator:
    """What the TensorBoard files of a fit of four epochs hold."""
    return read_events(run_dir)


def test_each_metric_has_a_value_for_each_epoch(curves: EventAccumulator) -> None:
    assert set(curves.Tags()["scalars"]) == METRICS
    for tag in METRICS:
        points = curves.Scalars(tag)
        assert [point.step for point in points] == [BATCHES * epoch - 1 for epoch in range(1, EPOCHS + 1)]
        assert np.isfinite([point.value for point in points]).all()


def test_the_run_itself_has_no_curves(events: EventAccumulator) -> None:
    assert {tag for tag in events.Tags()["scalars"] if not tag.startswith("test/")} <= {"hp_metric"}


def test_curves_are_those_of_the_results(events: EventAccumulator, run_dir: Path, two_fits: Path) -> None:
    rows = read_rows(two_fits / "lightning_logs/results.csv")
    (row,) = (row for row in rows if row["version"] == "version_0")
    losses = [point.value for point in read_events(run_dir / "val").Scalars("loss")]
    assert min(losses) == pytest.approx(float(row["val_loss"]), rel=1e-6)  # of the best epoch
    train = [point.value for point in read_events(run_dir / "train").Scalars("loss")]
    assert len(set(train)) == EPOCHS  # it learns something in each
    for name, column in {"accuracy": "accuracy", "auroc": "roc_auc", "precision": "precision"}.items():
        (tested,) = events.Scalars(f"test/{name}")
        assert tested.value == pytest.approx(float(row[column]), rel=1e-6)


def test_training_and_validation_share_a_chart(events: EventAccumulator) -> None:
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    (category,) = layout.category
    charts = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert charts.keys() == {"loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc"}
    for name, tags in charts.items():
        for tag in (name, f"train/{name}", f"val/{name}"):  # of a RunLogger, and of another logger
            assert [re.search(pattern, tag) is not None for pattern in tags].count(True) == 1
        assert not any(re.search(pattern, f"test/{name}") for pattern in tags)


@pytest.mark.parametrize("tag", sorted(IMAGES))
def test_each_figure_is_there_once_and_shows_something(events: EventAccumulator, tag: str) -> None:
    assert set(events.Tags()["images"]) == IMAGES
    (event,) = events.Images(tag)
    pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("L"))
    assert min(pixels.shape) >= 200
    assert len(np.unique(pixels)) > 10


def test_sheets_show_each_picture(events: EventAccumulator) -> None:
    heights = {tag: events.Images(tag)[0].height for tag in IMAGES if tag.startswith("pictures/")}
    # 16, 4 and 8 pictures in rows of six.
    assert heights["pictures/train"] > heights["pictures/test"] > heights["pictures/val"]


def test_hyperparameters_stand_beside_the_test_metrics(events: EventAccumulator) -> None:
    def plugin_data(tag: str) -> Any:
        content = events.SummaryMetadata(tag).plugin_data.content
        return plugin_data_pb2.HParamsPluginData.FromString(content)

    session = plugin_data("_hparams_/session_start_info").session_start_info.hparams
    texts = {name: value.string_value for name, value in session.items() if value.HasField("string_value")}
    assert texts == {
        "backbone": "resnet18",
        "head": "multi",
        "optimizer": "sgd",
        "run/hardware": "cpu",
        "run/weights": "none",
    }
    numbers = {name: value.number_value for name, value in session.items() if value.HasField("number_value")}
    assert numbers == {"lr": 0.001, "run/batch_size": 5, "run/max_epochs": 4}
    assert sorted([*texts, *numbers])[:4] == ["backbone", "head", "lr", "optimizer"], "these are to be seen first"
    metrics = {info.name.tag for info in plugin_data("_hparams_/experiment").experiment.metric_infos}
    assert metrics == {f"test/{name}" for name in METRICS}
    for tag in metrics:
        assert len(events.Scalars(tag)) == 1


def test_projector_has_a_row_and_a_thumbnail_for_each_picture(run_dir: Path, train_dir: Path, test_dir: Path) -> None:
    config = (run_dir / "projector_config.pbtxt").read_text()
    assert config.count("embeddings {") == 1
    folder = run_dir / "00000/features"
    assert "00000/features/tensors.tsv" in config
    with (folder / "metadata.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["part"] for row in rows].count("train") == 16
    assert [row["part"] for row in rows].count("val") == 4
    assert [row["part"] for row in rows].count("test") == 8
    named = {(row["name"], row["class"]) for row in rows if row["part"] != "test"}
    assert named == {(path.name, path.parent.name) for path in train_dir.rglob("*.png")}
    tested = [(row["name"], row["class"]) for row in rows if row["part"] == "test"]
    assert sorted(tested) == sorted((path.name, path.parent.name) for path in test_dir.rglob("*.png"))

    features = np.loadtxt(folder / "tensors.tsv", delimiter="\t")
    assert features.shape == (28, 512)
    model = GelClassifier.load_from_checkpoint(run_dir / "checkpoints/best.ckpt")
    for row, feature in zip(rows[:2] + rows[-2:], [*features[:2], *features[-2:]], strict=True):
        path = (test_dir if row["part"] == "test" else train_dir) / row["class"] / row["name"]
        expected = model.network.trunk(picture(path)).squeeze(0).numpy()
        np.testing.assert_allclose(feature, expected, rtol=1e-3, atol=1e-4)

    with Image.open(folder / "sprite.png") as sprite:
        side = int(np.ceil(np.sqrt(28)))
        assert sprite.size == (side * THUMBNAIL, side * THUMBNAIL)


def picture(path: Path) -> torch.Tensor:
    from gel_lightning.data.datamodule import PictureDataset
    from gel_lightning.data.folders import LabelledPictures

    pixels, _, _ = PictureDataset(LabelledPictures([path], [0], ["gel", "not_gel"]), 32)[0]
    return pixels.unsqueeze(0)


@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec")  # Lightning's own
def test_pages_of_another_data_module_and_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Colour pictures, three classes, no names and no indices in the batches; more of them than the projector takes.
    monkeypatch.setattr("gel_lightning.training.tensorboard_pages.MOST_PROJECTED", 5)
    assert MOST_PROJECTED > 28
    pictures = torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(pictures, torch.tensor([0, 1, 2, 0, 1, 2, 0])), batch_size=3)
    model = GelClassifier(weights="none", head=LinearHead, class_names=["a", "b", "c"])
    logger = TensorBoardLogger(tmp_path, name="", version="v")
    trainer = Trainer(
        accelerator="cpu",
        logger=logger,
        callbacks=[TensorBoardPages()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.test(model, loader, verbose=False)
    shown = read_events(tmp_path / "v")
    assert set(shown.Tags()["images"]) == {tag for tag in IMAGES if tag.endswith("/test")}
    rows = (tmp_path / "v/00000/features/metadata.tsv").read_text().splitlines()
    assert rows == ["class\tpart\tname", "a\ttest\t0", "b\ttest\t1", "c\ttest\t2", "a\ttest\t3", "b\ttest\t4"]


def test_a_fit_without_a_logger_writes_no_pages(tmp_path: Path, two_fits: Path, run_dir: Path) -> None:
    ran = gel_fit("fit", "--config", run_dir / "config.yaml", "--trainer.logger", "false", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "TensorBoard" not in ran.out
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    logs = "lightning_logs"
    assert left == {
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        f"{logs}/results.csv",
        f"{logs}/.results.csv.lock",
    }
    (row,) = read_rows(tmp_path / logs / "results.csv")
    assert row["version"] == ""
    assert row["val_loss"] == read_rows(two_fits / logs / "results.csv")[0]["val_loss"]


def test_a_resumed_run_draws_each_step_once(tmp_path: Path) -> None:
    for first, purge in ((0, None), (3, 3)):
        time.sleep(1.1 if purge else 0)  # TensorBoard orders files by the second in their names
        logger = RunLogger(tmp_path, "", "v", purge_step=purge)
        for step in range(first, 5):
            logger.log_metrics({"train/loss": step + first, "val/loss": step, "lr": 0.1, "epoch": step}, step)
        logger.save()
        pickle.dumps(logger)
        logger.finalize("success")
    points = read_events(tmp_path / "v/train").Scalars("loss")
    assert [(point.step, point.value) for point in points] == [(0, 0), (1, 1), (2, 2), (3, 6), (4, 7)]
    assert read_events(tmp_path / "v").Tags()["scalars"] == ["lr"]
    assert read_events(tmp_path / "v/val").Tags()["scalars"] == ["loss"]
