"""The command `gel-fit compare`: one fit after the other over a grid of models."""

import argparse
import shlex
import shutil
import warnings
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml
from lightning import seed_everything
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from gel_lightning.callbacks import TensorBoardPages
from gel_lightning.classifier import DEFAULT_OPTIMIZER
from gel_lightning.cli import CLI_OPTIONS, GelCLI, Parser, check_seed, claimed, from_here, one_line, training_callbacks
from gel_lightning.comparison.grid import BACKBONES, OPTIMIZERS, Model, grid, kind, present_accelerators, read_rows
from gel_lightning.console import print_comparison, print_data, print_line
from gel_lightning.errors import GelError
from gel_lightning.files import replacing
from gel_lightning.progress import GridProgress
from gel_lightning.results import HEADS, ResultsFile, add_result, class_name, model_columns, rewrite_results

DESCRIPTION = """Trains, validates and tests a grid of models on the same pictures, each as `gel-fit fit` would, and
ranks them by test accuracy. Leaves lightning_logs/comparison/version_N: results.csv with a row for each model, and a
folder for each with its checkpoints and its TensorBoard run."""
OWN = ("backbones", "heads", "optimizers", "accelerators", "resume")  # what a run of `gel-fit fit` does not take
FOLDER, RESULTS, CONFIG = "comparison", "results.csv", "config.yaml"


class CompareCLI(GelCLI):
    """A GelCLI that fits one model after the other."""

    accelerator_option = "--accelerators"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what makes the grid."""
        self.add_shared_arguments(parser)
        parser.add_argument(
            "--backbones",
            type=str,
            nargs="+",
            default=list(BACKBONES),
            help="Backbones, NAME or NAME=WEIGHTS each; without WEIGHTS those of --model.weights.",
        )
        parser.add_argument(
            "--heads", type=str, nargs="+", default=list(HEADS.values()), help="Heads: single, multi, or classes."
        )
        parser.add_argument(
            "--optimizers",
            type=str,
            nargs="+",
            default=list(OPTIMIZERS),
            help="Optimizers of torch.optim. The learning rate of --model.optimizer is that of them all.",
        )
        parser.add_argument(
            "--accelerators",
            type=str,
            nargs="+",
            help="Hardware: cpu, gpu, tpu (default: --trainer.accelerator if that is given, else all there is).",
        )
        parser.add_argument(
            "--resume",
            type=str | None,
            help="Number or folder of a comparison: runs those of its models that are missing or failed.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments."""
        LightningCLI.parse_arguments(self, parser, args)
        check_seed(self.config.seed_everything)

    def before_instantiate_classes(self) -> None:
        """Settles the grid."""
        config = self.config
        asked = config.trainer.accelerator
        accelerators = config.accelerators or (present_accelerators() if asked == "auto" else [asked])
        self.models = grid(config.backbones, config.heads, config.optimizers, accelerators)
        self._dumps: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {}
        for model in self.models:  # a class that there is not ends it here, before anything has run
            self._settings(config, model)

    def instantiate_classes(self) -> None:
        """Does nothing yet: each model gets classes of its own when it is its turn."""

    def run(self) -> None:
        """Fits the models one after the other, and ranks them.

        Raises:
            GelError: there are no pictures, or a model has failed.
        """
        base = self.config
        self.data = self.parser.instantiate_classes(base).data
        self.data.prepare_data()
        self.data.setup("fit")
        self.folder = claimed(base, FOLDER) if base.resume is None else _resumed(base.resume)
        results = self.folder / RESULTS
        done = {kind(row): row for row in read_rows(results) if not row["error"]}
        rewrite_results(results, done.values())
        _save(yaml.safe_load(self.parser.dump(base, skip_none=False)), self.folder / CONFIG, without=("resume",))
        models = [model for model in self.models if model.kind not in done]
        print_line(f"{len(models)} of {len(self.models)} models, in {from_here(self.folder)}")
        print_data(self.data, base.model.weights)
        failed: dict[str, str] = {}
        self.progress = GridProgress(len(models), shown=base.trainer.enable_progress_bar is not False)
        try:
            with self.progress.bar:
                for model in models:
                    self.progress.begin(model.name)
                    try:
                        self._fit(base, model)
                    except Exception as error:  # a model that fails, for whatever reason, does not stop the others
                        failed[model.name] = _described(error)
                        row = {**model_columns(*model.kind), "weights": model.weights or base.model.weights}
                        add_result(results, {**row, "seed": base.seed_everything, "error": failed[model.name]})
                    self.progress.end()
        finally:
            rows = read_rows(results)
            print_comparison(rows)
            if base.trainer.logger is not False:
                print_line(f"TensorBoard: tensorboard --logdir {from_here(self.folder)}")
            print_line(f"results: {from_here(results)}")
            if failed or len(rows) < len(self.models):
                print_line(f"the rest: gel-fit compare --resume {_named(self.folder)}")
        if failed:
            names: dict[str, list[str]] = {}
            for name, reason in failed.items():
                names.setdefault(reason, []).append(name)
            reasons = "; ".join(f"{', '.join(alike)} ({reason})" for reason, alike in names.items())
            raise GelError(f"{len(failed)} of {len(models)} models failed: {reasons}")

    def claim_folder(self, config: Any) -> Path:
        """The folder of the run of this model."""
        return self.folder / self.name

    def make_callbacks(self, config: Any) -> list[Callback]:
        """Makes the callbacks of a model's run: those of fit, but for the figures."""
        callbacks: list[Callback] = [
            ResultsFile(self.folder / RESULTS, config.seed_everything),
            TensorBoardPages(figures=False),
            *training_callbacks(config.seed_everything),
        ]
        return callbacks if config.trainer.enable_progress_bar is False else [*callbacks, self.progress]

    def _fit(self, base: Any, model: Model) -> None:
        """Fits, validates and tests one model, as `gel-fit fit` does, on the pictures that all share."""
        if base.seed_everything is not False:
            seed_everything(base.seed_everything, workers=True, verbose=False)
        self.name = model.name
        # The second is what LightningCLI gives save_hyperparameters; it has read it once, before the first model.
        self.config, self.config_dump = self._settings(base, model)
        folder = self.folder / self.name
        if base.checkpoint.dirpath:
            self.config.checkpoint.dirpath = Path(base.checkpoint.dirpath, self.name)
        elif base.trainer.logger is False:  # Lightning would keep the checkpoints of all in the working folder
            self.config.checkpoint.dirpath = folder / "checkpoints"
        shutil.rmtree(folder, ignore_errors=True)  # what a failed one may have left there
        super().instantiate_classes()
        self.datamodule = self.data
        folder.mkdir(exist_ok=True)
        _save(self.config_dump, folder / CONFIG, without=OWN)
        self.trainer.fit(self.model, datamodule=self.datamodule)
        self.measure()

    def _settings(self, base: Any, model: Model) -> tuple[Any, dict[str, Any]]:
        """The settings of a model, as the parser has them and as plain data."""
        pair = (model.head, model.optimizer)
        if pair not in self._dumps:  # parsing takes a tenth of a second
            config = self.parser.parse_object({"model": _classes(base, model)}, base)
            dump = yaml.safe_load(self.parser.dump(config, skip_link_targets=False, skip_none=False))
            self._dumps[pair] = config, dump
        config, dump = deepcopy(self._dumps[pair])
        for settings in (config, dump):
            settings["model"]["backbone"] = model.backbone
            settings["model"]["weights"] = model.weights or base.model.weights
            settings["trainer"]["accelerator"] = model.accelerator
        return config, dump


