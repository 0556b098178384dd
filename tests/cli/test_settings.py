from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import CONFIGS, FIT, TINY, gel_fit, read_rows, save_class
from test_cli import RUN, assert_error

pytestmark = pytest.mark.usefixtures("no_figures")

Options = tuple[object, ...]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.optimizer.lr", "0.5"], ["--model.optimizer.lr is 0.5", "0.001"]),
        (["--model.optimizer.nesterov", "true"], ["--model.optimizer.nesterov is True", "False"]),
        (["--model.head.hidden", "[8, 4]"], ["--model.head.hidden is [8, 4]", "[512, 256]"]),
        (
            ["--model.lr_scheduler", "StepLR", "--model.lr_scheduler.step_size", "3"],
            ["--model.lr_scheduler is StepLR", "none"],
        ),
        (["--model.class_weights", "balanced"], ["--model.class_weights is balanced", "none"]),
        (["--data.image_size", "64"], ["--data.image_size is 64", "32"]),
        (["--data.val_fraction", "0.3"], ["--data.val_fraction is 0.3", "0.2"]),
        (["--seed_everything", "7"], ["--seed_everything is 7", "42"]),
        (["--config", "other.yaml"], ["--model.optimizer.lr is 0.5", "0.001"]),
        (["--config", CONFIGS / "resnet18_multi_adam_cpu.yaml"], ["--model.optimizer is Adam", "SGD"]),
    ],
)
@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_setting_that_a_checkpoint_would_override_is_refused_with_both_values(
    command: str, options: list[object], words: list[str], tmp_path: Path, pictures: Options, run_dir: Path
) -> None:
    (tmp_path / "other.yaml").write_text("model:\n  optimizer:\n    class_path: SGD\n    init_args:\n      lr: 0.5\n")
    checkpoint = run_dir / "checkpoints/last.ckpt"
    before = checkpoint.read_bytes()
    ran = gel_fit(command, *options, "--ckpt_path", checkpoint, *pictures, cwd=tmp_path)
    assert_error(ran, str(checkpoint), *words)
    assert checkpoint.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["other.yaml"]


def test_a_config_that_names_the_command_is_explicit_too(tmp_path: Path, run_dir: Path) -> None:
    settings = {"ckpt_path": str(run_dir / "checkpoints/best.ckpt"), "model": {"backbone": "vgg16"}}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"subcommand": "test", "test": settings}))
    assert_error(gel_fit("--config", "all.yaml", cwd=tmp_path), "--model.backbone is vgg16", "resnet18")


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_another_backbone_is_refused_beside_a_checkpoint(command: str, tmp_path: Path, run_dir: Path) -> None:
    options = ("--model.backbone", "vgg16", "--data.predict_dir", ".")
    ran = gel_fit(command, *options, "--ckpt_path", run_dir / "checkpoints/best.ckpt", cwd=tmp_path)
    assert_error(ran, "--model.backbone is vgg16", "resnet18")


