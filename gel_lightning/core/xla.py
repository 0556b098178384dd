"""What XLA needs: an accelerator for machines without a TPU, batches of one shape, and flushing."""

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
"""The label of padding, which torch's cross-entropy ignores."""
DEVICES, GOOGLE = Path("/sys/bus/pci/devices"), "0x1ae0"


class XLAOnCPU(XLAAccelerator):
    """Lightning's XLA accelerator for ``PJRT_DEVICE=CPU``, for which Lightning's own finds no devices.

    Strategy, precision and checkpoints are as on a TPU, and XLA compiles the same programs for the CPU.
    """

    @staticmethod
    def auto_device_count() -> int:  # type: ignore[override]  # cached in the base class
        """One device, for which XLA uses all cores."""
        return 1

    @staticmethod
    def parse_devices(devices: int | str | list[int]) -> int:
        """Accepts one device or all.

        Raises:
            GelError: for more than one device.
        """
        if devices not in (1, -1, "1", "-1", "auto", [0]):
            raise GelError(f"XLA takes the whole processor for one device, not {devices}; give --trainer.devices 1")
        return 1

    @staticmethod
    def is_available() -> bool:  # type: ignore[override]  # cached in the base class
        """True: it is only used if torch_xla is installed."""
        return True


def tpu_accelerator(option: str = "--trainer.accelerator") -> str | Accelerator:
    """Finds the accelerator that ``tpu`` stands for on this machine.

    Args:
        option: of the command line that chose ``tpu``, for error messages.

    Returns:
        ``tpu``; with ``PJRT_DEVICE=CPU``, an accelerator that runs the same programs on the CPU.

    Raises:
        GelError: torch_xla is not installed, or there is no TPU.
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
    """Stops torch_xla from querying the metadata server of Google Cloud, unless this machine may be in it.

    Lightning looks for TPUs in every trainer, and torch_xla then waits for the server without a timeout. With these
    environment variables it only counts the chips among the PCI devices of this machine; the type does not matter.
    """
    vendors = DEVICES.glob("*/vendor")
    if find_spec("torch_xla") is None or any(vendor.read_text().strip() == GOOGLE for vendor in vendors):
        return
    for name, value in (("TPU_SKIP_MDS_QUERY", "1"), ("TPU_ACCELERATOR_TYPE", "v4-8")):
        os.environ.setdefault(name, value)


def on_xla(trainer: Trainer | None) -> bool:
    """Whether a trainer runs on XLA, which compiles a program for each shape of input."""
    return trainer is not None and isinstance(trainer.accelerator, XLAAccelerator)


def device_name(device: torch.device) -> str:
    """The name of a device in torch."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xla":
        from torch_xla import runtime

        return f"XLA:{runtime.device_type()}"
    return device.type


def padded(values: Tensor, size: int, fill: float = 0) -> Tensor:
    """Pads a batch to ``size`` rows, so that XLA sees one shape."""
    missing = size - len(values)
    return functional.pad(values, [0, 0] * (values.ndim - 1) + [0, missing], value=fill) if missing > 0 else values


class PaddedBatches:
    """Collates batches padded to one size: pictures or features with zeros, labels and indices with :data:`NO_LABEL`.

    Anything that is not a tensor stays unchanged.

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


def sync_xla(trainer: Trainer) -> None:
    """Flushes pending XLA operations.

    Lightning flushes them after training batches only; otherwise a whole epoch would become one program.
    """
    if on_xla(trainer):
        import torch_xla

        torch_xla.sync()
