import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import change_about, make_comparison
from scipy.stats import fisher_exact

from gel_lightning.comparison.predictions import Outcome
from gel_lightning.comparison.records import read_comparison
from gel_lightning.comparison.report.answer import answer, duration, effect_in_words, interval, percent, points
from gel_lightning.comparison.statistics import Difference, Effect, Estimate
from gel_lightning.comparison.summary import Summary

NO_BREAK = "\u00a0"


def said(folder: Path, **options: Any) -> str:
    """The answer about a made-up comparison, with spaces for its spaces that do not break."""
    return "\n".join(answer(summarised(make_comparison(folder, **options)))).replace(NO_BREAK, " ")


def summarised(folder: Path) -> Summary:
    return Summary(read_comparison(folder))


def test_a_clear_winner_is_named_with_what_matters(tmp_path: Path) -> None:
    text = said(tmp_path, skill={"resnet18": 2.5, "mobilenet_v2": 0.0}, repeats=10)
    summary = summarised(tmp_path)
    best = summary.models[0]
    assert f"\nThe best of 8 models is {best.name}" in text
    assert "Trained on 4 of 5 folds of 40 pictures and tested on the other, each in turn, 10 times over" in text
    estimate = best.estimates["accuracy"]
    assert estimate.high == 1
    ends = f"{100 * estimate.low:.1f} % to 100 %"
    assert f"it was right for {100 * estimate.value:.1f} % (95 % interval: {ends})" in text
    assert f"right about {best.right} of the 20 test pictures" in text
    worse = [model.name for model in summary.models if "mobilenet" in model.name]
    assert f"It is shown to be better than {', '.join(worse[:-1])} and {worse[-1]}, and not than the other 3" in text
    assert re.search(r"Backbone: resnet18 is better than mobilenet_v2 by \d+\.\d points, 95 % interval \+", text)
    assert "Head: no difference shown between" in text
    assert "Optimizer: no difference shown between" in text
    assert "Hardware" not in text  # all ran on one kind
    assert "Of the 4 that may be as good, resnet18 " in text
    assert "21 of 22 other test pictures, 95.5 % (95 % interval: 77.2 % to 99.9 %)" in text
    assert "demonstration" in text  # the weights are random


def test_equal_models_are_called_equal(tmp_path: Path) -> None:
    text = said(tmp_path, repeats=4)
    assert "No model is shown to be better than another: of the 28 pairs of models, none differs" in text
    assert " is better than " not in text
    assert text.count("no difference shown between") == 3


def test_models_that_are_always_right_are_level(tmp_path: Path) -> None:
    text = said(tmp_path, skill=50.0, backbones=["resnet18"], heads=["single"])
    best = r"The best of 2 models is (.*): it has the highest accuracy in the cross-validation, level with (.*), and "
    found = re.search(best + r"of these the lowest log loss there, [\d.e-]+\. Trained on", text)
    assert found
    assert set(found.groups()) == {"resnet18 single adam", "resnet18 single sgd"}
    # 39 different pictures, of which none was wrong.
    assert "it was right for 100 % (95 % interval: 91.0 % to 100 %)" in text
    assert "of the only pair of models, none differs" in text
    assert "0.0 points, 95 % interval +0.0 to +0.0" in text


def test_one_split_is_said_to_prove_little(tmp_path: Path) -> None:
    text = said(tmp_path, folds=0, repeats=1)
    assert text.startswith("This is a demonstration with a random backbone")
    chosen = r"is \S+ \S+ \S+: it has the highest accuracy on the 8 validation pictures, [\d.]+ %(, level with .*)?\. "
    tested = r"It was right about \d+ of the 20 test pictures, .*, which played no part in the choice\."
    assert re.search(chosen + tested, text)
    assert "do not show that it is better than all others: their intervals overlap" in text


def test_intervals_that_do_not_overlap_are_said_to(tmp_path: Path) -> None:
    only = {"backbones": ["resnet18", "mobilenet_v2"], "heads": ["single"], "optimizers": ["sgd"]}
    text = said(tmp_path, skill={"resnet18": 50.0, "mobilenet_v2": -50.0}, folds=0, repeats=1, **only)
    assert "Its interval lies above that of the other model. gel-fit compare --folds 5" in text
    assert "do not show" not in text
    assert "gel-fit compare --folds 5 --repeats 10 tells more" in text
    assert "points" not in text


