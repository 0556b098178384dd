"""The command `gel-fit compare`: one fit after the other over a grid of models."""

import argparse
import shlex
import shutil
import warnings
from collections.abc import Container, Sequence
from contextlib import suppress
from copy import deepcopy
from itertools import product
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

import yaml
from lightning import seed_everything
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from gel_lightning.cli.console import from_here, print_comparison, print_data, working
from gel_lightning.cli.help import PAGES
from gel_lightning.cli.main import CLI_OPTIONS, GelCLI, Parser, check_settings, training_callbacks
from gel_lightning.cli.terminal import print_line
from gel_lightning.cli.trainer_settings import check_trainer_settings
from gel_lightning.comparison.about import read_about, this_machine, write_about
from gel_lightning.comparison.curves import CurvesFile
from gel_lightning.comparison.folder import CURVES, PREDICTIONS, REPORT, RESULTS, check_places, locked, model_folder
from gel_lightning.comparison.folds import fit_fold, outcome
from gel_lightning.comparison.grid import (
    BACKBONES,
    OPTIMIZERS,
    Model,
    display_names,
    grid,
    kind,
    present_accelerators,
    read_rows,
)
from gel_lightning.comparison.predictions import predictions_file, write_predictions
from gel_lightning.comparison.records import Record, finished
from gel_lightning.comparison.report.answer import answer
from gel_lightning.comparison.report.page import make_report
from gel_lightning.comparison.settings import read_settings
from gel_lightning.comparison.summary import rank
from gel_lightning.core.errors import GelError, one_line
from gel_lightning.core.files import replacing
from gel_lightning.data.named_sets import MAIN, name_of, part_of
from gel_lightning.training.descriptions import DEFAULT_OPTIMIZER
from gel_lightning.training.progress import GridProgress
from gel_lightning.training.results import HEADS, ResultsFile, add_result, class_name, model_columns, rewrite_results
from gel_lightning.training.runs import claim_folder
from gel_lightning.training.tensorboard_pages import COMPARED, TensorBoardPages

# What a run of `gel-fit fit` does not take.
OWN = ("backbones", "heads", "optimizers", "accelerators", "folds", "repeats", "resume")
FOLDER, CONFIG = "comparison", "config.yaml"