def compare_command(args: Sequence[str]) -> None:
    """Runs `gel-fit compare`.

    Args:
        args: the command line after `compare`.

    Raises:
        GelError: a model has failed, or all cannot but fail.
    """
    resumed = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    resumed.add_argument("--resume", nargs="?")  # without a value it is the other parser that complains
    resume = resumed.parse_known_args(args)[0].resume
    given = [*(["--config", str(_resumed(resume) / CONFIG)] if resume else []), *args]
    # Lightning warns of arguments that are given beside those of the command line.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    cli = CompareCLI(
        args=given,
        run=False,
        save_config_callback=None,
        parser_class=Parser,
        parser_kwargs={"prog": "gel-fit compare", "description": DESCRIPTION},
        **CLI_OPTIONS,
    )
    cli.run()


def _resumed(named: str) -> Path:
    """The folder of the comparison that is resumed, named by its number or itself."""
    folder = Path("lightning_logs", FOLDER, f"version_{named}") if named.isdecimal() else Path(named)
    if not all((folder / name).is_file() for name in (CONFIG, RESULTS)):
        raise GelError(f"{folder}: no comparison there; name its number or its folder with --resume")
    return folder.absolute()


def _named(folder: Path) -> str:
    """What --resume calls a folder."""
    if folder.parent == Path("lightning_logs", FOLDER).absolute():
        return folder.name.removeprefix("version_")
    return shlex.quote(str(from_here(folder)))


def _classes(base: Any, model: Model) -> dict[str, Any]:
    """The head and the optimizer of a model, where they are not those of the settings already."""
    classes: dict[str, Any] = {}
    if not _same(base.model.head, model.head):
        classes["head"] = {"class_path": model.head}
    if not _same(base.model.optimizer, model.optimizer):
        given = base.model.optimizer.init_args
        usual = DEFAULT_OPTIMIZER.keywords if class_name(model.optimizer) == DEFAULT_OPTIMIZER.func.__name__ else {}
        rate = {"lr": given.lr} if "lr" in given else {}
        classes["optimizer"] = {"class_path": model.optimizer, "init_args": {**usual, **rate}}
    return classes


def _same(described: Any, named: str) -> bool:
    """Whether a described class is the one that is named, by its bare name or its import path."""
    if "." not in named:
        return class_name(described) == named
    with suppress(ImportError, AttributeError, ValueError):
        return resolve_name(named) is resolve_name(described["class_path"])
    return False


def _save(settings: dict[str, Any], path: Path, without: Sequence[str]) -> None:
    """Writes settings as a file that --config takes."""
    kept = {key: value for key, value in settings.items() if key not in without}
    kept["data"] = {key: value for key, value in kept["data"].items() if key != "seed"}  # that of seed_everything
    with replacing(path) as file:
        yaml.safe_dump(kept, file, sort_keys=False)


def _described(error: Exception) -> str:
    """What went wrong in one line; with the kind of error if it is none that we expect."""
    text = one_line(error)
    return text if isinstance(error, GelError) else f"{type(error).__name__}: {text}"
