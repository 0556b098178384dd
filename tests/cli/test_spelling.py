"""A mistyped command or option is one line that names the right one."""

import inspect
from pathlib import Path

import pytest
import yaml
from conftest import TINY, gel_fit
from test_cli import assert_error
from torch.optim.lr_scheduler import StepLR

from gel_lightning.cli.help import COMMANDS
from gel_lightning.cli.parser import Parser
from gel_lightning.cli.spelling import (
    ALIASES,
    COMMAND_ALIASES,
    GRID,
    OUTPUT,
    PICTURES,
    meant,
    no_command,
)

# Older versions of torch have one more.
STEP_LR = ", ".join(list(inspect.signature(StepLR).parameters)[1:])
FIT = (
    ("--epochs", "--trainer.max_epochs"),
    ("-epochs", "--trainer.max_epochs"),
    ("–epochs", "--trainer.max_epochs"),  # a dash of a text processor
    ("--trainer.epochs", "--trainer.max_epochs"),
    ("--max_epochs", "--trainer.max_epochs"),
    ("--max-epochs", "--trainer.max_epochs"),
    ("--trainer.max_epoch", "--trainer.max_epochs"),
    ("--trainer.max-epochs", "--trainer.max_epochs"),
    ("--Trainer.Max_Epochs", "--trainer.max_epochs"),
    ("--lr", "--model.optimizer.lr"),
    ("--learning-rate", "--model.optimizer.lr"),
    ("--model.lr", "--model.optimizer.lr"),
    ("--model.learning_rate", "--model.optimizer.lr"),
    ("--momentum", "--model.optimizer.momentum"),
    ("--dropout", "--model.head.dropout"),
    ("--backbone", "--model.backbone"),
    ("--network", "--model.backbone"),
    ("--model.bakbone", "--model.backbone"),
    ("--optimizer", "--model.optimizer"),
    ("--batch_size", "--data.batch_size"),
    ("--batch-size", "--data.batch_size"),
    ("--data.batchsize", "--data.batch_size"),
    ("--folder", "--data.train_dir"),
    ("--input", "--data.train_dir"),
    ("--data.folder", "--data.train_dir"),
    ("--train_dir", "--data.train_dir"),
    ("--test-dir", "--data.test_dir"),
    ("--gpu", "--trainer.accelerator gpu"),
    ("--device", "--trainer.accelerator"),
    ("--resume", "--ckpt_path"),
    ("--ckpt", "--ckpt_path"),
    ("--seed", "--seed_everything"),
    ("--result_file", "--results_file"),
    ("--drawn", "--data.drawn"),
    ("--threshold", None),
)
OTHERS = (
    ("find", "--out", "--csv"),
    ("find", "--conf", "--confidence"),
    ("find", "--sort-to", "--sort_to"),
    ("find", "--input", None),
    ("predict", "--input", "--data.predict_dir"),
    ("predict", "--dir", "--data.predict_dir"),
    ("predict", "--output", "--predictions_file"),
    ("predict", "-o", "--predictions_file"),
    ("predict", "--checkpoint", "--ckpt_path"),
    ("test", "--data", "--data.test_dir"),
    ("compare", "--backbone", "--backbones"),
    ("compare", "--model", "--backbones"),
    ("compare", "--optimizer", "--optimizers"),
    ("compare", "--checkpoint", "--resume"),
    ("compare", "--k", "--folds"),
    ("compare", "--repeat", "--repeats"),
    ("data check", "--dir", "--data.train_dir"),
    ("data draw", "--out", "--to"),
    ("data cache", "--clear_all", "--clear"),
)


@pytest.mark.parametrize(("command", "typed", "right"), [*(("fit", *pair) for pair in FIT), *OTHERS])
def test_the_option_that_was_meant(command: str, typed: str, right: str | None, parsers: dict[str, Parser]) -> None:
    assert meant(typed, command, parsers[command].option_names()) == right


