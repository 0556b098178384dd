"""`gel-fit export`: one file that classifies pictures without PyTorch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gel_lightning.cli.parser import Parser
from gel_lightning.cli.terminal import print_line
from gel_lightning.comparison.predictions import pooled, read_predictions
from gel_lightning.core.errors import GelError
from gel_lightning.core.files import output_file, replacing
from gel_lightning.inference.export import export
from gel_lightning.inference.parity import check
from gel_lightning.inference.trained import Trained


def export_command(args: Sequence[str]) -> None:
    """Runs `gel-fit export`.

    Args:
        args: the command line after `export`.

    Raises:
        GelError: the checkpoint, its weights or the place of the file cannot be had, or the file would not do what the
            checkpoint does.
    """
    parser = Parser(
        prog="gel-fit export",
        description="Writes one ONNX file of the whole pipeline of a checkpoint: grey pictures of any size in, "
        "calibrated probabilities out. It is compared with PyTorch before it is kept.",
    )
    parser.add_argument("--ckpt_path", type=Path, required=True, help="Checkpoint that gel-fit fit has written.")
    parser.add_argument("--to", type=Path, required=True, help="ONNX file to write.")
    parser.add_argument(
        "--calibration",
        type=Path | None,
        help="predictions.csv of this model in `gel-fit compare --folds`: calibrates on all folds, each of which was "
        "kept aside, in place of the validation pictures.",
    )
    parser.add_argument("--check", type=Path | None, help="Pictures to compare on (default: drawn ones).")
    parser.add_argument("--half", action="store_true", help="Store weights in 16 bits: half the size.")
    parser.add_argument("--model.weights", type=str | None, help="Weights of the backbone, if not where they were.")
    config = parser.parse_args(list(args))
    target = output_file(config.to.expanduser(), "--to", ".onnx")
    # Opened before the work, so that a place that cannot be written is found at once.
    with replacing(target, "wb") as file:
        trained = Trained.load(config.ckpt_path.expanduser(), config.model.weights)
        if config.calibration:
            trained.model.calibrate_on(*held_out(config.calibration.expanduser(), trained.model.class_names))
        content = export(trained, config.half)
        checked = check(content, trained, config.check and config.check.expanduser())
        file.write(content)
    unread = f" ({checked.unreadable} cannot be read)" if checked.unreadable else ""
    print_line(trained.model.calibration.note)
    print_line(
        f"compared with PyTorch on {checked.pictures} pictures{unread}: "
        f"probabilities differ by at most {checked.difference:.1g}"
    )
    print_line(f"exported: {target} ({len(content) / 1e6:.1f} MB)")


def held_out(path: Path, class_names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Reads what the models of a cross-validation made of the pictures that were kept aside.

    Args:
        path: predictions.csv of a model.
        class_names: in the order of the labels.

    Returns:
        Logits, shape ``[N, classes]``, up to a constant for each picture, and labels, shape ``[N]``.

    Raises:
        GelError: the file is absent, damaged or of other classes, or there was no cross-validation.
    """
    folds = [outcome for outcome in read_predictions(path, class_names) if outcome.fold]
    if not folds:
        raise GelError(f"{path}: no folds in it; name predictions.csv of a model of gel-fit compare --folds")
    outcome = pooled(folds)
    logits = np.log(np.maximum(outcome.probabilities, np.finfo(np.float32).tiny))
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(outcome.labels)
