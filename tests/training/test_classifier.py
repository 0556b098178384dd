import json
import math
import re
import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, gel_fit, refused, save_class
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn import metrics as sk
from sklearn.utils.class_weight import compute_class_weight
from test_metrics import expected_metrics
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import get_model

from gel_lightning import GelClassifier, GelDataModule, LinearHead, MultiLayerHead
from gel_lightning.data.datasets import Features
from gel_lightning.models.network import load_trunk
from gel_lightning.training.callbacks import EpochSeed
from gel_lightning.training.tensorboard_pages import TensorBoardPages

torch.set_num_threads(1)  # on tiny pictures several threads mostly wait for each other
LIGHTNINGS_OWN = "ignore:.*treespec, LeafSpec.* is deprecated"
pytestmark = [
    pytest.mark.filterwarnings(LIGHTNINGS_OWN),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists", "ignore:The dirpath has changed"),
]

SGD = partial(optim.SGD, lr=0.01, momentum=0.9)
STILL = partial(optim.SGD, lr=0.0)  # learns nothing, so that every batch of an epoch meets the same head


class OwnHead(nn.Module):
    """A head that somebody else has written."""

    def __init__(self, features: int, classes: int, scale: float = 1.0, sizes: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.scale, self.sizes = scale, sizes
        self.weight = nn.Parameter(torch.randn(features, classes))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * features @ self.weight


class Tensors(LightningDataModule):
    """A data module that knows nothing of ours: batches of colour pictures and labels, and nothing else."""

    def __init__(self, classes: int = 2, number: int = 50) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        contrast = torch.rand(number, 3, 1, 1, generator=generator)
        self.pictures = contrast * torch.rand(number, 3, 32, 32, generator=generator)
        shares = torch.arange(2.0, classes + 2)
        self.labels = torch.multinomial(shares, number, replacement=True, generator=generator)

    def _loader(self, start: int, end: int) -> DataLoader[Any]:
        return DataLoader(TensorDataset(self.pictures[start:end], self.labels[start:end]), batch_size=8)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(0, 20)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(20, 35)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(35, 50)

    def predict_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.pictures, batch_size=8)  # type: ignore[arg-type]


def make_trainer(folder: Path, epochs: int = 1, callbacks: list[Callback] | None = None, **options: Any) -> Trainer:
    checkpoints = ModelCheckpoint(folder / "checkpoints", "best", monitor="val/loss", save_last=True)
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[checkpoints, *(callbacks or [])],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **({"logger": False} | options),
    )


def small(head: Any = LinearHead, optimizer: Any = SGD, **options: Any) -> GelClassifier:
    return GelClassifier("resnet18", "none", head, optimizer, **options)


def gels(folder: Path, **options: Any) -> GelDataModule:
    return GelDataModule(folder, **({"image_size": 32, "num_workers": 0, "batch_size": 5} | options))


# Frozen means frozen