def test_every_alias_stands_for_an_option_of_some_command(parsers: dict[str, Parser]) -> None:
    known = set().union(*(parser.option_names() for parser in parsers.values()))
    meanings = [*ALIASES.values(), *PICTURES.values(), *OUTPUT.values(), *GRID.values()]
    assert {name.partition(" ")[0] for name in meanings} <= known


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("train", "fit"),
        ("Fit", "fit"),
        ("fti", "fit"),
        ("evaluate", "test"),
        ("tets", "test"),
        ("classify", "predict"),
        ("detect", "find"),
        ("fnd", "find"),
        ("predcit", "predict"),
        ("comapre", "compare"),
        ("benchmark", "compare"),
        ("check", "data check"),
        ("data chek", "data check"),
        ("draw", "data draw"),
        ("cache", "data cache"),
    ],
)
def test_the_command_that_was_meant(typed: str, right: str, tmp_path: Path) -> None:
    ran = gel_fit(*typed.split(), "--epochs", "5", cwd=tmp_path)
    assert_error(ran, f"no command {typed!r}; did you mean gel-fit {right}? (see gel-fit {right} --help)", status=2)


def test_a_command_like_no_other() -> None:
    assert no_command("xyz") == f"no command 'xyz'; choose {', '.join(COMMANDS)} (see gel-fit --help)"
    assert "; to find gels: gel-fit find 'my scan.jpg'" in no_command("my scan.jpg")
    assert set(COMMAND_ALIASES.values()) <= set(COMMANDS)


