"""What computes features: torch, or ONNX Runtime where the device is the CPU."""

import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from gel_lightning.core.errors import GelError, one_line
from gel_lightning.models.backbones import architecture
from gel_lightning.models.network import Network, Trunk

Choice = Literal["auto", "torch", "onnx"]

MANY_PICTURES = 64
"""From this number on ONNX Runtime takes less time than torch, its start included."""
CHUNK = 4
"""Pictures that go through ONNX Runtime at once: what lies between two layers then mostly fits into the CPU's cache."""
TOLERANCE = 1e-4
"""The largest difference allowed between features of ONNX Runtime and torch, as a share of the largest feature."""


class Runtime:
    """Computes what a frozen trunk gives.

    :meth:`choose` decides what with, before anything is looked for: by device, precision, backbone and number of
    pictures, and so alike for features that are stored, missing or not kept at all.

    Args:
        asked: ``torch``, ``onnx``, or ``auto`` for the faster one.

    Attributes:
        onnx: whether ONNX Runtime computes.
    """

    def __init__(self, asked: Choice = "auto") -> None:
        self.asked = asked
        self.onnx = False
        self._failed = False
        self._sessions: dict[Sequence[int], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """All but the sessions, which are made anew when they are needed."""
        return {**self.__dict__, "_sessions": {}}

    @property
    def chosen(self) -> Choice:
        """What has been decided, to ask another one for the same."""
        return "onnx" if self.onnx else "torch"

    @property
    def identity(self) -> dict[str, str]:
        """What features depend on for being computed with this; features of torch, whose version is known, nothing."""
        return {"runtime": f"onnxruntime {version('onnxruntime')}"} if self.onnx else {}

    def choose(self, trainer: Trainer, network: Network, pictures: int) -> None:
        """Decides what computes the features of a run.

        Args:
            trainer: whose device and precision are used.
            network: whose trunk is used.
            pictures: how many there are, 0 if that is not known.

        Raises:
            GelError: ONNX Runtime is asked for and cannot be had.
        """
        reason = _refused(trainer, network)
        if self.asked == "onnx" and reason:
            raise GelError(f"--model.runtime onnx: {reason}; leave it out")
        many = self.asked == "auto" and pictures >= MANY_PICTURES and not self._failed
        self.onnx = not reason and (self.asked == "onnx" or many)

    def prepare(self, trunk: Trunk, picture: Sequence[int]) -> bool:
        """Starts ONNX Runtime, if that is chosen, and compares it with torch.

        Args:
            trunk: that is to be computed.
            picture: shape of one picture.

        Returns:
            Whether it is as chosen. If not, torch is chosen from now on.

        Raises:
            GelError: ONNX Runtime was asked for, and gives other features than torch.
        """
        if self.onnx and picture not in self._sessions:
            try:
                self._sessions[picture] = _session(trunk, picture)
            except _OtherFeatures as error:
                if self.asked == "onnx":
                    raise GelError(f"--model.runtime onnx: {error}; give --model.runtime torch") from error
                rank_zero_warn(f"torch computes features, since {error}; --model.runtime torch leaves the attempt out")
                self.give_up()
                return False
        return True

    def give_up(self) -> None:
        """Has torch compute from now on."""
        self.onnx, self._failed = False, True
        self._sessions.clear()

    def __call__(self, trunk: Trunk, pictures: Tensor) -> Tensor:
        """Turns pictures into features, as :meth:`~gel_lightning.models.network.Trunk.forward` does."""
        picture = tuple(pictures.shape[1:])
        suits = pictures.device.type == "cpu" and pictures.dtype == torch.float32
        if not (self.onnx and suits and self.prepare(trunk, picture) and self.onnx):
            return cast(Tensor, trunk(pictures))
        values, session = pictures.detach().numpy(), self._sessions[picture]
        chunks = [session(values[start : start + CHUNK]) for start in range(0, len(values), CHUNK)]
        return torch.from_numpy(np.concatenate(chunks))


class _OtherFeatures(Exception):
    """ONNX Runtime fails, or its features are not those of torch."""


def _refused(trainer: Trainer, network: Network) -> str | None:
    """Why ONNX Runtime cannot compute the features of a run."""
    device = trainer.strategy.root_device.type
    if device != "cpu":
        return f"it computes on the CPU alone, not on {device}"
    if trainer.precision != "32-true":
        return f"it computes in 32 bits, not in --trainer.precision {trainer.precision}"
    if network.cut.place == 0:
        return "no layer is frozen"
    if not architecture(network.backbone).onnx:
        return f"the layers of {network.backbone} are not known to it"
    return None


def _session(trunk: Trunk, picture: Sequence[int]) -> Any:
    """A function from pictures to features, shown to give what torch gives.

    Raises:
        _OtherFeatures: it fails or does not.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # not before features have to be computed

    from gel_lightning.models.onnx_graph import FEATURES, PICTURES, UnknownLayer, onnx_graph

    example = torch.rand(2, *picture, generator=torch.Generator().manual_seed(0))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are shared with decoding
    options.log_severity_level = 4  # errors are raised as exceptions
    try:
        graph = onnx_graph(trunk, example)
        # They are not copied, so that they have to stay until the session has taken them.
        weights = [np.ascontiguousarray(weight.numpy()) for weight in graph.weights.values()]
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(weight) for weight in weights]
        options.add_external_initializers(list(graph.weights), values)
        session = onnxruntime.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])

        def run(pictures: Any) -> Any:
            assert len(values) == len(weights)  # both live as long as this function
            return session.run([FEATURES], {PICTURES: pictures})[0]

        found = torch.from_numpy(run(example.numpy()))
    except UnknownLayer as error:
        raise _OtherFeatures(f"the layer {error} is not known to ONNX Runtime") from error
    except Exception as error:  # ONNX Runtime has many exceptions of its own
        raise _OtherFeatures(f"ONNX Runtime fails ({one_line(error)})") from error
    difference = float((found - graph.features).abs().max() / graph.features.abs().max())
    if not difference <= TOLERANCE:  # which refuses NaN, too
        raise _OtherFeatures(
            f"ONNX Runtime gives features that differ from torch's by {difference:.2g} of the largest, where "
            f"{TOLERANCE:g} is allowed"
        )
    return run
