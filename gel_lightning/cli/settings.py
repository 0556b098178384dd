"""Settings that the command line or a config file names, apart from defaults: a checkpoint never overrides them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from gel_lightning.core.errors import GelError

UNSET = object()
DATA = ("image_size", "colour", "val_fraction", "test_fraction")


def explicit_settings(parser: LightningArgumentParser, subcommand: str, args: Sequence[str]) -> dict[str, Any]:
    """Parses a command line again without the defaults.

    Args:
        parser: of `gel-fit`, with its subcommands.
        subcommand: among ``args``, or named by a config file.
        args: the command line, which it has parsed before.

    Returns:
        The settings of the subcommand that were given, as nested plain data.
    """
    given = [*args] if subcommand in args else [*args, subcommand]
    # data.seed is linked to the seed, so there must be one; a later one replaces it.
    given.insert(given.index(subcommand) + 1, "--seed_everything=true")
    parsed = parser.parse_args(given, defaults=False)
    settings: dict[str, Any] = parsed[subcommand].as_dict()
    if settings["seed_everything"] is True:
        del settings["seed_everything"]
    return settings


def refuse_changes(given: Mapping[str, Any], checkpoint: Mapping[str, Any], path: str) -> None:
    """Refuses settings that differ from those that a checkpoint was trained with, and would be overridden by them.

    ``model.weights`` may differ: they replace the checkpoint's, for a file that was moved, and their fingerprint is
    compared when the checkpoint is loaded. ``model.runtime`` is in no checkpoint.

    Args:
        given: what :func:`explicit_settings` has returned.
        checkpoint: the content of the checkpoint.
        path: its file.

    Raises:
        GelError: a setting differs; names it with both values.
    """
    model = {key: value for key, value in given.get("model", {}).items() if key not in ("weights", "runtime")}
    data = {key: value for key, value in given.get("data", {}).items() if key in DATA}
    if "seed_everything" in given:
        data["seed"] = int(given["seed_everything"])
    trained_data = checkpoint.get("GelDataModule", {})
    differences = [
        *_differences("model", model, checkpoint["hyper_parameters"]),
        *_differences("data", data, {key: trained_data.get(key, value) for key, value in data.items()}),
    ]
    for name, ours, theirs in differences:
        option = name.replace(".init_args", "").removesuffix(".class_path")
        option = "seed_everything" if option == "data.seed" else option
        raise GelError(
            f"--{option} is {_shown(ours)}, but {path} was trained with {_shown(theirs)}; "
            f"leave --{option} out, or train a new model without --ckpt_path"
        )


def _differences(name: str, given: Any, trained: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields the name of each setting that differs, with both values."""
    if _names_class(given) and not _same_class(given, trained):
        yield name, given, trained
    elif isinstance(given, Mapping) and isinstance(trained, Mapping):
        for key, value in given.items():
            if key != "class_path":
                yield from _differences(f"{name}.{key}", value, trained.get(key, UNSET))
    elif _listed(given) != _listed(trained):
        yield name, given, trained


def _listed(setting: Any) -> Any:
    """A tuple, such as the betas of Adam, as the list that a checkpoint has for it."""
    return list(setting) if isinstance(setting, tuple) else setting


def _names_class(setting: Any) -> bool:
    return isinstance(setting, Mapping) and "class_path" in setting


def _same_class(given: Mapping[str, Any], trained: Any) -> bool:
    """Whether two settings name one class; gel_lightning.LinearHead is gel_lightning.models.heads.LinearHead."""
    if not _names_class(trained):
        return False
    (package, *_, name), (other, *_, other_name) = (path["class_path"].split(".") for path in (given, trained))
    return bool((package, name) == (other, other_name))


def _shown(value: Any) -> str:
    if value is UNSET or value is None:
        return "its default" if value is UNSET else "none"
    return str(value["class_path"].rsplit(".", 1)[-1]) if _names_class(value) else str(value)
