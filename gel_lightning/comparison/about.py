"""What a comparison ran: settings, pictures, versions and hardware, kept as a JSON file."""

import json
import os
import platform
import re
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gel_lightning.comparison.folder import ABOUT, TEXT
from gel_lightning.core.errors import GelError
from gel_lightning.core.files import replacing

MAX_FOLDS = 100_000
# The types of its fields: [of each item], {str: of each value}.
SCHEMA: dict[str, Any] = {
    "commands": [str],
    "class_names": [str],
    "drawn": bool,
    "pictures": {"train": int, "val": int, "test": int},
    "test_sets": {str: int},  # number of pictures of each named test set
    "groups": [str],  # that are the folds, in order; empty if folds are dealt
    "folds": (int, type(None)),
    "repeats": int,
    "seed": int,
    "weights": {str: {"name": str, "fingerprint": str}},
    "near_duplicates": [[str]],
    "versions": {str: str},
    "system": str,
    "devices": {str: str},
    "epoch": {"monitor": str, "mode": str},
}


def this_machine() -> dict[str, Any]:
    """Versions of this environment, and its hardware as torch names it."""
    packages = ("gel-lightning", "torch", "torchvision", "lightning", "torchmetrics", "scikit-learn", "scipy", "numpy")
    devices = {"cpu": f"{_processor()}, {os.cpu_count()} cores"}
    if torch.cuda.is_available():
        devices["gpu"] = torch.cuda.get_device_name()
    return {
        "versions": {"Python": platform.python_version()} | {name: version(name) for name in packages},
        "system": platform.platform(),
        "devices": devices,
    }


def _processor() -> str:
    """The name of the processor: platform.processor() is empty on most systems."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Writes what a comparison runs."""
    with replacing(folder / ABOUT, **TEXT) as file:
        json.dump(about, file, indent=1, ensure_ascii=False)


def read_about(folder: Path) -> dict[str, Any]:
    """Reads what a comparison ran.

    Raises:
        GelError: the file is damaged.
    """
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(**TEXT))
        if not matches(about, SCHEMA):
            raise ValueError("not what gel-fit compare notes")
        if len(set(about["class_names"])) < max(len(about["class_names"]), 2):
            raise ValueError("no two classes, or two of one name")
        if not all(re.fullmatch(r"\w+", name, re.ASCII) for name in about["test_sets"]):
            raise ValueError("no such names of test sets")
        if about["repeats"] < 1 or (about["folds"] is not None and not 2 <= about["folds"] <= MAX_FOLDS):
            raise ValueError("no such folds")
        if about["epoch"]["mode"] not in ("min", "max"):
            raise ValueError("no such choice of an epoch")
    except (ValueError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise GelError(f"{path}: damaged ({reason}); run gel-fit compare --resume") from error
    assert isinstance(about, dict)
    return about


def matches(value: Any, schema: Any) -> bool:
    """Whether JSON data have the types of ``schema``, as in :data:`SCHEMA`."""
    if isinstance(schema, list):
        return isinstance(value, list) and all(matches(item, schema[0]) for item in value)
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return False
        fields = dict.fromkeys(value, schema[str]) if str in schema else schema
        return all(key in value and matches(value[key], own) for key, own in fields.items())
    return isinstance(value, schema)
