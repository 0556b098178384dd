import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CONFIGS, TINY, gel_fit, read_rows

from gel_lightning.models.backbones import check_image_size, check_trained_whole

BACKBONES = ("resnet18", "vgg16", "mobilenet_v3_large")
HEADS = {"single": "LinearHead", "multi": "MultiLayerHead"}
OPTIMIZERS = {"adam": ("torch.optim.Adam", {}), "sgd": ("torch.optim.SGD", {"momentum": 0.9})}
ACCELERATORS = ("cpu", "gpu", "tpu")
# In the order of the original study: 1 to 12 on the CPU, and so on.
MODELS = list(product(ACCELERATORS, BACKBONES, HEADS, OPTIMIZERS))
NUMBERED = [
    pytest.param(number, *model, id="_".join([*model[1:], model[0]])) for number, model in enumerate(MODELS, start=1)
]


OTHERS = {
    "cifar10_small_cnn": ("small_cnn", "none", 1.0),
    "cifar10_deep_cnn": ("deep_cnn", "none", 1.0),
    "cifar10_efficientnet_b0_frozen": ("efficientnet_b0", "imagenet", 0.0),
    "cifar10_efficientnet_b0_top20": ("efficientnet_b0", "imagenet", 0.2),
    "cifar10_efficientnet_lite0_frozen": ("efficientnet_lite0", "packaged", 0.0),
    "cifar10_efficientnet_lite0_top20": ("efficientnet_lite0", "packaged", 0.2),
    "cifar10_mobilenet_v2": ("mobilenet_v2", "imagenet", 0.2),
    "cifar10_resnet50": ("resnet50", "imagenet", 1.0),
    "mnist_efficientnet_lite0_top20": ("efficientnet_lite0", "packaged", 0.2),
    "mnist_inception_v3": ("inception_v3", "imagenet", 1.0),
    "mnist_mobilenet_v2": ("mobilenet_v2", "imagenet", 1.0),
    "mnist_resnet50": ("resnet50", "imagenet", 1.0),
    "mnist_small_cnn": ("small_cnn", "none", 1.0),
    "mnist_vgg16": ("vgg16", "imagenet", 1.0),
    "folder_mobilenet_v2_two_stage": ("mobilenet_v2", "imagenet", 0.3),
}
"""Configs of other data sets: backbone, weights, and the share of its layers that is trained."""


def config_file(accelerator: str, backbone: str, head: str, optimizer: str) -> Path:
    return CONFIGS / f"{backbone}_{head}_{optimizer}_{accelerator}.yaml"


def parsed(*args: object, command: str = "fit") -> dict[str, Any]:
    """Parses a command line of `gel-fit fit` or `gel-fit compare` with the command's own parser."""
    ran = gel_fit(command, *args, "--print_config", cwd=CONFIGS)
    assert (ran.status, ran.err) == (0, "")
    config: dict[str, Any] = yaml.safe_load(ran.out)
    return config


@cache
def defaults() -> dict[str, Any]:
    return parsed()


def test_there_is_a_file_for_each_model_two_for_no_network_the_detectors_and_those_of_other_data_sets() -> None:
    expected = {config_file(*model).name for model in MODELS}
    expected |= {"offline.yaml", "compare_offline.yaml", "detector.yaml"}
    expected |= {f"{name}.yaml" for name in OTHERS}
    assert {path.name for path in CONFIGS.iterdir()} == expected
    assert len(expected) == 39 + len(OTHERS)


@pytest.mark.parametrize(("number", "accelerator", "backbone", "head", "optimizer"), NUMBERED)
def test_file_says_what_its_name_says(number: int, accelerator: str, backbone: str, head: str, optimizer: str) -> None:
    path = config_file(accelerator, backbone, head, optimizer)
    text = path.read_text()
    assert text.startswith(f"# Model {number}: ")
    assert 5 <= len(text.splitlines()) <= 15

    config = parsed("--config", path)
    assert config["trainer"].pop("accelerator") == accelerator
    model = config["model"]
    assert model.pop("backbone") == backbone
    assert model.pop("head")["class_path"].rsplit(".", 1)[-1] == HEADS[head]
    class_path, settings = OPTIMIZERS[optimizer]
    described = model.pop("optimizer")
    assert described["class_path"] == class_path
    assert described["init_args"].items() >= {"lr": 0.001, **settings}.items()

    # All else is as without a file: what the models share stands once.
    usual = defaults()
    assert model == {key: value for key, value in usual["model"].items() if key in model}
    assert config["trainer"] == {key: value for key, value in usual["trainer"].items() if key != "accelerator"}
    for key in config.keys() - {"model", "trainer"}:
        assert config[key] == usual[key]


