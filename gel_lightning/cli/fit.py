"""`gel-fit fit`, `validate`, `test` and `predict`: LightningCLI of a GelClassifier and a GelDataModule."""

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
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
)
from gel_lightning.cli.find import UNREADABLE
from gel_lightning.cli.help import PAGES, SUMMARY
from gel_lightning.cli.parser import CLI_OPTIONS, Parser, add_run_arguments, check_settings
from gel_lightning.cli.settings import explicit_settings, refuse_changes
from gel_lightning.cli.terminal import print_line
from gel_lightning.cli.trainer_settings import IntervalCheck, accelerator_found, check_trainer_settings
from gel_lightning.core.distributed import LostProcesses, check_devices
from gel_lightning.core.errors import GelError
from gel_lightning.inference.predict import PredictionsFile
from gel_lightning.models.spec import HARDWARE, ModelSpec
from gel_lightning.training.callbacks import LastCheckpoint
from gel_lightning.training.checkpoint_files import best_model_path, with_checkpoint_files
from gel_lightning.training.checkpoints import read_checkpoint
from gel_lightning.training.classes import DESCRIBED, name_import_path
from gel_lightning.training.progress import RunProgress
from gel_lightning.training.results_row import ResultsFile
from gel_lightning.training.resuming import check_resumable
from gel_lightning.training.runs import (
    add_callbacks,
    claim_folder,
    keep_run,
    listed,
    measure_best,
    resumed_folder,
    training_callbacks,
)
from gel_lightning.training.tensorboard_pages import TensorBoardPages


class GelCLI(LightningCLI):
    """LightningCLI of a GelClassifier and a GelDataModule: see https://lightning.ai/docs."""

    ckpt_path: str = ""
    checkpoint: dict[str, Any] | None = None
    """What is in the file ``ckpt_path``, checked."""
    status = 0
    """The exit status."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what a run is named, where its results go, and what the data and the run share."""
        add_run_arguments(parser, self._trained_classes)
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

    def _trained_classes(self) -> list[str] | None:
        """The classes of the checkpoint."""
        return self.checkpoint["hyper_parameters"]["class_names"] if self.checkpoint else None

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments, and looks at the checkpoint they name before anything is built."""
        self.config = parser.parse_args(args)  # LightningCLI would warn of arguments that are not sys.argv's
        config = self.config[self.config.subcommand]
        self.asked_weights = None
        check_settings(config)
        if config.ckpt_path is None:
            if self.config.subcommand != "fit":
                raise GelError("no trained model; name a checkpoint that gel-fit fit has written with --ckpt_path")
        else:
            given = explicit_settings(parser, self.config.subcommand, args)
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
        config = self.config_init[self.subcommand]
        callbacks = [*listed(config.trainer.callbacks), *self.make_callbacks(config)]
        plugins = with_checkpoint_files(config.trainer.plugins)
        with accelerator_found(config.trainer, "--trainer.accelerator"):
            trainer = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)
        check_devices(trainer)
        if self.subcommand == "fit":
            if self.checkpoint is not None:  # before anything is written
                check_resumable(deepcopy(self.checkpoint), self.model, trainer, Path(self.ckpt_path))
            self._keep_run(trainer, config)
        add_callbacks(trainer, LostProcesses())  # the last one, since what it raises is the end
        return trainer

    def _keep_run(self, trainer: Trainer, config: Any) -> None:
        """Gives a fit a folder of its own, with its last checkpoint and a logger."""
        if config.trainer.logger not in (None, True) or config.trainer.fast_dev_run:
            add_callbacks(trainer, LastCheckpoint(config.checkpoint.dirpath))
            return
        resumed = resumed_folder(config.get("ckpt_path"))
        folder = resumed or claim_folder(config.trainer.default_root_dir, config.name)
        # Of a resumed run, what is trained again is drawn once.
        keep_run(trainer, folder, config.checkpoint.dirpath, purge_step=self.steps_done if resumed else None)

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

    def after_fit(self) -> None:
        """Measures the best checkpoint, and says where all of it is."""
        metrics = measure_best(self.trainer, self.model, self.datamodule)
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
            self.status = UNREADABLE if self.predictions.summary.unreadable else 0

    def _print_own(self, stage: str) -> None:
        if self.trainer.is_global_zero:
            drawn = ["drawn pictures"] * self.datamodule.drawn
            print_demonstration(list(dict.fromkeys([*drawn, *self.model.made_up])), "figures")
            parts = [pictures.paths for part, pictures in self.datamodule.parts.items() if part.split("_")[0] == stage]
            folders = ", ".join(str(from_here(os.path.commonpath(paths))) for paths in parts)
            print_line(f"measured: {from_here(self.ckpt_path)} on pictures in {folders}")
            print_metrics({stage: self.trainer.callback_metrics}, self.model)


def run_command(args: list[str]) -> int:
    """Runs `gel-fit fit`, `validate`, `test` or `predict`.

    Args:
        args: the command line without the program's name.

    Returns:
        The exit status, which is 1 after predictions if a picture could not be read.
    """
    parser_kwargs = {
        "prog": "gel-fit",
        "version": __version__,
        "description": SUMMARY,
        **{name: {"description": PAGES[name].summary} for name in GelCLI.subcommands()},
    }
    return GelCLI(
        args=args,
        save_config_kwargs={"overwrite": True},
        parser_kwargs=parser_kwargs,
        parser_class=Parser,
        **CLI_OPTIONS,
    ).status


def _described(settings: Any) -> dict[str, Any] | None:
    """A class in the settings, as a checkpoint describes it."""
    return settings.as_dict() if isinstance(settings, Namespace) else None


def _run_name(config: Any) -> str:
    """The name of the first config file, else of the model."""
    if config.config and config.config[0] is not None:  # None is settings in place of a file
        return Path(str(config.config[0])).stem
    accelerator = config.trainer.accelerator
    return ModelSpec.of_settings(config.model, accelerator if accelerator in HARDWARE else "").name
