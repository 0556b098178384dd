"""What each ingredient of the packaged detector is worth: the table of its model card.

    make detector                               collects and draws the pictures
    python benchmarks/ablation.py               some 10 minutes on two cores

scikit-learn's logistic regression on frozen feature vectors, each lab left out in turn. Figures are those of the labs
other than the original study, with 95 % intervals from drawing whole labs with replacement.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from gel_lightning.data.augmentation import PRESETS, Augmentation
from gel_lightning.data.images import read_picture
from gel_lightning.data.resizing import resized
from gel_lightning.detector.pictures import read_sources
from gel_lightning.models.network import load_trunk

PICTURES, DRAWN = Path("data/detector"), Path("data/drawn/extra_150")
VIEWS, SIDE, GEL_WEIGHT, STRENGTH = 8, 224, 3, 0.1
ORIGINALS, NONE_STATED, DRAWS = "originals", "none stated", 1000


def features(paths: list[Path], seed: int) -> NDArray[np.float32]:
    """Vectors of length 1 of each picture and seven augmented views of it, shape ``[N, VIEWS, 1280]``."""
    trunk, augmentation = load_trunk("efficientnet_lite0", "packaged"), Augmentation(PRESETS["labs"](SIDE), seed)
    found = []
    for path in track(paths, "computing features", console=Console(stderr=True), transient=True):
        picture, digest = torch.from_numpy(resized(read_picture(path), SIDE))[None], hashlib.sha256(path.read_bytes())
        views = [picture, *(augmentation(picture.clone(), digest.digest(), view) for view in range(1, VIEWS))]
        found.append(torch.nn.functional.normalize(trunk(torch.stack(views))).numpy())
    return np.stack(found)


def left_out(vectors: NDArray, gel: NDArray, labs: NDArray, used: NDArray, views: int) -> NDArray[np.float64]:
    """Scores of all pictures, each of a model trained on the used ones of the other labs."""
    scores = np.zeros(len(gel))
    for lab in np.unique(labs[labs != ""]):
        train, test = np.flatnonzero(used & (labs != lab)), labs == lab
        if len(np.unique(gel[train])) < 2:
            continue  # the 92 alone, with the original study left out
        weights = np.repeat(np.where(gel[train], GEL_WEIGHT if used[labs == ""].any() else 1, 1), views)
        # The scale of the vectors and C are what weight decay is in configs/detector.yaml.
        model = LogisticRegression(C=13 * STRENGTH / views, max_iter=300, tol=1e-3)
        model.fit(vectors[train, :views].reshape(len(weights), -1), np.repeat(gel[train], views), weights)
        scores[test] = model.decision_function(vectors[test, 0])
    return scores


def main() -> None:
    sources = read_sources()
    drawn = [sorted((DRAWN / name).iterdir()) for name in ("gel", "not_gel")]
    paths = [PICTURES / source.path for source in sources] + drawn[0] + drawn[1]
    labs = np.array([source.group for source in sources] + [""] * len(drawn[0] + drawn[1]))
    gel = np.array([path.parent.name == "gel" for path in paths])
    licensed = np.array([source.licence != NONE_STATED for source in sources] + [True] * len(drawn[0] + drawn[1]))
    drawings, originals = labs == "", labs == ORIGINALS
    rows = {
        "the 92 pictures of the original study": (originals, 1),
        "and of the other labs": (~drawings, 1),
        "and drawn gels": (~drawings | gel, 1),
        "and drawn look-alikes": (np.ones_like(gel), 1),
        "and seven random views of each": (np.ones_like(gel), VIEWS),
        "the same without the other labs": (originals | drawings, VIEWS),
        "the same with an open licence only": (licensed, VIEWS),
    }
    table = Table("trained on", "area under the ROC curve", "balanced accuracy", "of all: area", "balanced accuracy")
    vectors = [features(paths, seed) for seed in range(3)]
    measured = ~drawings & ~originals
    for name, (used, views) in rows.items():
        runs = [left_out(found, gel, labs, used, views) for found in (vectors if views > 1 else vectors[:1])]
        cells = [
            summary([metric(gel[measured], scores[measured]) for scores in runs])
            + interval(metric, gel[measured], runs[0][measured], labs[measured])
            for metric in (roc_auc_score, balanced)
        ]
        both = [
            summary([metric(gel[~drawings], scores[~drawings]) for scores in runs])
            for metric in (roc_auc_score, balanced)
        ]
        table.add_row(name, *cells, *(both if (used & ~drawings & ~originals).any() else ("", "")))
    Console().print(table)


def balanced(gel: NDArray, scores: NDArray) -> float:
    """Balanced accuracy of best guesses."""
    return float(balanced_accuracy_score(gel, scores > 0))


def summary(values: list[float]) -> str:
    """The mean, and the range over seeds of the views."""
    spread = f", {min(values):.3f} to {max(values):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def interval(metric, gel: NDArray, scores: NDArray, labs: NDArray) -> str:  # noqa: ANN001
    """The 95 % interval from drawing whole labs with replacement."""
    rng, members = np.random.default_rng(0), [np.flatnonzero(labs == lab) for lab in np.unique(labs)]
    values: list[float] = []
    while len(values) < DRAWS:
        drawn = np.concatenate([members[lab] for lab in rng.integers(len(members), size=len(members))])
        if gel[drawn].any() and not gel[drawn].all():
            values.append(metric(gel[drawn], scores[drawn]))
    low, high = np.quantile(values, [0.025, 0.975])
    return f" ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
