"""`gel-fit compare` and `gel-fit report`: their options, and what they print."""

import argparse
import shlex
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, NamedTuple

import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from gel_lightning.cli.configs import by_test_pictures, config_name, refuse_differences, settings_text, take_configs
from gel_lightning.cli.console import from_here, print_comparison, print_data, working
from gel_lightning.cli.help import PAGES
from gel_lightning.cli.parser import CLI_OPTIONS, Parser, add_run_arguments, check_settings
from gel_lightning.cli.terminal import print_line
from gel_lightning.cli.trainer_settings import accelerator_found, check_trainer_settings
from gel_lightning.comparison.about import read_about, this_machine
from gel_lightning.comparison.folder import REPORT, RESULTS, check_places, locked
from gel_lightning.comparison.grid import (
    grid,
    present_accelerators,
    read_rows,
)
from gel_lightning.comparison.report.answer import answer
from gel_lightning.comparison.report.overview import make_overview
from gel_lightning.comparison.report.page import make_report
from gel_lightning.comparison.runner import Made, Parts, Runner, deal_folds, prepare
from gel_lightning.comparison.settings import read_settings
from gel_lightning.comparison.summary import rank
from gel_lightning.core.distributed import LostProcesses, check_devices
from gel_lightning.core.errors import GelError
from gel_lightning.core.files import replacing
from gel_lightning.data.datamodule import GelDataModule
from gel_lightning.data.named_sets import MAIN, name_of
from gel_lightning.models.spec import HARDWARE, HEADS, STUDY_BACKBONES, STUDY_OPTIMIZERS, ModelSpec, class_name, titles
from gel_lightning.training.callbacks import LastCheckpoint
from gel_lightning.training.checkpoint_files import with_checkpoint_files
from gel_lightning.training.descriptions import DEFAULT_OPTIMIZER
from gel_lightning.training.progress import GridProgress
from gel_lightning.training.runs import add_callbacks, claim_folder, keep_run, listed

# What a run of `gel-fit fit` does not take.
OWN = ("backbones", "heads", "optimizers", "accelerators", "configs", "folds", "repeats", "resume", "figures")
FOLDER, CONFIG, CONFIGS = "comparison", "config.yaml", "configs"
FIGURES_HELP = "Writes each figure of the report as PNG and SVG to figures/, too; takes some seconds."


