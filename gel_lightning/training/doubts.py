"""Labels that a model trained on the other pictures doubts, as cleanlab finds them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from lightning.pytorch import Trainer
from numpy.typing import NDArray

from gel_lightning.core.errors import GelError, missing_package
from gel_lightning.data.cache import PictureCache
from gel_lightning.data.datasets import PictureDataset
from gel_lightning.data.folders import LabelledPictures
from gel_lightning.features.extraction import find_features
from gel_lightning.features.runtime import Runtime
from gel_lightning.models.heads import LinearHead
from gel_lightning.models.network import Network

FOLDS = 5
IMAGE_SIZE = 224
BATCH = 32


class Doubt(NamedTuple):
    """A doubtful label.

    Attributes:
        place: of the picture.
        probability: of its label.
        likelier: the most probable class.
    """

    place: int
    probability: float
    likelier: int


def doubtful_labels(
    pictures: LabelledPictures, groups: NDArray[np.intp], backbone: str, weights: str, cache_dir: Path
) -> list[Doubt]:
    """Finds labels that contradict those of similar pictures.

    A logistic regression on the frozen backbone's features is cross-validated, so that each picture is judged by a
    model that saw neither it nor its near-duplicates. A label is doubtful if another class is more probable; cleanlab
    ranks them by their own probability (Northcutt et al., 2021, https://arxiv.org/abs/1911.00068).

    Args:
        pictures: that can be read.
        groups: shape ``[n]``; pictures of the same number are near-duplicates.
        backbone: that gives the features.
        weights: of the backbone.
        cache_dir: where features are kept.

    Returns:
        The doubtful labels, the least probable first.

    Raises:
        GelError: cleanlab is not installed, the weights cannot be had, or a class has fewer than two different
            pictures.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise missing_package("cleanlab", "clean") from error
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.array(pictures.labels)
    fewest, name = min((len(set(groups[labels == n])), name) for n, name in enumerate(pictures.class_names))
    if fewest < 2:
        raise GelError(
            f"class {name} has {fewest} different pictures, too few to judge labels by; add some, or leave --labels out"
        )
    trainer = Trainer(devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False)
    network = Network(backbone, weights, LinearHead, len(pictures.class_names))
    dataset = PictureDataset(pictures, IMAGE_SIZE)
    runtime = Runtime()
    runtime.choose(trainer, network, len(pictures.paths))
    features = find_features(trainer, network, PictureCache(cache_dir), dataset, runtime=runtime, batch_size=BATCH)
    probabilities = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced")),
        features.take(range(len(labels))).numpy(),
        labels,
        groups=groups,
        cv=StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=0),
        method="predict_proba",
    )
    ranked = find_label_issues(
        labels,
        probabilities,
        return_indices_ranked_by="self_confidence",
        filter_by="predicted_neq_given",
        n_jobs=1,
    )
    return [Doubt(int(n), float(probabilities[n, labels[n]]), int(probabilities[n].argmax())) for n in ranked]
