import csv
import io
import json
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from conftest import file_size_limit, read_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from gel_lightning.core.errors import GelError
from gel_lightning.models.spec import STUDY
from gel_lightning.training.results import COLUMNS, add_result, read_results

# Spelled out here, since this is what other people's scripts read.
ORIGINAL = [
    *("model_id", "hardware_type", "pretrained_model", "classifier_head", "opt_alg", "training_time_mins"),
    *("inference_time_secs", "accuracy", "precision", "recall", "conf_mat", "roc_auc"),
]
VAL_METRICS = ("loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc")
DOCUMENTED = [
    *ORIGINAL,
    *("weights", "seed", "epochs", "train_pictures", "val_pictures", "test_pictures"),
    *(f"val_{name}" for name in VAL_METRICS),
    *("version", "checkpoint", "device", "error"),
    *("learning_rate", "batch_size", "class_weights", "lr_scheduler", "data_folder", "image_size", "unfreeze"),
    *("label_smoothing", "mixup", "size_mb", "parameters", "trainable_parameters", "multiply_adds"),
    *("config", "dataset", "colour"),
]
FIRST = DOCUMENTED[:29]  # of files of the first version
HEADER = ",".join(DOCUMENTED) + "\n"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_the_columns_are_those_of_the_original_and_then_ours() -> None:
    assert list(COLUMNS) == DOCUMENTED