class CompareCLI(LightningCLI):
    """Parses the options of `gel-fit compare`, and makes the module and the trainer of each model.

    Args:
        *args: as for LightningCLI.
        config_name: of the config file whose model alone is made; empty for a grid.
        **kwargs: as for LightningCLI.
    """

    def __init__(self, *args: Any, config_name: str = "", **kwargs: Any) -> None:
        self.config_name = config_name
        super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what makes the grid."""
        add_run_arguments(parser)
        parser.add_argument(
            "--backbones",
            type=str,
            nargs="+",
            default=list(STUDY_BACKBONES),
            help="Backbones, NAME or NAME=WEIGHTS each; without WEIGHTS those of --model.weights.",
        )
        parser.add_argument(
            "--heads", type=str, nargs="+", default=list(HEADS.values()), help="Heads: single, multi, or classes."
        )
        parser.add_argument(
            "--optimizers",
            type=str,
            nargs="+",
            default=list(STUDY_OPTIMIZERS),
            help="Optimizers of torch.optim. The learning rate of --model.optimizer is that of them all.",
        )
        parser.add_argument(
            "--accelerators",
            type=str,
            nargs="+",
            help="Hardware: cpu, gpu, tpu (default: --trainer.accelerator if that is given, else all there is).",
        )
        parser.add_argument(
            "--configs",
            type=str,
            nargs="+",
            help="Config files of gel-fit fit in place of a grid: each is a model, fitted as fit --config would. Files "
            "with other test pictures make a comparison of their own each, in one report.",
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
        parser.add_argument("--figures", action="store_true", help=FIGURES_HELP)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments."""
        super().parse_arguments(parser, args)
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
        if self.config_name:
            present = present_accelerators()[-1] if asked == "auto" else asked
            accelerator = present if present in HARDWARE else "gpu"  # cuda and mps
            self.models = [replace(ModelSpec.of_settings(config.model, accelerator), config=self.config_name)]
            return
        accelerators = config.accelerators or (present_accelerators() if asked == "auto" else [asked])
        self.models = grid(config.backbones, config.heads, config.optimizers, accelerators, config.model.unfreeze)

    def instantiate_classes(self) -> None:
        """Makes the data module alone: the classes of each model are made when it is its turn."""
        self._settled: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {}
        for model in self.models:  # a class that there is not ends it here, before anything has run
            self._settings(model)
        self.datamodule = self.parser.instantiate_classes(self.config).data

    def make(self, folder: Path, model: ModelSpec, callbacks: list[Callback]) -> Made:
        """Makes what a model is fitted with; its run is kept in a folder."""
        # The second is what LightningCLI gives save_hyperparameters; it has read it once, before the first model.
        settings, self.config_dump = self._settings(model)
        if self.config.checkpoint.dirpath:
            settings.checkpoint.dirpath = Path(self.config.checkpoint.dirpath, model.name)
        elif self.config.trainer.logger is False:  # Lightning would keep the checkpoints of all in the working folder
            settings.checkpoint.dirpath = folder / "checkpoints"
        made = self.parser.instantiate_classes(settings)
        with accelerator_found(made.trainer, "--accelerators"):
            trainer = Trainer(
                **made.trainer.as_dict()
                | {
                    "callbacks": [*listed(made.trainer.callbacks), *callbacks, made.checkpoint],
                    "plugins": with_checkpoint_files(made.trainer.plugins),
                }
            )
        check_devices(trainer)
        folder.mkdir(exist_ok=True)
        if made.trainer.logger in (None, True) and not made.trainer.fast_dev_run:
            keep_run(trainer, folder, settings.checkpoint.dirpath)
        else:
            add_callbacks(trainer, LastCheckpoint(settings.checkpoint.dirpath))
        add_callbacks(trainer, LostProcesses())
        _save(self.config_dump, folder / CONFIG, without=OWN)
        return Made(made.model, trainer, made.trainer.as_dict(), self.datamodule)

    def _settings(self, model: ModelSpec) -> tuple[Any, dict[str, Any]]:
        """The settings of a model, as the parser has them and as plain data."""
        base = self.config
        pair = (model.head, model.optimizer)
        if pair not in self._settled:  # parsing takes a tenth of a second
            config = self.parser.parse_object({"model": _classes(base, model)}, base)
            dump = yaml.safe_load(self.parser.dump(config, skip_link_targets=False, skip_none=False))
            self._settled[pair] = config, dump
        config, dump = deepcopy(self._settled[pair])
        for settings in (config, dump):
            settings["model"]["backbone"] = model.backbone
            settings["model"]["weights"] = model.weights or base.model.weights
            settings["trainer"]["accelerator"] = model.accelerator
        return config, dump


class Plan(NamedTuple):
    """What is run in the folder of a comparison.

    Attributes:
        runner: of the folder.
        models: all of them, also those that a resumed comparison has already.
        make: makes what a model is fitted with, which is kept in a folder.
        config: what the models share.
        dump: all settings, as config.yaml has them.
    """

    runner: Runner
    models: list[ModelSpec]
    make: Callable[[Path, ModelSpec, list[Callback]], Made]
    config: Any
    dump: dict[str, Any]


def compare_command(args: Sequence[str]) -> None:
    """Runs `gel-fit compare`.

    Args:
        args: the command line after `compare`.

    Raises:
        GelError: a model has failed, or all cannot but fail.
    """
    files, rest = take_configs(args)
    resumed = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    resumed.add_argument("--resume", nargs="?")  # without a value it is the other parser that complains
    resume = resumed.parse_known_args(rest)[0].resume
    texts = {config_name(path): settings_text(path) for path in files}
    kept = []
    if resume:
        folder = comparison_folder(resume, (CONFIG,))
        needed = {"data", "model", "trainer", "checkpoint", *OWN} - {"resume", "configs", "figures"}
        if (folder / CONFIGS).is_dir():
            if files:
                raise GelError(f"{folder} has its configs; leave --configs out, or begin a new comparison")
            copies = sorted((folder / CONFIGS).glob("*.yaml"))
            needed = {"data", "model", "trainer", "checkpoint"}
            texts = {config_name(path): read_settings(path, rest, needed) for path in copies}
        else:
            kept = ["--config", read_settings(folder / CONFIG, rest, needed)]
    # Lightning warns of arguments that are given beside those of the command line.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    if texts:
        _compare_configs({name: _cli(["--config", text, *rest], name) for name, text in texts.items()}, args)
        return
    cli = _cli([*kept, *rest])
    prepare(cli.datamodule)
    folds = deal_folds(cli.datamodule, cli.config.folds, cli.config.repeats)
    folder = _folder_of(cli.config)
    with locked(folder):
        raise_failed(_compare(_plan(folder, cli, folds, cli.models, cli.make, args)), len(cli.models))


