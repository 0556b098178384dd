"""What a run takes over from a checkpoint: only what fits it, and paths only of the checkpoint's own folder."""

import math
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from gel_lightning.core.archives import all_finite
from gel_lightning.core.errors import GelError
from gel_lightning.models.backbones import num_features
from gel_lightning.training.checkpoints import DAMAGED, MAX_COUNT, check_fields, check_state, need, shown
from gel_lightning.training.classes import DESCRIBED, TABLES, public_name

if TYPE_CHECKING:
    from gel_lightning.training.classifier import GelClassifier

TRAINING = ("callbacks", "loops", "optimizer_states", "lr_schedulers")
"""What a checkpoint has for resuming alone."""


def prepare(checkpoint: dict[str, Any], model: "GelClassifier") -> None:
    """Checks a checkpoint that Lightning has loaded for a model, and leaves in it what the model's trainer is to take.

    A fit takes the training's progress; to validate, test and predict that is of no use, and is left out.

    Raises:
        GelError: the checkpoint is not ours, damaged, or does not fit.
    """
    own = {kind: model.hparams[kind] for kind in DESCRIBED}
    described = checkpoint.get("hyper_parameters")
    if isinstance(described, dict):
        # What was given to load_from_checkpoint in place of the checkpoint's.
        described.update({kind: own[kind] for kind in DESCRIBED if callable(described.get(kind))})
    check_fields(checkpoint, own)
    if model.class_names:
        check_state(checkpoint["state_dict"], model.network)
    trainer = None
    with suppress(RuntimeError):  # there is none
        trainer = model.trainer
    if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
        check_resumable(checkpoint, model, trainer, Path(trainer.ckpt_path or ""))
        return
    precision = type(trainer.precision_plugin).__qualname__ if trainer else ""
    for key in (*TRAINING, precision):
        checkpoint.pop(key, None)


def check_resumable(checkpoint: dict[str, Any], model: "GelClassifier", trainer: Trainer, path: Path) -> None:
    """Checks what a fit takes over, and has its paths be of the folder where the checkpoint is.

    Args:
        checkpoint: as :func:`~gel_lightning.training.checkpoints.read_checkpoint` gives it; it is changed.
        model: to be trained on.
        trainer: to train it.
        path: the checkpoint's.

    Raises:
        GelError: it holds no training's progress, or one that does not fit.
    """
    for key in TRAINING[2:]:
        if key not in checkpoint:
            raise GelError(
                f"{path}: no fit can be resumed from it, since it has no {key} (save_weights_only); "
                "name the last.ckpt of the run with --ckpt_path"
            )
    try:
        loops = need(checkpoint, "loops", dict)
        loops["fit_loop"] = _fitted(trainer.fit_loop.state_dict(), need(loops, "fit_loop", dict), "fit_loop")
        need(checkpoint, "callbacks", dict)
        _take_callbacks(checkpoint["callbacks"], trainer, path.absolute().parent)
        _take_precision(checkpoint, trainer)
        _try_optimizer(checkpoint, model)
    except GelError as error:
        raise GelError(f"{path}: {error}") from error


def _fitted(template: Any, value: Any, name: str, whole: bool = True) -> Any:
    """The part of a value that has the form of a template: types, names in dicts, shapes of tensors.

    Where the template has None or nothing, as before a training, the value is taken as it is.

    Args:
        template: what the object has now that is to take the value.
        value: from the checkpoint.
        name: of the object, for errors.
        whole: False takes any number for a whole one.

    Raises:
        GelError: a name is missing, or something is of another type.
    """
    if isinstance(template, dict) and isinstance(value, dict):
        if not template:
            return value
        missing = [key for key in template.keys() - value.keys() if not str(key).startswith("_")]
        if missing:
            raise GelError(f"{name} has no {shown(missing[0])}: {DAMAGED}")
        common = [key for key in value if key in template]
        return {key: _fitted(template[key], value[key], f"{name}.{key}", whole) for key in common}
    if isinstance(template, list | tuple) and isinstance(value, list | tuple):
        if not template:
            return value
        if len(template) == len(value):
            return type(template)(_fitted(*pair, name, whole) for pair in zip(template, value, strict=True))
    if template is None or _same_kind(template, value, whole):
        return value
    raise GelError(f"{name} is {shown(value)}: {DAMAGED}")