def test_torchrun_says_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert gel_fit("train", cwd=tmp_path) == (2, "", "")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ["fit", "--epochs=5", "--lr", "0.1", "--xyz"],
            "no option --epochs; did you mean --trainer.max_epochs?; no option --lr; did you mean "
            "--model.optimizer.lr?; no option --xyz (see gel-fit fit --help)",
        ),
        (["fit", "--xyz", "3"], "no option --xyz (see gel-fit fit --help_all)"),
        (["fit", "--folds", "5"], "no option --folds; only gel-fit compare has it (see gel-fit fit --help)"),
        (
            ["fit", "--model.optimizer.learning_rate", "0.1"],
            "no option --model.optimizer.learning_rate; did you mean --model.optimizer.lr? (see gel-fit fit --help)",
        ),
        (
            ["fit", "--model.lr_scheduler", "StepLR", "--model.lr_scheduler.size", "3"],
            f"no option --model.lr_scheduler.size; StepLR takes {STEP_LR} (see gel-fit fit --help)",
        ),
        (
            ["fit", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitr", "x"],
            "no option --trainer.callbacks.monitr; did you mean --trainer.callbacks.monitor? (see gel-fit fit --help)",
        ),
        (
            ["fit", "--trainer.callbacks+=EarlyStoping"],
            "--trainer.callbacks EarlyStoping: no such class; give the name of one, or its import path "
            "(see gel-fit fit --help)",
        ),
        (
            ["fit", "--model.head", "absent_module.Head"],
            "--model.head absent_module.Head: there is no Python module absent_module (see gel-fit fit --help)",
        ),
        (
            ["fit", "--model", "vgg16"],
            "--model takes a YAML file, and vgg16 is none; is it --model.backbone vgg16? (see gel-fit fit --help)",
        ),
        (
            ["fit", "--trainer.max_epochs", "many"],
            "--trainer.max_epochs many: give a whole number (see gel-fit fit --help)",
        ),
        (
            ["fit", "--data.dataset", "csv"],
            "--data.dataset csv: give folder or mnist or fashion_mnist or cifar10 (see gel-fit fit --help)",
        ),
        (["fit", "--model.optimizer.lr", "much"], "--model.optimizer.lr much: give a number (see gel-fit fit --help)"),
        (
            [
                "fit",
                "--data.augmentation",
                "[{class_path: torchvision.transforms.v2.RandomRotation, init_args: {degrees: far}}]",
            ],
            "--data.augmentation.degrees far: give a number or a list (see gel-fit fit --help)",
        ),
        (
            [
                "fit",
                "--data.augmentation",
                "[{class_path: torchvision.transforms.v2.RandomRotation, init_args: {degrees: true}}]",
            ],
            "--data.augmentation.degrees True: give a number or a list (see gel-fit fit --help)",
        ),
        (
            [
                "fit",
                "--data.augmentation",
                "[{class_path: torchvision.transforms.v2.RandomHorizontalFlip, init_args: {p: far}}]",
            ],
            "--data.augmentation.p far: give a number (see gel-fit fit --help)",
        ),
        (["fit", "--model.head.hidden", "3"], "--model.head.hidden 3: give a list (see gel-fit fit --help)"),
        (
            ["predict", "pictures/"],
            "'pictures/' needs an option before it: --data.predict_dir pictures/ (a name with spaces needs quotes) "
            "(see gel-fit predict --help)",
        ),
        (
            ["predict", "my pictures"],
            "'my pictures' needs an option before it: --data.predict_dir 'my pictures' (see gel-fit predict --help)",
        ),
        (
            ["test", "best.ckpt"],
            "'best.ckpt' needs an option before it: --ckpt_path best.ckpt (a name with spaces needs quotes) "
            "(see gel-fit test --help)",
        ),
        (
            ["predict", "best.ckpt", "pictures"],
            "'best.ckpt' needs an option before it: --ckpt_path best.ckpt (a name with spaces needs quotes); "
            "'pictures' needs an option before it: --data.predict_dir pictures (a name with spaces needs quotes) "
            "(see gel-fit predict --help)",
        ),
        (["predict", "--ckpt_path"], "--ckpt_path needs a value after it (see gel-fit predict --help)"),
        (["fit", "--data.train_dir"], "--data.train_dir needs a value after it (see gel-fit fit --help)"),
        (["fit", "--config", "gone.yaml"], "TMP/gone.yaml: no such file; check the path (see gel-fit fit --help)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    args: list[str],
    line: str,
    parsers: dict[str, Parser],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        parsers[args[0]].parse_args(args[1:])
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"gel-fit: error: {line.replace('TMP', str(tmp_path))}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ["fit", "--config", "typo.yaml"],
            "no option --data.train_dri; did you mean --data.train_dir? (see gel-fit fit --help)",
        ),
        (
            ["fit", "--config", "nested.yaml"],
            "no option --model.optimizer.learning_rate; did you mean --model.optimizer.lr? (see gel-fit fit --help)",
        ),
        (["fit", "--epochs", "5"], "no option --epochs; did you mean --trainer.max_epochs? (see gel-fit fit --help)"),
        *(
            (
                ["compare", *TINY, option, "absent_module.Thing"],
                f"{key} absent_module.Thing: there is no Python module absent_module (see gel-fit compare --help)",
            )
            for option, key in (("--heads", "--model.head"), ("--optimizers", "--model.optimizer"))
        ),
        (["--trian"], "no option --trian (see gel-fit --help)"),
        (["report", "0", "1"], "'1' is one argument too many (see gel-fit report --help)"),
        (
            ["report"],
            "name a comparison by its number or folder, such as gel-fit report 0 (see gel-fit report --help)",
        ),
        (["data", "draw"], "--to is missing (see gel-fit data draw --help)"),
        (
            ["data", "check", "pictures"],
            "'pictures' needs an option before it: --data.train_dir pictures (a name with spaces needs quotes) "
            "(see gel-fit data check --help)",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_command_says_it(args: list[str], line: str, tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("data:\n  train_dri: pictures\n")
    nested = {"model": {"optimizer": {"class_path": "Adam", "init_args": {"learning_rate": 1}}}}
    (tmp_path / "nested.yaml").write_text(yaml.safe_dump(nested))
    before = sorted(tmp_path.iterdir())
    assert gel_fit(*args, cwd=tmp_path) == (2, "", f"gel-fit: error: {line}\n")
    assert sorted(tmp_path.iterdir()) == before


def test_no_option_is_taken_by_its_beginning(tmp_path: Path) -> None:
    """What is added later would change what it stands for."""
    ran = gel_fit("compare", "--resum", "0", cwd=tmp_path)
    assert_error(ran, "no option --resum; did you mean --resume?", status=2)
