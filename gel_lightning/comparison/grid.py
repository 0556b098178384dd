"""The grid of models that are compared, and what is known of each."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator

from gel_lightning.core.errors import GelError
from gel_lightning.models.backbones import ARCHITECTURES
from gel_lightning.models.weights import weights_identity
from gel_lightning.training.descriptions import known_classes
from gel_lightning.training.results import COLUMNS, HARDWARE, HEADS, read_results, short_names

BACKBONES = ("resnet18", "vgg16", "mobilenet_v3_large")
OPTIMIZERS = ("adam", "sgd")
"""Of the original study, as its two heads in :data:`~gel_lightning.training.results.HEADS`."""


class Model(NamedTuple):
    """One model of the grid.

    Attributes:
        backbone: its name.
        weights: of the backbone; None takes those of the other settings.
        head: name or import path of its class.
        optimizer: name or import path of its class.
        accelerator: ``cpu``, ``gpu`` or ``tpu``.
    """

    backbone: str
    weights: str | None
    head: str
    optimizer: str
    accelerator: str

    @property
    def kind(self) -> tuple[str, ...]:
        """What tells it from the others, in the words of a results file: see :func:`kind`."""
        return self.accelerator, *short_names(self._asdict())

    @property
    def name(self) -> str:
        """The name of its run."""
        return run_name(self.kind)


def grid(
    backbones: Sequence[str], heads: Sequence[str], optimizers: Sequence[str], accelerators: Sequence[str]
) -> list[Model]:
    """Makes all combinations.

    Args:
        backbones: NAME or NAME=WEIGHTS each.
        heads: ``single``, ``multi``, or a class by its name or import path.
        optimizers: a class of torch.optim by its name, in whatever case, or any by its import path.
        accelerators: ``cpu``, ``gpu`` or ``tpu``.

    Raises:
        GelError: there is no such backbone, optimizer or accelerator, or two models would have the same name.
    """
    named = [backbone.partition("=") for backbone in dict.fromkeys(backbones)]
    _check("backbone", [name for name, _, _ in named], ARCHITECTURES)
    _check("accelerator", accelerators, HARDWARE)
    classes = {name.lower(): name for name in known_classes("optimizer")}
    _check("optimizer", [name.lower() for name in optimizers if "." not in name], classes)
    heads_by_name = {short: name for name, short in HEADS.items()}
    models = [
        Model(name, weights_identity(weights) if weights else None, head, optimizer, accelerator)
        for accelerator, (name, _, weights), head, optimizer in product(
            dict.fromkeys(accelerators),
            named,
            dict.fromkeys(heads_by_name.get(head, head) for head in heads),
            dict.fromkeys(classes.get(name.lower(), name) for name in optimizers),
        )
    ]
    for name, number in Counter(model.name for model in models).items():
        if number > 1:
            raise GelError(f"{number} models are named {name}; name each backbone, head and optimizer once")
    return models


def _check(what: str, names: Sequence[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise GelError(f"no {what} {name!r}; choose of {', '.join(known)} (--{what}s)")


def present_accelerators() -> list[str]:
    """The kinds of hardware that are here."""
    gpu = CUDAAccelerator.is_available() or MPSAccelerator.is_available()
    present = {"cpu": True, "gpu": gpu, "tpu": XLAAccelerator.is_available()}
    return [name for name in HARDWARE if present[name]]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads the rows of a results file, with empty cells for the columns of later versions; none if there is no file.

    Raises:
        GelError: the file is there and is not a results file.
    """
    blank = dict.fromkeys(COLUMNS, "")
    return [blank | row for row in csv.DictReader(io.StringIO(read_results(path), newline=""))]


def kind(row: Mapping[str, str]) -> tuple[str, ...]:
    """What tells the model of a row of a results file from others: hardware, backbone, head, optimizer."""
    return row["hardware_type"], row["pretrained_model"], row["classifier_head"], row["opt_alg"]


def display_names(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The names of the models of a comparison for people; without the hardware if that is the same for all."""
    kinds = [kind(row) for row in rows]
    several = len({hardware for hardware, *_ in kinds}) > 1
    return [" ".join([*others, hardware] if several else others) for hardware, *others in kinds]


def run_name(kind: tuple[str, ...]) -> str:
    """The name of the run of a model, and of its folder, from what tells the model from others: :func:`kind`."""
    hardware, *others = kind
    return "_".join([*others, hardware])
