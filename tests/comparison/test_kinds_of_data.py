"""Comparisons with test sets that have names, and with groups that are left out."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIGS, TINY, Ran, gel_fit, made_once, read_rows, save_data_set
from sklearn.metrics import accuracy_score, roc_auc_score

from gel_lightning.comparison.folder import PREDICTIONS
from gel_lightning.comparison.records import read_comparison
from gel_lightning.comparison.statistics import group_shares, resampled_share
from gel_lightning.comparison.summary import Summary

pytestmark = pytest.mark.usefixtures("no_plots")

GRID = ("--backbones", "resnet18", "--heads", "single", "--optimizers", "adam", "sgd", "--trainer.max_epochs", "2")
LABS = {"a": range(3), "b": range(3, 5), "c": range(5, 10)}


def compare(folder: Path, *args: object) -> Ran:
    return gel_fit("compare", *TINY, *GRID, *args, cwd=folder)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, train_dir: Path, test_dir: Path, no_plots: None) -> tuple[Path, Ran]:
    """A comparison of two models with two named test sets, leaving out labs, one of which has one class."""
    output: list[Ran] = []

    def make(folder: Path) -> None:
        save_data_set(folder / "second", 3, seed=9000)
        lab = {number: name for name, numbers in LABS.items() for number in numbers}
        rows = [f"{path},{lab[int(path.stem.rpartition('_')[2])]}" for path in sorted(train_dir.glob("*/*"))]
        rows[-1] = rows[-1][:-1] + "plots alone"
        (folder / "labs.csv").write_text("\n".join(["path,group", *rows]))
        output.append(
            compare(
                folder,
                *("--data.train_dir", train_dir, "--data.test_dir", test_dir, "--data.groups", "labs.csv"),
                *("--data.test_dir+=one=" + str(test_dir), "--data.test_dir+=two=second", "--folds", "groups"),
            )
        )

    folder = made_once(tmp_path_factory, "kinds_of_data", make)
    return folder, output[0] if output else Ran(0, "", "")


def test_named_test_sets_have_columns_of_their_own(ran: tuple[Path, Ran], test_dir: Path) -> None:
    folder, output = ran
    assert (output.status, output.err) == (0, "")
    for row in read_rows(folder / "lightning_logs/comparison/version_0/results.csv"):
        assert (row["test_pictures_one"], row["test_pictures_two"]) == ("8", "6")
        for column in ("test_pictures", "accuracy", "precision", "recall", "roc_auc", "conf_mat"):
            assert row[f"{column}_one"] == row[column], "they are the same pictures"
        matrix = np.array(json.loads(row["conf_mat_two"]))
        assert float(row["accuracy_two"]) == pytest.approx(matrix.trace() / 6)


def test_report_has_the_named_test_sets_and_the_groups(ran: tuple[Path, Ran]) -> None:
    folder = ran[0] / "lightning_logs/comparison/version_0"
    comparison = read_comparison(folder)
    assert comparison.about["test_sets"] == {"one": 8, "two": 6}
    assert comparison.about["groups"] == ["a", "b", "c", "plots alone"]
    summary = Summary(comparison)
    for model in summary.models:
        assert model.named["one"].total == model.total == 8
        assert model.named["one"].right == model.right
        assert [len(fold.labels) for fold in model.record.folds] == [6, 4, 9, 1]
        labels = np.concatenate([fold.labels for fold in model.record.folds])
        shares = np.concatenate([fold.probabilities for fold in model.record.folds])
        accuracy = accuracy_score(labels, shares.argmax(1))
        assert model.estimates["accuracy"].value == pytest.approx(accuracy)
        assert model.estimates["auroc"].value == pytest.approx(roc_auc_score(labels, shares[:, 1]))
        assert np.isnan(model.estimates["auroc"].low)
    best = summary.models[0]
    assert sorted((name, tested.right, tested.total) for name, tested in summary.by_group) == [
        (name, int((fold.probabilities.argmax(1) == fold.labels).sum()), len(fold.labels))
        for name, fold in zip(["a", "b", "c", "plots alone"], best.record.folds, strict=True)
    ]
    shares = [tested.right / tested.total for _, tested in summary.by_group]
    assert shares == sorted(shares)
    page = (folder / "report.html").read_text()
    for text in (
        "accuracy, one",
        "accuracy, two",
        "6 for testing as two",
        "4 groups, each left out once",
        "3 of 4 groups",
    ):
        assert text in page


def test_resumed_comparison_runs_again_what_lacks_a_test_set(ran: tuple[Path, Ran]) -> None:
    folder = ran[0] / "lightning_logs/comparison/version_0"
    models = sorted(folder.glob(f"*/{PREDICTIONS}"))
    (models[0].parent / "predictions_two.csv").unlink()
    output = gel_fit("compare", "--resume", "0", cwd=ran[0])
    assert (output.status, output.err) == (0, "")
    assert "1 of 2 models" in output.out
    assert (models[0].parent / "predictions_two.csv").exists()


def test_shares_of_groups_have_the_mean_and_spread_of_a_ratio() -> None:
    rng = np.random.default_rng(0)
    total = rng.integers(1, 30, 40)
    right = rng.binomial(total, 0.7)
    values = group_shares(right, total)
    assert values.mean() == pytest.approx(right.sum() / total.sum())
    # The linearised variance of a ratio of two means, as Cochran has it.
    ratio = right.sum() / total.sum()
    expected = np.sum((right - ratio * total) ** 2) / 39 / total.mean() ** 2
    assert values.var(ddof=1) == pytest.approx(expected)
    assert group_shares([3, 1], [3, 1]).tolist() == [1, 1]
    low, high = resampled_share(values, 1 / 39)[1:]
    assert low < ratio < high


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folds", "groups"), "no groups to leave out: name a CSV file of path and group with --data.groups"),
        (("--folds", "groups", "--repeats", "2"), "leaving each group out is the same every time; leave --repeats out"),
        (("--folds", "groups", "--data.groups", "gone.csv"), "gone.csv: cannot be read as a CSV file"),
        (("--data.test_dir", "x"), "--data.test_dir is given twice, and only the last would count; add to it with"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    options: tuple[str, ...], message: str, pictures: tuple[object, ...], tmp_path: Path
) -> None:
    output = compare(tmp_path, *pictures, *options)
    assert output.status == 1
    assert output.err.startswith(f"gel-fit: error: {message}")
    assert output.err.count("\n") == 1
    assert not list(tmp_path.glob("**/*.csv"))


@pytest.mark.real
def test_other_labs_are_measured_beside_the_test_pictures(shared: Path, tmp_path: Path) -> None:
    gel = shared / "gel"
    output = gel_fit(
        *("fit", "--config", CONFIGS / "resnet18_single_adam_cpu.yaml", "--trainer.enable_progress_bar", "false"),
        *("--data.train_dir", gel / "dataset", "--data.class_names", "[gel, not_gel]"),
        *("--data.test_dir+=other_labs=" + str(gel / "other_labs"), "--model.weights"),
        shared / "weights/resnet18-standin.pth",
        cwd=tmp_path,
    )
    assert (output.status, output.err) == (0, "")
    (row,) = read_rows(tmp_path / "lightning_logs/results.csv")
    assert float(row["accuracy"]) >= 0.9
    assert float(row["accuracy_other_labs"]) >= 0.7
    assert row["test_pictures_other_labs"] == "46"