@pytest.mark.parametrize(("number", "accelerator", "backbone", "head", "optimizer"), NUMBERED[:12])
def test_file_trains_the_model_of_its_number(
    number: int,
    accelerator: str,
    backbone: str,
    head: str,
    optimizer: str,
    tmp_path: Path,
    train_dir: Path,
    test_dir: Path,
) -> None:
    path = config_file(accelerator, backbone, head, optimizer)
    pictures = ("--data.train_dir", train_dir, "--data.test_dir", test_dir)
    short = ("--trainer.max_epochs", "1", "--data.batch_size", "16", "--trainer.logger", "false")
    ran = gel_fit("fit", "--config", path, *TINY, *pictures, *short, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    (row,) = read_rows(tmp_path / "lightning_logs/results.csv")
    assert row["model_id"] == str(number)
    assert row["hardware_type"] == accelerator
    assert row["pretrained_model"] == backbone
    assert row["classifier_head"] == head
    assert row["opt_alg"] == optimizer
    assert row["weights"] == "none"


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_offline_is_drawn_pictures_and_packaged_weights(command: str) -> None:
    path = CONFIGS / {"fit": "offline.yaml", "compare": "compare_offline.yaml"}[command]
    text = path.read_text()
    assert text.startswith("# ")
    assert ("gel-fit compare" in text) == (command == "compare")
    config, usual = parsed("--config", path, command=command), defaults()
    assert config["data"].pop("drawn") is True
    assert config["data"].items() <= usual["data"].items()
    if command == "compare":
        assert config["backbones"] == ["efficientnet_lite0=packaged"]
        assert config["model"].items() <= usual["model"].items()
    else:
        assert (config["model"]["backbone"], config["model"]["weights"]) == ("efficientnet_lite0", "packaged")
        assert config["trainer"].pop("accelerator") == "cpu"
    assert config["trainer"].items() <= usual["trainer"].items()


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_data_set_says_what_its_name_says(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    comment = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    assert any(line.startswith("# Cost: ") for line in comment)
    assert any(line.startswith("# Gives: ") for line in comment)
    config = parsed("--config", path)
    model, data = config["model"], config["data"]
    assert (model["backbone"], model["weights"], model["unfreeze"]) == OTHERS[name]
    data_set = name.partition("_")[0]
    if data_set == "folder":
        fractions = (data["test_fraction"], (1 - data["test_fraction"]) * data["val_fraction"])
        assert fractions == pytest.approx((0.04, 0.16), abs=1e-6)
        assert (data["image_size"], data["batch_size"]) == (180, 32)
        assert (config["trainer"]["max_epochs"], model["unfreeze_at_epoch"]) == (20, 10)
    else:
        assert data["dataset"] == data_set
    assert data["colour"] is (data_set != "mnist")
    # It can be trained: a part is frozen only if its weights are known, and pictures are large enough.
    check_trained_whole(model["backbone"], model["unfreeze"])
    check_image_size(model["backbone"], data["image_size"])
    monitored = {callback["init_args"].get("monitor") for callback in config["trainer"]["callbacks"]}
    assert monitored <= {None, "val/loss"}


def test_without_a_config_it_is_resnet18_multi_sgd_on_whatever_is_there() -> None:
    config = defaults()
    file = parsed("--config", config_file("cpu", "resnet18", "multi", "sgd"))
    assert config["trainer"].pop("accelerator") == "auto"
    del file["trainer"]["accelerator"]
    assert config["trainer"] == file["trainer"]
    assert config["model"]["backbone"] == "resnet18"
    assert config["model"]["weights"] == "imagenet"
    assert config["model"]["head"]["class_path"].endswith("MultiLayerHead")
    assert config["model"]["optimizer"]["class_path"] == "torch.optim.SGD"
    assert config["model"]["optimizer"]["init_args"].items() >= {"lr": 0.001, "momentum": 0.9}.items()
    assert config["seed_everything"] == 42
    assert config["data"]["batch_size"] == 23
    assert config["data"]["val_fraction"] == 0.2
    assert config["data"]["image_size"] == 224


def test_a_later_file_stands_over_an_earlier_one_and_the_command_line_over_both(tmp_path: Path) -> None:
    later = tmp_path / "later.yaml"
    later.write_text("trainer:\n  max_epochs: 7\nmodel:\n  optimizer:\n    init_args:\n      lr: 0.5\n")
    files = ("--config", config_file("cpu", "vgg16", "multi", "sgd"), "--config", later)
    config = parsed(*files)
    assert config["trainer"]["max_epochs"] == 7
    assert config["model"]["backbone"] == "vgg16"
    assert config["model"]["optimizer"]["init_args"].items() >= {"lr": 0.5, "momentum": 0.9}.items()
    assert parsed(*files, "--trainer.max_epochs", "3")["trainer"]["max_epochs"] == 3


def test_another_optimizer_on_the_command_line_takes_only_the_settings_it_has() -> None:
    config = parsed("--config", config_file("cpu", "resnet18", "multi", "sgd"), "--model.optimizer", "Adam")
    assert config["model"]["optimizer"]["class_path"] == "torch.optim.Adam"
    assert config["model"]["optimizer"]["init_args"]["lr"] == 0.001
    assert "momentum" not in config["model"]["optimizer"]["init_args"]


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16", "mobilenet_v3_large", "mobilenet_v2", "efficientnet_lite0"])
def test_each_backbone_is_an_option(backbone: str) -> None:
    assert parsed("--model.backbone", backbone)["model"]["backbone"] == backbone


@pytest.mark.parametrize("degrees", [10, 7.5, [-10, 20]])
def test_numbers_of_transforms_are_written_as_they_were_given(degrees: object) -> None:
    rotation = {"class_path": "torchvision.transforms.v2.RandomRotation", "init_args": {"degrees": degrees}}
    config = parsed("--data.views", "2", "--data.augmentation", json.dumps([rotation]))
    assert config["data"]["augmentation"][0]["init_args"]["degrees"] == degrees


def test_numbers_of_transforms_on_the_command_line() -> None:
    name = "torchvision.transforms.v2.RandomRotation"
    config = parsed("--data.views", "2", f"--data.augmentation+={name}", "--data.augmentation.degrees", "7.5")
    assert config["data"]["augmentation"][0]["init_args"]["degrees"] == 7.5