class Spy(Callback):
    """Looks at the model in the middle of training."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        assert not any(module.training for module in pl_module.network.trunk.modules())
        assert all(module.training for module in pl_module.network.head.modules())

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: optim.Optimizer
    ) -> None:
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        assert [*map(id, held)] == [*map(id, pl_module.network.head.parameters())]
        assert all(parameter.grad is not None for parameter in held)
        assert all(parameter.grad is None for parameter in pl_module.network.trunk.parameters())
        self.steps += 1


def test_vectors_will_do_in_place_of_pictures_and_need_no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = torch.rand(3, 1, 32, 32)
    vectors = load_trunk("resnet18", "none")(pictures)
    model = small(class_names=["gel", "not_gel"]).eval()
    with monkeypatch.context() as patch, torch.no_grad():
        built = "gel_lightning.models.network.load_trunk"
        patch.setattr(built, lambda *_: pytest.fail("a backbone was built"))
        logits = model(Features(vectors))
        assert model.network.fingerprint == load_trunk("resnet18", "none").fingerprint
        assert not any("trunk" in name for name in model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(pictures), logits)
    assert model.network.trunk is model.network.trunk
    assert small().double().network.trunk(pictures.double()).dtype == torch.float64
    with pytest.raises(AttributeError, match="spine"):
        model.spine  # noqa: B018


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_fit_changes_the_head_and_not_a_bit_of_the_backbone(backbone: str, train_dir: Path, tmp_path: Path) -> None:
    model = GelClassifier(backbone, "none", MultiLayerHead, SGD, class_names=["gel", "not_gel"])
    frozen = {key: value.clone() for key, value in model.network.trunk.state_dict().items()}
    head = {key: value.clone() for key, value in model.network.head.state_dict().items()}
    spy = Spy()
    trainer = make_trainer(tmp_path, 2, [spy])
    trainer.fit(model, datamodule=gels(train_dir))
    assert spy.steps == 2 * trainer.num_training_batches > 4
    after = model.network.trunk.state_dict()
    assert frozen.keys() == after.keys()
    assert all(after[key].equal(value) for key, value in frozen.items())
    assert not any(model.network.head.state_dict()[key].equal(value) for key, value in head.items() if "weight" in key)
    shutil.rmtree(tmp_path / "checkpoints")


# Metrics


def expected_of_stage(
    stage: str, labels: Tensor, probabilities: Tensor, class_names: tuple[str, ...]
) -> dict[str, float]:
    """The metrics that scikit-learn finds, under the names of a stage."""
    actual, ranked = labels.numpy(), probabilities.numpy()
    positive = class_names.index("gel") if "gel" in class_names else 0
    values = {"loss": sk.log_loss(actual, ranked), **expected_metrics(actual, ranked, class_names, positive)}
    return {f"{stage}/{key}": pytest.approx(value, rel=1e-5) for key, value in values.items()}


class Probe(Callback):
    """Keeps the probabilities that a step gives to callbacks, of the last epoch."""

    def __init__(self) -> None:
        self.probabilities: dict[str, list[Tensor]] = {}

    def _keep(self, stage: str, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.probabilities[stage] = []
        self.probabilities[stage].append(outputs["probabilities"])
        assert outputs["features"].shape == (len(batch[0]), 512)

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._keep("train", outputs, batch, batch_idx)

    def on_validation_batch_end(
        self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int, loader: int = 0
    ) -> None:
        self._keep("val", outputs, batch, batch_idx)

    def on_test_batch_end(
        self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int, loader: int = 0
    ) -> None:
        self._keep("test", outputs, batch, batch_idx)


@pytest.mark.parametrize("class_names", [("gel", "not_gel"), ("blot", "gel", "other"), ("cat", "dog")])
def test_metrics_are_those_of_scikit_learn(class_names: tuple[str, ...], tmp_path: Path) -> None:
    data = Tensors(len(class_names))
    torch.manual_seed(0)
    model = small(LinearHead, STILL, class_names=list(class_names))
    # A head that is often wrong and never sure, and likes the first class, where most pictures are of the last.
    layer = model.network.head.layers
    with torch.no_grad():
        logits = layer(model.network.trunk(data.pictures))
        layer.weight.div_(logits.std(dim=0).unsqueeze(1))
        layer.bias.copy_((layer.bias - logits.mean(dim=0)) / logits.std(dim=0))
        layer.bias[0] += 1
        probabilities = model.eval()(data.pictures).double().softmax(dim=1)
    probed = Probe()
    trainer = make_trainer(tmp_path, 2, [probed])  # a second epoch must not count what the first has counted
    trainer.fit(model, datamodule=data)
    logged = {key: value.item() for key, value in trainer.callback_metrics.items()}
    trainer.test(model, datamodule=data, verbose=False)
    logged |= {key: value.item() for key, value in trainer.callback_metrics.items()}

    expected, matrices = {}, []
    for stage, part in (("train", slice(0, 20)), ("val", slice(20, 35)), ("test", slice(35, 50))):
        labels = data.labels[part]
        expected |= expected_of_stage(stage, labels, probabilities[part], class_names)
        matrix = sk.confusion_matrix(labels, probabilities[part].argmax(dim=1))
        assert model.confusion_matrices[stage].tolist() == matrix.tolist(), "rows are the actual classes"
        matrices.append(matrix)
        torch.testing.assert_close(torch.cat(probed.probabilities[stage]), probabilities[part].float())
    assert logged == expected
    assert len({str(value) for value in expected.values()}) > 20, "too many metrics are alike"
    assert (sum(matrices) != sum(matrices).T).any(), "rows and columns could be confused"


def test_probabilities_of_the_last_epoch_of_each_stage_are_kept(tmp_path: Path) -> None:
    data, model, probed = Tensors(3), small(MultiLayerHead, class_names=["a", "b", "c"]), Probe()
    trainer = make_trainer(tmp_path, 3, [probed])
    trainer.fit(model, datamodule=data)
    assert {stage: len(kept) for stage, kept in model.probabilities.items()} == {"train": 20, "val": 15}
    trainer.test(model, datamodule=data, verbose=False)
    for stage, kept in model.probabilities.items():
        assert kept.equal(torch.cat(probed.probabilities[stage])), stage
        assert not kept.requires_grad
    with torch.no_grad():
        logits = model.eval()(data.pictures)
    for stage, part in (("val", slice(20, 35)), ("test", slice(35, 50))):
        torch.testing.assert_close(model.probabilities[stage], logits[part].softmax(dim=1))
    before = model.probabilities["test"]
    trainer.validate(model, datamodule=data, verbose=False)
    assert model.probabilities["test"] is before


def test_fitting_without_metrics_logs_losses_and_learns_the_same(train_dir: Path, tmp_path: Path) -> None:
    heads, logged, tested = [], [], []
    for logs_metrics in (True, False):
        seed_everything(1, verbose=False)
        model = small(MultiLayerHead)
        model.logs_metrics = logs_metrics
        data = gels(train_dir)
        trainer = make_trainer(tmp_path / str(logs_metrics), 3, [EpochSeed(1)])
        trainer.fit(model, datamodule=data)
        logged.append({name: value.item() for name, value in trainer.callback_metrics.items()})
        assert set(model.confusion_matrices) == ({"train", "val"} if logs_metrics else set())
        heads.append(torch.cat([parameter.flatten() for parameter in model.network.head.parameters()]))
        tested.append(trainer.test(model, datamodule=data, verbose=False)[0])
        tested[-1] |= trainer.validate(model, datamodule=data, verbose=False)[0]
        assert model.confusion_matrices["test"].sum() == 4
    assert set(logged[1]) == {"train/loss", "val/loss"} < set(logged[0])
    assert logged[1].items() <= logged[0].items()
    assert heads[0].equal(heads[1])
    assert tested[0] == tested[1]
    assert {"test/accuracy", "test/f1_gel", "val/auroc"} <= set(tested[1]), "only fitting goes without"


# Class weights


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures of gels and six others."""
    folder = tmp_path_factory.mktemp("unbalanced")
    save_class(folder / "gel", 16, 0, striped=True)
    save_class(folder / "not_gel", 6, 100, striped=False)
    return folder


