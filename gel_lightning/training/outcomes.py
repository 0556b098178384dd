"""What a model makes of the pictures of an epoch, gathered from all batches and ranks.

Metrics are computed from it at the end of the epoch, on the CPU: on other devices that would be many small steps, with
XLA programs of many shapes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor


class Outcome(NamedTuple):
    """Of n pictures: each has a row.

    Attributes:
        labels: shape ``[n]``; below 0 for padding.
        indices: of the pictures in their data set, shape ``[n]``; -1 where that is not known.
        losses: shape ``[n]``.
        probabilities: shape ``[n, classes]``.
        logits: shape ``[n, classes]``.
    """

    labels: Tensor
    indices: Tensor
    losses: Tensor
    probabilities: Tensor
    logits: Tensor


class Outcomes:
    """Collects the outcomes of the batches of an epoch, stage by stage."""

    def __init__(self) -> None:
        self._batches: dict[str, list[Outcome]] = {}

    def add(self, stage: str, batch_idx: int, outcome: Outcome) -> None:
        """Adds a batch; the first one of an epoch begins anew."""
        if batch_idx == 0:
            self._batches[stage] = []
        self._batches[stage].append(outcome)

    def take(self, stage: str, module: LightningModule) -> Outcome:
        """Takes out the epoch of a stage: each picture of all ranks once, on the CPU.

        Args:
            stage: as for :meth:`add`.
            module: which the trainer runs.
        """
        columns = [torch.cat(parts) for parts in zip(*self._batches.pop(stage), strict=True)]
        return Outcome(*gathered(module, columns))


def gathered(module: LightningModule, columns: Sequence[Tensor]) -> list[Tensor]:
    """Gathers what all ranks have of the pictures of an epoch, each picture once, on the CPU.

    Args:
        module: which the trainer runs.
        columns: labels, indices and others, a row for each picture; the same number of rows on each rank. A label below
            0 marks padding, and an index below 0 that it is not known.
    """
    several = module.trainer.world_size > 1
    if several:
        columns = [cast(Tensor, module.all_gather(column)).flatten(0, 1) for column in columns]
    columns = [column.cpu() for column in columns]
    labels, indices = columns[:2]
    kept = torch.nonzero(labels >= 0).flatten()
    if several and bool((indices[kept] >= 0).all()):  # ranks with too few pictures get some twice
        kept = kept[np.unique(indices[kept].numpy(), return_index=True)[1]]
    return [column[kept] for column in columns]


def by_stage(stage: str, loaders: Any) -> dict[str, Any]:
    """The loaders of a stage by what their metrics are named after: the stage, or the names that the loaders have."""
    return dict(loaders) if isinstance(loaders, Mapping) else {stage: loaders}
