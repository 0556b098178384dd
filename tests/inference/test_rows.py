"""One row for each picture: answers, the table, JSON, and the sentence."""

import csv
import json
import os
from pathlib import Path

import pytest

from gel_lightning.inference.rows import (
    CSV_OPTIONS,
    LEAST_CERTAIN,
    REASONS,
    UNSURE,
    Row,
    Summary,
    Table,
    answered,
    from_json,
    thresholds_at,
    to_json,
)

NAMES = ("gel", "not_gel")


def row(gel: float, path: str = "a.png", level: str = "high") -> Row:
    return answered(path, {"gel": gel, "not_gel": 1 - gel}, thresholds_at(level, (0.9, 0.8)))


@pytest.mark.parametrize(
    ("gel", "level", "answer"),
    [
        (0.9, "high", "gel"),
        (0.89, "high", UNSURE),
        (0.2, "high", "not_gel"),
        (0.21, "high", UNSURE),
        (0.7, "medium", "gel"),  # halfway between 0.9 and 0.5
        (0.69, "medium", UNSURE),
        (0.36, "medium", UNSURE),
        (0.35, "medium", "not_gel"),
        (0.51, "best-guess", "gel"),
        (0.49, "best-guess", "not_gel"),
    ],
)
def test_an_answer_is_a_class_where_its_probability_is_high_enough(gel: float, level: str, answer: str) -> None:
    made = row(gel, level=level)
    predicted = "gel" if gel > 0.5 else "not_gel"
    assert made == Row("a.png", answer, predicted, max(gel, round(1 - gel, 6)), made.probabilities)
    assert made.probabilities == {"gel": gel, "not_gel": round(1 - gel, 6)}


def test_a_threshold_that_nothing_reaches() -> None:
    never = (2.0, 0.9)
    sure = {"gel": 1.0, "not_gel": 0.0}
    assert answered("a", sure, thresholds_at("high", never)).answer == UNSURE
    assert thresholds_at("medium", never) == (0.75, 0.7)
    assert answered("a", sure, thresholds_at("best-guess", never)).answer == "gel"


def test_what_is_written_is_what_is_compared() -> None:
    assert row(0.8999999).answer == "gel"  # 0.900000
    assert row(0.8999994).answer == UNSURE


def written(path: Path, rows: list[Row]) -> list[dict[str, str]]:
    with path.open("w", **CSV_OPTIONS) as file:
        table = Table(file, NAMES)
        for each in rows:
            table.add(each)
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_the_table_has_all_of_a_row(tmp_path: Path) -> None:
    note = "page 1 of 3"
    rows = written(tmp_path / "a.csv", [row(0.25)._replace(note=note), Row("b.png", error="is empty (0 bytes)")])
    shares = {"confidence": "0.750000", "probability_gel": "0.250000", "probability_not_gel": "0.750000"}
    assert rows[0] == {"path": "a.png", "answer": UNSURE, "predicted": "not_gel", **shares, "error": "", "note": note}
    empty = dict.fromkeys(("answer", "predicted", *shares), "")
    assert rows[1] == {"path": "b.png", **empty, "error": "is empty (0 bytes)", "note": ""}
    assert (tmp_path / "a.csv").read_bytes().startswith(b"\xef\xbb\xbfpath,answer,predicted,confidence,")


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    made = answered("=1+1.png", {"=cmd": 1.0, "not_gel": 0.0}, (0.0, 0.0))._replace(error="-1 is wrong")
    (read,) = written(tmp_path / "a.csv", [made])
    assert [read[name] for name in ("path", "answer", "predicted", "error")] == [
        *("./=1+1.png", "'=cmd", "'=cmd", "'-1 is wrong")
    ]


@pytest.mark.parametrize("path", ["Gelée.png", os.fsdecode(b"caf\xe9.png"), "new\nline.png", 'quote".png'])
def test_json_is_one_line_that_gives_the_row_back(path: str) -> None:
    for made in (row(0.25, path), Row(path, error="is empty")):
        line = to_json(made)
        assert "\n" not in line
        assert from_json(line) == made
        assert os.fsencode(json.loads(line)["path"]) == os.fsencode(path)
        line.encode("ascii")


def summed(rows: list[Row], looked_for: str | None = None, **left_out: int) -> list[str]:
    summary = Summary(NAMES, looked_for)
    summary.left_out = {name and f".{name}": count for name, count in left_out.items()}
    for each in rows:
        summary.add(each)
    return summary.lines()


def test_the_sentence() -> None:
    sure, unsure, other, cut = row(0.95), row(0.6), row(0.1), Row("cut.png", error="is empty (0 bytes)")
    assert summed([sure, sure, other]) == ["2 of 3 pictures are gels"]
    assert summed([sure, other]) == ["1 of 2 pictures is a gel"]
    assert summed([sure, other], "not_gel") == ["1 of 2 pictures is not_gel"]
    assert summed([sure, sure, unsure, cut, other], pdf=4, zip=5) == [
        "2 of 5 pictures are gels, 1 unsure, 1 could not be read, 9 files left out (5 .zip, 4 .pdf)",
        "could not be read: cut.png: is empty (0 bytes)",
    ]
    assert summed([], txt=1) == ["0 of 0 pictures are gels, 1 file left out (1 .txt)"]


def test_the_sentence_about_many_classes() -> None:
    names = [f"class_{i}" for i in range(12)]
    summary = Summary(names)
    for place, name in enumerate(names):
        for _ in range(place):
            summary.add(Row("a.png", name, name, 0.9, {name: 0.9}))
    summary.add(Row("b.png", UNSURE, names[0], 0.2, {names[0]: 0.2}))
    counted = ", ".join(f"{i} class_{i}" for i in range(11, 1, -1))
    assert summary.lines() == [f"67 pictures, {counted}, 1 of other classes, 1 unsure"]
    assert Summary(names, "class_3").lines() == ["0 of 0 pictures are class_3"]


def test_the_sentence_about_one_picture() -> None:
    assert summed([row(0.95)]) == ["a.png is classified as gel, with probability 0.950"]
    assert summed([row(0.6)]) == ["a.png: unsure; most probable is gel, with probability 0.600"]
    assert summed([Row("\x1b.png", error="is empty")]) == [
        "1 could not be read",
        r"could not be read: \x1b.png: is empty",
    ]


def test_the_first_reasons_are_named_and_the_least_certain_kept() -> None:
    summary = Summary(NAMES)
    for number in range(20):
        summary.add(row(0.99 - number / 100, f"{number}.png"))
        summary.add(Row(f"cut_{number}.png", error="is empty"))
    assert len(summary.lines()) == 1 + REASONS + 1
    assert summary.lines()[-1] == f"could not be read: {20 - REASONS} more, each with its reason in its row"
    assert [path for _, path, _ in summary.least_certain] == [f"{19 - i}.png" for i in range(LEAST_CERTAIN)]
    assert summary.counts == {"gel": 10, "not_gel": 0, UNSURE: 10}
