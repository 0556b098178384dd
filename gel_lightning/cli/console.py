"""What a person reads in the terminal before and after a run."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from gel_lightning.cli.terminal import SafeTable, print_answers, print_line
from gel_lightning.core.store import Contents
from gel_lightning.core.text import some_of
from gel_lightning.core.xla import device_name
from gel_lightning.data.datamodule import GelDataModule
from gel_lightning.data.named_sets import name_of
from gel_lightning.inference.rows import Summary
from gel_lightning.training.callbacks import LastCheckpoint
from gel_lightning.training.classifier import GelClassifier, made_up
from gel_lightning.training.results_row import hyperparameters


class Announcement(Callback):
    """Says what is trained on what, before it begins."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the model, the hardware, the pictures, and whether this is but a demonstration."""
        data = getattr(trainer, "datamodule", None)
        if not (trainer.is_global_zero and isinstance(pl_module, GelClassifier) and isinstance(data, GelDataModule)):
            return
        model = hyperparameters(trainer, pl_module)
        device = device_name(trainer.strategy.root_device)
        print_line(
            f"{model['backbone']} (weights: {model['weights']}) + {model['head']} + {model['optimizer']} "
            f"on {model['hardware']}{f' ({device})' if device != 'cpu' else ''}, {trainer.max_epochs} "
            f"epoch{'s' * (trainer.max_epochs != 1)}"
        )
        cut = pl_module.network.cut
        if cut.trained:
            start = f" from epoch {pl_module.unfreeze_at_epoch} on" if pl_module.unfreeze_at_epoch else ""
            if 0 < (trainer.max_epochs or 0) <= pl_module.unfreeze_at_epoch:
                start += ", which this run does not reach"
            print_line(
                f"Trained with the head{start}: the last {cut.trained} of the backbone's {cut.layers} layers, "
                f"beginning with {cut.name}"
            )
        if device == "XLA:CPU":
            print_line("The processor runs here what XLA compiles for a TPU: the times are not those of one.")
        print_data(data, model["weights"], model.get("unfreeze") or 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says what was computed before the training could begin, and where it is kept."""
        data = getattr(trainer, "datamodule", None)
        cache = data.cache if isinstance(data, GelDataModule) else None
        if trainer.is_global_zero and cache is not None and cache.computed:
            what = "maps" if isinstance(pl_module, GelClassifier) and pl_module.network.cut.trained else "vectors"
            print_line(
                f"{cache.computed} feature {what} computed in {cache.seconds:.1f} seconds "
                f"({cache.computed / cache.seconds:.0f} a second) and kept in {cache.root}"
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Says after Ctrl-C and SIGTERM how the run is resumed."""
        last = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint)]
        path = Path(last[0].best_model_path) if last and last[0].best_model_path else None
        config = path and path.parent.parent / "config.yaml"
        stopped = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        if stopped and trainer.is_global_zero and path and config and config.exists():
            resume = shlex.join(["--config", str(from_here(config)), "--ckpt_path", str(from_here(path))])
            print_line(f"stopped; to go on: gel-fit fit {resume}")


def from_here(path: str | Path) -> Path:
    """A path as short as it can be said from the working folder."""
    path = Path(path)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def print_data(data: GelDataModule, weights: str, unfreeze: float) -> None:
    """Prints what pictures there are, and whether this is but a demonstration."""
    assert data.split is not None
    counts = {part: len(pictures.paths) for part, pictures in data.parts.items()}
    names = data.parts["train"].class_names
    extra = f" ({len(data.split.extra)} of them drawn)" if data.split.extra else ""
    print_line(
        f"{counts['train']} training{extra}, {counts['val']} validation and {counts['test']} test pictures of "
        f"{len(names)} classes: {some_of(names)}"
    )
    if named := [f"{name_of(part)} ({count} pictures)" for part, count in counts.items() if name_of(part)]:
        print_line(f"Also tested on: {', '.join(named)}")
    for name, left_out in data.folders.left_out().items():
        print_line(f"{left_out} pictures of class {name} left out (--data.class_names)")
    for part, near in data.split.near_training.items():
        if near:
            print_line(
                f"{near} of the {counts[part]} test pictures{f' of {name_of(part)}' if name_of(part) else ''} are "
                "near-duplicates of training or validation pictures, which flatters the figures"
            )
    for note in data.notes:
        print_line(note)
    print_demonstration(made_up(data.drawn, weights, unfreeze), "figures")


def print_demonstration(made_up: Sequence[str], what: str) -> None:
    """Says that results are those of a demonstration, if anything is made up.

    Args:
        made_up: such as ``drawn pictures``.
        what: the results, such as ``figures``.
    """
    if made_up:
        print_line(f"This is a demonstration with {' and '.join(made_up)}: its {what} say nothing about real pictures.")


