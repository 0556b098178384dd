import json
from importlib.resources import files
from pathlib import Path

import pytest
from conftest import read_rows

from gel_lightning.comparison.original import SOURCE, original_results
from gel_lightning.comparison.statistics import exact_interval
from gel_lightning.models.spec import ModelSpec


def test_there_are_24_numbered_as_our_models_are() -> None:
    originals = original_results()
    assert list(originals) == list(range(1, 25))
    for number, result in originals.items():
        assert result.model_id == number
        assert list(result.levels) == ["backbone", "head", "optimizer", "hardware"]
        levels = result.levels
        model = ModelSpec(levels["backbone"], levels["head"], levels["optimizer"], levels["hardware"])
        assert model.study_number == number
    assert {result.levels["hardware"] for result in originals.values()} == {"cpu", "gpu"}
    assert SOURCE.startswith("https://github.com/")


def test_the_best_was_right_about_21_of_22_which_is_little() -> None:
    best = max(original_results().values(), key=lambda result: result.right)
    assert best.levels == {"backbone": "resnet18", "head": "multi", "optimizer": "sgd", "hardware": "gpu"}
    assert (best.right, best.total) == (21, 22)
    assert best.accuracy == exact_interval(21, 22)
    assert [round(end, 3) for end in best.accuracy] == [0.955, 0.772, 0.999]


@pytest.mark.real
def test_each_is_what_the_original_study_has_published(shared: Path) -> None:
    rows = read_rows(shared / "reference/original_results.csv")
    originals = original_results()
    assert [int(row["model_id"]) for row in rows] == list(originals)
    for row, result in zip(rows, originals.values(), strict=True):
        backbone = {"mobilenet-v3": "mobilenet_v3_large"}.get(row["pretrained_model"], row["pretrained_model"])
        assert result.levels == {
            "backbone": backbone,
            "head": row["classifier_head"],
            "optimizer": row["opt_alg"],
            "hardware": row["hardware_type"],
        }
        assert result.training_seconds == pytest.approx(60 * float(row["training_time_mins"]))
        assert result.inference_seconds == float(row["inference_time_secs"])
        (a, b), (c, d) = json.loads(row["conf_mat"])
        assert (result.right, result.total) == (a + d, a + b + c + d)
        assert f"{100 * result.accuracy.value:.2f}%" == row["accuracy"]


@pytest.mark.real
def test_the_package_has_the_very_file_of_the_study(shared: Path) -> None:
    own = files("gel_lightning.comparison").joinpath("original_results.csv")
    assert own.read_bytes() == (shared / "reference/original_results.csv").read_bytes()
