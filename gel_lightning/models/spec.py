"""ModelSpec: what tells one model from another, and all that it is called by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

HARDWARE = ("cpu", "gpu", "tpu")
HEADS = {"LinearHead": "single", "MultiLayerHead": "multi"}
"""The original study's names of its heads."""
STUDY_BACKBONES = ("resnet18", "vgg16", "mobilenet_v3_large")
STUDY_OPTIMIZERS = ("adam", "sgd")


@dataclass(frozen=True)
class ModelSpec:
    """A model of a comparison, or of a run.

    Attributes:
        backbone: its name.
        head: name or import path of its class, or the original study's name of it.
        optimizer: name or import path of its class.
        accelerator: ``cpu``, ``gpu`` or ``tpu``; empty if that is left to Lightning.
        weights: of the backbone; None takes those of the other settings.
        unfreeze: share of the backbone's layers that are trained.
        config: name of the config file that says all else of it; empty for a model of a grid.
    """

    backbone: str
    head: str
    optimizer: str
    accelerator: str = ""
    weights: str | None = None
    unfreeze: float = 0.0
    config: str = ""

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any], accelerator: str = "") -> "ModelSpec":
        """The model of a classifier's settings, or of its plain hyper-parameters."""
        head, optimizer = (described_path(settings[name]) for name in ("head", "optimizer"))
        return cls(
            settings["backbone"], head, optimizer, accelerator, settings["weights"], settings.get("unfreeze") or 0.0
        )

    @classmethod
    def of_row(cls, row: Mapping[str, str]) -> "ModelSpec":
        """The model of a row of a results file.

        Raises:
            ValueError: its share of unfrozen layers is no number.
        """
        return cls(
            row["pretrained_model"],
            row["classifier_head"],
            row["opt_alg"],
            row["hardware_type"],
            unfreeze=float(row.get("unfreeze") or 0),
            config=row.get("config") or "",
        )

    @property
    def head_name(self) -> str:
        """The head as results name it."""
        return HEADS.get(class_name(self.head), class_name(self.head))

    @property
    def optimizer_name(self) -> str:
        """The optimizer as results name it."""
        return class_name(self.optimizer).lower()

    @property
    def levels(self) -> dict[str, str]:
        """Its level of each factor of a comparison."""
        return {
            "backbone": self.backbone,
            "head": self.head_name,
            "optimizer": self.optimizer_name,
            "hardware": self.accelerator,
        }

    @property
    def _parts(self) -> list[str]:
        if self.config:
            return [self.config]
        unfrozen = [f"unfreeze{self.unfreeze:g}"] if self.unfreeze else []
        return [self.backbone.replace("/", "_"), self.head_name, self.optimizer_name, *unfrozen]

    @property
    def name(self) -> str:
        """The name of its run and of its folder; of models that are the same it is the same."""
        return "_".join([*self._parts, *filter(None, [self.accelerator])])

    @property
    def title(self) -> str:
        """Its name for people, without the hardware."""
        return " ".join(self._parts)

    @property
    def study_number(self) -> int | None:
        """Its number in the original study: 1 to 12 on the CPU, 13 to 24 on the GPU; 25 to 36 on the TPU likewise."""
        known = (self.accelerator, self.backbone, self.head_name, self.optimizer_name)
        return None if self.unfreeze else STUDY.get(known)

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of a results file that say which model a row is of."""
        return {
            "model_id": self.study_number or "",
            "hardware_type": self.accelerator,
            "pretrained_model": self.backbone,
            "classifier_head": self.head_name,
            "opt_alg": self.optimizer_name,
            "unfreeze": self.unfreeze or "",
            "config": self.config,
        }


STUDY = {
    model: number
    for number, model in enumerate(product(HARDWARE, STUDY_BACKBONES, HEADS.values(), STUDY_OPTIMIZERS), start=1)
}


def study_model(number: int) -> ModelSpec:
    """The model of a number of the original study."""
    accelerator, backbone, head, optimizer = list(STUDY)[number - 1]
    return ModelSpec(backbone, head, optimizer, accelerator)


def titles(models: Sequence[ModelSpec]) -> list[str]:
    """The names of the models of a comparison for people; without the hardware if that is the same for all."""
    several = len({model.accelerator for model in models}) > 1
    return [f"{model.title} {model.accelerator}" if several else model.title for model in models]


def class_name(described: Any) -> str:
    """The bare name of a class that is described by its import path, alone or with arguments."""
    return described_path(described).rsplit(".", 1)[-1]


def described_path(described: Any) -> str:
    """The import path of a class that is described by it, alone or with arguments."""
    return str(described if isinstance(described, str) else described["class_path"])