class CompareCLI(GelCLI):
    """A GelCLI that fits one model after the other."""

    accelerator_option = "--accelerators"
    given: Sequence[str] = ()
    """The command line after ``compare``."""

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
            "--folds",
            type=int | Literal["groups"] | None,
            help="Cross-validation: deals the training and validation pictures into so many folds, and tests each "
            "model on every fold, trained on the others. Near-duplicates share a fold; models share the folds. "
            "'groups' makes each group of --data.groups a fold.",
        )
        parser.add_argument(
            "--repeats", type=int, default=1, help="How many times they are dealt: 5 folds, 10 times, are 50 fits."
        )
        parser.add_argument(
            "--resume",
            type=str | None,
            help="Number or folder of a comparison: runs those of its models that are missing or failed.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments."""
        LightningCLI.parse_arguments(self, parser, args)
        check_settings(self.config)

    def before_instantiate_classes(self) -> None:
        """Settles the grid."""
        config = self.config
        if not _is_one(config.trainer.devices) or config.trainer.num_nodes != 1:
            raise GelError("compare takes one device, since it fits one model at a time; give --trainer.devices 1")
        check_trainer_settings(config.trainer, "compare")
        asked = config.trainer.accelerator
        if config.folds is None and config.repeats != 1:
            raise GelError("--repeats is how many times the folds are dealt; give --folds too, for example --folds 5")
        if config.folds == "groups" and config.repeats != 1:
            raise GelError("leaving each group out is the same every time; leave --repeats out")
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
        self.parts = self.data.parts
        tested = self.parts["test"]
        if absent := [name for label, name in enumerate(tested.class_names) if label not in tested.labels]:
            raise GelError(
                f"the test pictures have none of {', '.join(absent)}, but models are compared on all classes; add some"
            )
        self.folds = {}
        if base.folds is not None:
            dealt = self.data.cross_validation(base.folds, base.repeats)
            places = product(range(1, base.repeats + 1), range(1, len(dealt) // base.repeats + 1))
            self.folds = dict(zip(places, dealt, strict=True))
        if base.resume is None:
            self.folder = claim_folder(base.trainer.default_root_dir, FOLDER)
        else:
            self.folder = comparison_folder(base.resume, (CONFIG,))
        with locked(self.folder):
            self._run(base)

    def _run(self, base: Any) -> None:
        """Fits the models that are not done yet, and makes the report."""
        results = self.folder / RESULTS
        check_places(self.folder)
        self.about = self._describe(base)
        kept = [record.row for record in finished(self.folder, self.about) if self._is_of_these(record, base)]
        done = {kind(row) for row in kept}
        write_about(self.folder, self.about)
        rewrite_results(results, kept)
        _save(yaml.safe_load(self.parser.dump(base, skip_none=False)), self.folder / CONFIG, without=("resume",))
        models = [model for model in self.models if model.kind not in done]
        print_line(f"{len(models)} of {len(self.models)} models, in {from_here(self.folder)}")
        print_data(self.data, base.model.weights)
        failed: dict[str, str] = {}
        shown = base.trainer.enable_progress_bar is not False
        self.progress = GridProgress(len(models), len(self.folds) + 1, shown)
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
            unfinished = len(rows) < len(self.models)
            if unfinished or all(row["error"] for row in rows):
                rows.sort(key=lambda row: rank(float(row["val_accuracy"] or 0), float(row["val_loss"] or "inf")))
                print_comparison(rows, display_names(rows), chosen=False)
            else:
                _report(self.folder, {str(path) for pictures in self.parts.values() for path in pictures.paths})
            if base.trainer.logger is not False:
                print_line(f"TensorBoard: tensorboard --logdir {from_here(self.folder)}")
            print_line(f"results: {from_here(results)}")
            if failed or unfinished:
                print_line(f"the rest: gel-fit compare --resume {_named(self.folder)}")
        if failed:
            names: dict[str, list[str]] = {}
            for name, reason in failed.items():
                names.setdefault(reason, []).append(name)
            reasons = "; ".join(f"{', '.join(alike)} ({reason})" for reason, alike in names.items())
            raise GelError(f"{len(failed)} of {len(models)} models failed: {reasons}")

    def run_folder(self, config: Any) -> Path:
        """The folder of the run of this model."""
        return self.folder / self.name

    def make_callbacks(self, config: Any) -> list[Callback]:
        """Makes the callbacks of a model's run: those of fit, but for the figures."""
        callbacks: list[Callback] = [
            LambdaCallback(on_test_end=lambda trainer, model: self._keep_predictions()),  # before the row
            ResultsFile(self.folder / RESULTS, config.seed_everything),
            CurvesFile(self.folder / self.name / CURVES),
            TensorBoardPages(figures=False, shown=self._varying()),
            *training_callbacks(config.seed_everything),
        ]
        return callbacks if config.trainer.enable_progress_bar is False else [*callbacks, self.progress]

    def _varying(self) -> list[str]:
        """The hyper-parameters by which models can differ here, and the learning rate."""
        several = len({model.accelerator for model in self.models}) > 1
        return [*COMPARED, *(["hardware"] if several else [])]

    def _fit(self, base: Any, model: Model) -> None:
        """Fits, validates and tests one model, as `gel-fit fit` does, on the pictures that all share.

        Before that it is cross-validated: the row of results is the last that is written of it.
        """
        self._seed(base)
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
        self.outcomes = []
        for place, parts in self.folds.items():
            settings = self.config_init.trainer.as_dict()
            self.outcomes.append(
                fit_fold(self.model, self.data, parts, place, settings, self.config.checkpoint, base.seed_everything)
            )
            self.progress.fitted()
        self.data.parts = self.parts
        self._seed(base)
        self.trainer.fit(self.model, datamodule=self.datamodule)
        self.measure()
        self.about["weights"][model.backbone] = {
            "name": self.model.hparams["weights"],
            "fingerprint": self.model.network.fingerprint,
        }
        write_about(self.folder, self.about)

    def _keep_predictions(self) -> None:
        folder, names = self.folder / self.name, self.model.class_names
        for part in filter(name_of, self.parts):
            path = folder / predictions_file(name_of(part))
            write_predictions(path, names, [outcome(self.model, self.data, part=part)])
        write_predictions(folder / PREDICTIONS, names, [outcome(self.model, self.data), *self.outcomes])

    def _seed(self, base: Any) -> None:
        if base.seed_everything is not False:
            seed_everything(base.seed_everything, workers=True, verbose=False)

    def _is_of_these(self, record: Record, base: Any) -> bool:
        """Whether a model was tested on the pictures, and in the folds, that it would be tested on now."""
        limit = base.trainer.limit_test_batches  # 1 is one batch, 1.0 all of them
        whole = limit is None or (isinstance(limit, float) and limit == 1)
        tests = [parts[MAIN] for parts in (self.parts, *self.folds.values())]
        tests += [self.parts[part_of(name)] for name in record.named]
        for seen, test in zip([record.test, *record.folds, *record.named.values()], tests, strict=True):
            tested = len(seen.paths)
            if whole and tested != len(test.paths):
                return False
            if seen.paths != tuple(map(str, test.paths[:tested])) or [*seen.labels] != [*test.labels[:tested]]:
                return False
        return True

    def _describe(self, base: Any) -> dict[str, Any]:
        """What is run, and what was run before it in a comparison that is resumed."""
        before: dict[str, Any] = {"commands": [], "weights": {}}
        with suppress(GelError):  # absent in a new folder; damaged, it is written again
            before = read_about(self.folder)
        return {
            "commands": [*before["commands"], shlex.join(["gel-fit", "compare", *self.given])],
            "class_names": list(self.parts["train"].class_names),
            "drawn": self.data.drawn,
            "pictures": {part: len(self.parts[part].paths) for part in ("train", "val", MAIN)},
            "test_sets": {name_of(part): len(self.parts[part].paths) for part in filter(name_of, self.parts)},
            "folds": len(self.folds) // base.repeats or None,
            "groups": self.data.split.group_names if base.folds == "groups" and self.data.split else [],
            "repeats": base.repeats,
            "seed": base.seed_everything,
            "weights": before["weights"],
            "near_duplicates": [[str(path) for path in group] for group in self.data.near_duplicates()],
            "epoch": {"monitor": base.checkpoint.monitor or "", "mode": base.checkpoint.mode},
            **this_machine(),
        }

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
    kept = []
    if resume:
        path = comparison_folder(resume, (CONFIG,)) / CONFIG
        kept = ["--config", read_settings(path, args, {"data", "model", "trainer", "checkpoint", *OWN} - {"resume"})]
    # Lightning warns of arguments that are given beside those of the command line.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    cli = CompareCLI(
        args=[*kept, *args],
        run=False,
        save_config_callback=None,
        parser_class=Parser,
        parser_kwargs={"prog": "gel-fit compare", "description": PAGES["compare"].summary},
        **CLI_OPTIONS,
    )
    cli.given = list(args)
    cli.run()


def report_command(args: Sequence[str]) -> None:
    """Runs `gel-fit report`.

    Args:
        args: the command line after `report`.

    Raises:
        GelError: there is no comparison, or a file of it is damaged.
    """
    parser = Parser(prog="gel-fit report", description=PAGES["report"].summary)
    parser.add_argument("comparison", type=str, help="Number or folder of a comparison.")
    _report(comparison_folder(parser.parse_args(list(args)).comparison))


def _report(folder: Path, pictures: Container[str] = frozenset()) -> None:
    """Makes the report of a comparison, and prints what it begins with."""
    check_places(folder)
    with working("writing the report"):
        summary = make_report(folder, pictures)
    comparison = summary.comparison
    rows = [model.record.row for model in summary.models] + comparison.failed
    names = [comparison.names[model_folder(row)] for row in rows]
    print_comparison(rows, names, [model.estimates["accuracy"] for model in summary.models] if summary.folds else None)
    for paragraph in answer(summary):
        print_line(paragraph)
    print_line(f"report: {from_here(folder / REPORT)}")


def comparison_folder(named: str, needed: Sequence[str] = (CONFIG, RESULTS)) -> Path:
    """The folder of a comparison that is named by its number or itself.

    Args:
        named: its number or its path.
        needed: the files that must be there.

    Raises:
        GelError: there is none.
    """
    folder = Path("lightning_logs", FOLDER, f"version_{named}") if named.isdecimal() else Path(named).expanduser()
    if not all((folder / name).is_file() for name in needed):
        raise GelError(f"{folder}: no comparison there; name its number or its folder")
    return folder.absolute()


def _named(folder: Path) -> str:
    """What --resume calls a folder."""
    if folder.parent == Path("lightning_logs", FOLDER).absolute():
        return folder.name.removeprefix("version_")
    return shlex.quote(str(from_here(folder)))


def _is_one(devices: Any) -> bool:
    """Whether a trainer's devices are one: as a number, or listed."""
    if isinstance(devices, str) and "," in devices:
        devices = [number for number in devices.split(",") if number.strip()]
    return len(devices) == 1 if isinstance(devices, list) else str(devices) == "1"


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
    kept["model"] = {key: value for key, value in kept["model"].items() if key != "class_names"}  # those of the data
    with replacing(path) as file:
        yaml.safe_dump(kept, file, sort_keys=False)


def _described(error: Exception) -> str:
    """What went wrong in one line; with the kind of error if it is none that we expect."""
    text = one_line(error)
    return text if isinstance(error, GelError) else f"{type(error).__name__}: {text}"
