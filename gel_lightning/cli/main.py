"""The command `gel-fit`: LightningCLI, and the commands about data."""

import errno
import logging
import pickle
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from gel_lightning import __version__
from gel_lightning.cli.console import Announcement, print_counts, print_line, print_metrics, print_stores
from gel_lightning.core.distributed import (
    AlreadySaidError,
    LostProcesses,
    ProcessesNeededError,
    join_processes,
    print_error,
    run_in_processes,
)
from gel_lightning.core.errors import GelError
from gel_lightning.core.progress import RunProgress
from gel_lightning.core.store import clear_stores, default_cache_dir, list_stores
from gel_lightning.core.xla import ask_no_cloud, tpu_accelerator
from gel_lightning.data.datamodule import DATA_ROOT, GelDataModule
from gel_lightning.training.callbacks import (
    EmptyRunRemover,
    EpochSeed,
    LastCheckpoint,
    OneThread,
    PredictionsFile,
    TensorBoardPages,
)
from gel_lightning.training.classifier import DEFAULT_OPTIMIZER, GelClassifier, known_classes, plain_description
from gel_lightning.training.results import HARDWARE, ResultsFile, class_name, short_names

DESCRIPTION = """Is this picture a gel electrophoresis image? `fit` trains a head on the features of a frozen
network, and validates and tests it; `validate`, `test` and `predict` use a checkpoint that fit has written. More
commands: `gel-fit compare` fits and ranks many models, `gel-fit data check` looks at folders of pictures, `gel-fit data
draw` draws some, and `gel-fit data cache` lists or removes the feature vectors that are kept."""
DESCRIPTIONS = {
    "fit": "Trains a head on the training pictures, and validates and tests the best checkpoint.",
    "validate": "Measures a checkpoint on the validation pictures.",
    "test": "Measures a checkpoint on the test pictures.",
    "predict": "Classifies pictures with a checkpoint, and writes a row for each to a CSV file.",
}

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
    "trainer_defaults": TRAINER_DEFAULTS,
}
# What the operating system says when a file cannot be written, and a person can do something about it.
UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EEXIST),  # a file where a folder is to be
)


class Parser(LightningArgumentParser):
    """LightningCLI's parser with errors of one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints what is wrong with the arguments in one line and exits with status 2."""
        message = " ".join(message.split())
        unknown = re.search(r'"model\.(head|optimizer|lr_scheduler)".*dot import path string: (\S+)', message)
        if unknown:
            key, value = unknown.groups()
            message = f"no {key} {value!r}; choose {', '.join(known_classes(key))}, or a class by its import path"
        _complain(f"{message} (see {self.prog.replace(' [options]', '')} --help)")
        sys.exit(2)


