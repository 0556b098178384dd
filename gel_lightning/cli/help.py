"""The short help: one screen for `gel-fit` and for each command, printed without importing PyTorch."""

import os
import sys
from collections.abc import Sequence
from textwrap import wrap
from typing import NamedTuple

WIDTH = 80
HELP = ("-h", "--help")
HELP_ALL = "--help_all"


class Option(NamedTuple):
    """An option as the short help shows it.

    Attributes:
        name: with its dashes.
        value: what follows it; empty for a flag.
        text: what it sets. Where the default is none, what happens then.
        default: the parser's, as text; None where the parser has none.
    """

    name: str
    value: str
    text: str
    default: str | None = None


class Page(NamedTuple):
    """The short help of a command.

    Attributes:
        brief: half a line for the list of commands.
        summary: what the command does.
        options: those that people use.
        examples: command lines.
        usage: what follows the command.
    """

    brief: str
    summary: str
    options: tuple[Option, ...]
    examples: tuple[str, ...]
    usage: str = "[OPTION VALUE]..."


TRAIN_DIR = Option(
    "--data.train_dir",
    "FOLDER",
    "pictures, in a folder for each class; without it, those of the original study, downloaded",
)
TEST_DIR = Option("--data.test_dir", "FOLDER", "test pictures; without it, a fifth of those")
CHECKPOINT = Option("--ckpt_path", "FILE", "checkpoint of a fit, such as best.ckpt (needed)")
WEIGHTS = Option("--model.weights", "WEIGHTS", "imagenet (downloaded), packaged, none (random), or a file", "imagenet")
DEVICE = Option("--trainer.accelerator", "DEVICE", "cpu, gpu, tpu or auto", "auto")
EPOCHS = Option("--trainer.max_epochs", "N", "passes over the training pictures", "20")
RATE = Option("--model.optimizer.lr", "RATE", "learning rate", "0.001")
FIGURES = "writes each figure as PNG and SVG to figures/, too"
CONFIG = Option("--config", "FILE", "YAML settings, which the command line overrides")