def _same_kind(template: Any, value: Any, whole: bool) -> bool:
    if isinstance(template, Tensor):
        return isinstance(value, Tensor) and value.shape == template.shape
    if isinstance(template, bool | str) or isinstance(value, bool):
        return type(value) is type(template)
    if isinstance(template, int):
        return isinstance(value, int if whole else int | float) and 0 <= value < MAX_COUNT
    return isinstance(template, float) and isinstance(value, int | float) and value == value


def _take_callbacks(states: dict[str, Any], trainer: Trainer, folder: Path) -> None:
    """Fits the states of Lightning's callbacks and ours; others check their own."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it where mypy does not look
        key = callback.state_key
        if isinstance(callback, ModelCheckpoint) and key.startswith("BestCheckpoint") and key not in states:
            former = key.replace("BestCheckpoint", "ModelCheckpoint")
            if former in states:
                states[key] = states.pop(former)
        if key not in states or states[key] is None:
            continue
        if isinstance(callback, ModelCheckpoint):
            states[key] = _own_files(states[key], callback, folder)
        elif type(callback).__module__.partition(".")[0] in ("lightning", "gel_lightning"):
            states[key] = _fitted(callback.state_dict(), states[key], type(callback).__name__, whole=False)


def _own_files(state: Any, callback: ModelCheckpoint, folder: Path) -> dict[str, Any]:
    """The state of a ModelCheckpoint, whose paths count as names in a folder, and if there is such a file.

    Without ``dirpath`` the callback takes all of it, wherever the run is now.
    """
    if not isinstance(state, dict):
        raise GelError(f"the state of {type(callback).__name__} is {shown(state)}: {DAMAGED}")

    def file(path: Any) -> str:
        if not isinstance(path, str):
            raise GelError(f"a path of {type(callback).__name__} is {shown(path)}: {DAMAGED}")
        name = PurePath(path).name
        there = bool(name) and (folder / name).is_file() and name.endswith(callback.FILE_EXTENSION)
        return str(folder / name) if there else ""

    def score(value: Any) -> Tensor:
        value = torch.as_tensor(value) if isinstance(value, int | float) else value
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point() or value.isnan():
            raise GelError(f"a score of {type(callback).__name__} is {shown(value)}: {DAMAGED}")
        return value.reshape(())

    kept = need(state, "best_k_models", dict)
    scores = {place: score(value) for path, value in kept.items() if (place := file(path))}
    ranked = sorted(scores, key=lambda place: scores[place].item(), reverse=callback.mode == "max")
    best = file(need(state, "best_model_path", str))
    if callback.monitor is not None:
        best = ranked[0] if ranked else ""
    return {
        "best_model_path": best,
        "best_model_score": scores.get(best),
        "best_k_models": scores,
        "kth_best_model_path": ranked[-1] if ranked else "",
        "kth_value": scores[ranked[-1]] if ranked else callback.kth_value,
        "last_model_path": file(state.get("last_model_path", "")),
    }


def _take_precision(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Fits the state of the gradients' scaler, which only some precisions have."""
    key = type(trainer.precision_plugin).__qualname__
    if key in checkpoint:
        checkpoint[key] = _fitted(trainer.precision_plugin.state_dict(), checkpoint[key], key)
    checkpoint.pop("native_amp_scaling_state", None)


