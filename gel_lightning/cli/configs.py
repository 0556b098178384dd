"""The config files of `gel-fit compare --configs`: reading them, and grouping them by their test pictures."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gel_lightning.core.errors import GelError
from gel_lightning.data.datamodule import GelDataModule
from gel_lightning.data.folders import LabelledPictures

GRID = ("backbones", "heads", "optimizers", "accelerators")
"""Options that make a grid of models, where configs name them."""
OF_FIT = ("name", "results_file", "predictions_file", "ckpt_path")
"""Settings of `gel-fit fit` for which a comparison has its own places."""
PARTS = {"val": "validation", "train": "training"}


def take_configs(args: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Takes the config files out of a command line, and returns them and what is left of it.

    Raises:
        GelError: another option does not go with them; two files have one name.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--configs", nargs="+", type=Path, default=[])
    found, rest = parser.parse_known_args(args)
    files = [path.expanduser() for path in found.configs]
    given = {arg.partition("=")[0] for arg in rest}
    for name in (*GRID, "config"):
        if files and f"--{name}" in given:
            raise GelError(f"--configs names the models, and --{name} is another way to do so; give one of the two")
    names = [config_name(path) for path in files]
    for name in names:
        if names.count(name) > 1:
            raise GelError(f"{names.count(name)} of the files of --configs are called {name}; rename all but one")
    return files, rest


def config_name(path: Path) -> str:
    """What a comparison calls the model of a config file: its name without suffix, safe as the name of a folder."""
    return re.sub(r"^\W|[^\w.-]", "_", path.stem)


def settings_text(path: Path) -> str:
    """Reads a config file of `gel-fit fit`, without the settings for which a comparison has its own places.

    Raises:
        GelError: it cannot be read, or is no YAML of settings.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise GelError(f"{path}: cannot be read ({' '.join(str(error).split())}); name a file (--configs)") from error
    if not isinstance(settings, dict):
        raise GelError(f"{path}: no settings of gel-fit fit; name a file with some (--configs)")
    return yaml.safe_dump({key: value for key, value in settings.items() if key not in OF_FIT}, width=2**20)


def by_test_pictures(data: Mapping[str, GelDataModule], folds: bool) -> dict[str, list[str]]:
    """Groups configs that are measured on the same test pictures, under a name of these pictures.

    Args:
        data: of each config by name, already split.
        folds: whether the training and validation pictures are dealt into folds, which a group shares.

    Raises:
        GelError: two of a group have other validation pictures, by which models are ranked, or are to share folds of
            other pictures.
    """
    groups: list[tuple[Any, list[str]]] = []
    for name, module in data.items():
        tested = {part: _identity(pictures) for part, pictures in module.parts.items() if part.startswith("test")}
        for known, names in groups:
            if known == tested:
                names.append(name)
                break
        else:
            groups.append((tested, [name]))
    named: dict[str, list[str]] = {}
    for _, names in groups:
        first = names[0]
        for name in names[1:]:
            for part in ("val", "train") if folds else ("val",):
                if _identity(data[name].parts[part]) != _identity(data[first].parts[part]):
                    raise GelError(
                        f"{first} and {name} have the same test pictures but other {PARTS[part]} pictures, and could "
                        "not be compared fairly; give both the same folders, fractions and --seed_everything"
                    )
        title = _title(data[first])
        while title in named:
            title += "_"
        named[title] = names
    return named


def refuse_differences(configs: Mapping[str, Any]) -> None:
    """Refuses configs that differ in what all models of a comparison share.

    Args:
        configs: settings by name.

    Raises:
        GelError: names two configs and the setting.
    """
    (first, base), *others = configs.items()
    for name, config in others:
        shared = {
            "seed_everything": (base.seed_everything, config.seed_everything),
            "checkpoint.monitor": (base.checkpoint.monitor, config.checkpoint.monitor),
            "checkpoint.mode": (base.checkpoint.mode, config.checkpoint.mode),
        }
        for option, (one, other) in shared.items():
            if one != other:
                raise GelError(
                    f"--{option} is {one} in {first} and {other} in {name}; give one for all with --{option}"
                )


def _identity(pictures: LabelledPictures) -> tuple[Any, ...]:
    return tuple(pictures.class_names), tuple(map(str, pictures.paths)), tuple(pictures.labels)


def _title(data: GelDataModule) -> str:
    """A short name for the pictures of a data module."""
    folders = ["_".join(Path(folder).absolute().parts[-2:]) for folder in data.train_dirs[:1]]
    named = data.dataset if data.dataset != "folder" else "drawn" if data.drawn else "".join(folders)
    return re.sub(r"^\W|[^\w.-]", "_", str(named)) or "pictures"
