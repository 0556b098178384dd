import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY, gel_fit
from test_cli import assert_error

from gel_lightning.cli.own_modules import find_own_modules

Options = tuple[object, ...]
HEAD = """
from torch import nn

class Head(nn.Linear):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
"""


@pytest.fixture(autouse=True)
def path_and_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves the search path and the modules as they were."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["fit", "--model.head", "own_head.Head"], True),
        (["fit", "--model.head=own_head.Head"], True),
        (["fit", "--trainer.callbacks+=own_package.callbacks.Mine"], True),
        (["fit", "--model.head", '{"class_path": "own_head.Head"}'], True),
        (["fit", "--config", "own.yaml"], True),
        (["fit", "-c=own.yaml"], True),
        (["fit", "--model.head", "gel_lightning.LinearHead", "--model.optimizer", "torch.optim.Adam"], False),
        (["fit", "--model.head", "absent.Head"], False),
        (["predict", "--ckpt_path", "own_head.ckpt"], False),
        (["predict", "--ckpt_path=own_head.ckpt"], False),
        (["fit", "--config", "plain.yaml"], False),
        (["fit", "--config"], False),
        (["fit"], False),
    ],
)
def test_the_working_folder_is_the_last_place_to_import_from_if_a_class_of_it_is_named(
    args: list[str], found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_head.py").write_text(HEAD)
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own.yaml").write_text("model:\n  head: own_head.Head\n")
    (tmp_path / "plain.yaml").write_text("model:\n  head: LinearHead\n")
    monkeypatch.chdir(tmp_path)
    before = [*sys.path]
    for _ in range(2):
        find_own_modules(args)
    assert sys.path == [*before, *([str(tmp_path)] if found else [])]


def test_a_head_of_ones_own_is_trained_and_found_again_only_if_it_is_named(tmp_path: Path, pictures: Options) -> None:
    (tmp_path / "own_trained.py").write_text(HEAD)
    short = (*TINY, *pictures, "--trainer.max_epochs", "1", "--name", "own")
    ran = gel_fit("fit", *short, "--model.head", "own_trained.Head", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    checkpoint = tmp_path / "lightning_logs/own/version_0/checkpoints/best.ckpt"
    sys.path.remove(str(tmp_path))
    del sys.modules["own_trained"]

    options = ("--ckpt_path", checkpoint, *pictures, "--data.num_workers", "0")
    ran = gel_fit("test", *options, cwd=tmp_path)
    assert ran.status != 0
    assert "own_trained" in ran.err
    assert "own_trained" not in sys.modules
    ran = gel_fit("test", *options, "--model.head", "own_trained.Head", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")


def test_a_class_that_is_not_there(tmp_path: Path) -> None:
    assert_error(gel_fit("fit", "--model.head", "own_absent.Head", cwd=tmp_path), "own_absent.Head", status=2)
