"""The grid of models that are compared, and what is known of each."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator

from gel_lightning.core.errors import GelError
from gel_lightning.models.backbones import check_trained_whole
from gel_lightning.models.spec import HARDWARE, HEADS, ModelSpec
from gel_lightning.models.weights import weights_identity
from gel_lightning.training.descriptions import known_classes
from gel_lightning.training.results import COLUMNS, read_results


def grid(
    backbones: Sequence[str],
    heads: Sequence[str],
    optimizers: Sequence[str],
    accelerators: Sequence[str],
    unfreeze: float = 0.0,
) -> list[ModelSpec]:
    """Makes all combinations.

    Args:
        backbones: NAME or NAME=WEIGHTS each.
        heads: ``single``, ``multi``, or a class by its name or import path.
        optimizers: a class of torch.optim by its name, in whatever case, or any by its import path.
        accelerators: ``cpu``, ``gpu`` or ``tpu``.
        unfreeze: share of the backbones' layers that all train.

    Raises:
        GelError: there is no such backbone, optimizer or accelerator, or two models would have the same name.
    """
    named = [backbone.partition("=") for backbone in dict.fromkeys(backbones)]
    for name, _, _ in named:
        try:
            check_trained_whole(name, unfreeze)
        except GelError as error:
            raise GelError(str(error).replace("--model.backbone", "--backbones")) from error
    _check("accelerator", accelerators, HARDWARE)
    classes = {name.lower(): name for name in known_classes("optimizer")}
    _check("optimizer", [name.lower() for name in optimizers if "." not in name], classes)
    heads_by_name = {short: name for name, short in HEADS.items()}
    models = [
        ModelSpec(name, head, optimizer, accelerator, weights_identity(weights) if weights else None, unfreeze)
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
