"""Fits the models of a comparison one after the other, on pictures that they share."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lightning import seed_everything
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback

from gel_lightning.comparison.about import write_about
from gel_lightning.comparison.curves import CurvesFile
from gel_lightning.comparison.folder import CURVES, PREDICTIONS, RESULTS
from gel_lightning.comparison.folds import fit_fold, outcome
from gel_lightning.comparison.predictions import Outcome, predictions_file, write_predictions
from gel_lightning.comparison.records import Record, finished
from gel_lightning.core.errors import GelError, one_line
from gel_lightning.data.datamodule import GelDataModule
from gel_lightning.data.folders import LabelledPictures
from gel_lightning.data.named_sets import MAIN, name_of, part_of
from gel_lightning.models.spec import ModelSpec
from gel_lightning.training.classifier import GelClassifier
from gel_lightning.training.progress import GridProgress
from gel_lightning.training.results import add_result, rewrite_results
from gel_lightning.training.results_row import ResultsFile
from gel_lightning.training.runs import measure_best, training_callbacks
from gel_lightning.training.tensorboard_pages import COMPARED, TensorBoardPages

Parts = dict[str, LabelledPictures]


class Made(NamedTuple):
    """What a model is fitted with.

    Attributes:
        module: of the model, new.
        trainer: which keeps the run in the model's folder.
        settings: arguments of the trainers of its folds.
        data: the data module, already split.
    """

    module: GelClassifier
    trainer: Trainer
    settings: Mapping[str, Any]
    data: GelDataModule


Make = Callable[[ModelSpec, list[Callback]], Made]
"""Makes what a model is fitted with: its trainer has the given callbacks, among others."""


class Runner:
    """A comparison in a folder.

    Args:
        folder: of the comparison.
        data: the pictures, already split.
        folds: the parts of each fit of a cross-validation, by repeat and fold.
        about: what about.json says of the comparison; it is completed with the weights that were used.
        best: by which metric the best epoch is chosen: ``monitor`` and ``mode``.
        weights: of the backbones for which the grid names none.
        seed: of all models; False seeds nothing.
    """

    def __init__(
        self,
        folder: Path,
        data: GelDataModule,
        folds: Mapping[tuple[int, int], Parts],
        about: dict[str, Any],
        *,
        best: Mapping[str, Any],
        weights: str,
        seed: int | bool,
    ) -> None:
        self.folder, self.data, self.folds, self.about = folder, data, folds, about
        self.best, self.weights, self.seed = best, weights, seed
        self.parts = data.parts

    def keep_finished(self, whole: bool) -> list[dict[str, str]]:
        """Keeps the results of the models that were tested on these pictures, and in these folds, before.

        Args:
            whole: whether they are to be tested on all test pictures.

        Returns:
            Their rows, of which the results file now consists.
        """
        rows = [record.row for record in finished(self.folder, self.about) if self._is_of_these(record, whole)]
        write_about(self.folder, self.about)
        rewrite_results(self.folder / RESULTS, rows)
        return rows

    def run(
        self, models: Sequence[ModelSpec], make: Make, progress: GridProgress, shown: Sequence[str]
    ) -> dict[str, str]:
        """Fits, validates and tests models; one that fails, for whatever reason, does not stop the others.

        Args:
            models: what is to be fitted.
            make: makes the module and the trainer of each.
            progress: counts what is done.
            shown: hyper-parameters by which TensorBoard compares them, besides those of every comparison.

        Returns:
            Why models failed, by their names.
        """
        failed: dict[str, str] = {}
        for model in models:
            progress.begin(model.name)
            try:
                self._fit(model, make, progress, [*COMPARED, *shown])
            except Exception as error:
                reason = failed[model.config or model.name] = _described(error)
                row = {**model.columns, "weights": model.weights or self.weights}
                add_result(self.folder / RESULTS, {**row, "seed": self.seed, "error": reason})
            progress.end()
        return failed

    def _fit(self, model: ModelSpec, make: Make, progress: GridProgress, shown: Sequence[str]) -> None:
        """Fits, validates and tests one model, as `gel-fit fit` does.

        In between it is cross-validated: what no fit can do fails at once, and the row of results is written last.
        """
        folder = self.folder / model.name
        outcomes: list[Outcome] = []
        callbacks: list[Callback] = [
            LambdaCallback(on_test_end=lambda _, module: self._keep_predictions(folder, module, outcomes)),
            ResultsFile(self.folder / RESULTS, self.seed, model.config),
            CurvesFile(folder / CURVES),
            TensorBoardPages(figures=False, shown=list(shown)),
            *training_callbacks(self.seed),
            *([progress] if progress.shown else []),
        ]
        shutil.rmtree(folder, ignore_errors=True)  # what a failed one may have left there
        self._seed()
        made = make(model, callbacks)
        settings = deepcopy(dict(made.settings))  # with callbacks as they are before a fit
        data, whole = made.data, made.data.parts
        made.trainer.fit(made.module, datamodule=data)
        for place, parts in self.folds.items():
            outcomes.append(fit_fold(made.module, data, parts, place, settings, self.best, self.seed))
            progress.fitted()
        data.parts = whole
        measure_best(made.trainer, made.module, data)
        self.about["weights"][model.config or model.backbone] = {
            "name": made.module.hparams["weights"],
            "fingerprint": made.module.network.fingerprint,
        }
        write_about(self.folder, self.about)

    def _keep_predictions(self, folder: Path, module: Any, outcomes: Sequence[Outcome]) -> None:
        data = module.trainer.datamodule
        for part in filter(name_of, self.parts):
            path = folder / predictions_file(name_of(part))
            write_predictions(path, module.class_names, [outcome(module, data, part=part)])
        write_predictions(folder / PREDICTIONS, module.class_names, [outcome(module, data), *outcomes])

    def _seed(self) -> None:
        if self.seed is not False:
            seed_everything(self.seed, workers=True, verbose=False)

    def _is_of_these(self, record: Record, whole: bool) -> bool:
        """Whether a model was tested on the pictures, and in the folds, that it would be tested on now."""
        tests = [parts[MAIN] for parts in (self.parts, *self.folds.values())]
        tests += [self.parts[part_of(name)] for name in record.named]
        for seen, test in zip([record.test, *record.folds, *record.named.values()], tests, strict=True):
            tested = len(seen.paths)
            if whole and tested != len(test.paths):
                return False
            if seen.paths != tuple(map(str, test.paths[:tested])) or [*seen.labels] != [*test.labels[:tested]]:
                return False
        return True


def prepare(data: GelDataModule) -> None:
    """Splits the pictures of a comparison.

    Raises:
        GelError: there are none, or the test pictures lack a class.
    """
    data.prepare_data()
    data.setup("fit")
    tested = data.parts[MAIN]
    if absent := [name for label, name in enumerate(tested.class_names) if label not in tested.labels]:
        raise GelError(
            f"the test pictures have none of {', '.join(absent)}, but models are compared on all classes; add some"
        )


def deal_folds(
    data: GelDataModule, folds: int | Literal["groups"] | None, repeats: int
) -> dict[tuple[int, int], Parts]:
    """The parts of each fit of a cross-validation, by repeat and fold; none without folds."""
    if folds is None:
        return {}
    dealt = data.cross_validation(folds, repeats)
    places = product(range(1, repeats + 1), range(1, len(dealt) // repeats + 1))
    return dict(zip(places, dealt, strict=True))


def _described(error: Exception) -> str:
    """What went wrong in one line; with the kind of error if it is none that we expect."""
    text = one_line(error)
    return text if isinstance(error, GelError) else f"{type(error).__name__}: {text}"
