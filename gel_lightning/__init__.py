"""Is this picture a gel electrophoresis image? Transfer learning with PyTorch Lightning."""

import gc

# What is imported is a million objects, none of them garbage: looking through them again and again takes a second.
_collects = gc.isenabled() and not gc.get_freeze_count()
if _collects:
    gc.disable()

from importlib.metadata import version  # noqa: E402

from gel_lightning.backbones import build_backbone  # noqa: E402
from gel_lightning.classifier import GelClassifier  # noqa: E402
from gel_lightning.datamodule import GelDataModule  # noqa: E402
from gel_lightning.heads import LinearHead, MultiLayerHead  # noqa: E402

if _collects:
    gc.freeze()
    gc.unfreeze()  # now they count as old
    gc.enable()

__version__ = version("gel-lightning")
__all__ = ["GelClassifier", "GelDataModule", "LinearHead", "MultiLayerHead", "build_backbone"]
