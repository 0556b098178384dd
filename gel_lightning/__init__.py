"""Is this picture a gel electrophoresis image? Transfer learning with PyTorch Lightning."""

from importlib.metadata import version

from gel_lightning.backbones import build_backbone
from gel_lightning.classifier import GelClassifier
from gel_lightning.datamodule import GelDataModule
from gel_lightning.heads import LinearHead, MultiLayerHead

__version__ = version("gel-lightning")
__all__ = ["GelClassifier", "GelDataModule", "LinearHead", "MultiLayerHead", "build_backbone"]