@pytest.mark.parametrize("class_weights", ["balanced", [1.0, 5.0], None])
def test_class_weights_weigh_the_training_loss_alone(
    class_weights: Any, unbalanced: Path, test_dir: Path, tmp_path: Path
) -> None:
    data = gels(unbalanced, test_dir=test_dir, batch_size=50)
    model = small(LinearHead, STILL, class_weights=class_weights)
    trainer = make_trainer(tmp_path)
    trainer.fit(model, datamodule=data)
    labels = np.array(data.parts["train"].labels)
    weights = {
        "balanced": lambda: compute_class_weight("balanced", classes=np.arange(2), y=labels),
        "None": lambda: np.ones(2),
    }.get(str(class_weights), lambda: np.array(class_weights))()

    def mean_loss(loader: DataLoader[Any], class_weights: Any) -> float:
        (batch,) = loader
        with torch.no_grad():
            probabilities = model(batch[0]).double().softmax(dim=1)
        return sk.log_loss(batch[1], probabilities, sample_weight=class_weights[batch[1].numpy()])

    train, val = mean_loss(data.train_dataloader(), weights), mean_loss(data.val_dataloader(), np.ones(2))
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(train, rel=1e-5)
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(val, rel=1e-5)
    again = GelClassifier.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert again.hparams["class_weights"] == class_weights


@pytest.mark.parametrize("class_weights", ["heavy", [1.0], [1.0, 2.0, 3.0], []])
def test_class_weights_that_will_not_do_are_an_error(class_weights: Any, train_dir: Path, tmp_path: Path) -> None:
    model = small(class_weights=class_weights)
    text = refused(lambda: make_trainer(tmp_path).fit(model, datamodule=gels(train_dir)))
    assert str(class_weights) in text
    assert "gel, not_gel" in text
    assert "--model.class_weights" in text