class GelCLI(LightningCLI):
    """LightningCLI of a GelClassifier and a GelDataModule: see https://lightning.ai/docs."""

    accelerator_option = "--trainer.accelerator"

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

    @staticmethod
    def add_shared_arguments(parser: LightningArgumentParser) -> None:
        """Adds what all commands that train have: the best checkpoint, and one seed for the data and the run."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/loss",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "model.optimizer": plain_description("optimizer", DEFAULT_OPTIMIZER),
            }
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments, and looks at the checkpoint they name before anything is built."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        self.asked_weights = config.model.weights
        check_seed(config.seed_everything)
        if config.ckpt_path is None:
            if self.config.subcommand != "fit":
                raise GelError("no trained model; name a checkpoint that gel-fit fit has written with --ckpt_path")
        else:
            checkpoint = _checkpoint(Path(config.ckpt_path))
            self.steps_done = checkpoint["global_step"]
            made_with = _model(checkpoint["hyper_parameters"])
            if self.config.subcommand == "fit" and _model(config.model.as_dict()) != made_with:
                raise GelError(
                    f"{config.ckpt_path} is a checkpoint of another model: {made_with}, where this run asks for "
                    f"{_model(config.model.as_dict())}; resume with the config.yaml beside it"
                )

    def before_instantiate_classes(self) -> None:
        """Lets weights that were asked for stand over the checkpoint's, and settles what the run is named."""
        config = self.config[self.subcommand]
        if self.asked_weights != "imagenet":
            config.model.weights = self.asked_weights
        if self.subcommand == "fit":
            config.name = config.name or _run_name(config)
            if config.trainer.logger is False:  # no folder of its own: config.yaml would go to the working folder
                self.save_config_callback = None
        else:
            self.save_config_callback = None
            config.trainer.logger = config.trainer.logger or False
            # Nothing is trained on: where the checkpoint was, and what callbacks have left in it, plays no part.
            for message in ("The dirpath has changed", "Be aware that when using `ckpt_path`, callbacks"):
                warnings.filterwarnings("ignore", message=message)
        if self.subcommand in ("validate", "test"):
            config.verbose = False

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Makes the trainer, with the callbacks of this command and, for fit, a logger of its own."""
        config = self.config_init[self.subcommand] if self.subcommand else self.config_init
        callbacks = [*listed(config.trainer.callbacks), *self.make_callbacks(config)]
        accelerator = config.trainer.accelerator
        if accelerator == "tpu":
            config.trainer.accelerator = tpu_accelerator(self.accelerator_option)
        try:
            trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        except (MisconfigurationException, ModuleNotFoundError, RuntimeError, ValueError) as error:
            if accelerator in ("auto", "cpu"):
                raise
            raise GelError(
                f"accelerator {accelerator!r} cannot be used here ({one_line(error)}); "
                f"change that, or run on the processor with {self.accelerator_option} cpu"
            ) from error
        join_processes(trainer)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it where mypy does not look
        if self.subcommand in ("fit", None):
            self._keep_run(trainer, callbacks, config)
        callbacks.append(LostProcesses())  # the last one, since what it raises is the end
        return trainer

    def _keep_run(self, trainer: Trainer, callbacks: list[Callback], config: Any) -> None:
        """Gives a fit a folder of its own, with its last checkpoint and a logger."""
        callbacks.append(LastCheckpoint(config.checkpoint.dirpath))
        if config.trainer.logger in (None, True) and not config.trainer.fast_dev_run:
            folder, purge = _resumed(config), {}
            if folder is not None:  # what is trained again is drawn once
                purge = {"purge_step": self.steps_done}
            else:
                folder = self.claim_folder(config)
                callbacks.append(EmptyRunRemover(folder))
            save_dir, name = folder.parent.parent, folder.parent.name
            trainer.logger = TensorBoardLogger(save_dir, name, folder.name, default_hp_metric=False, **purge)

    def make_callbacks(self, config: Any) -> list[Callback]:
        """Makes the callbacks of this command."""
        callbacks: list[Callback] = [ResultsFile(config.results_file, config.seed_everything)]
        if config.trainer.enable_progress_bar is not False:
            callbacks.append(RunProgress())
        if self.subcommand == "fit":
            self.config.fit.ckpt_path = None  # so that the config.yaml of a resumed run begins the same run anew
            callbacks += [TensorBoardPages(), Announcement(), *training_callbacks(config.seed_everything)]
        elif self.subcommand == "predict":
            self.predictions = PredictionsFile(config.predictions_file)
            callbacks.append(self.predictions)
        return callbacks

    def claim_folder(self, config: Any) -> Path:
        """Makes the folder of a run."""
        return claimed(config, config.name)

    def measure(self) -> dict[str, dict[str, Any]]:
        """Measures the best checkpoint on the validation and the test pictures."""
        checkpoint = getattr(self.trainer.checkpoint_callback, "best_model_path", "") or None
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
        checkpoint = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
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
        """Prints how many pictures were taken for what, and where the predictions are."""
        if self.trainer.is_global_zero:
            print_counts(self.predictions.counts)
            print_line(f"predictions: {self.predictions.path}")

    def _print_own(self, stage: str) -> None:
        if self.trainer.is_global_zero:
            print_metrics({stage: self.trainer.callback_metrics}, self.model)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        args: the command line without the program's name; None takes this process's.

    Returns:
        The exit status: 0, 1 for an error that the user can mend, 2 for wrong arguments, 130 for Ctrl-C.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning's own use of torch, which it will have to mend; and the folder of a run that is resumed.
    for message in (".*treespec, LeafSpec.* is deprecated", "Checkpoint directory .* exists and is not empty"):
        warnings.filterwarnings("ignore", message=message)
    given = sys.argv[1:] if args is None else list(args)
    ask_no_cloud()
    # torch_xla tells of the device that it takes, though another one may be asked for.
    logging.root.addFilter(lambda record: "PJRT_DEVICE" not in record.getMessage())
    try:
        if given[:1] == ["data"]:
            return data_command(given[1:])
        if given[:1] == ["export"]:
            from gel_lightning.cli.export import export_command

            export_command(given[1:])
            return 0
        with _thread_errors_raised():
            if given[:1] == ["compare"]:
                from gel_lightning.comparison.cli import compare_command

                compare_command(given[1:])
            elif given[:1] == ["report"]:
                from gel_lightning.comparison.cli import report_command

                report_command(given[1:])
            else:
                return _lightning_command(args, given)
    except AlreadySaidError:
        return 1
    except (GelError, MisconfigurationException) as error:
        _complain(one_line(error))
        return 1
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        _complain(f"{error.filename or 'a file'}: {error.strerror}; free some space or name another place")
        return 1
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning has put things away, and exits with 1
            return 130
        raise
    return 0


def _lightning_command(args: Sequence[str] | None, given: list[str]) -> int:
    """Runs `gel-fit fit`, `validate`, `test` or `predict`, in processes of its own if the strategy is of such."""
    parser_kwargs = {
        "prog": "gel-fit",
        "version": __version__,
        "description": DESCRIPTION,
        **{name: {"description": text} for name, text in DESCRIPTIONS.items()},
    }
    try:
        GelCLI(
            args=None if args is None else given,
            save_config_kwargs={"overwrite": True},
            parser_kwargs=parser_kwargs,
            parser_class=Parser,
            **CLI_OPTIONS,
        )
    except ProcessesNeededError as needed:
        launcher = needed.launcher
    else:
        return 0
    return run_in_processes(launcher, main, given)


def data_command(args: Sequence[str]) -> int:
    """Runs `gel-fit data check`, `gel-fit data draw` or `gel-fit data cache`.

    Args:
        args: the command line after `data`.

    Returns:
        The exit status: 1 if a picture cannot be read.
    """
    # Imported here because they take time that the other commands need not spend.
    from gel_lightning.data.check import check
    from gel_lightning.data.drawn import draw_data_set

    checks = Parser(
        description="Looks at folders of class folders: prints the pictures by class, size and "
        "mode, the unreadable ones, and near-duplicates; exits with status 1 if a picture cannot be read."
    )
    checks.add_argument("--data.train_dir", type=Path, default=DATA_ROOT / "dataset", help="Training pictures.")
    checks.add_argument("--data.test_dir", type=Path | None, help="Test pictures.")
    draws = Parser(description="Draws a data set of gels and look-alikes.")
    draws.add_argument("--to", type=Path, required=True, help="Folder for dataset and test_images.")
    draws.add_argument("--seed", type=int, default=42, help="The same seed draws the same pictures.")
    caches = Parser(description="Lists what is kept of pictures, so that no run computes it again, with its size.")
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
    print_line(f"drawn pictures: {draw_data_set(config.draw.to, config.draw.seed)}")
    return 0


def _checkpoint(path: Path) -> dict[str, Any]:
    """Loads a checkpoint, after making sure that it is one of ours and safe to load."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise GelError(f"{path}: no such checkpoint; name one that gel-fit fit has written (--ckpt_path)") from error
    except pickle.UnpicklingError as error:
        raise GelError(
            f"{path}: refused, because it holds more than plain data; name a checkpoint of gel-fit"
        ) from error
    except Exception as error:  # on damaged files torch.load raises nearly anything
        raise GelError(f"{path}: not a whole checkpoint ({one_line(error)}); name another with --ckpt_path") from error
    if not isinstance(checkpoint, dict) or "backbone_fingerprint" not in checkpoint:
        raise GelError(f"{path}: a checkpoint of another model; name one that gel-fit fit has written (--ckpt_path)")
    return checkpoint


