import json
import os
import re
import shutil
import signal
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import CONFIGS, TINY, Ran, gel_fit, made_once, read_rows, refused, save_data_set, start_gel_fit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from test_cli import NO_GPU, assert_error, same_weights, temporary_files, version_folders, wait_for
from torchvision.models import get_model

from gel_lightning import GelClassifier
from gel_lightning.cli import compare
from gel_lightning.comparison.folder import locked
from gel_lightning.comparison.grid import grid
from gel_lightning.comparison.predictions import read_predictions
from gel_lightning.comparison.records import read_comparison
from gel_lightning.comparison.summary import Summary
from gel_lightning.data.datasets import PictureDataset
from gel_lightning.models import weights
from gel_lightning.models.heads import LinearHead
from gel_lightning.models.spec import HEADS, STUDY_BACKBONES, STUDY_OPTIMIZERS, ModelSpec

pytestmark = pytest.mark.usefixtures("no_plots")

Options = tuple[object, ...]

# What may differ between two runs of the same model.
OWN = ("training_time_mins", "inference_time_secs", "version", "checkpoint")
MODELS = [
    f"{backbone}_{head}_{optimizer}_cpu"
    for backbone, head, optimizer in product(("resnet18", "mobilenet_v2"), ("single", "multi"), ("adam", "sgd"))
]
# Neither the learning rate nor the head is the default, and the head is that of only half of the models.
SETTINGS = (
    *(*TINY, "--trainer.max_epochs", "3", "--model.optimizer", "Adam", "--model.optimizer.lr", "0.01"),
    *("--model.optimizer.eps", "1e-7", "--model.head", "MultiLayerHead"),
    *("--model.head.hidden", "[16]", "--model.head.dropout", "[0.1]"),
)
ALL = (*SETTINGS, "--backbones", "resnet18", "mobilenet_v2")
ONE = (*TINY, "--trainer.max_epochs", "1", "--backbones", "resnet18", "--heads", "single", "--optimizers", "sgd")
FOLDER = Path("lightning_logs/comparison/version_0")
CLASSES = ("gel", "not_gel")


def by_name(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of a comparison's results file by the names of their models, each of which is there once."""
    rows = read_rows(folder / "results.csv")
    columns = ("pretrained_model", "classifier_head", "opt_alg", "hardware_type")
    named = {"_".join(row[name] for name in columns): row for row in rows}
    assert len(named) == len(rows)
    return named


def repeatable(folder: Path) -> dict[str, dict[str, str]]:
    """The rows by model, without what may differ between equal runs."""
    rows = by_name(folder).items()
    return {name: {key: value for key, value in row.items() if key not in OWN} for name, row in rows}


def folder_name(model: str) -> str:
    """The folder of a model of a table, in which all ran on the CPU."""
    return f"{model.replace(' ', '_')}_cpu"


def ranking(out: str) -> list[tuple[str, ...]]:
    """The rows of the printed table: mark, model without its hardware, and the figures."""
    row = r"^ ?([★✗]?) +(\S+ \w+ \w+) +((?:\d|failed).*?) *$"
    return [match.groups() for match in re.finditer(row, out, re.MULTILINE)]


# --- the grid ---


def test_the_default_grid_is_that_of_the_original_study() -> None:
    models = grid(STUDY_BACKBONES, list(HEADS.values()), STUDY_OPTIMIZERS, ["cpu", "gpu"])
    wanted = product(("cpu", "gpu"), ("resnet18", "vgg16", "mobilenet_v3_large"), ("single", "multi"), ("adam", "sgd"))
    found = [(model.accelerator, model.backbone, model.head_name, model.optimizer_name) for model in models]
    assert found == list(wanted)  # in the order of their numbers
    assert [model.study_number for model in models] == list(range(1, 25))
    assert len({model.name for model in models}) == 24
    assert models[1] == ModelSpec("resnet18", "LinearHead", "SGD", "cpu")
    assert models[1].name == "resnet18_single_sgd_cpu"


def test_the_grid_takes_weights_and_classes_of_any_module_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = grid(
        ["vgg16=a=b.pth", "resnet18=none", "mobilenet_v2", "mobilenet_v2"],
        ["multi", "my.heads.Deep", "MultiLayerHead"],
        ["ADAMW", "my.Lion", "AdamW"],
        ["gpu", "gpu"],
    )
    assert [(model.backbone, model.weights) for model in models[::4]] == [
        ("vgg16", str(tmp_path / "a=b.pth")),
        ("resnet18", "none"),
        ("mobilenet_v2", None),
    ]
    assert [(model.head, model.optimizer) for model in models[:4]] == list(
        product(("MultiLayerHead", "my.heads.Deep"), ("AdamW", "my.Lion"))
    )
    assert models[3].name == "vgg16_Deep_lion_gpu"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param({0: ["resnet19=none"]}, ["'resnet19'", "resnet18", "vgg", "--backbones"], id="backbone"),
        pytest.param({2: ["adma"]}, ["'adma'", "adamw", "--optimizers"], id="optimizer"),
        pytest.param({3: ["cpu", "mps"]}, ["'mps'", "cpu, gpu, tpu", "--accelerators"], id="accelerator"),
        pytest.param({0: ["resnet18", "resnet18=none"]}, ["2 models", "resnet18_single_sgd_cpu"], id="weights twice"),
        pytest.param({1: ["single", "my.LinearHead"]}, ["2 models", "resnet18_single_sgd_cpu"], id="head twice"),
        pytest.param({2: ["sgd", "my.SGD"]}, ["2 models", "resnet18_single_sgd_cpu"], id="optimizer twice"),
    ],
)
def test_a_grid_that_does_not_do(changed: dict[int, list[str]], words: list[str]) -> None:
    lists = [["resnet18"], ["single"], ["sgd"], ["cpu"]]
    for place, names in changed.items():
        lists[place] = names
    text = refused(lambda: grid(*lists))
    for word in words:
        assert word in text