PAGES = {
    "find": Page(
        "say which pictures are gels, with no training",
        "Says which pictures are gels: those of folders at any depth, or named. Prints on a terminal what was found, "
        "and into a pipe the paths alone. Where it is not sure it says so.",
        (
            Option("--confidence", "LEVEL", "how sure an answer has to be: high, medium or best-guess", "high"),
            Option("--class", "NAME", "class that is looked for; without it, the model's first"),
            Option("--sort_to", "FOLDER", "copies the pictures into a folder for each answer there"),
            Option("--page", "FILE", "HTML page to write, with a small copy of each picture"),
            Option("--csv", "FILE", "table to write, a row for each picture"),
            Option("--json", "", "prints a line of JSON for each picture"),
            Option("--model", "FILE", "model that gel-fit export has written; without it, the packaged one"),
            Option("--fail_if", "CLASS", "exits with status 3 if there is one of this class"),
            Option("--shard", "K/N", "takes every Nth picture, from the Kth on"),
        ),
        (
            "gel-fit find pictures",
            "gel-fit find pictures scan.tif --csv gels.csv",
            "gel-fit find pictures --sort_to sorted --dry_run",
        ),
        "PICTURES... [OPTION VALUE]...",
    ),
    "fit": Page(
        "train a model, and validate and test it",
        "Trains a small head on the features of a pretrained network, then validates and tests the best epoch. "
        "Leaves a checkpoint and TensorBoard curves in lightning_logs, and a row in lightning_logs/results.csv.",
        (
            TRAIN_DIR,
            TEST_DIR,
            Option("--data.dataset", "NAME", "such as cifar10", "folder"),
            Option("--data.colour", "true", "reads pictures in colour", "False"),
            Option(
                "--model.backbone",
                "NAME",
                "such as resnet18 or vgg16",
                "resnet18",
            ),
            WEIGHTS,
            Option("--model.head", "NAME", "such as LinearHead", "MultiLayerHead"),
            Option(
                "--model.unfreeze",
                "SHARE",
                "backbone layers to train, 0 to 1",
                "0.0",
            ),
            RATE,
            EPOCHS,
            DEVICE,
            CONFIG,
            Option("--ckpt_path", "FILE", "last.ckpt of a stopped run, to resume it"),
        ),
        (
            "gel-fit fit --data.train_dir pictures",
            "gel-fit fit --data.train_dir pictures --data.test_dir+=our_lab=scans",
            "gel-fit fit --config configs/vgg16_single_adam_cpu.yaml --trainer.max_epochs 5",
        ),
    ),
    "validate": Page(
        "measure a trained model on validation pictures",
        "Measures a checkpoint on the validation pictures of its training: name the same folders.",
        (CHECKPOINT, TRAIN_DIR, TEST_DIR, WEIGHTS, DEVICE),
        (
            "gel-fit validate --ckpt_path best.ckpt --data.train_dir pictures",
            "gel-fit validate --ckpt_path best.ckpt",
        ),
    ),
    "test": Page(
        "measure a trained model on test pictures",
        "Measures a checkpoint on test pictures, or on those held out of the folder that it was trained on.",
        (CHECKPOINT, TEST_DIR, TRAIN_DIR, WEIGHTS, DEVICE),
        (
            "gel-fit test --ckpt_path best.ckpt --data.test_dir other_pictures",
            "gel-fit test --ckpt_path best.ckpt --data.train_dir pictures",
        ),
    ),
    "predict": Page(
        "say what pictures show, with a trained model",
        "Says for each picture which class it belongs to, and how sure that is. Prints a summary, and writes a row for "
        "each picture to a CSV file that spreadsheets open.",
        (
            CHECKPOINT,
            Option("--data.predict_dir", "PATH", "a picture, or a folder of them (needed)"),
            Option("--predictions_file", "FILE", "CSV file to write", "predictions.csv"),
            WEIGHTS,
            DEVICE,
        ),
        (
            "gel-fit predict --ckpt_path best.ckpt --data.predict_dir pictures",
            "gel-fit predict --ckpt_path best.ckpt --data.predict_dir scan.tif",
        ),
    ),
    "export": Page(
        "write a trained model as one ONNX file",
        "Writes one ONNX file that takes pictures of any size and gives calibrated probabilities, without "
        "PyTorch. It is compared with PyTorch before it is kept.",
        (
            CHECKPOINT,
            Option("--to", "FILE", "ONNX file to write (needed)"),
            Option("--calibration", "FILE", "predictions.csv of gel-fit compare --folds, to calibrate on"),
            Option("--check", "FOLDER", "pictures to compare on; without it, drawn ones"),
            Option("--half", "", "stores weights in 16 bits, which halves the file"),
            Option("--model.weights", "WEIGHTS", "weights of the backbone, if not those that the checkpoint names"),
        ),
        (
            "gel-fit export --ckpt_path best.ckpt --to gel.onnx",
            "gel-fit export --ckpt_path best.ckpt --to gel.onnx --check pictures --half",
        ),
    ),
    "compare": Page(
        "train many models, rank them, write a report",
        "Trains, validates and tests a grid of models on the same pictures, each as fit would, and ranks them; with "
        "--folds by cross-validation, which tells what of it is chance. Leaves report.html, results.csv and each "
        "model's checkpoints in lightning_logs/comparison/version_N.",
        (
            TRAIN_DIR,
            TEST_DIR,
            Option("--backbones", "NAME...", "backbones, NAME or NAME=WEIGHTS", "resnet18 vgg16 mobilenet_v3_large"),
            Option("--heads", "NAME...", "single, multi, or classes", "single multi"),
            Option("--optimizers", "NAME...", "optimizers of torch.optim", "adam sgd"),
            Option("--configs", "FILE...", "configs of gel-fit fit in place of a grid, on one or several data sets"),
            Option("--folds", "N", "cross-validates each model on N parts, or on the groups of --data.groups: groups"),
            Option("--repeats", "N", "how many times the parts are dealt", "1"),
            EPOCHS,
            DEVICE,
            Option("--resume", "NUMBER", "runs what is missing or failed of a comparison"),
            Option("--figures", "", FIGURES),
        ),
        (
            "gel-fit compare --data.train_dir pictures",
            "gel-fit compare --backbones resnet18 vgg16 --heads single --folds 5",
            "gel-fit compare --configs one.yaml other.yaml",
        ),
    ),
    "report": Page(
        "write the report of a comparison again",
        "Writes report.html of a comparison, named by its number or its folder, again, from what lies there.",
        (Option("--figures", "", FIGURES),),
        ("gel-fit report 0", "gel-fit report lightning_logs/comparison/version_0 --figures"),
        "COMPARISON [--figures]",
    ),
    "data check": Page(
        "look for unreadable pictures, near-duplicates and wrong labels",
        "Counts pictures by class, size and mode, and lists those that cannot be read and near-duplicates. The exit "
        "status is 1 if a picture cannot be read.",
        (
            Option(
                "--data.train_dir", "FOLDER", "pictures, in a folder for each class", "data/gel_electrophoresis/dataset"
            ),
            Option("--data.test_dir", "FOLDER", "test pictures, likewise"),
            Option("--quality", "", "lists blurred, dark, overexposed and blank pictures (gel-lightning[clean])"),
            Option("--labels", "", "lists labels that a model trained on the others doubts (gel-lightning[clean])"),
            Option("--model.backbone", "NAME", "network of that model", "resnet18"),
            Option("--model.weights", "WEIGHTS", "its pretrained weights, as for fit", "imagenet"),
        ),
        (
            "gel-fit data check --data.train_dir pictures",
            "gel-fit data check --data.train_dir pictures --quality --labels",
            "gel-fit data check --data.train_dir pictures --data.test_dir other_pictures",
        ),
    ),
    "data draw": Page(
        "draw pictures for a trial with no network",
        "Draws pictures of gels and look-alikes, for trials with no network.",
        (
            Option("--to", "FOLDER", "folder to make (needed)"),
            Option("--seed", "N", "the same seed draws the same pictures", "42"),
        ),
        (
            "gel-fit data draw --to drawn",
            "gel-fit fit --data.train_dir drawn/dataset --data.test_dir drawn/test_images",
        ),
    ),
    "data cache": Page(
        "list the feature vectors that are kept, or remove them",
        "Lists what is kept of pictures, so that no run computes it again, with its size.",
        (
            Option("--clear", "", "removes all of it"),
            Option("--data.cache_dir", "FOLDER", "folder where it is kept; without it the user's cache folder"),
        ),
        ("gel-fit data cache", "gel-fit data cache --clear"),
    ),
}
COMMANDS = tuple(PAGES)
COMMON = "fit"  # whose options the first page shows
SUMMARY = (
    "Is this picture a gel electrophoresis image? `find` says it of your pictures. `fit` learns it, or other classes, "
    "from pictures/gel and pictures/not_gel."
)
EXAMPLES = (
    "gel-fit find pictures",
    "gel-fit fit --data.train_dir pictures",
)


