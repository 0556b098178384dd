"""The 24 results of the original study."""

import csv
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple

from gel_lightning.comparison.statistics import Estimate, exact_interval
from gel_lightning.models.spec import study_model

SOURCE = "https://github.com/kalthommusa/Gel-Electrophoresis-Image-Classification"


class Original(NamedTuple):
    """A result of the original study.

    Attributes:
        model_id: its number, 1 to 24.
        levels: its backbone, head, optimizer and hardware.
        training_seconds: wall time of its 20 epochs.
        inference_seconds: wall time of predicting its test pictures.
        right: number of right answers on the test pictures.
        total: number of test pictures.
    """

    model_id: int
    levels: dict[str, str]
    training_seconds: float
    inference_seconds: float
    right: int
    total: int

    @property
    def accuracy(self) -> Estimate:
        """The share of right answers, with its exact interval."""
        return exact_interval(self.right, self.total)


def original_results() -> dict[int, Original]:
    """Reads the results, by number."""
    text = files("gel_lightning.comparison").joinpath("original_results.csv").read_text(encoding="utf-8")
    return {int(row["model_id"]): _result(row) for row in csv.DictReader(text.splitlines())}


def _result(row: Mapping[str, str]) -> Original:
    number = int(row["model_id"])
    matrix = json.loads(row["conf_mat"])
    return Original(
        number,
        study_model(number).levels,
        float(row["training_time_mins"]) * 60,
        float(row["inference_time_secs"]),
        sum(line[i] for i, line in enumerate(matrix)),
        sum(map(sum, matrix)),
    )