# --- a whole comparison ---


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, pictures: Options) -> Path:
    """The folder of two equal comparisons of eight models that ran at once, each in a process: `a` and `b`."""

    def make(folder: Path) -> None:
        # Vectors of their own, since they may differ in their last bits with the batch they were computed in.
        options = ("--accelerators", "cpu", *pictures, "--data.cache_dir", folder / "cache")
        runs = [start_gel_fit("compare", *ALL, *options, cwd=folder, name=name) for name in "ab"]
        (folder / "status").write_text(" ".join(str(run.wait(timeout=300)) for run in runs))

    return made_once(tmp_path_factory, "compared", make)


@pytest.fixture(scope="module")
def version(compared: Path) -> Path:
    """The folder of one of the two comparisons."""
    return compared / FOLDER


def test_callbacks_have_effect_on_a_model_and_on_each_fold(tmp_path: Path, pictures: Options) -> None:
    """One averages weights, for which it copies the module, and one stops at once, each with a state of its own."""
    callbacks = ("--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.5")
    callbacks += ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss")
    callbacks += ("--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=100")
    ran = gel_fit("compare", *ONE, "--trainer.max_epochs", "9", *pictures, *callbacks, "--folds", "2", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    alone = gel_fit(
        "compare", *ONE, "--trainer.max_epochs", "2", *pictures, *callbacks[:2], "--folds", "2", cwd=tmp_path
    )
    assert alone.status == 0
    stopped, cut = (read_comparison(tmp_path / f"lightning_logs/comparison/version_{n}").records[0] for n in range(2))
    assert stopped.row["epochs"] == "2"
    for one, other in zip((stopped.test, *stopped.folds), (cut.test, *cut.folds), strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_comparison_prints_what_it_does_and_where_things_are(compared: Path, name: str) -> None:
    assert (compared / "status").read_text() == "0 0"
    assert (compared / f"{name}.err").read_text() == ""  # no warning, and no progress bar in a file
    lines = (compared / f"{name}.out").read_text().splitlines()
    folder = lines[0].removeprefix("8 of 8 models, in ")
    assert re.fullmatch(r"lightning_logs/comparison/version_[01]", folder)
    assert lines[1] == "16 training, 4 validation and 8 test pictures of 2 classes: gel, not_gel"
    assert lines[2].startswith("This is a demonstration with a random backbone: ")
    assert all(len(line) <= 80 for line in lines[3:12])
    assert lines[12].startswith("This is a demonstration with a random backbone: ")
    assert lines[13].startswith("The best of 8 models is ")
    assert lines[-3:] == [
        f"report: {folder}/report.html",
        f"TensorBoard: tensorboard --logdir {folder}",
        f"results: {folder}/results.csv",
    ]


def test_comparisons_at_once_have_a_folder_each_and_give_the_same(compared: Path, version: Path) -> None:
    assert version_folders(compared) == ["version_0", "version_1"]
    first, second = repeatable(version), repeatable(version.with_name("version_1"))
    assert first == second
    assert list(first) == MODELS
    for name in MODELS:
        assert same_weights(*(version.with_name(f"version_{i}") / name / "checkpoints/best.ckpt" for i in (0, 1)))


def test_a_comparison_leaves_a_run_of_each_model_and_nothing_else(compared: Path, version: Path) -> None:
    left = {path.name for path in version.iterdir()}
    beside = {"config.yaml", "results.csv", ".results.csv.lock", "about.json", "report.html", "thumbnails"}
    assert left == beside | {".compare.lock", ".gel-fit"} | set(MODELS)
    for name, row in by_name(version).items():
        run = version / name
        assert row["error"] == ""
        assert row["version"] == name
        assert Path(row["checkpoint"]) == run / "checkpoints/best.ckpt"
        assert row["epochs"] == "3"
        assert sorted(path.name for path in run.glob("checkpoints/*")) == ["best.ckpt", "last.ckpt"]
        assert {path.name for path in run.glob("*.csv")} == {"curves.csv", "predictions.csv"}
        numbers = {"resnet18": range(1, 5)}.get(row["pretrained_model"], [""] * 4)
        assert row["model_id"] == str(numbers[[model for model in MODELS if model[0] == name[0]].index(name)])
    assert not temporary_files(compared)


def test_the_table_ranks_all_models_and_marks_the_best(compared: Path) -> None:
    out = (compared / "a.out").read_text()
    folder = compared / out.splitlines()[0].removeprefix("8 of 8 models, in ")
    rows = by_name(folder)
    shown = ranking(out)
    assert sorted(folder_name(model) for _, model, _ in shown) == sorted(MODELS)
    keys = []
    for _, model, cells in shown:
        row = rows[folder_name(model)]
        matrix = json.loads(row["conf_mat"])
        right = sum(line[i] for i, line in enumerate(matrix))
        expected = [f"{float(row['val_accuracy']):.3f}", f"{right}/8", f"{float(row['accuracy']):.3f}"]
        assert cells.split() == [*expected, f"{float(row['training_time_mins']) * 60:.1f}", "s"]
        keys.append((-float(row["val_accuracy"]), float(row["val_loss"])))
    assert keys == sorted(keys)
    assert len(set(keys)) > 1, "nothing is ranked"
    assert [mark for mark, _, _ in shown] == ["★", *[""] * 7]
    page = (folder / "report.html").read_text()
    assert page.count(">★ ") == 1
    assert f">★ {shown[0][1]}<" in page


@pytest.mark.parametrize("name", MODELS)
def test_each_checkpoint_measures_what_its_row_says(
    name: str, version: Path, pictures: Options, tmp_path: Path
) -> None:
    row = by_name(version)[name]
    ran = gel_fit("test", "--ckpt_path", row["checkpoint"], *pictures, "--data.num_workers", "0", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err
    right = sum(line[i] for i, line in enumerate(json.loads(row["conf_mat"])))
    assert f"{right}/8   {float(row['accuracy']):.4f}" in ran.out
    assert f"{float(row['roc_auc']):.4f}" in ran.out


@pytest.mark.parametrize("name", ["resnet18_single_sgd_cpu", "mobilenet_v2_multi_adam_cpu"])
def test_a_row_is_that_of_the_same_fit_to_the_last_bit(
    name: str, version: Path, compared: Path, pictures: Options, tmp_path: Path
) -> None:
    # The first with the settings in words, the last of the grid with the file that is beside its checkpoint.
    words = (
        *(*TINY, *pictures, "--trainer.max_epochs", "3", "--model.head", "LinearHead"),
        *("--model.optimizer", "SGD", "--model.optimizer.lr", "0.01", "--model.optimizer.momentum", "0.9"),
    )
    options = words if "resnet18" in name else ("--config", version / name / "config.yaml")
    vectors = ("--data.cache_dir", compared / "cache")
    ran = gel_fit("fit", *options, *vectors, "--results_file", "results.csv", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err
    assert repeatable(tmp_path) == {name: repeatable(version)[name]}
    for checkpoint in ("best", "last"):
        (mine,) = tmp_path.rglob(f"{checkpoint}.ckpt")
        assert same_weights(mine, version / name / f"checkpoints/{checkpoint}.ckpt")


def test_the_settings_are_shared_as_far_as_they_fit(version: Path) -> None:
    for name in MODELS:
        model = yaml.safe_load((version / name / "config.yaml").read_text())["model"]
        assert name.startswith(model["backbone"])
        head, optimizer = model["head"], model["optimizer"]
        assert head["class_path"].endswith("MultiLayerHead" if "multi" in name else "LinearHead")
        assert head["init_args"] == ({"hidden": [16], "dropout": [0.1]} if "multi" in name else {})
        assert optimizer["class_path"] == f"torch.optim.{'Adam' if 'adam' in name else 'SGD'}"
        given = {"eps": 1e-7} if "adam" in name else {"momentum": 0.9}
        assert optimizer["init_args"].items() >= ({"lr": 0.01} | given).items()
        trained = torch.load(version / name / "checkpoints/best.ckpt", weights_only=True)
        assert trained["optimizer_states"][0]["param_groups"][0].items() >= ({"lr": 0.01} | given).items()
        shapes = {tuple(value.shape) for key, value in trained["state_dict"].items() if key.startswith("network.head.")}
        assert ((2, 16) in shapes) == ("multi" in name)


def test_hparams_of_all_runs_stand_side_by_side(version: Path) -> None:
    rows = by_name(version)
    for name in MODELS:
        events = EventAccumulator(str(version / name), size_guidance={"scalars": 0}).Reload()
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
        texts = {key: value.string_value for key, value in session.items() if value.HasField("string_value")}
        assert texts.keys() == {"backbone", "head", "optimizer"}  # what is constant is left out
        assert f"{texts['backbone']}_{texts['head']}_{texts['optimizer']}_cpu" == name
        assert session["lr"].number_value == 0.01
        (accuracy,) = events.Scalars("test/accuracy")
        assert accuracy.value == pytest.approx(float(rows[name]["accuracy"]))
        parts = [EventAccumulator(str(version / name / part)).Reload() for part in ("train", "val")]
        assert [len(part.Scalars("loss")) for part in parts] == [3, 3]
        assert events.Tags()["images"] == []  # figures of all models would take longer than to train them


def test_a_picture_is_decoded_once_for_a_backbone_that_is_built_once(
    tmp_path: Path, pictures: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, built = Counter[Path](), Counter[str]()
    decode, build = PictureDataset.decode, weights._loaded

    def counted_decode(self: PictureDataset, index: int) -> Any:
        decoded[self.paths[index]] += 1
        return decode(self, index)

    def counted_build(name: str, weights: str) -> Any:
        built[name] += 1
        return build(name, weights)

    monkeypatch.setattr(PictureDataset, "decode", counted_decode)
    monkeypatch.setattr(weights, "_loaded", counted_build)
    options = (*ALL, *pictures, "--heads", "single", "--trainer.max_epochs", "1")
    first = gel_fit("compare", *options, "--data.cache_dir", "cache", cwd=tmp_path)
    assert (first.status, first.err) == (0, ""), first.err
    assert set(decoded.values()) == {2}  # the vectors of two backbones
    assert len(decoded) == 16 + 4 + 8
    assert set(built.values()) == {1}
    assert built.keys() == {"resnet18", "mobilenet_v2"}

    decoded.clear()
    built.clear()
    again = gel_fit("compare", *options, "--data.cache_dir", "cache", cwd=tmp_path)
    assert (again.status, decoded, built) == (0, Counter(), Counter())
    assert repeatable(tmp_path / FOLDER) == repeatable(tmp_path / FOLDER.with_name("version_1"))


def test_a_comparison_is_set_in_a_file_as_well(tmp_path: Path, pictures: Options) -> None:
    (tmp_path / "mine.yaml").write_text(
        "backbones: [resnet18]\nheads: [single]\noptimizers: [test_comparison.Plain]\n"
        "model:\n  weights: none\ntrainer:\n  accelerator: cpu\n"
    )
    save_data_set(tmp_path / "data/drawn/dataset")  # as if they were drawn
    files = ("--config", CONFIGS / "compare_offline.yaml", "--config", "mine.yaml")
    short = ("--data.image_size", "32", "--data.num_workers", "0", "--trainer.max_epochs", "1")
    ran = gel_fit("compare", *files, *short, "--checkpoint.dirpath", "kept", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err
    assert "This is a demonstration with drawn pictures and a random backbone: " in ran.out
    (row,) = by_name(tmp_path / FOLDER).values()
    assert (row["weights"], row["hardware_type"], row["opt_alg"]) == ("none", "cpu", "plain")
    assert row["error"] == ""
    # A folder of checkpoints that is named holds one for each model.
    kept = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.ckpt")]
    assert sorted(kept) == [f"kept/resnet18_single_plain_cpu/{name}.ckpt" for name in ("best", "last")]
    assert (tmp_path / row["checkpoint"]).exists()


class Plain(torch.optim.SGD):
    """Has the arguments of the other, and another name."""


class LastlyFails(LinearHead):
    """Fails when it is trained."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no\nsuch thing")


@pytest.mark.parametrize(
    ("named", "is_same"),
    [
        ("MultiLayerHead", True),
        ("gel_lightning.models.heads.MultiLayerHead", True),
        ("LinearHead", False),
        ("gel_lightning.LinearHead", False),
        ("of.mine.MultiLayerHead", False),
        ("gel_lightning.mine.MultiLayerHead", False),
        (f"{__name__}.MultiLayerHead", False),
    ],
)
def test_only_the_very_class_of_the_settings_takes_its_settings(named: str, is_same: bool) -> None:
    settings = {"class_path": "gel_lightning.MultiLayerHead", "init_args": {"hidden": [16]}}
    assert compare._same(settings, named) == is_same


def test_without_a_logger_the_working_folder_is_left_alone(tmp_path: Path, pictures: Options) -> None:
    (tmp_path / "config.yaml").write_text("trainer:\n  max_epochs: 1\n")
    ran = gel_fit("compare", *ONE, *pictures, "--trainer.logger", "false", "--optimizers", "sgd", "adam", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err
    assert "TensorBoard" not in ran.out
    assert (tmp_path / "config.yaml").read_text() == "trainer:\n  max_epochs: 1\n"
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "lightning_logs"}
    rows = by_name(tmp_path / FOLDER)
    assert len(rows) == 2
    for name, row in rows.items():
        assert Path(row["checkpoint"]) == tmp_path / FOLDER / name / "checkpoints/best.ckpt"
        GelClassifier.load_from_checkpoint(row["checkpoint"])


# --- cross-validation ---


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory, pictures: Options, no_plots: None) -> Path:
    """The folder of a comparison of four models with folds, which ran after one without them."""

    def make(folder: Path) -> None:
        for options in ((), FOLDS):
            ran = gel_fit("compare", *FEW, *pictures, *options, "--data.cache_dir", "cache", cwd=folder)
            (folder / "ran").write_text(f"{ran.status}\n{ran.err}\n{ran.out}")

    return made_once(tmp_path_factory, "folded", make)


FEW = (*SETTINGS, "--backbones", "resnet18")
FOLDS = ("--folds", "3", "--repeats", "2")
PLACES = [(0, 0), *product((1, 2), (1, 2, 3))]


def test_folds_change_nothing_of_the_models_themselves(folded: Path) -> None:
    assert (folded / "ran").read_text().startswith("0\n\n4 of 4 models, in lightning_logs/comparison/version_1\n")
    plain, crossed = (folded / FOLDER.with_name(f"version_{number}") for number in (0, 1))
    assert repeatable(crossed) == repeatable(plain)
    for name in by_name(plain):
        tested = [read_predictions(folder / name / "predictions.csv", CLASSES) for folder in (plain, crossed)]
        assert [len(outcomes) for outcomes in tested] == [1, 7]
        np.testing.assert_array_equal(tested[0][0].probabilities, tested[1][0].probabilities)
        assert same_weights(*(folder / name / "checkpoints/best.ckpt" for folder in (plain, crossed)))


def test_all_models_are_tested_on_the_same_folds(folded: Path, train_dir: Path, test_dir: Path) -> None:
    seen = []
    for name in by_name(folded / FOLDER.with_name("version_1")):
        outcomes = read_predictions(folded / FOLDER.with_name("version_1") / name / "predictions.csv", CLASSES)
        assert [outcome[:2] for outcome in outcomes] == PLACES
        assert {path.split("/")[-3] for path in outcomes[0].paths} == {test_dir.name}
        for repeat in (1, 2):
            names = [Path(path).name for outcome in outcomes if outcome.repeat == repeat for path in outcome.paths]
            assert sorted(names) == sorted(path.name for path in train_dir.rglob("*.png"))
        for outcome in outcomes:
            assert [Path(path).parent.name for path in outcome.paths] == [CLASSES[label] for label in outcome.labels]
        seen.append([outcome.paths for outcome in outcomes])
        assert len({tuple(sorted(outcome.paths)) for outcome in outcomes}) == 7
    assert seen == [seen[0]] * 4


def test_a_comparison_with_folds_ranks_by_them(folded: Path) -> None:
    version = folded / FOLDER.with_name("version_1")
    summary = Summary(read_comparison(version))
    out = (folded / "ran").read_text()
    shown = ranking(out)
    assert [model for _, model, _ in shown] == [model.name for model in summary.models]
    for (_, _, cells), model in zip(shown, summary.models, strict=True):
        assert cells.startswith(f"{model.estimates['accuracy'].value:.3f} ")
        assert f" {model.right}/8 " in cells
    assert "Trained on 2 of 3 folds of 20 pictures and tested on the other, each in turn, 2 times over" in out
    about = json.loads((version / "about.json").read_text())
    assert (about["folds"], about["repeats"], about["seed"]) == (3, 2, 42)
    assert about["pictures"] == {"train": 16, "val": 4, "test": 8}
    (command,) = about["commands"]
    assert command.startswith("gel-fit compare ")
    assert command.endswith("--folds 3 --repeats 2 --data.cache_dir cache")
    assert about["weights"] == {
        "resnet18": {"name": "none", "fingerprint": about["weights"]["resnet18"]["fingerprint"]}
    }
    assert re.fullmatch("[0-9a-f]{64}", about["weights"]["resnet18"]["fingerprint"])


def test_only_what_is_missing_of_the_folds_is_run_again(folded: Path, tmp_path: Path, pictures: Options) -> None:
    first = folded / FOLDER.with_name("version_1")
    version = tmp_path / FOLDER
    shutil.copytree(first, version)
    shutil.copytree(folded / "cache", tmp_path / "cache")
    names = list(by_name(version))
    (version / names[1] / "predictions.csv").unlink()
    before = times(version / names[0])
    ran = gel_fit("compare", "--resume", "0", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err
    assert ran.out.startswith(f"1 of 4 models, in {FOLDER}\n")
    assert times(version / names[0]) == before
    for name in names:
        wanted, found = ((folder / name / "predictions.csv").read_bytes() for folder in (first, version))
        assert found == wanted
    assert repeatable(version) == {name: repeatable(first)[name] for name in (names[0], *names[2:], names[1])}
    commands = json.loads((version / "about.json").read_text())["commands"]
    assert commands[1:] == ["gel-fit compare --resume 0"]

    ran = gel_fit("compare", "--resume", "0", "--repeats", "1", cwd=tmp_path)  # other folds: all are run again
    assert (ran.status, ran.err) == (0, ""), ran.err
    assert ran.out.startswith(f"4 of 4 models, in {FOLDER}\n")
    outcomes = read_predictions(version / names[0] / "predictions.csv", CLASSES)
    assert [outcome[:2] for outcome in outcomes] == PLACES[:4]


@pytest.mark.real
def test_real_pictures_are_told_apart_in_all_folds(shared: Path, tmp_path: Path) -> None:
    options = (
        *("--backbones", f"resnet18={shared / 'weights/resnet18-standin.pth'}", "--heads", "single"),
        *("--data.train_dir", shared / "gel/dataset", "--data.test_dir", shared / "gel/other_labs"),
        *("--optimizers", "sgd", "--accelerators", "cpu", "--folds", "5"),
    )
    ran = gel_fit("compare", *options, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err
    (model,) = (summary := Summary(read_comparison(tmp_path / FOLDER))).models
    assert model.estimates["accuracy"].value > 0.9
    assert model.right > 37
    assert summary.groups == 92 - 19  # near-duplicates count once
    groups = summary.comparison.about["near_duplicates"]
    for outcome in model.record.folds:
        for group in groups:
            assert len(set(group) & set(outcome.paths)) in (0, len(group))


# --- models that fail ---


def times(folder: Path) -> dict[str, int]:
    """When each file of each run was last written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and "_cpu" in str(path)}


def test_a_model_that_fails_is_a_row_and_is_run_again(tmp_path: Path, pictures: Options) -> None:
    (tmp_path / "mine.pth").write_text("no weights\n")
    options = (*ONE, *pictures, "--backbones", "mobilenet_v2=mine.pth", "resnet18", "--optimizers", "sgd", "adam")
    heads = ("--heads", "single", "test_comparison.LastlyFails")
    ran = gel_fit("compare", *options, *heads, cwd=tmp_path)
    bad = ["mobilenet_v2_single_sgd_cpu", "mobilenet_v2_single_adam_cpu"]
    assert_error(ran, "6 of 8 models failed: ", ", ".join(bad), "mine.pth", "resnet18_LastlyFails_adam_cpu (")
    assert "(RuntimeError: no such thing)" in ran.err
    folder = tmp_path / FOLDER
    rows = by_name(folder)
    assert len(rows) == 8
    good = {name for name, row in rows.items() if not row["error"]}
    assert good == {"resnet18_single_sgd_cpu", "resnet18_single_adam_cpu"}
    for name in rows.keys() - good:
        assert ("mine.pth" if "mobilenet" in name else "RuntimeError: no such thing") in rows[name]["error"]
        assert rows[name]["accuracy"] == rows[name]["checkpoint"] == ""
        assert not (folder / name / "checkpoints").exists()
    assert [rows[name]["weights"] for name in bad] == [str(tmp_path / "mine.pth")] * 2
    shown = ranking(ran.out)
    assert ["✗" in mark for mark, _, _ in shown] == [False] * 2 + [True] * 6  # the failed ones stand last
    assert {cells for _, _, cells in shown[2:]} == {"failed"}
    assert ran.out.endswith("\nthe rest: gel-fit compare --resume 0\n")

    # What is mended is run, and what was done is left alone; what is no longer wanted is forgotten.
    state = get_model("mobilenet_v2", weights=None).state_dict()
    torch.save(state, tmp_path / "mine.pth")
    done = {name: rows[name] for name in good}
    before = {path: time for path, time in times(folder).items() if any(name in path for name in good)}
    ran = gel_fit("compare", "--resume", "0", "--heads", "single", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err
    assert ran.out.startswith(f"2 of 4 models, in {FOLDER}\n")
    assert "the rest" not in ran.out
    rows = by_name(folder)
    assert {name: rows[name] for name in good} == done
    assert rows.keys() == {*good, *bad}
    assert [row["error"] for row in rows.values()] == [""] * 4
    assert times(folder).items() > before.items()
    assert len(ranking(ran.out)) == 4

    before = times(folder)
    ran = gel_fit("compare", "--resume", folder, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err
    assert ran.out.startswith(f"0 of 4 models, in {FOLDER}\n")
    assert len(ranking(ran.out)) == 4
    assert times(folder) == before

    # What is doubtful is run again, and only that.
    results = folder / "results.csv"
    whole, name = results.read_text(), next(iter(by_name(folder)))
    results.write_text(whole.replace(by_name(folder)[name]["conf_mat"], "[[1,"))
    (folder / name / "curves.csv").unlink()
    (folder / name / "curves.csv").mkdir()
    (folder / "about.json").write_text("{")
    ran = gel_fit("compare", "--resume", folder, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err
    again = int(ran.out.split(" of 4 models")[0])
    assert 1 <= again <= 4
    assert all(row["conf_mat"].startswith("[[") and row["conf_mat"].endswith("]]") for row in read_rows(results))
    assert read_comparison(folder).failed == []

    # Two at once, and settings that are not whole, are one line.
    with locked(folder):
        assert_error(gel_fit("compare", "--resume", folder, cwd=tmp_path), "another gel-fit compare is running there")
    settings = (folder / "config.yaml").read_text()
    for cut in (
        settings[:-1],
        settings[: settings.index("\n", len(settings) // 2)],
        "[",
        "backbones: [resnet18]\n",
        "\0",
    ):
        (folder / "config.yaml").write_text(cut)
        assert_error(gel_fit("compare", "--resume", folder, cwd=tmp_path), "config.yaml", "begin a new comparison")
    assert by_name(folder).keys() == rows.keys()


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_hardware_that_is_not_there_fails_alone(tmp_path: Path, pictures: Options) -> None:
    options = (*ONE, *pictures, "--trainer.default_root_dir", "else where", "--accelerators", "gpu", "cpu")
    ran = gel_fit("compare", *options, cwd=tmp_path)
    assert_error(ran, "1 of 2 models failed: resnet18_single_sgd_gpu (accelerator 'gpu'", "--accelerators cpu")
    folder = "else where" / FOLDER
    assert ran.out.endswith(f"\nthe rest: gel-fit compare --resume '{folder}'\n")
    failed, done = by_name(tmp_path / folder).values()
    assert "'gpu'" in failed["error"]
    assert done["error"] == ""
    ran = gel_fit("compare", "--resume", folder, "--accelerators", "cpu", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err
    assert ran.out.startswith(f"0 of 1 models, in {folder}\n")
    assert read_rows(tmp_path / folder / "results.csv") == [done]


@pytest.mark.parametrize(
    ("options", "words", "status"),
    [
        pytest.param(
            ["--resume", "7"],
            ["lightning_logs/comparison/version_7", "its number or its folder"],
            1,
            id="no comparison",
        ),
        pytest.param(["--resume", "."], ["no comparison", "its number or its folder"], 1, id="no folder of one"),
        pytest.param(["--resume"], ["--resume", "gel-fit compare --help"], 2, id="resume nothing"),
        pytest.param(["--data.train_dir", "gone"], ["gone"], 1, id="no pictures"),
        pytest.param(["--backbones", "resnet19"], ["'resnet19'", "--backbones"], 1, id="backbone"),
        pytest.param(["--heads", "single", "deep"], ["'deep'", "LinearHead"], 2, id="head"),
        pytest.param(["--heads", "my.Head"], ["my"], 2, id="head of no module"),
        pytest.param(["--seed_everything", "-1"], ["-1", "--seed_everything"], 1, id="seed"),
        pytest.param(["--data.batch_size", "0"], ["batch_size"], 1, id="batch size"),
        pytest.param(["--folds", "1"], ["1 folds", "2 folds or more"], 1, id="one fold"),
        pytest.param(["--folds", "2", "--repeats", "0"], ["repeated 0 times", "1 repeat or more"], 1, id="no repeat"),
        pytest.param(["--folds", "11"], ["class gel has 10", "too few for 11 folds"], 1, id="too many folds"),
        pytest.param(["--repeats", "3"], ["--repeats", "give --folds"], 1, id="repeats of nothing"),
        pytest.param(["--folds", "five"], ["folds", "gel-fit compare --help"], 2, id="folds in words"),
    ],
)
def test_what_no_model_can_run_with_is_one_line(
    options: list[str], words: list[str], status: int, tmp_path: Path, pictures: Options
) -> None:
    shared = () if "--data.train_dir" in options else pictures
    ran = gel_fit("compare", *ONE, *shared, *options, cwd=tmp_path)
    assert_error(ran, *words, status=status)
    assert ran.out == ""
    assert not list(tmp_path.iterdir())


# --- interrupted ---


def test_ctrl_c_keeps_what_is_done_and_the_rest_is_run_later(
    tmp_path: Path, compared: Path, version: Path, pictures: Options
) -> None:
    options = (*ALL, "--accelerators", "cpu", *pictures, "--data.cache_dir", compared / "cache")
    process = start_gel_fit("compare", *options, cwd=tmp_path, start_new_session=True)
    results = tmp_path / FOLDER / "results.csv"
    wait_for(lambda: results.exists() and len(read_rows(results)) >= 2, process)
    os.killpg(process.pid, signal.SIGINT)
    ran = Ran(process.wait(timeout=60), (tmp_path / "run.out").read_text(), (tmp_path / "run.err").read_text())
    assert (ran.status, ran.err) == (130, "")
    done = by_name(tmp_path / FOLDER)
    assert 2 <= len(done) < 8
    assert [row["error"] for row in done.values()] == [""] * len(done)
    assert {folder_name(model) for _, model, _ in ranking(ran.out)} == done.keys()
    assert "★" not in ran.out  # nothing is chosen yet
    assert ran.out.endswith("\nthe rest: gel-fit compare --resume 0\n")
    assert not temporary_files(tmp_path)

    ran = gel_fit("compare", "--resume", "0", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ""), ran.err
    assert ran.out.startswith(f"{8 - len(done)} of 8 models, in {FOLDER}\n")
    assert repeatable(tmp_path / FOLDER) == repeatable(version)
    assert by_name(tmp_path / FOLDER).items() >= done.items()
    for name in MODELS:
        assert same_weights(*(folder / FOLDER / name / "checkpoints/last.ckpt" for folder in (tmp_path, compared)))
