"""What Lightning needs to run its TPU path where there is no TPU, and what XLA wants of a run."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import Accelerator, XLAAccelerator
from torch import Tensor
from torch.nn import functional

from gel_lightning.core.errors import GelError

NO_LABEL = -100
"""The label of what fills a batch up: the loss of torch leaves it out."""
DEVICES, GOOGLE = Path("/sys/bus/pci/devices"), "0x1ae0"


class XLAOnCPU(XLAAccelerator):
    """Lightning's XLA accelerator for ``PJRT_DEVICE=CPU``, where it would count no devices.

    Strategy, precision and checkpoints are those of a TPU, and XLA compiles the same programs for the CPU.
    """

    @staticmethod
    def auto_device_count() -> int:  # type: ignore[override]  # it is cached there
        """One, for which XLA takes all cores."""
        return 1

    @staticmethod
    def parse_devices(devices: int | str | list[int]) -> int:
        """Takes one, or as many as there are.

        Raises:
            GelError: more are asked for.
        """
        if devices not in (1, -1, "1", "-1", "auto", [0]):
            raise GelError(f"XLA takes the whole processor for one device, not {devices}; give --trainer.devices 1")
        return 1

    @staticmethod
    def is_available() -> bool:  # type: ignore[override]  # likewise
        """True, for who asks for it has torch_xla."""
        return True


def tpu_accelerator(option: str = "--trainer.accelerator") -> str | Accelerator:
    """Finds what a trainer is to take for ``tpu`` here.

    Args:
        option: of the command line that chooses accelerators.

    Returns:
        ``tpu``; or where ``PJRT_DEVICE=CPU`` asks for it, an accelerator that runs the same on the CPU.

    Raises:
        GelError: there is no torch_xla, or no TPU.
    """
    ways = f"set PJRT_DEVICE=CPU to run the same XLA programs on the processor, or leave XLA with {option} cpu"
    if find_spec("torch_xla") is None:
        raise GelError(f"accelerator 'tpu' needs torch_xla: pip install 'gel-lightning[tpu]'; without a TPU, {ways}")
    if os.environ.get("PJRT_DEVICE") == "CPU":
        return XLAOnCPU()
    if not XLAAccelerator.is_available():
        raise GelError(f"accelerator 'tpu': there is no TPU here; {ways}")
    return "tpu"


def ask_no_cloud() -> None:
    """Has torch_xla look for TPUs without asking the metadata server of a cloud, unless this may be Google's.

    Lightning asks torch_xla in every trainer, and that the server, with no limit of time. Its settings say here that
    there is none to ask; the number of chips is counted from this machine's own devices, whatever their kind is.
    """
    vendors = DEVICES.glob("*/vendor")
    if find_spec("torch_xla") is None or any(vendor.read_text().strip() == GOOGLE for vendor in vendors):
        return
    for name, value in (("TPU_SKIP_MDS_QUERY", "1"), ("TPU_ACCELERATOR_TYPE", "v4-8")):
        os.environ.setdefault(name, value)


def on_xla(trainer: Trainer | None) -> bool:
    """Whether what a trainer runs is compiled by XLA, and anew for each shape."""
    return trainer is not None and isinstance(trainer.accelerator, XLAAccelerator)


def device_name(device: torch.device) -> str:
    """What torch calls a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xla":
        from torch_xla import runtime

        return f"XLA:{runtime.device_type()}"
    return device.type


def padded(values: Tensor, size: int, fill: float = 0) -> Tensor:
    """Fills a batch up to a size, so that XLA sees one shape."""
    missing = size - len(values)
    return functional.pad(values, [0, 0] * (values.ndim - 1) + [0, missing], value=fill) if missing > 0 else values


class PaddedBatches:
    """Makes batches filled up to one size: pictures or vectors with zeros, and numbers of them with :data:`NO_LABEL`.

    Such numbers are labels and indices; what is no tensor stays as it is.

    Args:
        collate: makes a batch of items.
        size: of the batches.
    """

    def __init__(self, collate: Any, size: int) -> None:
        self.collate = collate
        self.size = size

    def __call__(self, items: Any) -> tuple[Any, ...]:
        """Makes a batch."""
        values, *rest = self.collate(items)
        filled = (padded(one, self.size, NO_LABEL) if isinstance(one, Tensor) else one for one in rest)
        if isinstance(values, Tensor):
            return padded(values, self.size), *filled
        return type(values)(*(padded(one, self.size) for one in values)), *filled  # a named tuple of tensors


def run_gathered(trainer: Trainer) -> None:
    """Has XLA run what has gathered since the last batch.

    Lightning does so after each batch that is trained on, and not after others: a whole epoch would be one program.
    """
    if on_xla(trainer):
        import torch_xla

        torch_xla.sync()
