from pathlib import Path

import pytest
from conftest import FIT, TINY, gel_fit, refused

from gel_lightning.cli.precedence import configs_first, refuse_repeats


@pytest.mark.parametrize(
    "args",
    [
        ["fit"],
        ["fit", "--data.train_dir", "a", "--data.test_dir=b"],
        ["fit", "--data.test_dir", "a", "--data.test_dir+=x=b", "--data.test_dir+", "y=c"],
        ["compare", "--data.train_dir+=a", "--data.train_dir+=b"],
    ],
)
def test_what_adds_is_taken(args: list[str]) -> None:
    refuse_repeats(args)


@pytest.mark.parametrize(
    "args",
    [
        ["--data.test_dir", "a", "--data.test_dir", "b"],
        ["--data.test_dir=a", "--data.test_dir=b"],
        ["--data.test_dir+=x=a", "--data.test_dir", "b"],
    ],
)
def test_a_plain_repetition_is_refused(args: list[str]) -> None:
    assert refused(lambda: refuse_repeats(["fit", *args])) == (
        "--data.test_dir is given twice, and only the last would count; add to it with --data.test_dir+=NAME=FOLDER"
    )


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("fit", "fit"),
        ("fit --config a --x 1", "fit --config a --x 1"),
        (
            "fit --x 1 --config a --y --config=b -c c --z=--config",
            "fit --config a --config=b -c c --x 1 --y --z=--config",
        ),
        ("fit --x 1 -cfile --y", "fit -cfile --x 1 --y"),
        ("compare pictures --config a", "compare pictures --config a"),
        ("compare --configs a b --config c", "compare --config c --configs a b"),
        ("fit --x 1 --config", "fit --config --x 1"),
        ("--config a", "--config a"),
    ],
)
def test_config_files_come_before_other_options(args: str, expected: str) -> None:
    assert configs_first(args.split()) == expected.split()


def test_the_command_line_overrides_a_config_that_comes_after_it(train_dir: Path, tmp_path: Path) -> None:
    assert gel_fit("fit", *FIT, "--data.train_dir", train_dir, cwd=tmp_path).status == 0
    run = tmp_path / "lightning_logs/resnet18_multi_sgd_cpu/version_0"
    config, best = ("--config", run / "config.yaml"), ("--ckpt_path", run / "checkpoints/best.ckpt")
    ran = gel_fit("validate", *best, *config, cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert ran == gel_fit("validate", *config, *best, cwd=tmp_path)


def test_settings_in_place_of_a_file_name_no_run(train_dir: Path, tmp_path: Path) -> None:
    given = ("--data.train_dir", train_dir, *TINY, "--trainer.max_epochs", "1", "--config", "trainer: {max_epochs: 2}")
    ran = gel_fit("fit", *given, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "on cpu, 1 epoch\n" in ran.out
    assert [path.name for path in tmp_path.glob("lightning_logs/*/")] == ["resnet18_multi_sgd_cpu"]
