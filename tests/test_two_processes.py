"""Several processes on the CPU give what one gives: each picture is computed, counted and written once."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import FIT, TINY, Ran, gel_fit, made_once, read_rows, refused, save_class, start_gel_fit
from test_cli import curves, wait_for

from gel_lightning.cli.compare import compare_command
from gel_lightning.core.store import list_stores
from gel_lightning.training.results import VAL_METRICS

pytestmark = pytest.mark.slow

TWO = ("--trainer.devices", "2")
RUN = Path("lightning_logs/resnet18_multi_sgd_cpu/version_0")
# Neither two processes nor batches of five divide them.
TRAIN, VAL, TEST, MORE = 15, 4, 7, 11


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The options that name 19 pictures to train and validate on, and 7 to test on."""

    def make(folder: Path) -> None:
        save_class(folder / "train/gel", 10, 0, striped=True)
        save_class(folder / "train/not_gel", 9, 1000, striped=False)
        save_class(folder / "test/gel", 4, 5000, striped=True)
        save_class(folder / "test/not_gel", 3, 6000, striped=False)

    folder = made_once(tmp_path_factory, "uneven", make)
    return ("--data.train_dir", folder / "train", "--data.test_dir", folder / "test")


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory, uneven: tuple[object, ...]) -> Path:
    """Two equal fits of two processes each, in the folders `a` and `b`.

    `b` finds the vectors of `a`, and is measured on a test set `more`, too.
    """

    def make(folder: Path) -> None:
        save_class(folder / "more/gel", 4, 8000, striped=True)
        save_class(folder / "more/not_gel", MORE - 4, 9000, striped=False)
        for name, more in (("a", ()), ("b", (f"--data.test_dir+=more={folder / 'more'}",))):
            (folder / name).mkdir()
            ran = in_processes("fit", *FIT, *uneven, *more, "--data.cache_dir", folder / "cache", cwd=folder / name)
            (folder / name / "ran.json").write_text(json.dumps(ran))

    return made_once(tmp_path_factory, "distributed", make)


def in_processes(*args: object, cwd: Path) -> Ran:
    """Runs gel-fit in two processes to its end."""
    process = start_gel_fit(*args, *TWO, "--trainer.strategy", "ddp", cwd=cwd, start_new_session=True)
    status = process.wait(timeout=300)
    wait_until_gone(process)
    return Ran(status, (cwd / "run.out").read_text(), (cwd / "run.err").read_text())


def wait_until_gone(process: "subprocess.Popen[bytes]") -> None:
    """Waits for the last process that it has started."""
    end = time.monotonic() + 120
    while group_is_there(process.pid):
        assert time.monotonic() < end, "a process is left over"
        time.sleep(0.05)


def group_is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_says_once_what_one_process_says(fits: Path, uneven: tuple[object, ...], tmp_path: Path) -> None:
    alone = gel_fit("fit", *FIT, *uneven, "--data.cache_dir", tmp_path / "cache", cwd=tmp_path)
    status, out, err = json.loads((fits / "a/ran.json").read_text())
    assert (status, err) == (0, "")

    def kinds(text: str) -> list[str]:
        return [line.split()[0] for line in text.splitlines() if line.strip() and "computed in" not in line]

    assert kinds(out.replace("│", "")) == kinds(alone.out.replace("│", ""))
    assert f"{TRAIN + VAL} feature vectors computed" in out
    assert f"test ({TEST} pictures)" in out