def test_balanced_class_weights_need_a_data_module_that_counts(tmp_path: Path) -> None:
    text = refused(lambda: make_trainer(tmp_path).fit(small(class_weights="balanced"), datamodule=Tensors()))
    assert "train_class_counts" in text


# Optimizers and schedulers


@pytest.mark.parametrize("optimizer", [optim.AdamW, partial(optim.RMSprop, lr=0.001), partial(optim.Adam, lr=0.01)])
def test_any_optimizer_trains_the_head(optimizer: Any, train_dir: Path, tmp_path: Path) -> None:
    model = small(OwnHead, optimizer)
    trainer = make_trainer(tmp_path, 2, [Spy()])
    trainer.fit(model, datamodule=gels(train_dir))
    (used,) = trainer.optimizers
    kind = optimizer.func if isinstance(optimizer, partial) else optimizer
    assert type(used) is kind
    assert used.param_groups[0]["lr"] == getattr(optimizer, "keywords", {}).get("lr", 0.001)
    again = GelClassifier.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt").configure_optimizers()
    assert type(again) is kind
    assert again.param_groups[0]["lr"] == used.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("scheduler", "rate"),
    [
        (None, 1e-6),
        (partial(StepLR, step_size=2, gamma=0.1), 1e-7),
        # Nine tenths of the loss do not go in an epoch: a plateau is seen after the second and the third.
        (partial(ReduceLROnPlateau, monitor="val/loss", patience=0, factor=0.1, threshold=0.9), 1e-8),
    ],
    ids=["none", "StepLR", "ReduceLROnPlateau"],
)
def test_scheduler_sets_the_learning_rate(scheduler: Any, rate: float, train_dir: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, 3)
    trainer.fit(small(optimizer=partial(optim.SGD, lr=1e-6), lr_scheduler=scheduler), datamodule=gels(train_dir))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate)
    again = GelClassifier.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert (again.make_lr_scheduler is None) == (scheduler is None)
    if scheduler is not None:
        assert again.hparams["lr_scheduler"]["init_args"] == scheduler.keywords


@pytest.mark.parametrize("settings", [{}, {"fused": False}, {"foreach": True}])
def test_adam_goes_over_the_parameters_once_unless_told_otherwise(
    settings: dict[str, bool], train_dir: Path, tmp_path: Path
) -> None:
    seen: list[bool | None] = []

    class Flags(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            seen.extend(group["fused"] for group in trainer.optimizers[0].param_groups)

    def head(**options: bool) -> torch.Tensor:
        seed_everything(0, verbose=False)
        model = small(optimizer=partial(optim.Adam, lr=0.01, **options))
        make_trainer(tmp_path, 3, [Flags()]).fit(model, gels(train_dir))
        return torch.cat([parameter.flatten() for parameter in model.network.head.parameters()]).detach()

    trained = head(**settings)
    assert set(seen) == {settings.get("fused", None if settings else True)}
    torch.testing.assert_close(trained, head(fused=False), rtol=1e-5, atol=1e-6)


def functions_head(features: int, classes: int) -> nn.Module:
    return nn.Linear(features, classes)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("head", lambda features, classes: nn.Linear(features, classes)),
        ("head", functions_head),
        ("head", type("Local", (LinearHead,), {"__qualname__": "test.<locals>.Local"})),
        ("head", partial(OwnHead, scale=torch.ones(1))),
        ("head", partial(MultiLayerHead, 512)),
        ("optimizer", lambda parameters: optim.SGD(parameters, lr=0.1)),
        ("optimizer", partial(partial(lambda parameters, lr: optim.SGD(parameters, lr)), lr=0.1)),
        ("lr_scheduler", partial(optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.9**epoch)),
    ],
)
def test_what_a_checkpoint_could_not_name_is_refused_at_once(option: str, value: Any) -> None:
    text = refused(lambda: small(**{option: value}))
    assert text.startswith(f"{option} must be a class that can be imported, or functools.partial of one")


# A loss that is not a number


