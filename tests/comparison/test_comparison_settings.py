from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import refused

from gel_lightning.comparison.settings import read_settings

SETTINGS: dict[str, Any] = {
    "seed_everything": 42,
    "trainer": {"accelerator": "cpu", "strategy": "auto", "precision": "16-mixed", "max_time": "00:01:00:00"},
    "model": {
        "weights": "/some/where.pth",
        "head": {"class_path": "gel_lightning.MultiLayerHead", "init_args": {"hidden": [8], "dropout": [0.5]}},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        "lr_scheduler": None,
    },
    "data": {"train_dir": "pictures.v2/gel"},
    "checkpoint": {"monitor": "val/loss", "filename": "best"},
    "backbones": ["resnet18=/my/weights.pth"],
    "heads": ["single", "torch.nn.Linear"],
    "optimizers": ["adam"],
}


def write(path: Path, place: str = "", value: Any = None) -> Path:
    """Writes settings in which one is another."""
    settings = yaml.safe_load(yaml.safe_dump(SETTINGS))
    *parents, last = place.split(".")
    owner = settings
    for parent in parents:
        owner = owner[parent]
    if place:
        owner[last] = value
    path.write_text(yaml.safe_dump(settings))
    return path


def test_settings_of_known_classes_are_taken_as_they_are(tmp_path: Path) -> None:
    assert yaml.safe_load(read_settings(write(tmp_path / "config.yaml"), [])) == SETTINGS


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model.head", {"class_path": "os.system", "init_args": {"command": "touch x"}}),
        ("model.head", {"class_path": "torch.nn.Linear", "init_args": {"device": "os.system"}}),
        ("model.optimizer", {"class_path": "subprocess.Popen"}),
        ("model.optimizer", "os.system"),
        ("model.lr_scheduler", {"class_path": "os.system"}),
        ("trainer.callbacks", [{"class_path": "os.system"}]),
        ("trainer.logger", "evil.Logger"),
        ("trainer.strategy", "http://127.0.0.1/x.yaml"),
        ("trainer.callbacks", "evil"),  # a file in the working folder
        ("data.augmentation", [{"class_path": "evil.View"}]),
        ("heads", ["os.system"]),
        ("optimizers", ["evil.Optimizer"]),
        ("trainer", "other.yaml"),
        ("config", "other.yaml"),
        ("model.head+", {"class_path": "os.system"}),
    ],
)
def test_anything_else_that_would_be_imported_is_refused(
    place: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil").write_text("class_path: os.system\n")
    text = refused(lambda: read_settings(write(tmp_path / "config.yaml", place, value), []))
    assert text.startswith(f"{tmp_path / 'config.yaml'}: ")


@pytest.mark.parametrize(
    "given",
    [
        ["--heads", "mine.Head"],
        ["--model.head=mine.Head"],
        ["--config", "own.yaml"],
        ["-c", "own.yaml"],
        ["--config=own.yaml"],
    ],
)
def test_a_class_that_the_person_names_is_taken(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("model:\n  head: mine.Head\n")
    path = write(tmp_path / "config.yaml", "model.head", {"class_path": "mine.Head", "init_args": {}})
    assert "mine.Head" in read_settings(path, given)
    assert "'mine.Head' is no class" in refused(lambda: read_settings(path, ["--heads", "other.Head"]))


def test_what_the_command_line_sets_is_not_taken_from_the_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "config.yaml", "heads", ["single", "mine.Head"])
    assert "mine.Head" in refused(lambda: read_settings(path, []))
    assert "heads" not in yaml.safe_load(read_settings(path, ["--heads", "single"]))


@pytest.mark.parametrize(
    "text", ["", "[1]", "a: [", "\tb: 1", "a: &a [*a]", "? [1]\n: 2", "!!python/object/apply:os.system [ls]", "\xff"]
)
def test_no_settings_are_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(text.encode("latin-1"))
    assert str(tmp_path / "config.yaml") in refused(lambda: read_settings(tmp_path / "config.yaml", []))


def test_lists_that_repeat_each_other_end(tmp_path: Path) -> None:
    lines = [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)),
    ]
    (tmp_path / "config.yaml").write_text("\n".join([*lines, ""]))
    assert "too many settings" in refused(lambda: read_settings(tmp_path / "config.yaml", []))