def _try_optimizer(checkpoint: Mapping[str, Any], model: "GelClassifier") -> None:
    """Loads the states of optimizer and scheduler into new ones, and takes a step of a model that is thrown away."""
    described = checkpoint["hyper_parameters"]
    optimizers, schedulers = need(checkpoint, "optimizer_states", list), need(checkpoint, "lr_schedulers", list)
    if len(optimizers) != 1 or len(schedulers) != (described["lr_scheduler"] is not None):
        raise GelError(f"{len(optimizers)} optimizers and {len(schedulers)} schedulers are in it: {DAMAGED}")
    if not all_finite(_tensors(optimizers[0])) or not all(map(math.isfinite, _floats(optimizers[0]))):
        raise GelError(f"the optimizer's state has a number that is not finite: {DAMAGED}")
    with torch.random.fork_rng(devices=[]):  # making the head draws numbers
        head = model.make_head(num_features(described["backbone"]), len(described["class_names"]))
    groups = model.parameter_groups(head, deepcopy(model.network.tail))
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = model.make_optimizer(groups)
    scheduler = model.make_lr_scheduler(optimizer) if model.make_lr_scheduler else None
    if scheduler is not None:
        schedulers[0] = _fitted(scheduler.state_dict(), schedulers[0], "lr_scheduler")
    # A head of the user's may have idle parameters, and so has a tail that waits for its epoch.
    all_used = public_name(described["head"]["class_path"]) in TABLES["head"] and not model.unfreeze_at_epoch
    try:
        _compare_parameters(
            optimizers[0], optimizer.state_dict()["param_groups"], all_used, "fused" in optimizer.defaults
        )
        optimizer.load_state_dict(deepcopy(optimizers[0]))
        if scheduler is not None:
            scheduler.load_state_dict(deepcopy(schedulers[0]))
        if type(optimizer).__module__.startswith("torch.optim"):
            _step(optimizer, parameters)
    except Exception as error:  # what torch raises depends on the optimizer
        text = " ".join(str(error).split()) or type(error).__name__
        raise GelError(f"the optimizer's or scheduler's state does not fit ({text:.200}): {DAMAGED}") from error


def _compare_parameters(state: Mapping[str, Any], groups: list[dict[str, Any]], all_used: bool, fused: bool) -> None:
    """Compares which parameters a state is of. Fused kernels need the same tensors for each of them.

    Args:
        state: of an optimizer, as a checkpoint has it.
        groups: the parameters that it is to be of.
        all_used: whether each of them has been trained.
        fused: whether the optimizer has fused kernels. Of others Adafactor keeps for matrices what it does not keep for
            vectors, and LBFGS all for the first parameter.

    Raises:
        ValueError: they differ.
    """
    numbers = [group["params"] for group in groups]
    if [group["params"] for group in state["param_groups"]] != numbers:
        raise ValueError("it is of other parameters")
    if (
        fused
        and all_used
        and state["state"]
        and set(state["state"]) != {number for group in numbers for number in group}
    ):
        raise ValueError("it lacks a parameter")
    if (
        fused
        and len({tuple((name, type(value)) for name, value in one.items()) for one in state["state"].values()}) > 1
    ):
        raise ValueError("it has other values for one parameter than for another")


def _step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Takes a step with gradients of 0, unless the optimizer wants a GPU.

    Not with the fused kernels, which read beyond a state that is too small instead of raising an error.
    """
    if any(group.get("capturable") for group in optimizer.param_groups):
        return
    states = optimizer.state.values()
    if any(isinstance(value, Tensor) and not value.is_floating_point() for state in states for value in state.values()):
        raise TypeError("a tensor of whole numbers")
    for group in optimizer.param_groups:
        group.update({key: False for key in ("fused", "foreach") if key in group})
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(lambda: 0.0)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in _leaves(value) if isinstance(leaf, Tensor)]


def _floats(value: Any) -> list[float]:
    return [leaf for leaf in _leaves(value) if isinstance(leaf, float)]


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list | tuple):
        return [leaf for item in (value.values() if isinstance(value, dict) else value) for leaf in _leaves(item)]
    return [value]