def test_loss_that_is_not_a_number_from_the_start_stops_the_run(train_dir: Path, tmp_path: Path) -> None:
    model = small(MultiLayerHead, partial(optim.SGD, lr=1e30))
    text = refused(lambda: make_trainer(tmp_path, 5).fit(model, datamodule=gels(train_dir)))
    assert "loss is no longer a number in epoch 0" in text
    assert "no checkpoint was written yet" in text
    assert "--model.optimizer.lr" in text
    assert not list(tmp_path.rglob("*.ckpt"))


def test_loss_that_becomes_not_a_number_leaves_the_last_good_checkpoint(train_dir: Path, tmp_path: Path) -> None:
    blow_up = partial(StepLR, step_size=2, gamma=1e32)
    model = small(MultiLayerHead, partial(optim.SGD, lr=0.01), lr_scheduler=blow_up)
    trainer = make_trainer(tmp_path, 5)
    data = gels(train_dir)
    text = refused(lambda: trainer.fit(model, datamodule=data))
    best = tmp_path / "checkpoints" / "best.ckpt"
    assert "loss is no longer a number in epoch 2" in text
    assert f"the last good checkpoint is {best}" in text
    good = trainer.checkpoint_callback.best_model_score.item()
    for path in (best, best.with_name("last.ckpt")):
        kept = GelClassifier.load_from_checkpoint(path)
        assert all(value.isfinite().all() for value in kept.state_dict().values())
        (measured,) = make_trainer(tmp_path).validate(kept, datamodule=data, verbose=False)
        assert math.isfinite(measured["val/loss"])
    (measured,) = make_trainer(tmp_path).validate(
        GelClassifier.load_from_checkpoint(best), datamodule=data, verbose=False
    )
    assert measured["val/loss"] == pytest.approx(good, rel=1e-6)


# Checkpoints


HEADS = [
    LinearHead,
    MultiLayerHead,
    partial(MultiLayerHead, hidden=(16, 8), dropout=(0.1, 0.2)),
    partial(MultiLayerHead, hidden=[], dropout=[]),
    OwnHead,
    partial(OwnHead, scale=2.5, sizes=(1, 2)),
    nn.Linear,
]


def shown(head: Any) -> str:
    kind, arguments = (head.func, head.keywords) if isinstance(head, partial) else (head, "")
    return f"{kind.__name__} {arguments}".strip()


@pytest.mark.parametrize("head", HEADS, ids=shown)
def test_model_is_rebuilt_from_its_checkpoint_alone(head: Any, train_dir: Path, tmp_path: Path) -> None:
    model = small(head)
    data = gels(train_dir)
    trainer = make_trainer(tmp_path)
    trainer.fit(model, datamodule=data)
    path = Path(trainer.checkpoint_callback.last_model_path)

    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["state_dict"].keys() == {f"network.head.{key}" for key in model.network.head.state_dict()}
    # Weights and momentum; the backbone would be 45 MB.
    assert path.stat().st_size < 2 * sum(4 * value.numel() for value in model.network.head.parameters()) + 50_000
    plain = dict(checkpoint["hyper_parameters"])
    assert json.loads(json.dumps(plain)) == plain
    assert plain["class_names"] == ["gel", "not_gel"]
    assert (plain["backbone"], plain["weights"]) == ("resnet18", "none")
    assert checkpoint["backbone_fingerprint"] == model.network.trunk.fingerprint

    again = GelClassifier.load_from_checkpoint(path)
    pictures = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        assert again.eval()(pictures).equal(model.eval()(pictures))
    assert repr(again.network.head) == repr(model.network.head)
    assert again.class_names == ("gel", "not_gel")
    assert again.hparams == model.hparams

    # It can be trained further, and saved and loaded again.
    further = make_trainer(tmp_path / "further", 2)
    further.fit(again, datamodule=data, ckpt_path=path)
    third = GelClassifier.load_from_checkpoint(further.checkpoint_callback.last_model_path)
    assert third.hparams == model.hparams


def test_head_keeps_its_arguments(tmp_path: Path) -> None:
    model = small(partial(OwnHead, scale=2.5), class_names=["gel", "not_gel"])
    trainer = make_trainer(tmp_path)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    assert GelClassifier.load_from_checkpoint(tmp_path / "own.ckpt").network.head.scale == 2.5