def _cli(args: Sequence[str], name: str = "") -> CompareCLI:
    return CompareCLI(
        args=list(args),
        run=False,
        save_config_callback=None,
        parser_class=Parser,
        parser_kwargs={
            "prog": "gel-fit compare",
            "description": PAGES["compare"].summary,
            "source": name and f"--configs {name}",
        },
        config_name=name,
        **CLI_OPTIONS,
    )


def _folder_of(config: Any) -> Path:
    """The folder of the comparison that is resumed, or a new one."""
    if config.resume is None:
        return claim_folder(config.trainer.default_root_dir, FOLDER)
    return comparison_folder(config.resume, (CONFIG,))


def _compare_configs(clis: Mapping[str, CompareCLI], args: Sequence[str]) -> None:
    """Compares the models of config files: those of one data set with each other, and all in one report."""
    refuse_differences({name: cli.config for name, cli in clis.items()})
    for cli in clis.values():
        prepare(cli.datamodule)
    first = next(iter(clis.values()))
    groups = by_test_pictures(
        {name: cli.datamodule for name, cli in clis.items()}, folds=first.config.folds is not None
    )
    folds = {
        title: deal_folds(clis[names[0]].datamodule, first.config.folds, first.config.repeats)
        for title, names in groups.items()
    }
    folder = _folder_of(first.config)
    failed: dict[str, str] = {}
    with locked(folder):
        (folder / CONFIGS).mkdir(exist_ok=True)
        for name, cli in clis.items():
            _save(_dump(cli), folder / CONFIGS / f"{name}.yaml", without=OWN)
        for title, names in groups.items():
            home = folder if len(groups) == 1 else folder / title
            home.mkdir(exist_ok=True)
            if home != folder:
                print_line(f"{title}: {', '.join(names)}")
                _save(_dump(first), folder / CONFIG, without=("resume",))
            own = {clis[name].models[0].name: clis[name] for name in names}

            def make(place: Path, model: ModelSpec, callbacks: list[Callback], own: Any = own) -> Made:
                made: Made = own[model.name].make(place, model, callbacks)
                return made

            models = [clis[name].models[0] for name in names]
            plan = _plan(home, clis[names[0]], folds[title], models, make, args)
            failed |= _compare(plan, f"gel-fit compare --resume {_named(folder)}")
        if len(groups) > 1 and not failed:
            _overview(folder)
    raise_failed(failed, len(clis))


def _plan(
    folder: Path,
    cli: CompareCLI,
    folds: Mapping[tuple[int, int], Parts],
    models: list[ModelSpec],
    make: Callable[[Path, ModelSpec, list[Callback]], Made],
    args: Sequence[str],
) -> Plan:
    """What is run in a folder with the data and the shared settings of a command line."""
    data, config = cli.datamodule, cli.config
    check_places(folder)
    runner = Runner(
        folder,
        data,
        folds,
        _about(folder, data, config, len(folds), args),
        best={"monitor": config.checkpoint.monitor, "mode": config.checkpoint.mode},
        weights=config.model.weights,
        seed=config.seed_everything,
    )
    return Plan(runner, models, make, config, _dump(cli))


def _dump(cli: CompareCLI) -> dict[str, Any]:
    """All settings of a command line as plain data."""
    settings: dict[str, Any] = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))
    return settings


