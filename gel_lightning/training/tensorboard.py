"""A TensorBoard logger that shows training and validation curves in one chart."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter

PARTS = ("train", "val")


class RunLogger(TensorBoardLogger):
    """A TensorBoardLogger that writes training and validation curves as two runs within the run.

    TensorBoard draws the curves of one tag in one chart, coloured by run. So ``train/loss`` and ``val/loss`` become the
    tag ``loss`` of the runs ``train`` and ``val``. Other metrics, figures and hyper-parameters belong to the run
    itself; ``epoch`` is left out.

    Args:
        *args: as for TensorBoardLogger.
        purge_step: the first step that a resumed run repeats; what was logged from there on is hidden.
        **kwargs: as for TensorBoardLogger.
    """

    def __init__(self, *args: Any, purge_step: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, purge_step=purge_step, **kwargs)
        self._purge_step = purge_step
        self._parts: dict[str, SummaryWriter] = {}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs metrics; those of training and validation to runs of their own."""
        others = {}
        for name, value in metrics.items():
            part, _, tag = name.partition("/")
            if part in PARTS and tag:
                self._writer(part).add_scalar(tag, float(value), step)
            elif name != "epoch":
                others[name] = value
        super().log_metrics(others, step)

    @rank_zero_only
    def save(self) -> None:
        """Flushes what was logged."""
        super().save()
        for writer in self._parts.values():
            writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flushes what was logged, and ends the writing threads."""
        with ExitStack() as closing:  # closes all writers even if one fails
            for writer in self._parts.values():
                closing.callback(writer.close)
            super().finalize(status)

    def _writer(self, part: str) -> SummaryWriter:
        if part not in self._parts:
            self._parts[part] = SummaryWriter(str(Path(self.log_dir) / part), purge_step=self._purge_step)
        return self._parts[part]

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle, without writers: they are reopened when needed."""
        return super().__getstate__() | {"_parts": {}}
