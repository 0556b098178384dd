"""The command `gel-fit`: LightningCLI, and the commands about data."""

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from gel_lightning import __version__
from gel_lightning.cli.console import (
    Announcement,
    from_here,
    print_demonstration,
    print_metrics,
    print_predictions,
    print_stores,
)
from gel_lightning.cli.help import HELP_ALL, PAGES, SUMMARY, answer
from gel_lightning.cli.mistakes import explained as explained_mistake
from gel_lightning.cli.own_modules import find_own_modules
from gel_lightning.cli.quiet import hide_known_warnings
from gel_lightning.cli.refusals import refusal
from gel_lightning.cli.repeats import refuse_repeats
from gel_lightning.cli.settings import explicit_settings, refuse_changes
from gel_lightning.cli.terminal import print_line
from gel_lightning.cli.trainer_settings import IntervalCheck, check_trainer_settings
from gel_lightning.core.distributed import AlreadySaidError, LostProcesses, check_devices, print_error
from gel_lightning.core.errors import UNWRITABLE, GelError, explained, one_line
from gel_lightning.core.files import plain_path
from gel_lightning.core.store import clear_stores, default_cache_dir, list_stores
from gel_lightning.core.xla import ask_no_cloud, tpu_accelerator
from gel_lightning.data.datamodule import DATA_ROOT, GelDataModule
from gel_lightning.inference.predict import PredictionsFile
from gel_lightning.training.callbacks import EmptyRunRemover, EpochSeed, LastCheckpoint, OneThread
from gel_lightning.training.checkpoint_files import BestCheckpoint, best_model_path, with_checkpoint_files
from gel_lightning.training.checkpoints import read_checkpoint
from gel_lightning.training.classes import DESCRIBED, name_import_path
from gel_lightning.training.classifier import GelClassifier
from gel_lightning.training.descriptions import DEFAULT_OPTIMIZER, known_classes, plain_description
from gel_lightning.training.progress import RunProgress
from gel_lightning.training.results import HARDWARE, ResultsFile, short_names
from gel_lightning.training.resuming import check_resumable
from gel_lightning.training.runs import claim_folder, resumed_folder
from gel_lightning.training.tensorboard import RunLogger
from gel_lightning.training.tensorboard_pages import TensorBoardPages

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


class Parser(LightningArgumentParser):
    """LightningCLI's parser with errors of one line, and classes from the working folder."""

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """Parses a command line, whose options may name classes of modules in the working folder."""
        given = [expanded(arg) for arg in (sys.argv[1:] if args is None else args)]
        find_own_modules(given)
        return super().parse_args(given, *others, **options)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, add_help=False, **kwargs)
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
        elif explanation := explained_mistake(message, command.removeprefix("gel-fit "), self.option_names()):
            message = explanation
        elif unknown:
            key, value = unknown.groups()
            message = f"no {key} {value!r}; choose {', '.join(known_classes(key))}, or a class by its import path"
        helps = HELP_ALL if " " in command and re.fullmatch("no option [^;]*", message) else "--help"
        _complain(f"{message} (see {command} {helps})")
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