@pytest.mark.real
def test_the_original_study_has_the_same_columns(shared: Path) -> None:
    with (shared / "reference/original_results.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ORIGINAL


@pytest.mark.real
def test_models_have_the_numbers_of_the_original_study(shared: Path) -> None:
    originals = {}
    for row in read_rows(shared / "reference/original_results.csv"):
        backbone = {"mobilenet-v3": "mobilenet_v3_large"}.get(row["pretrained_model"], row["pretrained_model"])
        originals[row["hardware_type"], backbone, row["classifier_head"], row["opt_alg"]] = int(row["model_id"])
    assert sorted(originals.values()) == list(range(1, 25))
    assert {model: number for model, number in STUDY.items() if model[0] != "tpu"} == originals


def test_models_on_a_tpu_follow_in_the_same_order() -> None:
    assert sorted(STUDY.values()) == list(range(1, 37))
    for (hardware, backbone, head, optimizer), number in STUDY.items():
        if hardware == "cpu":
            assert STUDY["gpu", backbone, head, optimizer] == number + 12
            assert STUDY["tpu", backbone, head, optimizer] == number + 24


def test_a_fit_leaves_a_row(two_fits: Path) -> None:
    with (two_fits / "lightning_logs/results.csv").open(newline="") as file:
        assert next(csv.reader(file)) == DOCUMENTED
    row = next(row for row in read_rows(two_fits / "lightning_logs/results.csv") if row["version"] == "version_0")
    said = {"model_id": "4", "hardware_type": "cpu", "pretrained_model": "resnet18", "classifier_head": "multi"}
    said |= {"opt_alg": "sgd", "weights": "none", "seed": "42", "epochs": "4"}
    said |= {"train_pictures": "16", "val_pictures": "4", "test_pictures": "8"}
    assert row.items() >= said.items()
    assert Path(row["checkpoint"]) == two_fits / "lightning_logs/resnet18_multi_sgd_cpu/version_0/checkpoints/best.ckpt"
    assert Path(row["checkpoint"]).exists()

    matrix = np.array(json.loads(row["conf_mat"]))
    assert matrix.shape == (2, 2)
    assert matrix.sum(axis=1).tolist() == [4, 4]  # a row for each actual class
    assert float(row["accuracy"]) == float(row["recall"]) == matrix.trace() / 8
    for name in ("precision", "roc_auc", *(f"val_{name}" for name in VAL_METRICS)):
        assert 0 <= float(row[name]) <= 1, name
    assert (row["device"], row["error"]) == ("cpu", "")
    settings = {"learning_rate": "0.001", "batch_size": "5", "class_weights": "", "lr_scheduler": ""}
    assert row.items() >= (settings | {"image_size": "32"}).items()
    assert Path(row["data_folder"]).is_dir()
    # ResNet18 without its last layer has 11,176,512 parameters and 9,620 values in buffers; the head learns.
    head = 512 * 512 + 512 + 512 * 256 + 256 + 256 * 2 + 2
    assert (int(row["parameters"]), int(row["trainable_parameters"])) == (11_176_512 + head, head)
    assert float(row["size_mb"]) == pytest.approx(4e-6 * (11_176_512 + 9_620 + head))
    # Its convolutions take 1,813,561,344 for pictures of 224 pixels, 7 times the side.
    assert int(row["multiply_adds"]) == 1_813_561_344 // 7**2 + 512 * 512 + 512 * 256 + 256 * 2
    assert 0 < float(row["training_time_mins"]) < 5
    assert 0 < float(row["inference_time_secs"]) < 300


def test_a_file_begins_with_its_header_and_rows_follow(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/results.csv"
    assert read_results(path) == ""
    add_result(path, {"model_id": 4, "conf_mat": [[7, 4], [0, 11]]})
    add_result(path, {"weights": 'a "quoted", name', "accuracy": 0.5})
    assert path.read_text().startswith(HEADER)
    first, second = read_rows(path)
    assert first == dict.fromkeys(DOCUMENTED, "") | {"model_id": "4", "conf_mat": "[[7, 4], [0, 11]]"}
    assert second == dict.fromkeys(DOCUMENTED, "") | {"weights": 'a "quoted", name', "accuracy": "0.5"}


def test_a_column_that_there_is_not_is_a_bug_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    add_result(path, {"model_id": 1})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="epoch"):
        add_result(path, {"epoch": 1})
    assert path.read_bytes() == before
    assert files(tmp_path) == ["results.csv"]


OLD_ROW = '7,cpu,"two\nlines, and ""quotes"""' + "," * (len(FIRST) - 3)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_of_an_older_version_is_extended(tmp_path: Path, end: str) -> None:
    path = tmp_path / "results.csv"
    path.write_text(",".join(FIRST) + end + OLD_ROW + end, newline="")
    add_result(path, {"model_id": 8, "learning_rate": 0.1})
    assert path.read_bytes().startswith(
        f"{HEADER.strip()}{end}{OLD_ROW}{',' * (len(DOCUMENTED) - len(FIRST))}{end}".encode()
    )
    old, new = read_rows(path)
    assert old == dict.fromkeys(DOCUMENTED, "") | {
        "model_id": "7",
        "hardware_type": "cpu",
        "pretrained_model": 'two\nlines, and "quotes"',
    }
    assert new == dict.fromkeys(DOCUMENTED, "") | {"model_id": "8", "learning_rate": "0.1"}


def test_columns_of_named_test_sets_are_added_to_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    add_result(path, {"model_id": 1})
    add_result(path, {"model_id": 2, "accuracy_other_labs": 0.9})
    add_result(path, {"model_id": 3, "accuracy_blots": 0.8})
    add_result(path, {"model_id": 4})
    rows = read_rows(path)
    assert list(rows[0]) == [*DOCUMENTED, "accuracy_other_labs", "accuracy_blots"]
    assert [(row["accuracy_other_labs"], row["accuracy_blots"]) for row in rows] == [
        *(("", ""), ("0.9", "")),
        *(("", "0.8"), ("", "")),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param("1,cpu", "2 cells in 29 columns", id="too few cells"),
        pytest.param(OLD_ROW + ",x", "30 cells in 29 columns", id="too many cells"),
        pytest.param('1,"cpu', "unexpected end of data", id="a quote that does not end"),
    ],
)
def test_an_older_file_with_a_damaged_row_is_refused_and_left(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    before = ",".join(FIRST) + f"\n{line}\n"
    path.write_text(before)
    with pytest.raises(GelError, match=rf"results\.csv, line \d: {words}; mend the line, or name another file"):
        add_result(path, {"model_id": 1})
    assert path.read_text() == before


def test_a_last_line_without_its_end_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    add_result(path, {"model_id": 1})
    path.write_text(path.read_text().rstrip("\n"))
    add_result(path, {"model_id": 2})
    assert [row["model_id"] for row in read_rows(path)] == ["1", "2"]


def test_line_ends_of_windows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    add_result(path, {"model_id": 1})
    before = path.read_bytes().replace(b"\n", b"\r\n")
    path.write_bytes(before)
    add_result(path, {"model_id": 2})
    assert path.read_bytes().startswith(before)
    assert [row["model_id"] for row in read_rows(path)] == ["1", "2"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"a,b\n1,2\n", id="another table"),
        pytest.param(HEADER.encode().replace(b"roc_auc", b"auroc"), id="another header"),
        pytest.param(b"\n" + HEADER.encode(), id="an empty line first"),
        pytest.param(",".join([*DOCUMENTED, "mine"]).encode() + b"\n", id="a column of another program"),
        pytest.param(",".join([*DOCUMENTED, "image_size"]).encode() + b"\n", id="a column twice"),
        pytest.param(",".join(FIRST[:-1]).encode() + b"\n", id="a column less"),
        pytest.param(b"\x89PNG\r\n\x1a\n\xff", id="no text"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_left(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    with pytest.raises(GelError, match=r"results\.csv: not a results file.*name another file") as error:
        add_result(path, {"model_id": 1})
    assert len(str(error.value).splitlines()) == 1
    assert path.read_bytes() == content


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GelError, match="name another file"):
        read_results(tmp_path)


@given(content=st.one_of(st.binary(), st.text().map(str.encode), st.text().map(lambda text: (HEADER + text).encode())))
@settings(deadline=None, max_examples=100)
def test_whatever_is_in_a_file_is_kept(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "results.csv"
        path.write_bytes(content)
        try:
            add_result(path, {"model_id": 36})
        except GelError:
            assert path.read_bytes() == content
        else:
            assert path.read_bytes().startswith(content)
            assert path.read_bytes().decode().endswith("\n36" + "," * (len(DOCUMENTED) - 1) + "\n")
        assert files(Path(folder)) == ["results.csv"]


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"))  # csv of Python 3.10 reads no NUL


@given(rows=st.lists(st.lists(cells, min_size=len(DOCUMENTED), max_size=len(DOCUMENTED)), max_size=3), added=cells)
@settings(deadline=None, max_examples=50)
def test_rows_of_any_text_are_read_back(rows: list[list[str]], added: str) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([DOCUMENTED, *rows])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "results.csv"
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
        add_result(path, {"weights": added})
        *before, last = read_rows(path)
        assert [list(row.values()) for row in before] == rows
        assert last == dict.fromkeys(DOCUMENTED, "") | {"weights": added}


def add_some(path: Path, first: int) -> None:
    for number in range(first, first + 10):
        add_result(path, {"model_id": number})


def test_threads_at_once_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_some, [path] * 8, range(0, 80, 10)))
    assert sorted(int(row["model_id"]) for row in read_rows(path)) == list(range(80))


def test_processes_at_once_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    fork = multiprocessing.get_context("fork")  # a process that is not forked would import torch for seconds
    adders = [fork.Process(target=add_some, args=(path, first)) for first in range(0, 40, 10)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join(60)
    assert [adder.exitcode for adder in adders] == [0] * 4
    assert sorted(int(row["model_id"]) for row in read_rows(path)) == list(range(40))


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    add_result(path, {"weights": "a" * 1000})
    before = path.read_bytes()
    with file_size_limit(len(before)), pytest.raises(OSError, match="too large"):
        add_result(path, {"model_id": 1})
    assert path.read_bytes() == before
    assert files(tmp_path) == ["results.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    add_result(path, {"model_id": 1})
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            add_result(path, {"model_id": 2})
    finally:
        tmp_path.chmod(0o700)
    assert len(read_rows(path)) == 1
