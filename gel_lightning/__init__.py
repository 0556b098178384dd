"""Is this picture a gel electrophoresis image? Transfer learning with PyTorch Lightning."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gel_lightning.data.datamodule import GelDataModule
    from gel_lightning.inference.find import Detector
    from gel_lightning.models.heads import LinearHead, MultiLayerHead, NormalizedLinearHead
    from gel_lightning.models.network import Network
    from gel_lightning.training.classifier import GelClassifier

__version__ = version("gel-lightning")
_HOMES = {
    "Detector": "inference.find",
    "GelClassifier": "training.classifier",
    "GelDataModule": "data.datamodule",
    "LinearHead": "models.heads",
    "MultiLayerHead": "models.heads",
    "Network": "models.network",
    "NormalizedLinearHead": "models.heads",
}
__all__ = [
    "Detector",
    "GelClassifier",
    "GelDataModule",
    "LinearHead",
    "MultiLayerHead",
    "Network",
    "NormalizedLinearHead",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: with PyTorch and Lightning that takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