def print_metrics(metrics: Mapping[str, Mapping[str, Any]], model: GelClassifier) -> None:
    """Prints a table of metrics, a column for each stage.

    Args:
        metrics: of ``val`` or ``test``, values by name, such as ``test/accuracy`` or ``test_NAME/accuracy``.
        model: the classifier that was measured.
    """
    table = SafeTable()
    table.add_column("metric")
    rows: dict[str, list[str]] = {}
    by_stage: dict[str, dict[str, Any]] = {}
    for key, value in [item for values in metrics.values() for item in values.items()]:
        stage, _, name = key.partition("/")
        by_stage.setdefault(stage, {})[name] = value
    for stage, values in by_stage.items():
        matrix = model.confusion_matrices[stage]
        right, total = int(matrix.diagonal().sum()), int(matrix.sum())
        title = "validation" if stage == "val" else name_of(stage) or "test"
        table.add_column(f"{title} ({total} pictures)", justify="right", overflow="fold")
        for name, value in values.items():
            shown = f"{value:.4f}" if value == value else "undefined"  # nan: a class has no picture
            text = f"{right}/{total}   {shown}" if name == "accuracy" else shown
            rows.setdefault(name, []).append(text)
    for name, cells in rows.items():
        table.add_row(name.replace("_", " "), *cells)
    Console(markup=False).print(table)


def print_predictions(summary: Summary) -> None:
    """Prints what pictures were classified as: how many of each class, the least certain, and a sentence.

    Args:
        summary: of the predictions.
    """
    if summary.total > 1:
        table = SafeTable("answer", "pictures")
        table.columns[1].justify = "right"
        for name, count in summary.counts.items():
            table.add_row(name, str(count))
        Console(markup=False).print(table)
        if summary.least_certain:
            print_line("least certain first:")
        print_answers(summary.least_certain)
    for line in summary.lines():
        print_line(line)


def print_stores(root: Path, stores: Sequence[Contents]) -> None:
    """Prints what is kept of pictures in a folder, a row for each kind of it."""
    print_line(f"kept in {root}: {sum(store.size for store in stores) / 1e6:.1f} MB")
    table = SafeTable("what", "backbone", "weights", "px", "view", "device", box=None)
    table.add_column("pictures", justify="right")
    table.add_column("MB", justify="right")
    for store in stores:
        key = store.key
        vectors = [str(key.get(name, "")) for name in ("backbone", "weights", "image_size", "view", "device")]
        if "cut" in key:
            vectors[0] += f" before {key['cut']}"
        vectors[1] = vectors[1][:8]
        table.add_row(key.get("kind", "damaged"), *vectors, str(store.rows), f"{store.size / 1e6:.1f}")
    if stores:
        Console(markup=False).print(table)


def print_comparison(
    rows: Sequence[Mapping[str, str]],
    names: Sequence[str],
    cross_validated: Sequence[tuple[float, float, float]] | None = None,
    chosen: bool = True,
) -> None:
    """Prints the rows of a results file as a table, the failed models last.

    Args:
        rows: of the results file, the best first.
        names: of the models.
        cross_validated: accuracy and the ends of its interval, of each model that did not fail.
        chosen: whether the first is the best, which is marked.
    """
    table = SafeTable("", "model", box=None)
    tested: Mapping[str, str] = next((row for row in rows if not row["error"]), {})
    sets = [key.removeprefix("accuracy_") for key in tested if key.startswith("accuracy_") and tested[key]]
    for column in ("cross-validated" if cross_validated else "validation", "test", *sets, "training"):
        table.add_column(column, justify="right", no_wrap=True)
    named = list(zip(rows, names, strict=True))
    for place, (row, name) in enumerate((row, name) for row, name in named if not row["error"]):
        best = chosen and place == 0
        table.add_row(
            "★" if best else "",
            name,
            _interval(*cross_validated[place]) if cross_validated else f"{float(row['val_accuracy'] or 'nan'):.3f}",
            _right(row["conf_mat"]),
            *(_right(row[f"conf_mat_{name}"]) for name in sets),
            f"{float(row['training_time_mins']) * 60:.1f} s",
            style="bold" if best else "",
        )
    for row, name in named:
        if row["error"]:
            table.add_row("✗", name, "failed", style="red")
    Console(markup=False).print(table)


def _right(conf_mat: str) -> str:
    """How many pictures were taken for what they are, and their share."""
    matrix = json.loads(conf_mat)
    right, total = sum(line[i] for i, line in enumerate(matrix)), sum(map(sum, matrix))
    return f"{right}/{total}  {right / total:.3f}"


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} ({low:.3f}–{high:.3f})" if low == low else f"{value:.3f}"  # nan is not itself


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says what is being done for as long as it takes, in a terminal."""
    with Console().status(what):
        yield