def test_weights_that_are_named_replace_those_of_the_checkpoint_even_the_default(
    tmp_path: Path, pictures: Options, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def known(backbone: str, weights: str) -> str:
        asked.append(weights)
        return "of other weights"

    monkeypatch.setattr("gel_lightning.models.network.known_fingerprint", known)
    options = ("--ckpt_path", run_dir / "checkpoints/best.ckpt", "--model.weights", "imagenet")
    assert_error(gel_fit("test", *options, *pictures, cwd=tmp_path), "trained on other resnet18 weights", "imagenet")
    assert asked == ["imagenet"]


def test_settings_equal_to_the_checkpoints_and_those_of_the_trainer_are_taken(
    tmp_path: Path, pictures: Options, run_dir: Path
) -> None:
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["model"]["optimizer"]["init_args"]["lr"] == 0.001
    options = ("--config", run_dir / "config.yaml", "--model.optimizer.lr", "1e-3", "--trainer.logger", "false")
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes((run_dir / "checkpoints/last.ckpt").read_bytes())
    ran = gel_fit(
        *("fit", *options, "--trainer.max_epochs", "5", "--ckpt_path", copy, "--checkpoint.dirpath", "mine"),
        cwd=tmp_path,
    )
    assert ran.status == 0, ran.err
    assert read_rows(tmp_path / "lightning_logs/results.csv")[0]["epochs"] == "5"


def test_a_resumed_run_takes_the_seed_of_its_checkpoint(tmp_path: Path, pictures: Options) -> None:
    short = (*FIT, *pictures, "--seed_everything", "7")
    assert gel_fit("fit", *short, cwd=tmp_path).status == 0
    last = tmp_path / RUN / "checkpoints/last.ckpt"
    ran = gel_fit("fit", *FIT, *pictures, "--trainer.max_epochs", "5", "--ckpt_path", last, cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert [row["seed"] for row in read_rows(tmp_path / "lightning_logs/results.csv")] == ["7", "7"]


def test_a_run_is_resumed_with_its_own_config(tmp_path: Path, pictures: Options) -> None:
    """With Adam, whose betas are a tuple that a checkpoint has as a list."""
    adam = ("--model.optimizer", "Adam", "--model.optimizer.lr", "0.001")
    assert gel_fit("fit", *FIT, *pictures, *adam, cwd=tmp_path).status == 0
    run = tmp_path / RUN
    own = ("--config", run / "config.yaml", "--ckpt_path", run / "checkpoints/last.ckpt", "--trainer.max_epochs", "5")
    ran = gel_fit("fit", *own, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert read_rows(tmp_path / "lightning_logs/results.csv")[-1]["epochs"] == "5"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(("fit", "--optimizer"), ("fit", "--lr_scheduler"), ("test", "--optimizer"), ("test", "--lr_scheduler")),
        ("compare", "--lr_scheduler"),
    ],
)
def test_options_that_lightning_adds_at_the_top_are_gone(command: str, option: str, tmp_path: Path) -> None:
    ran = gel_fit(command, option, "StepLR" if "lr" in option else "Adam", cwd=tmp_path)
    assert_error(ran, option, status=2)
    (tmp_path / "top.yaml").write_text(f"{option[2:]}: Adam\n")
    assert_error(gel_fit(command, "--config", "top.yaml", cwd=tmp_path), option[2:], status=2)


# --- class names ---


@pytest.mark.parametrize("command", ["fit", "test", "compare"])
@pytest.mark.parametrize("where", ["option", "config"])
def test_class_names_are_not_given_by_hand(command: str, where: str, tmp_path: Path, pictures: Options) -> None:
    (tmp_path / "names.yaml").write_text("model:\n  class_names: [a, b]\n")
    options = ("--config", "names.yaml") if where == "config" else ("--model.class_names", "[a, b]")
    ran = gel_fit(command, *options, *pictures, cwd=tmp_path)
    assert_error(ran, "model.class_names cannot be given", "class folders", status=1 if where == "config" else 2)


def test_classes_are_the_folders_and_then_the_checkpoints(tmp_path: Path) -> None:
    for number, name in enumerate(("blot", "gel", "photo")):
        save_class(tmp_path / "pictures" / name, 6, 100 * number, striped=name != "photo")
    short = ("--data.train_dir", "pictures", *TINY, "--trainer.max_epochs", "1", "--name", "three")
    ran = gel_fit("fit", *short, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    last = tmp_path / "lightning_logs/three/version_0/checkpoints/last.ckpt"
    checkpoint: dict[str, Any] = torch.load(last, weights_only=True)
    assert checkpoint["hyper_parameters"]["class_names"] == ["blot", "gel", "photo"]
    config = yaml.safe_load((last.parents[1] / "config.yaml").read_text())
    assert config["model"].get("class_names") is None  # it can be run again on other pictures
    options = ("--ckpt_path", last, "--data.num_workers", "0")
    ran = gel_fit("predict", *options, "--data.predict_dir", "pictures/gel", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "probability_photo" in (tmp_path / "predictions.csv").read_text().splitlines()[0]