class GelCLI(LightningCLI):
    """LightningCLI of a GelClassifier and a GelDataModule: see https://lightning.ai/docs."""

    accelerator_option = "--trainer.accelerator"
    ckpt_path: str = ""
    checkpoint: dict[str, Any] | None = None
    """What is in the file ``ckpt_path``, checked."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what a run is named, where its results go, and what the data and the run share."""
        self.add_shared_arguments(parser)
        parser.add_argument(
            "--name",
            type=str | None,
            help="Folder of the run in lightning_logs (default: the name of the first config file, else of the model).",
        )
        parser.add_argument(
            "--results_file",
            type=Path,
            default=Path("lightning_logs/results.csv"),
            help="CSV file to which fit adds a row.",
        )
        parser.add_argument(
            "--predictions_file",
            type=Path,
            default=Path("predictions.csv"),
            help="CSV file that predict writes.",
        )

    def add_shared_arguments(self, parser: LightningArgumentParser) -> None:
        """Adds what all commands that train have: the best checkpoint, the seed of data and run, the classes."""
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
            trained = self.checkpoint["hyper_parameters"]["class_names"] if self.checkpoint else None
            return list(trained or data.class_names)

        parser.link_arguments("data", "model.class_names", class_names, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments, and looks at the checkpoint they name before anything is built."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        self.asked_weights = None
        check_settings(config)
        if config.ckpt_path is None:
            if self.config.subcommand != "fit":
                raise GelError("no trained model; name a checkpoint that gel-fit fit has written with --ckpt_path")
        else:
            given = explicit_settings(parser, self.config.subcommand, sys.argv[1:] if args is None else args)
            self._take_checkpoint(parser, config, given)

    def _take_checkpoint(self, parser: LightningArgumentParser, config: Any, given: dict[str, Any]) -> None:
        """Checks the checkpoint and takes its hyper-parameters over.

        LightningCLI would load the file again and parse what is in it, with classes imported from wherever it says:
        it does not see ``ckpt_path`` until the hyper-parameters that were checked are in the settings.
        """
        path, config.ckpt_path = config.ckpt_path, None
        own = {kind: _described(config.model[kind]) for kind in DESCRIBED}
        for kind, described in own.items():
            if described is not None:
                name_import_path(kind, described["class_path"])
        self.ckpt_path, self.checkpoint = path, read_checkpoint(Path(path), own)
        refuse_changes(given, self.checkpoint, path)
        self.steps_done = self.checkpoint["global_step"]
        self.asked_weights = given.get("model", {}).get("weights")
        trained_data = self.checkpoint.get("GelDataModule", {})
        if "seed_everything" not in given and "seed" in trained_data:
            config.seed_everything = config.data.seed = trained_data["seed"]
        # The class names are linked to those of the data module, see add_shared_arguments.
        model = {key: value for key, value in self.checkpoint["hyper_parameters"].items() if key != "class_names"}
        self.config = parser.parse_object({self.config.subcommand: {"model": model}}, self.config)

    def before_instantiate_classes(self) -> None:
        """Takes explicit weights in place of the checkpoint's, and settles what the run is named."""
        config = self.config[self.subcommand]
        config.ckpt_path = self.ckpt_path or None
        check_trainer_settings(config.trainer, str(self.subcommand))
        if self.asked_weights is not None:
            config.model.weights = self.asked_weights
        if self.subcommand == "fit":
            config.name = config.name or _run_name(config)
            if config.trainer.logger is False:  # no folder of its own: config.yaml would go to the working folder
                self.save_config_callback = None
        else:
            self.save_config_callback = None
            config.trainer.logger = config.trainer.logger or False
        if self.subcommand in ("validate", "test"):
            config.verbose = False

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Makes the trainer, with the callbacks of this command and, for fit, a logger of its own."""
        config = self.config_init[self.subcommand] if self.subcommand else self.config_init
        callbacks = [*listed(config.trainer.callbacks), *self.make_callbacks(config)]
        plugins = with_checkpoint_files(config.trainer.plugins)
        accelerator = config.trainer.accelerator
        if accelerator == "tpu":
            config.trainer.accelerator = tpu_accelerator(self.accelerator_option)
        try:
            trainer = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)
        except (MisconfigurationException, ModuleNotFoundError, RuntimeError, TypeError, ValueError) as error:
            if accelerator in ("auto", "cpu"):
                if isinstance(error, TypeError):  # of a number of devices
                    raise GelError(f"{one_line(error).rstrip('.')}; give --trainer.devices 1") from error
                raise
            raise GelError(
                f"accelerator {accelerator!r} cannot be used here ({one_line(error)}); "
                f"change that, or run on the processor with {self.accelerator_option} cpu"
            ) from error
        check_devices(trainer)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it where mypy does not look
        if self.subcommand in ("fit", None):
            self._keep_run(trainer, callbacks, config)
        callbacks.append(LostProcesses())  # the last one, since what it raises is the end
        return trainer

    def _keep_run(self, trainer: Trainer, callbacks: list[Callback], config: Any) -> None:
        """Gives a fit a folder of its own, with its last checkpoint and a logger."""
        callbacks.append(LastCheckpoint(config.checkpoint.dirpath))
        if self.checkpoint is not None:  # before anything is written
            check_resumable(deepcopy(self.checkpoint), self.model, trainer, Path(self.ckpt_path))
        if config.trainer.logger in (None, True) and not config.trainer.fast_dev_run:
            folder, purge = resumed_folder(config.get("ckpt_path")), {}
            if folder is not None:  # what is trained again is drawn once
                purge = {"purge_step": self.steps_done}
            else:
                folder = self.run_folder(config)
                callbacks.append(EmptyRunRemover(folder))
            save_dir, name = folder.parent.parent, folder.parent.name
            trainer.logger = RunLogger(save_dir, name, folder.name, default_hp_metric=False, **purge)

    def make_callbacks(self, config: Any) -> list[Callback]:
        """Makes the callbacks of this command."""
        callbacks: list[Callback] = [ResultsFile(config.results_file, config.seed_everything)]
        if config.trainer.enable_progress_bar is not False:
            callbacks.append(RunProgress())
        if self.subcommand == "fit":
            self.config.fit.ckpt_path = None  # so that the config.yaml of a resumed run begins the same run anew
            callbacks += [
                IntervalCheck(),
                TensorBoardPages(),
                Announcement(),
                *training_callbacks(config.seed_everything),
            ]
        elif self.subcommand == "predict":
            self.predictions = PredictionsFile(config.predictions_file)
            callbacks.append(self.predictions)
        return callbacks

    def run_folder(self, config: Any) -> Path:
        """Makes the folder of a run."""
        return claim_folder(config.trainer.default_root_dir, config.name)

    def measure(self) -> dict[str, dict[str, Any]]:
        """Measures the best checkpoint on the validation and the test pictures."""
        checkpoint = best_model_path(self.trainer) or None
        logger = self.trainer.logger
        self.trainer.logger = None  # the curves are of the epochs; what is measured now is none of them
        metrics = {}
        for stage, measure in (("val", self.trainer.validate), ("test", self.trainer.test)):
            measure(self.model, datamodule=self.datamodule, ckpt_path=checkpoint, verbose=False)
            metrics[stage] = dict(self.trainer.callback_metrics)
        self.trainer.logger = logger
        return metrics

    def after_fit(self) -> None:
        """Measures the best checkpoint, and says where all of it is."""
        metrics = self.measure()
        if not self.trainer.is_global_zero:
            return
        checkpoint = best_model_path(self.trainer)
        logger = self.trainer.logger
        print_metrics(metrics, self.model)
        if isinstance(logger, TensorBoardLogger):
            print_line(f"TensorBoard: tensorboard --logdir {from_here(logger.save_dir)}")
        if checkpoint:
            print_line(f"checkpoint: {from_here(checkpoint)}")
        print_line(f"results: {self.config_init.fit.results_file}")

    def after_validate(self) -> None:
        """Prints the metrics."""
        self._print_own("val")

    def after_test(self) -> None:
        """Prints the metrics."""
        self._print_own("test")

    def after_predict(self) -> None:
        """Prints what the pictures show, in short, and where the predictions are."""
        if self.trainer.is_global_zero:
            print_demonstration(self.model.made_up, "answers")
            self.predictions.summary.left_out = self.datamodule.left_out
            print_predictions(self.predictions.summary)
            print_line(f"predictions: {self.predictions.path}")

    def _print_own(self, stage: str) -> None:
        if self.trainer.is_global_zero:
            drawn = ["drawn pictures"] * self.datamodule.drawn
            print_demonstration(list(dict.fromkeys([*drawn, *self.model.made_up])), "figures")
            parts = [pictures.paths for part, pictures in self.datamodule.parts.items() if part.split("_")[0] == stage]
            folders = ", ".join(str(from_here(os.path.commonpath(paths))) for paths in parts)
            print_line(f"measured: {from_here(self.ckpt_path)} on pictures in {folders}")
            print_metrics({stage: self.trainer.callback_metrics}, self.model)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        args: the command line without the program's name; None takes this process's.

    Returns:
        The exit status: 0, 1 for an error that the user can mend, 2 for wrong arguments, 130 for Ctrl-C.
    """
    hide_known_warnings()
    given = sys.argv[1:] if args is None else list(args)
    ask_no_cloud()
    # torch_xla tells of the device that it takes, though another one may be asked for.
    logging.root.addFilter(lambda record: "PJRT_DEVICE" not in record.getMessage())
    try:
        if (status := answer(given)) is not None:
            return status
        if given[:1] == ["find"]:
            from gel_lightning.cli.find import main as find_command

            return find_command(given[1:])
        if given[:1] == ["data"]:
            return data_command(given[1:])
        if given[:1] == ["export"]:
            from gel_lightning.cli.export import export_command

            export_command(given[1:])
            return 0
        refuse_repeats(given)
        with _thread_errors_raised():
            if given[:1] == ["compare"]:
                from gel_lightning.comparison.cli import compare_command

                compare_command(given[1:])
            elif given[:1] == ["report"]:
                from gel_lightning.comparison.cli import report_command

                report_command(given[1:])
            else:
                _lightning_command(args, given)
    except AlreadySaidError:
        return 1
    except (GelError, MisconfigurationException) as error:
        _complain(one_line(error))
        return 1
    except Exception as error:
        text = explained(error) or refusal(error)
        if text is None:
            raise
        _complain(" ".join(text.split()))
        return 1
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning has put things away, and exits with 1
            return 130
        raise
    return 0


def _lightning_command(args: Sequence[str] | None, given: list[str]) -> None:
    """Runs `gel-fit fit`, `validate`, `test` or `predict`."""
    parser_kwargs = {
        "prog": "gel-fit",
        "version": __version__,
        "description": SUMMARY,
        **{name: {"description": PAGES[name].summary} for name in GelCLI.subcommands()},
    }
    GelCLI(
        args=None if args is None else given,
        save_config_kwargs={"overwrite": True},
        parser_kwargs=parser_kwargs,
        parser_class=Parser,
        **CLI_OPTIONS,
    )


def data_command(args: Sequence[str]) -> int:
    """Runs `gel-fit data check`, `gel-fit data draw` or `gel-fit data cache`.

    Args:
        args: the command line after `data`.

    Returns:
        The exit status: 1 if a picture cannot be read.
    """
    # Imported here because they take time that the other commands need not spend.
    from gel_lightning.data.check import check
    from gel_lightning.data.drawn.dataset import draw_data_set

    checks = Parser(description=PAGES["data check"].summary)
    checks.add_argument("--data.train_dir", type=Path, default=DATA_ROOT / "dataset", help="Training pictures.")
    checks.add_argument("--data.test_dir", type=Path | None, help="Test pictures.")
    draws = Parser(description=PAGES["data draw"].summary)
    draws.add_argument("--to", type=Path, required=True, help="Folder for dataset and test_images.")
    draws.add_argument("--seed", type=int, default=42, help="The same seed draws the same pictures.")
    caches = Parser(description=PAGES["data cache"].summary)
    caches.add_argument("--data.cache_dir", type=Path, default=default_cache_dir(), help="Folder where it is kept.")
    caches.add_argument("--clear", action="store_true", help="Removes all of it.")
    parser = Parser(prog="gel-fit data", description="Commands about folders of pictures.")
    commands = parser.add_subcommands()
    commands.add_subcommand("check", checks, help="Looks at the pictures.")
    commands.add_subcommand("draw", draws, help="Draws pictures for use with no network.")
    commands.add_subcommand("cache", caches, help="Lists the feature vectors that are kept, or removes them.")
    config = parser.parse_args(list(args))
    if config.subcommand == "check":
        return check(config.check.data.train_dir, config.check.data.test_dir)
    if config.subcommand == "cache":
        root = config.cache.data.cache_dir.expanduser()
        if config.cache.clear:
            print_line(f"{clear_stores(root) / 1e6:.1f} MB removed from {root}")
        else:
            print_stores(root, list_stores(root))
        return 0
    check_seed(config.draw.seed, "--seed")
    print_line(f"drawn pictures: {draw_data_set(config.draw.to, config.draw.seed)}")
    return 0


def _described(settings: Any) -> dict[str, Any] | None:
    """A class in the settings, as a checkpoint describes it."""
    return settings.as_dict() if isinstance(settings, Namespace) else None


def training_callbacks(seed: int) -> list[Callback]:
    """Makes the callbacks that change how heads are trained, the same for one run as for many."""
    return [OneThread()] if seed is False else [OneThread(), EpochSeed(seed)]


def listed(callbacks: Any) -> list[Callback]:
    """The callbacks of a trainer's settings: one, several or none."""
    return [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])


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


def _run_name(config: Any) -> str:
    """The name of the first config file, else of the model."""
    if config.config:
        return Path(str(config.config[0])).stem
    parts = [*short_names(config.model)]
    if config.trainer.accelerator in HARDWARE:
        parts.append(config.trainer.accelerator)
    return "_".join(parts)


@contextmanager
def _thread_errors_raised() -> Iterator[None]:
    """Raises what TensorBoard's thread could not write when the block ends: the thread would print a traceback."""
    usual, unwritten = threading.excepthook, list[OSError]()

    def keep(thrown: threading.ExceptHookArgs) -> None:
        if isinstance(thrown.exc_value, OSError) and thrown.exc_value.errno in UNWRITABLE:
            unwritten.append(thrown.exc_value)
        else:
            usual(thrown)

    threading.excepthook = keep
    try:
        yield
    finally:
        threading.excepthook = usual
    if unwritten:
        raise unwritten[0]


def _complain(text: str) -> None:
    print_error(f"gel-fit: error: {text}")