def _model(config: Any) -> str:
    return f"{config['backbone']} + {class_name(config['head'])} + {class_name(config['optimizer'])}"


def training_callbacks(seed: int) -> list[Callback]:
    """Makes the callbacks that change how heads are trained, the same for one run as for many."""
    return [OneThread()] if seed is False else [OneThread(), EpochSeed(seed)]


def listed(callbacks: Any) -> list[Callback]:
    """The callbacks of a trainer's settings: one, several or none."""
    return [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])


def check_seed(seed: int) -> None:
    """Refuses a seed that not all generators take."""
    if not 0 <= seed < 2**32:
        raise GelError(f"no seed {seed}; give one from 0 to {2**32 - 1} (--seed_everything)")


def _run_name(config: Any) -> str:
    """The name of the first config file, else of the model."""
    if config.config:
        return Path(str(config.config[0])).stem
    parts = [*short_names(config.model)]
    if config.trainer.accelerator in HARDWARE:
        parts.append(config.trainer.accelerator)
    return "_".join(parts)


def _resumed(config: Any) -> Path | None:
    """The folder of the run that is resumed, if the checkpoint is still where that run has put it."""
    if config.get("ckpt_path") is None:
        return None
    folder = Path(config.ckpt_path).absolute().parent
    return folder.parent if folder.name == "checkpoints" else None


def claimed(config: Any, name: str) -> Path:
    """Makes the next folder version_N. Making it is what claims it, so runs at once never share one."""
    parent = Path(config.trainer.default_root_dir or "").absolute() / "lightning_logs" / name
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name[8:]) for path in parent.glob("version_*") if path.name[8:].isdecimal()]
    for number in count(max(taken, default=-1) + 1):
        folder = parent / f"version_{number}"
        if getattr(rank_zero_only, "rank", 0) != 0:
            return folder  # the first process of several makes the folder, and tells the others
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError


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


def from_here(path: str | Path) -> Path:
    """A path as short as it can be said from the working folder."""
    path = Path(path)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _complain(text: str) -> None:
    print_error(f"gel-fit: error: {text}")
