"""What a mistyped command or option was meant to be."""

import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from gel_lightning.cli.help import COMMANDS, PAGES

COMMAND_ALIASES = {
    **dict.fromkeys(("train", "training", "learn", "run", "start", "resume", "finetune"), "fit"),
    **dict.fromkeys(("evaluate", "eval", "measure", "score"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "validate"),
    **dict.fromkeys(("classify", "prediction", "infer", "inference", "apply", "use"), "predict"),
    **dict.fromkeys(("detect", "detector", "locate", "scan", "look", "sort", "sift", "which"), "find"),
    **dict.fromkeys(("comparison", "benchmark", "grid", "search", "tune", "rank", "cv"), "compare"),
    **dict.fromkeys(("html", "results", "summary"), "report"),
    **dict.fromkeys(("check", "data inspect", "inspect"), "data check"),
    **dict.fromkeys(("draw", "demo"), "data draw"),
    **dict.fromkeys(("cache", "clear", "data clear"), "data cache"),
}
PICTURES = {"predict": "data.predict_dir", "test": "data.test_dir"}
"""The option that names the pictures of a command; of the others it is data.train_dir."""
OUTPUT = {"find": "csv", "predict": "predictions_file", "data draw": "to"}
"""The option that names the output of a command; of the others it is results_file."""
ALIASES = {
    **dict.fromkeys(("epochs", "epoch", "n_epochs", "num_epochs", "e"), "trainer.max_epochs"),
    **dict.fromkeys(("lr", "learning_rate", "learningrate", "rate"), "model.optimizer.lr"),
    **dict.fromkeys(("backbone", "backbones", "model", "network", "net", "arch", "architecture"), "model.backbone"),
    **dict.fromkeys(("weights", "pretrained"), "model.weights"),
    **dict.fromkeys(("head", "heads", "classifier"), "model.head"),
    **dict.fromkeys(("unfreeze", "freeze", "finetune", "fine_tune", "finetuning", "trainable"), "model.unfreeze"),
    **dict.fromkeys(("optimizer", "optimizers", "optim", "opt"), "model.optimizer"),
    **dict.fromkeys(("scheduler", "lr_scheduler"), "model.lr_scheduler"),
    **dict.fromkeys(("batch_size", "batchsize", "batch", "bs", "b"), "data.batch_size"),
    **dict.fromkeys(("image_size", "img_size", "imgsz", "size"), "data.image_size"),
    **dict.fromkeys(("workers", "num_workers", "j"), "data.num_workers"),
    **dict.fromkeys(("device", "accelerator", "hardware"), "trainer.accelerator"),
    **{device: f"trainer.accelerator {device}" for device in ("cpu", "gpu", "tpu")},
    **dict.fromkeys(("cuda", "use_gpu"), "trainer.accelerator gpu"),
    **dict.fromkeys(("devices", "gpus", "num_gpus"), "trainer.devices"),
    **dict.fromkeys(("checkpoint", "ckpt", "resume", "resume_from", "model_path", "load"), "ckpt_path"),
    **dict.fromkeys(("seed", "random_seed"), "seed_everything"),
    **dict.fromkeys(("train", "train_dir", "training"), "data.train_dir"),
    **dict.fromkeys(("test", "test_dir"), "data.test_dir"),
    **dict.fromkeys(("predict", "predict_dir"), "data.predict_dir"),
    **dict.fromkeys(("cfg", "conf", "yaml", "settings"), "config"),
    **dict.fromkeys(("augment", "augmentation", "augmentations"), "data.views"),
    **dict.fromkeys(("precision", "amp", "fp16"), "trainer.precision"),
    **dict.fromkeys(("log_dir", "logdir", "save_dir", "out_dir"), "trainer.default_root_dir"),
    **dict.fromkeys(("k", "kfold", "k_fold", "k_folds", "n_folds", "cv"), "folds"),
}
"""What options are called elsewhere, in lower case with underscores, and what they are called here."""
ANYTHING = ("data", "input", "inputs", "i", "dir", "folder", "path", "images", "image", "pictures", "picture", "file")
WRITTEN = ("output", "out", "o", "save", "csv")
GRID = {"model.backbone": "backbones", "model.head": "heads", "model.optimizer": "optimizers", "ckpt_path": "resume"}
"""What `compare` has in place of an option of `fit`."""
DASHES = "-–—"  # text processors make long ones of two


def no_command(name: str) -> str:
    """The error line for a command that does not exist.

    Args:
        name: what was typed, empty for nothing.
    """
    if name in ("", "data"):
        commands = [command for command in COMMANDS if command.startswith(name)]
        return f"no command given; choose {', '.join(commands)} (see gel-fit {name + ' ' * bool(name)}--help)"
    typed = name.lower()
    close = get_close_matches(typed, [*COMMANDS, *COMMAND_ALIASES], n=1, cutoff=0.6)
    if close:
        command = COMMAND_ALIASES.get(close[0], close[0])
        return f"no command {name!r}; did you mean gel-fit {command}? (see gel-fit {command} --help)"
    if Path(name).exists() or Path(name).suffix:
        return f"no command {name!r}; to find gels: gel-fit find {shlex.quote(name)}"
    return f"no command {name!r}; choose {', '.join(COMMANDS)} (see gel-fit --help)"


def meant(option: str, command: str, options: Iterable[str]) -> str | None:
    """The option that a mistyped one was meant to be.

    Args:
        option: what was typed, without a value.
        command: such as ``fit``.
        options: the names of all options of the command, without dashes.

    Returns:
        Its name, with dashes; None where none is alike.
    """
    options = set(options)
    name = option.lstrip(DASHES).lower().replace("-", "_")
    group, _, last = name.rpartition(".")
    alias = _alias(last, command) if group in ("", "data") else ALIASES.get(last, "")
    shown = [shown.name.lstrip("-") for shown in PAGES[command].options] if command in PAGES else []
    options |= set(shown)  # of a mistake in a config file the parser of all commands complains
    ends = {known: known.rpartition(".")[2] for known in options}
    similar = get_close_matches(last, ends.values(), n=1, cutoff=0.7)
    candidates = [
        name,
        alias,
        *(known for known in (*shown, *sorted(options)) if ends.get(known) == last),
        *(known for known in sorted(options) if known.startswith(name)),
        *get_close_matches(name, options, n=1, cutoff=0.8),
        *(known for known in sorted(options) if ends[known] in similar),
    ]
    found = (known for known in candidates if known.partition(" ")[0] in options and f"--{known}" != option)
    return next((f"--{known}" for known in found), None)


def _alias(name: str, command: str) -> str:
    """What an option is called here that is called ``name`` elsewhere; empty if that is not known."""
    if name in ANYTHING:
        found = PICTURES.get(command, "data.train_dir")
    elif name in WRITTEN:
        found = OUTPUT.get(command, "results_file")
    else:
        found = ALIASES.get(name, "")
    return GRID.get(found, found) if command == "compare" else found