def test_it_leaves_what_one_process_leaves(fits: Path) -> None:
    runs = fits / "a/lightning_logs"
    assert [path.name for path in runs.glob("*/*")] == ["version_0"]
    assert sorted(path.name for path in (fits / "a" / RUN / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    [row] = read_rows(runs / "results.csv")
    assert row["hardware_type"] == row["device"] == "cpu"
    assert [int(row[f"{part}_pictures"]) for part in ("train", "val", "test")] == [TRAIN, VAL, TEST]
    matrix = json.loads(row["conf_mat"])
    assert list(map(sum, matrix)) == [4, 3]
    names = (fits / "a" / RUN / "00000/features/metadata.tsv").read_text().splitlines()[1:]
    assert len(names) == len(set(names)) == TRAIN + VAL + TEST  # all, not the share of one process


def test_each_picture_is_computed_once(fits: Path) -> None:
    kept = {contents.key["kind"]: contents.rows for contents in list_stores(fits / "cache")}
    assert kept["features"] == kept["hashes"] == TRAIN + VAL + TEST + MORE
    assert "feature vectors computed" not in json.loads((fits / "b/ran.json").read_text())[1]


def test_equal_fits_have_equal_outcomes(fits: Path) -> None:
    measured = []
    for name in "ab":
        [row] = read_rows(fits / name / "lightning_logs/results.csv")
        measured.append({key: row[key] for key in row if key.startswith("val_") or key in ("conf_mat", "roc_auc")})
        learned = curves(fits / name / RUN).items()
        measured[-1] |= {"curves": str({tag: values for tag, values in learned if tag.startswith(("train", "val"))})}
    assert measured[0] == measured[1]


def test_each_epoch_is_logged_once(fits: Path) -> None:
    epochs = curves(fits / "a" / RUN)
    for stage in ("train", "val"):
        for name in ("loss", "accuracy", "auroc"):
            assert len({step for step, _ in epochs[f"{stage}/{name}"]}) == len(epochs[f"{stage}/{name}"]) == 4


def test_two_stages_give_what_one_process_gives(tmp_path: Path) -> None:
    save_class(tmp_path / "train/gel", 12, 0, striped=True)
    save_class(tmp_path / "train/not_gel", 12, 1000, striped=False)
    given = ("fit", *FIT, "--data.train_dir", tmp_path / "train", "--data.cache_dir", tmp_path / "cache")
    given += ("--data.test_fraction", "0.1666", "--data.val_fraction", "0.2", "--model.optimizer.lr", "0.1")
    # Two halves of all 16 training pictures give the gradient of the whole, where there is no dropout and no BatchNorm.
    given += ("--model.backbone", "vgg11", "--model.head", "LinearHead", "--trainer.callbacks+")
    given += ("test_distributed.WithoutDropout", "--model.unfreeze", "0.1", "--model.unfreeze_at_epoch", "2")
    losses = []
    for folder, run, size in (("one", gel_fit, 16), ("two", in_processes, 8)):
        (tmp_path / folder).mkdir()
        ran = run(*given, "--data.batch_size", size, cwd=tmp_path / folder)
        assert (ran.status, ran.err) == (0, "")
        assert "16 training" in ran.out
        losses.append([loss for _, loss in curves(tmp_path / folder / RUN)["val/loss"]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(set(losses[0])) == 4


def test_batchnorm_of_all_processes_needs_gpus(uneven: tuple[object, ...], tmp_path: Path) -> None:
    given = ("--data.cache_dir", tmp_path / "cache", "--model.unfreeze", "0.1", "--trainer.sync_batchnorm", "true")
    ran = in_processes("fit", *FIT, *uneven, *given, cwd=tmp_path)
    assert ran.status == 1
    assert ran.err == "gel-fit: error: --trainer.sync_batchnorm true works on GPUs only; leave it out\n"


def test_a_checkpoint_is_as_good_in_one_process(
    fits: Path, uneven: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch import Trainer

    from gel_lightning import GelClassifier, GelDataModule

    monkeypatch.chdir(tmp_path)
    best = fits / "a" / RUN / "checkpoints/best.ckpt"
    given = ("--ckpt_path", best, "--data.cache_dir", fits / "cache", *TINY, *uneven)
    ran, alone = in_processes("test", *given, cwd=tmp_path), gel_fit("test", *given, cwd=tmp_path)
    assert ran == alone
    data = GelDataModule(uneven[1], uneven[3], batch_size=5, image_size=32, num_workers=0, cache_dir=fits / "cache")  # type: ignore[arg-type]
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, inference_mode=True)
    model = GelClassifier.load_from_checkpoint(best, weights_only=True)
    [row] = read_rows(fits / "a/lightning_logs/results.csv")
    validated, tested = (getattr(trainer, stage)(model, data, best, verbose=False)[0] for stage in ("validate", "test"))
    assert json.loads(row["conf_mat"]) == model.confusion_matrices["test"].tolist()
    expected = {"test/accuracy": row["accuracy"], "test/precision": row["precision"], "test/auroc": row["roc_auc"]}
    expected |= {f"val/{name}": row[f"val_{name}"] for name in VAL_METRICS}
    metrics = validated | tested
    assert {name: metrics[name] for name in expected} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, abs=1e-6
    )


def test_predictions_are_those_of_one_process(fits: Path, uneven: tuple[object, ...], tmp_path: Path) -> None:
    best = fits / "a" / RUN / "checkpoints/best.ckpt"
    pictures = tmp_path / "pictures"
    save_class(pictures, 6, 9000, striped=True)
    (pictures / "cut.png").write_bytes(b"\x89PNG")
    given = ("predict", "--ckpt_path", best, *TINY, "--data.predict_dir", pictures)
    ran = in_processes(*given, cwd=tmp_path)
    several = read_rows(tmp_path / "predictions.csv")
    assert ran == gel_fit(*given, cwd=tmp_path)
    alone = read_rows(tmp_path / "predictions.csv")
    assert (ran.status, ran.err) == (1, "")
    columns = ("path", "predicted", "error")
    assert [[row[name] for name in columns] for row in several] == [[row[name] for name in columns] for row in alone]
    for one, other in zip(several, alone, strict=True):
        if not one["error"]:
            assert float(one["confidence"]) == pytest.approx(float(other["confidence"]), abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "predictions.csv", "run.err", "run.out"]


def test_an_error_of_both_is_said_once(uneven: tuple[object, ...], tmp_path: Path) -> None:
    for name in ("gel", "not_gel"):
        save_class(tmp_path / "cut" / name, 2, 0, striped=True)
    (tmp_path / "cut/gel/gel_0.png").write_bytes(b"\x89PNG")
    given = (*FIT, *uneven[:2], "--data.test_dir", "cut", "--data.cache_dir", tmp_path / "cache")
    ran = in_processes("fit", *given, cwd=tmp_path)
    assert (ran.status, ran.out) == (1, "")
    assert re.fullmatch("gel-fit: error: .*gel_0.png.*\n", ran.err), ran.err
    assert not any((tmp_path / "lightning_logs").glob("*/version_*"))


@pytest.mark.parametrize(
    ("how", "ready"), [("EndsSlowly", RUN / "checkpoints/last.ckpt"), ("WaitsForOther", "waiting")]
)
def test_ctrl_c_ends_all_processes(how: str, ready: str, uneven: tuple[object, ...], tmp_path: Path) -> None:
    options = (*uneven, "--data.cache_dir", tmp_path / "cache", "--trainer.max_epochs", "1000")
    options += ("--trainer.callbacks+", f"test_distributed.{how}")
    process = start_gel_fit(
        "fit", *FIT, *options, *TWO, "--trainer.strategy", "ddp", cwd=tmp_path, start_new_session=True
    )
    wait_for((tmp_path / ready).exists, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    wait_until_gone(process)
    assert (tmp_path / "run.err").read_text() == ""
    assert (tmp_path / "run.out").read_text().count(
        f"to go on: gel-fit fit --config {RUN}/config.yaml --ckpt_path"
    ) == 1
    assert not (tmp_path / "lightning_logs/results.csv").exists()


@pytest.mark.parametrize("devices", ["2", "auto", "0,1", "[0,1]", "-1"])
def test_a_comparison_takes_one_device(devices: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--trainer.devices", devices, "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    assert refused(lambda: compare_command(given)) == (
        "compare takes one device, since it fits one model at a time; give --trainer.devices 1"
    )
    assert not any(tmp_path.iterdir())


def test_named_test_sets_are_measured_whole(fits: Path) -> None:
    (plain,), (row,) = (read_rows(fits / name / "lightning_logs/results.csv") for name in "ab")
    assert list(map(sum, json.loads(row["conf_mat_more"]))) == [4, MORE - 4]
    assert (row["conf_mat"], row["val_loss"]) == (plain["conf_mat"], plain["val_loss"])
