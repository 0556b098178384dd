"""Comparisons of config files: `gel-fit compare --configs`."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import Ran, gel_fit, made_once, read_rows, refused, save_class
from test_cli import assert_error

from gel_lightning.cli.configs import config_name, take_configs
from gel_lightning.comparison.records import read_comparison
from gel_lightning.comparison.report.methods import methods
from gel_lightning.comparison.summary import Summary

pytestmark = pytest.mark.usefixtures("no_plots")

DATA_SETS = {"gels": ("gel", "not_gel"), "animals": ("cat", "dog", "eel")}
CONFIGS = {
    "scratch": ("gels", {"backbone": "small_cnn", "unfreeze": 1.0}),
    "frozen": ("gels", {"backbone": "resnet18"}),
    "slower": (
        "gels",
        {"backbone": "resnet18", "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-6}}},
    ),
    "animals": ("animals", {"backbone": "small_cnn", "unfreeze": 1.0}),
}
COMPARISON = Path("lightning_logs/comparison/version_0")


def save_config(folder: Path, name: str, **changed: object) -> Path:
    data_set, model = CONFIGS[name]
    settings = {
        "model": {"weights": "none", **model},
        "data": {
            "train_dir": str(folder / data_set / "train"),
            "test_dir": str(folder / data_set / "test"),
            **{"image_size": 32, "batch_size": 5, "num_workers": 0},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "results_file": "elsewhere.csv",  # as the config.yaml of a fit has it
        **changed,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def save_all(folder: Path) -> None:
    for data_set, class_names in DATA_SETS.items():
        for label, name in enumerate(class_names):
            save_class(folder / data_set / "train" / name, 10, 1000 * label, striped=label == 0)
            save_class(folder / data_set / "test" / name, 4, 1000 * label + 500, striped=label == 0)
    for name in CONFIGS:
        save_config(folder, name)


def compare(folder: Path, *args: object) -> Ran:
    return gel_fit("compare", *args, "--trainer.enable_progress_bar", "false", cwd=folder)


@pytest.fixture(scope="module")
def one_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        save_all(folder)
        ran = compare(folder, "--configs", "scratch.yaml", "frozen.yaml", "slower.yaml")
        assert (ran.status, ran.err) == (0, "")

    return made_once(tmp_path_factory, "configs of one data set", make)


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        save_all(folder)
        ran = compare(folder, "--configs", "scratch.yaml", "animals.yaml", "frozen.yaml", "--trainer.max_epochs", "2")
        assert (ran.status, ran.err) == (0, "")

    return made_once(tmp_path_factory, "configs of two data sets", make)


def test_each_config_is_a_model_under_its_name(one_set: Path) -> None:
    rows = {row["config"]: row for row in read_rows(one_set / COMPARISON / "results.csv")}
    assert list(rows) == ["scratch", "frozen", "slower"]
    assert [row["pretrained_model"] for row in rows.values()] == ["small_cnn", "resnet18", "resnet18"]
    assert rows["slower"]["learning_rate"] == "1e-06"
    assert not (one_set / "elsewhere.csv").exists()
    summary = Summary(read_comparison(one_set / COMPARISON))
    assert {model.name for model in summary.models} == set(rows)
    assert not summary.factors
    described = dict(methods(summary))["Models"]
    assert "scratch is small_cnn at 32 pixels, the last 100 % trained, with head " in described
    assert "; slower is resnet18 at 32 pixels, frozen, with head " in described


def test_a_model_is_that_of_a_fit_with_its_config(one_set: Path, tmp_path: Path) -> None:
    assert gel_fit("fit", "--config", one_set / "scratch.yaml", cwd=tmp_path).status == 0
    (fitted,) = read_rows(tmp_path / "elsewhere.csv")
    compared = read_rows(one_set / COMPARISON / "results.csv")[0]
    own = {"training_time_mins", "inference_time_secs", "version", "checkpoint", "config"}
    assert {key: value for key, value in fitted.items() if key not in own} == {
        key: value for key, value in compared.items() if key not in own
    }


def test_data_sets_have_a_comparison_each_and_one_page(two_sets: Path) -> None:
    folder = two_sets / COMPARISON
    sets = sorted(path.parent for path in folder.glob("*/results.csv"))
    assert [[row["config"] for row in read_rows(path / "results.csv")] for path in sets] == [
        ["animals"],
        ["scratch", "frozen"],
    ]
    assert [json.loads((path / "about.json").read_text())["class_names"] for path in sets] == [
        list(DATA_SETS["animals"]),
        list(DATA_SETS["gels"]),
    ]
    page = (folder / "report.html").read_text()
    for path in sets:
        assert f'href="{path.name}/report.html"' in page
        assert (path / "report.html").is_file()
        assert all(row["epochs"] == "2" for row in read_rows(path / "results.csv"))
    assert page.count('<tr><th scope="row">') == 3
    (folder / "report.html").unlink()
    assert gel_fit("report", "0", cwd=two_sets).status == 0
    assert (folder / "report.html").read_text() == page


def test_what_is_done_is_not_run_again(two_sets: Path) -> None:
    (path,) = (two_sets / COMPARISON).glob("*animals*/results.csv")
    before = path.read_text()
    path.write_text(before.splitlines(keepends=True)[0])
    ran = compare(two_sets, "--resume", "0")
    assert (ran.status, ran.err) == (0, "")
    assert "0 of 2 models" in ran.out
    assert "1 of 1 models" in ran.out
    assert [row["config"] for row in read_rows(path)] == ["animals"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--backbones", "resnet18"], ["--configs", "--backbones"]),
        (["--heads=single"], ["--configs", "--heads"]),
        (["--optimizers", "sgd"], ["--configs", "--optimizers"]),
        (["--config", "a.yaml"], ["--configs", "--config"]),
    ],
)
def test_a_grid_beside_configs_is_refused(args: list[str], words: list[str]) -> None:
    text = refused(lambda: take_configs(["--configs", "a.yaml", *args]))
    assert all(word in text for word in words)


def test_files_of_one_name_are_refused() -> None:
    assert "rename" in refused(lambda: take_configs(["--configs", "a/x.yaml", "b/x.yaml"]))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed_everything": 7}, ["--seed_everything", "scratch", "frozen"]),
        ({"checkpoint": {"monitor": "val/f1", "mode": "max"}}, ["--checkpoint.monitor", "scratch", "frozen"]),
        (
            {"trainer": {"max_epochs": 1, "accelerator": "cpu"}, "model": {"backbone": "small_cnn", "weights": "none"}},
            ["--model.unfreeze 1"],
        ),
    ],
)
def test_configs_that_cannot_be_compared_are_one_line(
    changed: dict[str, object], words: list[str], tmp_path: Path
) -> None:
    save_all(tmp_path)
    save_config(tmp_path, "frozen", **changed)
    ran = compare(tmp_path, "--configs", "scratch.yaml", "frozen.yaml")
    assert_error(ran, *words)


def test_other_validation_pictures_are_refused(tmp_path: Path) -> None:
    save_all(tmp_path)
    path = save_config(tmp_path, "frozen")
    settings = yaml.safe_load(path.read_text())
    settings["data"]["val_fraction"] = 0.4
    path.write_text(yaml.safe_dump(settings))
    assert_error(compare(tmp_path, "--configs", "scratch.yaml", "frozen.yaml"), "validation pictures")
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize("content", [None, "- a\n", "a: [\n"])
def test_a_file_that_is_no_config_is_one_line(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "other.yaml").write_text(content)
    assert_error(compare(tmp_path, "--configs", "other.yaml"), "other.yaml", "--configs")


def test_a_wrong_option_in_a_config_is_said_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("model: {backbone: resnet18}\n")
    (tmp_path / "bad.yaml").write_text("data: {traindir: pictures}\n")
    ran = compare(tmp_path, "--configs", "good.yaml", "bad.yaml")
    assert ran.status == 2
    meant = "no option --data.traindir; did you mean --data.train_dir?"
    assert ran.err == f"gel-fit: error: --configs bad: {meant} (see gel-fit compare --help)\n"


@pytest.mark.parametrize(("name", "called"), [("a b", "a_b"), (".hidden", "_hidden"), ("vgg16.best-1", "vgg16.best-1")])
def test_a_name_is_safe_as_a_folder(name: str, called: str) -> None:
    assert config_name(Path(f"{name}.yaml")) == called
