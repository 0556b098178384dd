"""Has a data module serve the features of a network in place of pictures."""

from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from gel_lightning.data.datamodule import GelDataModule
from gel_lightning.data.datasets import PictureDataset, StoredFeatures
from gel_lightning.data.images import PictureError
from gel_lightning.features.extraction import bytes_of_features, find_features
from gel_lightning.features.runtime import Runtime
from gel_lightning.models.network import Network


def serve_features(data: GelDataModule, network: Network, runtime: Runtime, trainer: Trainer, stage: str) -> bool:
    """Has a data module serve features, unless it keeps none, they would take too much, or nothing is frozen.

    Args:
        data: which has been set up.
        network: whose trunk gives the features.
        runtime: what computes them, which has been chosen for this trainer and network.
        trainer: on whose devices they are computed.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.

    Returns:
        Whether it serves features.
    """
    if data.cache is None or network.cut.place == 0:
        return False
    size = data.picture_count(stage) * bytes_of_features(network, data.image_size, data.half_features)
    if size > data.cache_limit * 1e9:
        data.notes.append(
            f"The features of these pictures would take {size / 1e9:.2g} GB, more than --data.cache_limit "
            f"{data.cache_limit:g}: none are kept, and every epoch computes them."
        )
        return False
    find = partial(
        find_features,
        trainer,
        network,
        data.cache,
        runtime=runtime,
        batch_size=data.batch_size,
        half=data.half_features,
        num_workers=data.num_workers,
    )

    def features(pictures: PictureDataset, views: int, errors: dict[Path, PictureError] | None) -> StoredFeatures:
        return find(pictures, views, errors=errors)

    data.use_features(features)
    return True


def choose_runtime(runtime: Runtime, data: Any, network: Network, trainer: Trainer, stage: str) -> None:
    """Chooses a runtime by all the pictures that a data module has for fit, validation and test, whatever the stage.

    Validation and test then find what a fit has stored. The number of pictures is not known of other data than a
    :class:`GelDataModule`.

    Raises:
        GelError: the runtime that is asked for cannot be had.
    """
    pictures = 0
    if isinstance(data, GelDataModule):
        paths = [data.predict_paths] if stage == "predict" else [part.paths for part in data.parts.values()]
        pictures = sum(map(len, paths))
    runtime.choose(trainer, network, pictures)