@pytest.mark.parametrize(
    ("option", "path"),
    [
        ("head", "no_such_package.Head"),
        ("head", "gel_lightning.models.heads.NoSuchHead"),
        ("head", "os.system"),
        ("optimizer", "subprocess.Popen"),
        ("lr_scheduler", "torch.nn.Linear"),
    ],
)
def test_checkpoint_that_names_what_is_not_there_or_not_meant_is_refused(
    option: str, path: str, tmp_path: Path
) -> None:
    model = small(class_names=["gel", "not_gel"])
    trainer = make_trainer(tmp_path)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    checkpoint = torch.load(tmp_path / "c.ckpt", weights_only=True)
    checkpoint["hyper_parameters"][option] = {"class_path": path}
    torch.save(checkpoint, tmp_path / "c.ckpt")
    text = refused(lambda: GelClassifier.load_from_checkpoint(tmp_path / "c.ckpt"))
    assert text.startswith(f"{tmp_path / 'c.ckpt'}: {option} '{path}' is no class of torch.")


def test_checkpoint_goes_with_the_weights_it_was_trained_on(train_dir: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    state = get_model("resnet18", weights=None).state_dict()
    torch.save(state, weights)
    data = gels(train_dir)
    trainer = make_trainer(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        model = GelClassifier("resnet18", "weights.pth", LinearHead, SGD)
    trainer.fit(model, datamodule=data)
    path = trainer.checkpoint_callback.best_model_path
    GelClassifier.load_from_checkpoint(path)  # finds the weights from any folder

    moved = weights.rename(tmp_path / "moved.pth")
    assert str(weights) in refused(lambda: GelClassifier.load_from_checkpoint(path))
    again = GelClassifier.load_from_checkpoint(path, weights=str(moved))
    with torch.no_grad():
        pictures = torch.rand(2, 1, 32, 32)
        assert again.eval()(pictures).equal(model.eval()(pictures))

    state["bn1.running_mean"][0] += 0.001
    torch.save(state, weights)
    other = GelClassifier("resnet18", str(weights), LinearHead, SGD)
    for action in (
        lambda: GelClassifier.load_from_checkpoint(path),
        lambda: make_trainer(tmp_path).test(other, datamodule=data, ckpt_path=path),
        lambda: make_trainer(tmp_path, 2).fit(other, datamodule=data, ckpt_path=path),
    ):
        text = refused(action)
        assert "trained on other resnet18 weights" in text
        assert str(weights) in text


def test_checkpoint_of_another_module_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.4"}, tmp_path / "other.ckpt")
    text = refused(
        lambda: make_trainer(tmp_path).test(small(), datamodule=Tensors(), ckpt_path=tmp_path / "other.ckpt")
    )
    assert "not a checkpoint of GelClassifier" in text


def loss_in_table(printed: str) -> float:
    (row,) = re.findall(r"^.*\bloss\b.*$", printed, re.MULTILINE)
    return float(re.findall(r"\d+\.\d+", row)[-1])


def test_checkpoints_of_the_command_and_of_python_are_alike(train_dir: Path, test_dir: Path, tmp_path: Path) -> None:
    folders = ("--data.train_dir", train_dir, "--data.test_dir", test_dir)
    head = (
        "--model.head",
        "MultiLayerHead",
        "--model.head.hidden",
        "[8]",
        "--model.head.dropout",
        "[0.5]",
    )
    ran = gel_fit("fit", *TINY, *folders, *head, "--trainer.max_epochs", "1", cwd=tmp_path)
    assert ran.status == 0, ran.err
    (path,) = tmp_path.rglob("best.ckpt")
    model = GelClassifier.load_from_checkpoint(path)
    assert repr(model.network.head) == repr(MultiLayerHead(512, 2, [8], [0.5]))
    trainer, data = make_trainer(tmp_path), gels(train_dir, test_dir=test_dir)
    trainer.test(model, datamodule=data, verbose=False)
    assert loss_in_table(ran.out) == pytest.approx(trainer.callback_metrics["test/loss"].item(), abs=1e-4)

    trainer.fit(small(partial(MultiLayerHead, hidden=(8,), dropout=(0.5,))), datamodule=data)
    trainer.test(datamodule=data, ckpt_path="best", verbose=False)
    ran = gel_fit(
        *("test", "--ckpt_path", trainer.checkpoint_callback.best_model_path, "--data.test_dir", test_dir),
        *("--data.num_workers", "0", "--trainer.accelerator", "cpu"),
        cwd=tmp_path,
    )
    assert ran.status == 0, ran.err
    assert loss_in_table(ran.out) == pytest.approx(trainer.callback_metrics["test/loss"].item(), abs=1e-4)


# With data of another kind


@pytest.mark.parametrize(
    ("given", "names"), [(["blot", "gel", "photo"], ("blot", "gel", "photo")), (None, ("gel", "not_gel"))]
)
def test_another_data_module_will_do(given: list[str] | None, names: tuple[str, ...], tmp_path: Path) -> None:
    data = Tensors(len(names))
    model = small(MultiLayerHead, class_names=given)
    trainer = make_trainer(tmp_path, 2)
    trainer.fit(model, datamodule=data)
    assert model.class_names == names
    (tested,) = trainer.test(model, datamodule=data, ckpt_path="best", verbose=False)
    assert 0 < tested["test/loss"] < 20
    predictions = trainer.predict(model, datamodule=data)
    assert predictions is not None
    probabilities = torch.cat(predictions)  # type: ignore[arg-type]
    assert probabilities.shape == (50, len(names))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(50))
    assert GelClassifier.load_from_checkpoint(trainer.checkpoint_callback.best_model_path).class_names == names


def test_loaders_will_do_without_a_data_module(tmp_path: Path) -> None:
    data, model = Tensors(), small()
    make_trainer(tmp_path).fit(model, data.train_dataloader(), data.val_dataloader())
    assert model.class_names == ("gel", "not_gel")


def test_a_classifier_is_whole_from_the_start() -> None:
    model = GelClassifier(weights="none")
    assert model.class_names == ("gel", "not_gel")
    assert model.hparams["class_names"] == ["gel", "not_gel"]
    assert model(Features(torch.rand(3, 512))).shape == (3, 2)
    assert small(class_names=["a", "b", "c"])(Features(torch.rand(3, 512))).shape == (3, 3)


def test_a_classifier_takes_its_classes_from_a_data_module_that_is_not_set_up(tmp_path: Path) -> None:
    for number, name in enumerate(("blot", "gel", "photo")):
        save_class(tmp_path / "pictures" / name, 6, 100 * number, striped=name != "photo")
    data = gels(tmp_path / "pictures")
    text = refused(lambda: make_trainer(tmp_path).fit(small(), datamodule=data))
    assert "class_names=data.class_names" in text
    model = small(class_names=data.class_names)
    make_trainer(tmp_path).fit(model, datamodule=data)
    assert model.hparams["class_names"] == ["blot", "gel", "photo"]


def test_data_of_other_classes_than_the_models_are_refused(train_dir: Path, tmp_path: Path) -> None:
    model = small(class_names=["blot", "photo"])
    text = refused(lambda: make_trainer(tmp_path).fit(model, datamodule=gels(train_dir)))
    assert "gel, not_gel" in text
    assert "blot, photo" in text


# A run as a whole


@pytest.mark.parametrize("logged", [True, False])
def test_normal_run_learns_and_warns_of_nothing(logged: bool, train_dir: Path, test_dir: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(*LIGHTNINGS_OWN.split(":"))  # the command hides it too
        seed_everything(1, verbose=False)
        model = GelClassifier("resnet18", "none", lr_scheduler=partial(StepLR, step_size=50))
        data = GelDataModule(train_dir, test_dir, test_dir, image_size=32)
        logger = TensorBoardLogger(tmp_path, default_hp_metric=False) if logged else False
        trainer = make_trainer(tmp_path, 12, [TensorBoardPages(), EpochSeed(1)], logger=logger, deterministic=True)
        trainer.fit(model, datamodule=data)
        losses = trainer.callback_metrics
        trainer.validate(model, datamodule=data, ckpt_path="best", verbose=False)
        (tested,) = trainer.test(model, datamodule=data, ckpt_path="best", verbose=False)
        predictions = trainer.predict(model, datamodule=data)
    assert losses["train/loss"] < 0.69, "less than chance has learned"
    assert 0 < tested["test/loss"] < 5
    assert predictions is not None
    assert len(torch.cat(predictions)) == 8  # type: ignore[arg-type]