def answer(given: Sequence[str]) -> int | None:
    """Prints the short help or the version, or refuses a command that does not exist.

    Args:
        given: the command line without the program's name.

    Returns:
        The exit status; None where there is a command to run.
    """
    if list(given) in (["--version"], ["version"]):
        from gel_lightning import __version__
        from gel_lightning.detector import identity

        print(f"gel-fit {__version__}\n{identity()}")
        return 0
    rest = [arg for arg in given if arg not in HELP]
    asked = len(rest) < len(given)
    if rest[:1] == ["help"]:
        asked, rest = True, rest[1:]
    if rest[:1] == ["data"] and (len(rest) == 1 or not rest[1].startswith("-")):
        rest = [" ".join(rest[:2]), *rest[2:]]
    name = rest[0] if rest and not rest[0].startswith("-") else ""
    if asked and name in (*COMMANDS, "", "data"):
        print(help_page(name))
        return 0
    if name in COMMANDS or (rest and not name):  # options before the command are the parser's
        return None
    from gel_lightning.cli.spelling import no_command

    if os.environ.get("RANK", "0") == "0":  # one line of what torchrun starts
        print(f"gel-fit: error: {no_command(name)}", file=sys.stderr)
    return 2


def help_page(name: str) -> str:
    """The short help of a command; of `gel-fit data` and `gel-fit` themselves by ``data`` and the empty name."""
    if name in PAGES:
        page = PAGES[name]
        return "\n".join(
            [
                f"usage: gel-fit {name} {page.usage}\n",
                *wrap(page.summary, WIDTH),
                *_options(page.options, "options"),
                *_listed(page.examples, "examples"),
                "",
                *wrap(
                    f"commands: {', '.join(dict.fromkeys(name.split()[0] for name in COMMANDS))} (gel-fit --help)",
                    WIDTH,
                ),
                *([f"all options: see gel-fit {name} {HELP_ALL}"] if page.options else []),
            ]
        )
    pages = {other: page for other, page in PAGES.items() if other.startswith(name)}
    briefs = [f"{other:<10}  {page.brief}" for other, page in pages.items()]
    usage = f"usage: gel-fit {name} COMMAND [OPTION VALUE]...\n".replace("  ", " ")
    if name:
        return "\n".join([usage, "Commands about folders of pictures.", *_listed(briefs, "commands")])
    return "\n".join(
        [
            usage,
            *wrap(SUMMARY, WIDTH),
            *_listed(briefs, "commands"),
            *_options(PAGES[COMMON].options, f"options of {COMMON}"),
            *_listed(EXAMPLES, "examples"),
            f"\nmore: gel-fit COMMAND --help; every option: gel-fit COMMAND {HELP_ALL}",
        ]
    )


def _options(options: Sequence[Option], title: str) -> list[str]:
    lines = [f"\n{title}:"] if options else []
    width = max((len(f"{option.name} {option.value}") for option in options), default=0) + 4
    for option in options:
        text = option.text + (f" (default: {option.default})" if option.default is not None else "")
        first, *others = wrap(text, WIDTH - width, break_on_hyphens=False)
        lines.append(f"  {option.name} {option.value}".ljust(width) + first)
        lines += [" " * width + line for line in others]
    return lines


def _listed(texts: Sequence[str], title: str) -> list[str]:
    return [f"\n{title}:", *(f"  {line}" for text in texts for line in wrap(text, WIDTH - 2, break_on_hyphens=False))]