def _compare(plan: Plan, resume: str = "") -> dict[str, str]:
    """Fits the models that are not done yet, makes the report, prints both, and returns why models failed."""
    config, runner, folder = plan.config, plan.runner, plan.runner.folder
    limit = config.trainer.limit_test_batches  # 1 is one batch, 1.0 all of them
    done = {
        ModelSpec.of_row(row).name
        for row in runner.keep_finished(limit is None or (isinstance(limit, float) and limit == 1))
    }
    _save(plan.dump, folder / CONFIG, without=("resume",))
    models = [model for model in plan.models if model.name not in done]
    print_line(f"{len(models)} of {len(plan.models)} models, in {from_here(folder)}")
    # Frozen random backbones alone make it a demonstration.
    weights, unfreeze = max(
        ((model.weights or config.model.weights, model.unfreeze) for model in plan.models),
        key=lambda one: (one[0] != "none", one[1]),
    )
    print_data(runner.data, weights, unfreeze)
    progress = GridProgress(len(models), len(runner.folds) + 1, config.trainer.enable_progress_bar is not False)
    shown = ["hardware"] if len({model.accelerator for model in plan.models}) > 1 else []
    failed: dict[str, str] = {}
    try:
        with progress.bar:
            failed = runner.run(models, lambda model, own: plan.make(folder / model.name, model, own), progress, shown)
    finally:
        rows = read_rows(folder / RESULTS)
        unfinished = len(rows) < len(plan.models)
        if unfinished or all(row["error"] for row in rows):
            rows.sort(key=lambda row: rank(float(row["val_accuracy"] or 0), float(row["val_loss"] or "inf")))
            print_comparison(rows, titles([*map(ModelSpec.of_row, rows)]), chosen=False)
        else:
            pictures = {str(path) for part in runner.parts.values() for path in part.paths}
            _report(folder, config.figures, pictures)
        if config.trainer.logger is not False:
            print_line(f"TensorBoard: tensorboard --logdir {from_here(folder)}")
        print_line(f"results: {from_here(folder / RESULTS)}")
        if failed or unfinished:
            print_line(f"the rest: {resume or f'gel-fit compare --resume {_named(folder)}'}")
    return failed


def raise_failed(failed: Mapping[str, str], models: int) -> None:
    """Ends a comparison in which models have failed.

    Raises:
        GelError: says which, and why.
    """
    if failed:
        names: dict[str, list[str]] = {}
        for name, reason in failed.items():
            names.setdefault(reason, []).append(name)
        reasons = "; ".join(f"{', '.join(alike)} ({reason})" for reason, alike in names.items())
        raise GelError(f"{len(failed)} of {models} models failed: {reasons}")


def _about(folder: Path, data: GelDataModule, config: Any, folds: int, given: Sequence[str]) -> dict[str, Any]:
    """What is run, and what was run before it in a comparison that is resumed."""
    before: dict[str, Any] = {"commands": [], "weights": {}}
    with suppress(GelError):  # absent in a new folder; damaged, it is written again
        before = read_about(folder)
    return {
        "commands": [*before["commands"], shlex.join(["gel-fit", "compare", *given])],
        "class_names": list(data.parts["train"].class_names),
        "drawn": data.drawn,
        "pictures": {part: len(data.parts[part].paths) for part in ("train", "val", MAIN)},
        "test_sets": {name_of(part): len(data.parts[part].paths) for part in filter(name_of, data.parts)},
        "folds": folds // config.repeats or None,
        "groups": data.split.group_names if config.folds == "groups" and data.split else [],
        "repeats": config.repeats,
        "seed": config.seed_everything,
        "weights": before["weights"],
        "near_duplicates": [[str(path) for path in group] for group in data.near_duplicates()],
        "epoch": {"monitor": config.checkpoint.monitor or "", "mode": config.checkpoint.mode},
        **this_machine(),
    }


def report_command(args: Sequence[str]) -> None:
    """Runs `gel-fit report`.

    Args:
        args: the command line after `report`.

    Raises:
        GelError: there is no comparison, or a file of it is damaged.
    """
    parser = Parser(prog="gel-fit report", description=PAGES["report"].summary)
    parser.add_argument("comparison", type=str, help="Number or folder of a comparison.")
    parser.add_argument("--figures", action="store_true", help=FIGURES_HELP)
    given = parser.parse_args(list(args))
    folder = comparison_folder(given.comparison, (CONFIG,))
    if (folder / RESULTS).is_file() or not data_sets(folder):
        _report(comparison_folder(given.comparison), given.figures)
        return
    for one in data_sets(folder):
        print_line(f"{one.name}:")
        _report(one, given.figures)
    _overview(folder)


def data_sets(folder: Path) -> list[Path]:
    """The comparisons, one of each data set, in the folder of a comparison of configs."""
    return sorted(path.parent for path in folder.glob(f"*/{RESULTS}"))


def _overview(folder: Path) -> None:
    """Makes the report of comparisons of several data sets."""
    make_overview(folder, data_sets(folder))
    print_line(f"all data sets: {from_here(folder / REPORT)}")


def _report(folder: Path, figures: bool, pictures: Container[str] = frozenset()) -> None:
    """Makes the report of a comparison, and prints what it begins with."""
    check_places(folder)
    with working("writing the report"):
        summary = make_report(folder, pictures, figures)
    comparison = summary.comparison
    rows = [model.record.row for model in summary.models] + comparison.failed
    names = [comparison.names[ModelSpec.of_row(row).name] for row in rows]
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


def _classes(base: Any, model: ModelSpec) -> dict[str, Any]:
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
