"""Runs with several test sets, and with classes that are left out."""

import json
from pathlib import Path

import pytest
from conftest import FIT, TINY, Ran, gel_fit, made_once, read_rows, save_class, save_data_set
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RUN = Path("lightning_logs/resnet18_multi_sgd_cpu/version_0")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, train_dir: Path, test_dir: Path) -> tuple[Path, Ran]:
    """A fit with two named test sets: one has a third class, and the other has two training pictures again."""

    def make(folder: Path) -> None:
        save_data_set(folder / "labs", 3, seed=7000)
        save_class(folder / "labs/blot", 2, 7700, striped=True)
        for kind in ("gel", "not_gel"):
            (folder / "again" / kind).mkdir(parents=True)
            for number, source in enumerate((train_dir, test_dir)):
                path = source / kind / f"{kind}_1.png"
                (folder / "again" / kind / f"{number}.png").write_bytes(path.read_bytes())
        ran = gel_fit(
            *("fit", *FIT, "--data.train_dir", train_dir, "--data.test_dir", test_dir),
            *("--data.test_dir+=labs=labs", "--data.test_dir+=again=again", "--data.class_names", "[gel, not_gel]"),
            cwd=folder,
        )
        (folder / "ran.json").write_text(json.dumps(ran))

    folder = made_once(tmp_path_factory, "named_test_sets", make)
    return folder, Ran(*json.loads((folder / "ran.json").read_text()))


def test_table_and_lines_say_what_was_measured(fitted: tuple[Path, Ran]) -> None:
    _, (status, out, err) = fitted
    assert (status, err) == (0, "")
    for text in (
        "16 training, 4 validation and 8 test pictures of 2 classes: gel, not_gel\n",
        "Also tested on: labs (6 pictures), again (4 pictures)\n",
        "2 pictures of class blot left out (--data.class_names)\n",
        "2 of the 4 test pictures of again are near-duplicates of training or validation pictures",
    ):
        assert text in out
    heads = "".join(line for line in out.splitlines() if line.startswith("┃"))
    assert all(name in heads for name in ("validation", "test", "labs", "again"))


def test_training_does_not_depend_on_named_test_sets(
    fitted: tuple[Path, Ran], pictures: tuple[object, ...], tmp_path: Path
) -> None:
    assert gel_fit("fit", *FIT, *pictures, cwd=tmp_path).status == 0
    (row,), (plain,) = (read_rows(folder / "lightning_logs/results.csv") for folder in (fitted[0], tmp_path))
    times = ("training_time_mins", "inference_time_secs", "checkpoint")
    assert {key: row[key] for key in plain if key not in times} == {
        key: value for key, value in plain.items() if key not in times
    }
    assert {key.rpartition("_")[2] for key in row.keys() - plain.keys()} == {"labs", "again"}


def test_tensorboard_has_metrics_and_figures_of_each_test_set(fitted: tuple[Path, Ran]) -> None:
    events = EventAccumulator(str(fitted[0] / RUN), size_guidance={"images": 0, "scalars": 0}).Reload()
    (row,) = read_rows(fitted[0] / "lightning_logs/results.csv")
    for name, suffix in (("test", ""), ("test_labs", "_labs"), ("test_again", "_again")):
        assert {f"confusion matrix/{name}", f"ROC/{name}", f"pictures/{name}"} <= set(events.Tags()["images"])
        (accuracy,) = events.Scalars(f"{name}/accuracy")
        assert accuracy.value == pytest.approx(float(row[f"accuracy{suffix}"]))
    rows = (fitted[0] / RUN / "00000/features/metadata.tsv").read_text().splitlines()[1:]
    parts = [line.split("\t")[1] for line in rows]
    assert {part: parts.count(part) for part in dict.fromkeys(parts)} == {
        **{"train": 16, "val": 4, "test": 8, "test_labs": 6, "test_again": 4}
    }


def test_a_checkpoint_is_tested_on_named_sets_alone(fitted: tuple[Path, Ran], tmp_path: Path) -> None:
    folder, _ = fitted
    checkpoint = folder / RUN / "checkpoints/best.ckpt"
    (row,) = read_rows(folder / "lightning_logs/results.csv")
    options = ("--ckpt_path", checkpoint, *TINY[:-2], "--trainer.accelerator", "cpu")
    ran = gel_fit("test", *options, f"--data.test_dir+=again={folder / 'again'}", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "again (4 pictures)" in ran.out
    assert f"{float(row['accuracy_again']):.4f}" in ran.out
    ran = gel_fit("test", *options, f"--data.test_dir+=labs={folder / 'labs'}", cwd=tmp_path)
    assert ran.status == 1
    assert ran.err.count("\n") == 1
    assert "blot" in ran.err


def test_drawn_pictures_are_added_to_the_training_pictures(train_dir: Path, test_dir: Path, tmp_path: Path) -> None:
    options = ("--data.train_dir", train_dir, "--data.test_dir", test_dir, "--data.extra_drawn", "1")
    ran = gel_fit("fit", *FIT, *options, "--trainer.max_epochs", "1", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "18 training (2 of them drawn), 4 validation and 8 test pictures" in ran.out
    assert "demonstration with a random backbone" in ran.out, "the figures are of other pictures than the drawn ones"
    (row,) = read_rows(tmp_path / "lightning_logs/results.csv")
    assert [row[f"{part}_pictures"] for part in ("train", "val", "test")] == ["18", "4", "8"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data.test_dir+=x y=labs",), "'x y' cannot name a test set"),
        (("--data.test_dir+=x=gone",), "gone: cannot be opened (No such file or directory)"),
        (
            ("--data.test_dir+=x=labs",),
            "labs: its class folders are blot, gel, not_gel, those of the training pictures gel, not_gel (missing",
        ),
        (("--data.groups", "labs.csv"), "labs.csv: cannot be read as a CSV file (No such file or directory)"),
        (("--data.train_dir", "labs"), "--data.train_dir is given twice, and only the last would count"),
        (("--data.extra_drawn", "-1"), "--data.extra_drawn is -1"),
        (("--data.class_names", "[gel, plot]"), "no class folder plot, but gel, not_gel: name classes that are there"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    options: tuple[str, ...], message: str, train_dir: Path, fitted: tuple[Path, Ran], tmp_path: Path
) -> None:
    (tmp_path / "labs").symlink_to(fitted[0] / "labs")
    ran = gel_fit("fit", *FIT, "--data.train_dir", train_dir, *options, cwd=tmp_path)
    assert ran.status == 1
    assert ran.err.count("\n") == 1
    assert message in ran.err
    assert not list(tmp_path.glob("lightning_logs/*/*"))
