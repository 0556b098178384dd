import csv
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from conftest import read_rows, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import change_about, make_comparison, outcomes_equal

from gel_lightning.comparison.about import read_about
from gel_lightning.comparison.folder import CURVES, PREDICTIONS
from gel_lightning.comparison.records import Comparison, finished, read_comparison
from gel_lightning.comparison.summary import Summary
from gel_lightning.core.errors import GelError

SINGLE, MULTI = "resnet18_single_sgd_cpu", "resnet18_multi_sgd_cpu"


def small(folder: Path, **options: Any) -> Path:
    """A comparison of two models, cross-validated in two folds, twice; and one that failed."""
    grid = {"backbones": ["resnet18"], "heads": ["single", "multi"], "optimizers": ["sgd"]}
    return make_comparison(folder, **({**grid, "folds": 2, "per_class": 4} | options))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that no test changes."""
    return small(tmp_path_factory.mktemp("whole") / "version_0")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A comparison to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "version_0"))


def test_predictions_are_a_table_that_others_can_read(whole: Path) -> None:
    rows = read_rows(whole / SINGLE / PREDICTIONS)
    assert list(rows[0]) == ["repeat", "fold", "path", "actual", "probability_gel", "probability_not_gel"]
    assert {row["actual"] for row in rows} == {"gel", "not_gel"}
    assert all(row["path"].startswith("pictures/") for row in rows)
    assert [row["repeat"] for row in rows] == ["0"] * 4 + ["1"] * 8 + ["2"] * 8
    for row in rows:
        assert math.isclose(float(row["probability_gel"]) + float(row["probability_not_gel"]), 1, abs_tol=1e-6)


def test_a_comparison_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = small(
        tmp_path / "version_0",
        heads=["single", "multi", "MyHead"],
        hardware=["cpu", "gpu"],
        folds=3,
        per_class=6,
        failed=["resnet18_MyHead_sgd_cpu"],
    )
    comparison = read_comparison(folder)
    rows = read_rows(folder / "results.csv")
    assert comparison.folder == folder
    assert comparison.class_names == ["gel", "not_gel"]
    assert comparison.about == json.loads((folder / "about.json").read_text())
    assert comparison.failed == [rows[2]]
    assert [record.row for record in comparison.records] == rows[:2] + rows[3:]
    assert [record.name for record in comparison.records] == [
        *("resnet18 single sgd cpu", "resnet18 multi sgd cpu"),
        *("resnet18 single sgd gpu", "resnet18 multi sgd gpu", "resnet18 MyHead sgd gpu"),
    ]
    record = comparison.records[1]
    assert record.levels == {"backbone": "resnet18", "head": "multi", "optimizer": "sgd", "hardware": "cpu"}
    assert list(record.levels) == ["backbone", "head", "optimizer", "hardware"]
    assert record.training_seconds == float(rows[1]["training_time_mins"]) * 60
    assert record.inference_seconds == float(rows[1]["inference_time_secs"])
    for record in comparison.records:
        assert record.test[:2] == (0, 0)
        assert record.test.labels.tolist() == [0] * 3 + [1] * 3
        assert [outcome[:2] for outcome in record.folds] == [(repeat, fold) for repeat in (1, 2) for fold in (1, 2, 3)]
        for repeat in (1, 2):
            paths = [path for outcome in record.folds if outcome.repeat == repeat for path in outcome.paths]
            assert len(paths) == len(set(paths)) == 12
        table = read_rows(folder / record.name.replace(" ", "_") / CURVES)
        assert list(record.curves) == ["train/loss", "train/accuracy", "val/loss", "val/accuracy"]
        assert record.curves == {name: [float(row[name]) for row in table] for name in record.curves}


def test_without_folds_or_epochs_there_are_test_pictures_alone(tmp_path: Path) -> None:
    folder = small(tmp_path / "version_0", folds=0)
    (folder / SINGLE / CURVES).unlink()
    single, multi = read_comparison(folder).records
    assert (single.folds, multi.folds) == ([], [])
    assert single.curves == {}
    assert len(multi.curves["val/loss"]) == 20


def test_cells_of_epochs_that_have_no_such_metric_are_read_as_nan(folder: Path) -> None:
    (folder / SINGLE / CURVES).write_text("epoch,train/loss,val/loss\n1,0.5,\n2,0.25,0.125\n")
    record, _ = read_comparison(folder).records
    np.testing.assert_equal(record.curves, {"train/loss": [0.5, 0.25], "val/loss": [math.nan, 0.125]})


Damage = Callable[[Path], Any]
PREDICTED, CURVED = f"{MULTI}/{PREDICTIONS}", f"{MULTI}/{CURVES}"


def edit(change: Callable[[str], str]) -> Damage:
    def damage(path: Path) -> None:
        before = path.read_text()
        path.write_text(change(before))
        assert path.read_text() != before

    return damage


def first_lines(number: int) -> Damage:
    return edit(lambda text: "".join(text.splitlines(keepends=True)[:number]))


def cells(line: int, **values: str) -> Damage:
    """Changes cells of a line."""

    def damage(path: Path) -> None:
        rows = read_rows(path)
        assert rows[line - 2].keys() >= values.keys()
        rows[line - 2] |= values
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    return damage


def noted(**values: Any) -> Damage:
    return lambda path: change_about(path.parent, **values)


def without(key: str) -> Damage:
    def change(text: str) -> str:
        about = json.loads(text)
        del about[key]
        return json.dumps(about)

    return edit(change)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def swap_lines(text: str) -> str:
    header, first, second, *rest = text.splitlines(keepends=True)
    return "".join([header, second, first, *rest])


def other_class(text: str) -> str:
    """Changes the class of a picture of a fold, in line 9."""
    lines = text.splitlines(keepends=True)
    swapped = {'"gel"': '"not_gel"', '"not_gel"': '"gel"'}
    lines[8] = re.sub('"(not_)?gel"', lambda found: swapped[found[0]], lines[8])
    return "".join(lines)


NOTED = ("commands", "class_names", "drawn", "pictures", "folds", "repeats", "seed", "weights", "near_duplicates")
NOT_ITS = ": "  # the results file is named
NOT_NOTED = ": damaged (not what gel-fit compare notes); run gel-fit compare --resume"
NOT_WHOLE = ": not a whole row of predictions; run its model again with gel-fit compare --resume"
NOT_ALL = ": not the predictions of the test pictures, and of 2 folds, 2 times; run its model again"
OTHERS = (
    ": resnet18 multi sgd cpu was tested on other pictures than resnet18 single sgd cpu, and cannot be compared with"
)
BESIDE = ("one cell", "a model twice")  # a line more, beside whole ones
# These are of another program, which is not overwritten.
NOT_RESUMED = ("of another program", "no text")
NAMED = "resnet18 single sgd cpu"
DAMAGES: dict[str, list[tuple[str, Damage, str]]] = {
    "about.json": [
        ("empty", edit(lambda _: ""), ": damaged (Expecting value"),
        ("cut", edit(lambda text: text[:100]), ": damaged ("),
        ("no text", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\xff"), ": damaged ("),
        ("deep", edit(lambda _: "[" * 100_000), ": damaged ("),
        ("of another kind", edit(lambda _: '{"version": 1}'), NOT_NOTED),
        ("a list", edit(lambda text: f"[{text}]"), NOT_NOTED),
        ("a number", edit(lambda _: "1"), NOT_NOTED),
        *((f"without {key}", without(key), NOT_NOTED) for key in (*NOTED, "versions", "system", "devices")),
        ("class names in a text", noted(class_names="ab"), NOT_NOTED),
        ("class names that are numbers", noted(class_names=[0, 1]), NOT_NOTED),
        ("one class", noted(class_names=["gel"]), ": damaged (no two classes"),
        ("a class twice", noted(class_names=["gel", "gel"]), ": damaged (no two classes, or two of one name)"),
        ("duplicates in a text", noted(near_duplicates=["ab"]), NOT_NOTED),
        ("duplicates of numbers", noted(near_duplicates=[[1, 2]]), NOT_NOTED),
        ("duplicates by name", noted(near_duplicates={"a": ["b"]}), NOT_NOTED),
        ("one command", noted(commands="gel-fit compare"), NOT_NOTED),
        ("weights without fingerprint", noted(weights={"resnet18": {"name": "none"}}), NOT_NOTED),
        ("weights in a list", noted(weights=["resnet18"]), NOT_NOTED),
        ("no test pictures", noted(pictures={"train": 5, "val": 1}), NOT_NOTED),
        ("half a fold", noted(folds=2.5), NOT_NOTED),
        ("one fold", noted(folds=1), ": damaged (no such folds)"),
        ("no repeat", noted(repeats=0), ": damaged (no such folds)"),
        (
            "no way to choose an epoch",
            noted(epoch={"monitor": "val/loss", "mode": "least"}),
            ": damaged (no such choice",
        ),
    ],
    "results.csv": [
        ("empty", edit(lambda _: ""), ": no model in it was fitted"),
        ("without rows", first_lines(1), ": no model in it was fitted"),
        ("of another program", edit(lambda _: "a,b\n1,2\n"), ": not a results file"),
        ("no text", lambda path: path.write_bytes(b"\xff\xfe"), ": not a results file"),
        (
            "too few cells",
            edit(lambda text: text[: text.rindex(",")] + "\n"),
            ", line 3: too few or too many cells; run its model again",
        ),
        ("one cell", edit(lambda text: f"{text}1\n"), ", line 4: too few or too many cells"),
        ("too many cells", edit(lambda text: f"{text[:-1]},x\n"), ", line 3: too few or too many cells"),
        ("one huge cell", edit(lambda text: f'{text}"{"a" * 200_000}'), ": damaged (field larger than field limit"),
        *(
            (
                f"a time of {time}",
                cells(2, **{name: time}),
                f", line 2: {name} is {time!r}, not a number; run its model again",
            )
            for name, times in (
                ("training_time_mins", ("", "soon", "nan", "-1", "inf", "1\n2")),
                ("inference_time_secs", ("?",)),
            )
            for time in times
        ),
        *(
            (
                f"{name} of {value}",
                cells(2, **{name: value}),
                f", line 2: {name} is {value!r}, not a number from 0 to 1",
            )
            for name, value in (("accuracy", ""), ("accuracy", "1.5"), ("precision", "-1"), ("val_accuracy", "nan"))
        ),
        *(
            (f"counts {value}", cells(2, conf_mat=value), ", line 2: conf_mat is no matrix of counts; run its model")
            for value in ("", "[[2, 0], [0,", "7", '[["2", 0], [0, 2]]', "[2, 0]", "[" * 9999)
        ),
        ("other counts", cells(2, conf_mat="[[1, 1], [1, 1]]"), f": the row of {NAMED} is not of its predictions; run"),
        ("another accuracy", cells(2, accuracy="0.125"), f": the row of {NAMED} is not of its predictions; run"),
        ("a model twice", edit(lambda text: text + text.splitlines()[1] + "\n"), ", line 4: of the model of line 2;"),
        ("a backbone elsewhere", cells(2, pretrained_model="../resnet18"), ", line 2: no model; run its model again"),
        ("a head on two lines", cells(2, classifier_head="sin\ngle"), ", line 2: no model"),
        ("a failed model of no name", cells(2, error="it failed", opt_alg=""), ", line 2: no model"),
    ],
    PREDICTED: [
        ("absent", Path.unlink, ": No such file or directory; run its model again with gel-fit compare --resume"),
        ("a folder", make_folder, ": Is a directory"),
        ("empty", edit(lambda _: ""), ": not the predictions of these classes; run"),
        ("without rows", first_lines(1), NOT_ALL),
        (
            "no test pictures",
            edit(lambda text: "\n".join(line for line in text.split("\n") if line[:1] != "0")),
            NOT_ALL,
        ),
        (
            "classes in another order",
            edit(lambda text: text.replace('y_gel","probability_not_gel', 'y_not_gel","probability_gel', 1)),
            ": not the predictions of these classes",
        ),
        (
            "one class more",
            edit(lambda text: text.replace('y_not_gel"', 'y_not_gel","probability_x"', 1)),
            ": not the predictions of these classes",
        ),
        *(
            (
                f"probabilities {gel}, {other}",
                cells(3, probability_gel=gel, probability_not_gel=other),
                f", line 3{NOT_WHOLE}",
            )
            for gel, other in (
                *(("0.5", "0.6"), ("-0.5", "1.5"), ("nan", "0.5"), ("inf", "-inf"), ("", "1"), ("half", "0.5")),
            )
        ),
        ("an actual class that there is not", cells(5, actual="blot"), f", line 5{NOT_WHOLE}"),
        ("a repeat that is no number", cells(6, repeat="first"), f", line 6{NOT_WHOLE}"),
        ("a cell too many", edit(lambda text: text[:-1] + ",0\n"), f", line 21{NOT_WHOLE}"),
        ("a cell too few", edit(lambda text: text[: text.rindex(",")] + "\n"), f", line 21{NOT_WHOLE}"),
        ("an empty line", edit(lambda text: text.replace("\n", "\n\n", 1)), f", line 2{NOT_WHOLE}"),
        ("a picture in a fold of its own", cells(21, fold="3"), NOT_ALL),
        ("a picture in a repeat below none", cells(21, repeat="-1"), NOT_ALL),
        ("a test picture in a fold", cells(2, fold="1"), NOT_ALL),
        ("another picture", cells(9, path="other.png"), OTHERS),
        ("a picture less", first_lines(20), OTHERS),
        ("pictures in another order", edit(swap_lines), OTHERS),
        ("a fold's picture of the other class", edit(other_class), OTHERS),
        ("a test picture of the other class", cells(2, actual="not_gel"), NOT_ITS),
    ],
    CURVED: [
        ("a folder", make_folder, ": Is a directory"),
        ("empty", edit(lambda _: ""), ": no metrics of epochs; remove the file"),
        ("without epochs", first_lines(1), ": no metrics of epochs; remove the file"),
        ("of another kind", edit(lambda _: "a,b\n1,2\n"), ": no metrics of epochs; remove the file"),
        ("no number", cells(4, **{"val/loss": "high"}), ", line 4: not a whole row of metrics; remove the file"),
        ("a cell too few", edit(lambda text: text[: text.rindex(",")]), ", line 21: not a whole row of metrics"),
        ("a cell too many", edit(lambda text: f"{text[:-1]},1\n"), ", line 21: not a whole row of metrics"),
    ],
}


@pytest.mark.parametrize(
    ("path", "damage", "said"),
    [
        pytest.param(path, damage, said, id=f"{Path(path).name} {name}")
        for path, damages in DAMAGES.items()
        for name, damage, said in damages
    ],
)
def test_damage_is_an_error_of_one_line_that_names_the_file(path: str, damage: Damage, said: str, folder: Path) -> None:
    damage(folder / path)
    text = refused(lambda: Summary(read_comparison(folder)))
    named = folder / ("results.csv" if said is NOT_ITS else path)
    assert text.startswith(f"{named}{said}")


@pytest.mark.parametrize("values", [{"folds": 4, "repeats": 1}, {"folds": 1000}, {"folds": None}])
def test_predictions_of_other_folds_than_are_noted_are_refused(values: dict[str, Any], folder: Path) -> None:
    change_about(folder, **values)
    text = refused(lambda: read_comparison(folder))
    assert text.startswith(f"{folder / SINGLE / PREDICTIONS}: not the predictions of the test pictures")
    assert ("folds" in text) == (values["folds"] is not None)


def test_more_folds_than_anybody_runs_are_damage(folder: Path) -> None:
    change_about(folder, folds=10**12)
    assert refused(lambda: read_comparison(folder)).startswith(f"{folder / 'about.json'}: damaged (no such folds)")


def test_a_model_that_was_not_validated_is_not_ranked_without_folds(tmp_path: Path) -> None:
    folder = small(tmp_path / "version_0", folds=0)
    cells(2, val_loss="")(folder / "results.csv")
    text = refused(lambda: read_comparison(folder))
    assert text == (
        f"{folder}/results.csv: {NAMED} was not validated, and cannot be ranked; "
        "run its model again with gel-fit compare --resume"
    )


@pytest.mark.parametrize(
    ("path", "damage", "refused_alone"),
    [
        pytest.param(path, damage, said is not OTHERS and name not in BESIDE, id=f"{Path(path).name} {name}")
        for path, damages in DAMAGES.items()
        for name, damage, said in damages
        if path == PREDICTED or (path in (CURVED, "results.csv") and name not in NOT_RESUMED)
    ],
)
def test_what_a_report_refuses_is_run_again(path: str, damage: Damage, refused_alone: bool, folder: Path) -> None:
    about = read_about(folder)
    assert [record.name for record in finished(folder, about)] == [NAMED, NAMED.replace("single", "multi")]
    damage(folder / path)
    left = [record.name for record in finished(folder, about)]
    assert (len(left) < 2) == refused_alone


def test_what_is_no_comparison_is_refused(folder: Path) -> None:
    for path in ("no such folder", "results.csv"):
        text = refused(lambda: read_comparison(folder / path))  # noqa: B023
        assert text.startswith(f"{folder / path}: no such folder; name the folder of a comparison")
    for path in ("about.json", "results.csv"):
        (folder / path).unlink()
        text = refused(lambda: read_comparison(folder))
        assert text == f"{folder}: no comparison, for it has no {path}; name a folder that gel-fit compare has left"


def test_a_model_that_is_not_there_is_missed(folder: Path) -> None:
    cells(3, pretrained_model="vgg16")(folder / "results.csv")
    text = refused(lambda: read_comparison(folder))
    assert text.startswith(
        f"{folder}/vgg16_multi_sgd_cpu/{PREDICTIONS}: No such file or directory; run its model again"
    )


def test_where_all_models_failed_there_is_nothing_to_report(tmp_path: Path) -> None:
    folder = small(tmp_path, failed=[SINGLE, MULTI])
    text = refused(lambda: read_comparison(folder))
    assert text == f"{folder}/results.csv: no model in it was fitted, and there is nothing to report"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("path", ["results.csv", "about.json", PREDICTED, CURVED])
def test_a_file_that_may_not_be_read_is_named(path: str, folder: Path) -> None:
    (folder / path).chmod(0)
    assert refused(lambda: read_comparison(folder)).startswith(f"{folder}/{path}: ")


def read_damaged(whole: Path, path: str, change: Callable[[bytes], bytes]) -> None:
    """Reads a comparison a file of which is damaged: it is as good as whole, or refused in one line."""
    with TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(whole, Path(temporary) / "version_0"))
        (folder / path).write_bytes(change((folder / path).read_bytes()))
        comparison: Comparison | None = None
        try:
            comparison = read_comparison(folder)
        except GelError as error:
            said = str(error)
        if comparison is None:
            assert said.startswith(f"{folder}/")
            assert len(said.splitlines()) == 1
            return
        expected = {record.name: record for record in read_comparison(whole).records}
        for record in comparison.records:
            sure = next(iter(expected.values()))
            assert [outcome[:2] for outcome in record.folds] == [outcome[:2] for outcome in sure.folds]
            assert record.training_seconds >= 0
            assert all(outcomes_equal(*both) for both in zip(record.folds, comparison.records[0].folds, strict=True))
        summary = Summary(comparison)
        assert len({model.name for model in summary.models}) == len(summary.models) == len(comparison.records)
        assert all(np.isfinite(model.estimates["accuracy"].value) for model in summary.models)
        assert len(summary.pairs) <= 1
        assert summary.effects is not None


FILES = ["results.csv", "about.json", PREDICTED, CURVED]


@pytest.mark.parametrize("path", FILES)
@given(part=st.floats(0, 1))
@settings(deadline=None, max_examples=12)
def test_a_file_cut_anywhere_is_whole_enough_or_refused(path: str, whole: Path, part: float) -> None:
    read_damaged(whole, path, lambda content: content[: int(part * len(content))])


@pytest.mark.parametrize("path", FILES)
@given(part=st.floats(0, 1, exclude_max=True), byte=st.sampled_from(b'",\n\r\0 019-.ea[]{}\xff') | st.integers(0, 255))
@settings(deadline=None, max_examples=12)
def test_a_file_with_another_byte_is_whole_enough_or_refused(path: str, whole: Path, part: float, byte: int) -> None:
    def change(content: bytes) -> bytes:
        place = int(part * len(content))
        return content[:place] + bytes([byte]) + content[place + 1 :]

    read_damaged(whole, path, change)


@given(content=st.binary() | st.text().map(str.encode))
@settings(deadline=None, max_examples=12)
@pytest.mark.parametrize("path", FILES)
def test_a_file_of_anything_is_refused(path: str, whole: Path, content: bytes) -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(whole, Path(temporary) / "version_0"))
        (folder / path).write_bytes(content)
        text = refused(lambda: read_comparison(folder))
        assert text.startswith(f"{folder / path}")
