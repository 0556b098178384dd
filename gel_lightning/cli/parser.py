"""The parser of every command, and the options and checks that several commands share."""

import os
import re
import sys
from collections.abc import Callable
from enum import Enum
from numbers import Number
from typing import Any, NoReturn

import yaml
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

from gel_lightning.cli.help import HELP_ALL
from gel_lightning.cli.mistakes import explained
from gel_lightning.cli.own_modules import find_own_modules
from gel_lightning.core.distributed import print_error
from gel_lightning.core.errors import GelError
from gel_lightning.core.files import plain_path
from gel_lightning.data.datamodule import GelDataModule
from gel_lightning.training.checkpoint_files import BestCheckpoint
from gel_lightning.training.classifier import GelClassifier
from gel_lightning.training.descriptions import DEFAULT_OPTIMIZER, known_classes, plain_description

TRAINER_DEFAULTS = {
    "max_epochs": 20,
    "devices": 1,
    "deterministic": True,
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}
CLI_OPTIONS: dict[str, Any] = {
    "model_class": GelClassifier,
    "datamodule_class": GelDataModule,
    "seed_everything_default": 42,
    "auto_configure_optimizers": False,  # they are settings of the model
    "trainer_defaults": TRAINER_DEFAULTS,
}
NO_CLASS_NAMES = "model.class_names cannot be given: the class folders name the classes, or the checkpoint does"

# Some defaults of Lightning's callbacks are enumerations, which config.yaml has by their values.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, value: dumper.represent_data(value.value))


def _number(value: Any) -> int | float:
    """A number as config.yaml has it, or as a text of the command line."""
    number = yaml.safe_load(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"{value!r} is not a number")
    return number


# Transforms of torchvision take numbers.Number, which jsonargparse cannot write to config.yaml.
register_type(Number, serializer=_number, deserializer=_number, fail_already_registered=False)


class Parser(LightningArgumentParser):
    """LightningCLI's parser with errors of one line, and classes from the working folder.

    Args:
        *args: as for LightningArgumentParser.
        source: where the settings are from, if not from the command line: named in errors.
        **kwargs: as for LightningArgumentParser.
    """

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """Parses a command line, whose options may name classes of modules in the working folder."""
        given = [expanded(arg) for arg in (sys.argv[1:] if args is None else args)]
        find_own_modules(given)
        return super().parse_args(given, *others, **options)

    def __init__(self, *args: Any, source: str = "", **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, add_help=False, **kwargs)
        self.source = source
        self.add_argument("--help_all", action="help", help="Show every option of this command and exit.")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints what is wrong with the arguments in one line and exits with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        message = " ".join(message.split())
        command = self.prog.replace(" [options]", "")
        if within := re.match(r"Subcommand '(?=(\w+)')|the following arguments are required: (?=(\w+)\.)", message):
            command = f"{command} {within[1] or within[2]}"
        unknown = re.search(r'"model\.(head|optimizer|lr_scheduler)".*dot import path string: (\S+)', message)
        if "--> model.class_names" in message:
            message = NO_CLASS_NAMES
        elif explanation := explained(message, command.removeprefix("gel-fit "), self.option_names()):
            message = explanation
        elif unknown:
            key, value = unknown.groups()
            message = f"no {key} {value!r}; choose {', '.join(known_classes(key))}, or a class by its import path"
        helps = HELP_ALL if " " in command and re.fullmatch("no option [^;]*", message) else "--help"
        complain(f"{self.source}{': ' * bool(self.source)}{message} (see {command} {helps})")
        sys.exit(2)

    def option_names(self) -> set[str]:
        """The names of all options, without dashes: those of nested classes as on the command line."""
        keys = self.get_defaults().keys(branches=True)
        return {key.replace(".init_args", "").removesuffix(".class_path") for key in keys}


def expanded(arg: str) -> str:
    """Takes ``~`` after ``=`` for the home folder, as the shell does after a space."""
    option, equals, value = arg.partition("=")
    is_home = option.startswith("-") and value.startswith("~")
    return f"{option}{equals}{os.path.expanduser(value)}" if is_home else arg  # noqa: PTH111 - keeps a final slash


def add_run_arguments(
    parser: LightningArgumentParser, trained_classes: Callable[[], list[str] | None] = lambda: None
) -> None:
    """Adds what all commands that train have in common: the best checkpoint, the seed of data and run, the classes.

    Args:
        parser: of the command.
        trained_classes: names the classes of the checkpoint that is used, if there is one.
    """
    parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
    parser.set_defaults(
        {
            "checkpoint.monitor": "val/loss",
            "checkpoint.filename": "best",
            "checkpoint.enable_version_counter": False,
            "model.optimizer": plain_description("optimizer", DEFAULT_OPTIMIZER),
        }
    )
    parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def class_names(data: GelDataModule) -> list[str]:
        return list(trained_classes() or data.class_names)

    parser.link_arguments("data", "model.class_names", class_names, apply_on="instantiate")


def check_settings(config: Any) -> None:
    """Refuses seeds, folders and class names that cannot be used, before anything is written."""
    check_seed(config.seed_everything)
    if config.model.get("class_names") is not None:
        raise GelError(NO_CLASS_NAMES)
    # Lightning would take these as URLs.
    plain_path(config.trainer.default_root_dir or "", "--trainer.default_root_dir")
    if config.checkpoint.dirpath is not None:
        plain_path(config.checkpoint.dirpath, "--checkpoint.dirpath")


def check_seed(seed: int, option: str = "--seed_everything") -> None:
    """Refuses a seed that not all generators take."""
    if not 0 <= seed < 2**32:
        raise GelError(f"no seed {seed}; give one from 0 to {2**32 - 1} ({option})")


def complain(text: str) -> None:
    print_error(f"gel-fit: error: {text}")
