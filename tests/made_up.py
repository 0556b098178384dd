"""Comparisons that no one ran: the files that `gel-fit compare` leaves, of models of known skill."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gel_lightning.comparison.about import write_about
from gel_lightning.comparison.folder import CURVES, PREDICTIONS
from gel_lightning.comparison.predictions import Outcome, write_predictions
from gel_lightning.core.files import replacing
from gel_lightning.models.spec import ModelSpec
from gel_lightning.training.results import rewrite_results

BACKBONES, HEADS, OPTIMIZERS = ("resnet18", "mobilenet_v2"), ("single", "multi"), ("adam", "sgd")
CLASSES = ("gel", "not_gel")

file_names = st.binary(min_size=1, max_size=30).map(lambda name: os.fsdecode(name.replace(b"\0", b"")))
some_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10)


def outcome(
    rng: np.random.Generator,
    place: tuple[int, int],
    paths: Sequence[str],
    labels: Sequence[int],
    classes: int,
    skill: float,
) -> Outcome:
    """What a model of some skill makes of pictures: 0 guesses, 3 is nearly always right."""
    scores = rng.normal(0, 1, (len(labels), classes))
    scores[np.arange(len(labels)), labels] += skill
    shares = np.exp(2 * scores)
    return Outcome(*place, tuple(paths), np.array(labels), shares / shares.sum(1, keepdims=True))


def make_comparison(
    folder: Path,
    *,
    backbones: Sequence[str] = BACKBONES,
    heads: Sequence[str] = HEADS,
    optimizers: Sequence[str] = OPTIMIZERS,
    hardware: Sequence[str] = ("cpu",),
    classes: Sequence[str] = CLASSES,
    folds: int = 5,
    repeats: int = 2,
    per_class: int = 20,
    skill: Mapping[str, float] | float = 2.0,
    failed: Sequence[str] = (),
    pictures: Path | None = None,
    unfreeze: float = 0.0,
    seed: int = 0,
) -> Path:
    """Makes the folder of a comparison.

    Args:
        folder: to be made.
        backbones: of the grid, as the other three.
        heads: of the grid.
        optimizers: of the grid.
        hardware: of the grid.
        classes: names of the classes.
        folds: of the cross-validation; 0 leaves it out.
        repeats: of it.
        per_class: pictures of each class, and half as many test pictures.
        skill: of all models, or of those that have a level of some factor.
        failed: names of models that failed, as ``resnet18_single_adam_cpu``.
        pictures: folder in which the pictures are said to be.
        unfreeze: share of the backbones' layers that are said to be trained.
        seed: of what they answer.
    """
    rng = np.random.default_rng(seed)
    home = pictures or Path("pictures")
    everything = [
        (str(home / name / f"{name}_{i}.png"), label) for label, name in enumerate(classes) for i in range(per_class)
    ]
    tested = [
        (str(home / "test" / name / f"{name}_{i}.png"), label)
        for label, name in enumerate(classes)
        for i in range(max(per_class // 2, 1))
    ]
    dealt = []
    for repeat in range(1, repeats + 1 if folds else 1):
        order = rng.permutation(per_class)
        dealt += [
            (
                (repeat, fold),
                [everything[label * per_class + i] for label in range(len(classes)) for i in order[fold - 1 :: folds]],
            )
            for fold in range(1, folds + 1)
        ]
    rows = []
    for machine, backbone, head, optimizer in product(hardware, backbones, heads, optimizers):
        model = ModelSpec(backbone, head, optimizer, machine, unfreeze=unfreeze)
        row: dict[str, Any] = model.columns
        rows.append(row)
        name = model.name
        if name in failed:
            row["error"] = "RuntimeError: it did not work"
            continue
        levels = (machine, backbone, head, optimizer)
        own = skill if isinstance(skill, float) else next((skill[level] for level in levels if level in skill), 2.0)
        fixed, *cross = [
            outcome(rng, place, *zip(*some, strict=True), len(classes), own)
            for place, some in [((0, 0), tested), *dealt]
        ]
        matrix = np.zeros((len(classes), len(classes)), int)
        np.add.at(matrix, (fixed.labels, fixed.probabilities.argmax(1)), 1)
        accuracy = matrix.trace() / matrix.sum()
        row |= dict.fromkeys(("accuracy", "precision", "recall", "roc_auc"), accuracy)
        row |= {"training_time_mins": rng.uniform(0.01, 0.1), "inference_time_secs": rng.uniform(0.1, 1)}
        row |= {"val_loss": 1 - accuracy, "val_pictures": len(everything) // 5, "val_accuracy": accuracy}
        row |= {"learning_rate": 0.001, "batch_size": 23, "image_size": 224, "data_folder": str(home)}
        row |= {"conf_mat": matrix.tolist(), "weights": "none", "seed": 42, "epochs": 20, "device": machine}
        write_predictions(folder / name / PREDICTIONS, classes, [fixed, *cross])
        _write_curves(folder / name / CURVES, rng, own)
    (folder / "config.yaml").write_text("{}\n")
    rewrite_results(folder / "results.csv", rows)
    write_about(
        folder,
        {
            "commands": ["gel-fit compare --folds 5 --repeats 2"],
            "class_names": list(classes),
            "drawn": False,
            "pictures": {"train": len(everything) * 4 // 5, "val": len(everything) // 5, "test": len(tested)},
            "test_sets": {},
            "groups": [],
            "folds": folds or None,
            "repeats": repeats,
            "seed": 42,
            "weights": {backbone: {"name": "none", "fingerprint": "0" * 64} for backbone in backbones},
            "near_duplicates": [[everything[0][0], everything[1][0]]],
            "versions": {"Python": "3.11.7", "torch": "2.15.0"},
            "system": "Linux",
            "devices": {"cpu": "a processor, 2 cores"},
            "epoch": {"monitor": "val/loss", "mode": "min"},
        },
    )
    return folder


def _write_curves(path: Path, rng: np.random.Generator, skill: float) -> None:
    epochs = np.arange(1, 21)
    falling = np.exp(-epochs * skill / 10)
    curves = {"epoch": epochs}
    for stage, above in (("train", 0.05), ("val", 0.15)):
        curves[f"{stage}/loss"] = (falling + above + rng.normal(0, 0.01, 20)).round(4)
        curves[f"{stage}/accuracy"] = (1 - falling / 2 - above / 3 + rng.normal(0, 0.01, 20)).round(4)
    with replacing(path, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(curves)
        writer.writerows(zip(*(values.tolist() for values in curves.values()), strict=True))


def change_about(folder: Path, **values: Any) -> None:
    """Changes what is noted of a comparison."""
    path = folder / "about.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def outcomes_equal(one: Outcome, other: Outcome) -> bool:
    return one[:3] == other[:3] and one.labels.tolist() == other.labels.tolist()