@pytest.mark.parametrize(
    ("right", "differs"),
    [
        ((2, 14), "is lower than"),
        ((9, 20), "does not differ significantly from"),
    ],
)
def test_other_test_pictures_show_how_far_results_carry(right: tuple[int, int], differs: str, tmp_path: Path) -> None:
    """The 20 test pictures are all right; of ten gels and twenty others some are."""
    summary = summarised(make_comparison(tmp_path, skill=50.0, backbones=["resnet18"], heads=["single"]))
    labels = np.repeat([0, 1], [10, 20])
    guesses = np.concatenate([np.arange(10) >= right[0], np.arange(20) < right[1]]).astype(int)
    named = Outcome(0, 0, tuple(map(str, range(30))), labels, np.eye(2)[guesses])
    summary.models[:] = [summary._model(model.record._replace(named={"other_labs": named})) for model in summary.models]
    text = "\n".join(answer(summary)).replace(NO_BREAK, " ")
    gels, others = right
    assert f"of other_labs, {summary.models[0].name} was right about {gels + others} of 30 pictures, " in text
    assert f": {gels} of the 10 of gel and {others} of the 20 of not_gel. All 2 models: " in text
    assert f"{100 * (gels + others) / 30:.1f} % on average, after 100 % of the test pictures. " in text
    chance = fisher_exact([[20, 0], [gels + others, 30 - gels - others]]).pvalue
    assert f" {differs} that on the test pictures (Fisher's exact test, p = {chance:.2g})." in text


def test_one_model_is_compared_with_none(tmp_path: Path) -> None:
    text = said(tmp_path, backbones=["resnet18"], heads=["multi"], optimizers=["sgd"])
    assert "The model is resnet18 multi sgd. Trained on" in text
    assert "better" not in text
    assert "difference" not in text


def test_only_a_demonstration_is_called_one(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    change_about(tmp_path, drawn=True)
    assert answer(summarised(tmp_path))[0].startswith("This is a demonstration with drawn pictures and a random")
    change_about(tmp_path, drawn=False, weights={"resnet18": {"name": "imagenet", "fingerprint": ""}})
    assert not any("demonstration" in text for text in answer(summarised(tmp_path)))


def test_a_random_backbone_beside_others_is_said_of_its_models_alone(tmp_path: Path) -> None:
    make_comparison(tmp_path, backbones=["resnet18", "vgg16"], heads=["multi"], optimizers=["sgd"])
    named = {"resnet18": "imagenet", "vgg16": "none"}
    change_about(tmp_path, weights={name: {"name": weights, "fingerprint": ""} for name, weights in named.items()})
    (first, *_) = answer(summarised(tmp_path))
    assert first == "The backbone of vgg16 multi sgd is random: those results say nothing about the network."


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Difference(0.021, 0.001, 0.041, 0.04), "a is better than b by 2.1 points, 95 % interval +0.1 to +4.1"),
        (Difference(0.021, -0.001, 0.043, 0.06), "no difference shown between a and b (2.1 points, 95 % interval"),
        (Difference(0.0, 0.0, 0.0, 1.0), "no difference shown between a and b (0.0 points, 95 % interval +0.0"),
        (Difference(0.5, math.nan, math.nan, 0.1), "no difference shown between a and b (50.0 points)"),
    ],
)
def test_words_follow_the_interval(difference: Difference, words: str) -> None:
    assert effect_in_words(Effect("head", "a", "b", difference)).replace(NO_BREAK, " ").startswith(words)


def test_numbers_in_words() -> None:
    assert [percent(x) for x in (1, 0.9996, 0.954, 0)] == [f"{n}{NO_BREAK}%" for n in ("100", "100.0", "95.4", "0.0")]
    assert [points(share) for share in (-0.0123, 0.5)] == ["−1.2", "+50.0"]
    assert interval(Estimate(1, math.nan, math.nan)) == ""
    times = [0.0123, 0.5, 119.9, 120, 7200]
    assert [duration(time) for time in times] == ["12 ms", "0.5 s", "119.9 s", "2.0 min", "2.0 h"]
