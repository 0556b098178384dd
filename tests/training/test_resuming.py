import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import refused
from lightning.pytorch.callbacks import EarlyStopping
from made_checkpoints import change, fit, loader, make_model, make_trainer

from gel_lightning.training.checkpoint_files import BestCheckpoint, best_model_path

WHEN = "'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, 'train_time_interval': None"
BEST = f"BestCheckpoint{{'monitor': 'val/loss', {WHEN}}}"
LAST = f"LastCheckpoint{{'monitor': None, {WHEN}}}"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once") / "run"
    fit(folder)
    return folder


@pytest.fixture
def run(once: Path, tmp_path: Path) -> Path:
    """The folder of a run, moved."""
    return Path(shutil.copytree(once, tmp_path / "moved"))


def state(path: Path, key: str = BEST) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)["callbacks"][key]
    return found


def test_a_resumed_run_equals_one_that_was_never_stopped(run: Path, tmp_path: Path) -> None:
    fit(run, 4, ckpt_path=run / "last.ckpt")
    fit(tmp_path / "whole", 4)
    resumed, whole = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (run, tmp_path / "whole"))
    for name, value in whole["state_dict"].items():
        assert value.equal(resumed["state_dict"][name])
    assert resumed["epoch"] == whole["epoch"] == 3


def test_a_run_that_was_moved_keeps_its_own_best(run: Path, once: Path) -> None:
    change(run / "last.ckpt", **{f"callbacks__{BEST}__best_model_score": torch.tensor(-1.0)})
    score = torch.tensor(-1.0)
    change(run / "last.ckpt", **{f"callbacks__{BEST}__best_k_models": {str(once / "best.ckpt"): score}})
    before = [(folder / "best.ckpt").read_bytes() for folder in (run, once)]
    trainer = fit(run, 4, ckpt_path=run / "last.ckpt")  # no epoch is better than that score
    assert best_model_path(trainer) == str(run / "best.ckpt")
    (callback,) = (callback for callback in trainer.callbacks if isinstance(callback, BestCheckpoint))
    assert callback.best_model_score == score
    assert [(folder / "best.ckpt").read_bytes() for folder in (run, once)] == before


def test_a_last_checkpoint_alone_begins_with_no_best(
    run: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    alone = tmp_path / "alone/last.ckpt"
    alone.parent.mkdir()
    shutil.copy(run / "last.ckpt", alone)
    trainer = fit(tmp_path / "new", 3, ckpt_path=alone)
    assert best_model_path(trainer) == str(tmp_path / "new/best.ckpt")
    assert [path.name for path in alone.parent.iterdir()] == ["last.ckpt"]
    assert not [warning for warning in recwarn if "dirpath" in str(warning.message)]


@pytest.mark.parametrize(
    "place", ["local://{}", "file://{}", "{}", "x/../../{}", "http://127.0.0.1:9/bomb.ckpt", "::{}"]
)
def test_no_path_of_a_checkpoint_leads_out_of_its_folder(place: str, run: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim.ckpt"
    victim.mkdir()
    (victim / "thesis").write_text("thesis")
    hostile, worst = place.format(victim), torch.tensor(1e9)
    for key in (BEST, LAST):
        fields: dict[str, Any] = {
            f"callbacks__{key}__{name}": hostile for name in ("best_model_path", "last_model_path")
        }
        fields |= {f"callbacks__{key}__{name}": hostile for name in ("kth_best_model_path", "dirpath")}
        change(run / "last.ckpt", **fields, **{f"callbacks__{key}__best_k_models": {hostile: worst}})
    trainer = fit(run, 4, ckpt_path=run / "last.ckpt")
    assert best_model_path(trainer) == str(run / "best.ckpt")
    assert (victim / "thesis").read_text() == "thesis"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved", "victim.ckpt"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"loops": {}}, ["fit_loop is missing"]),
        ({"loops__fit_loop__epoch_progress__current__completed": -1}, ["completed is -1"]),
        ({"loops__fit_loop__epoch_progress__current__completed": 1.5}, ["completed is 1.5"]),
        ({"loops__fit_loop__epoch_progress__current": {}}, ["epoch_progress.current has no"]),
        ({"optimizer_states": []}, ["0 optimizers"]),
        ({"optimizer_states": [{}]}, ["state does not fit"]),
        ({"lr_schedulers": []}, ["0 schedulers"]),
        ({"lr_schedulers": [{"step_size": "x"}]}, ["lr_scheduler has no"]),
        ({"callbacks": 3}, ["callbacks is 3"]),
        ({f"callbacks__{BEST}": []}, ["the state of BestCheckpoint is []"]),
        ({f"callbacks__{BEST}__best_model_path": 3}, ["a path of BestCheckpoint is 3", "best_model_path is 3"]),
        ({f"callbacks__{BEST}__best_k_models": {"best.ckpt": "x"}}, ["a score of BestCheckpoint is 'x'"]),
        ({f"callbacks__{BEST}__best_k_models": {"best.ckpt": float("nan")}}, ["a score of BestCheckpoint"]),
    ],
    ids=lambda value: "-".join(value)[:50],
)
def test_progress_that_does_not_fit_is_one_line(fields: dict[str, Any], words: list[str], run: Path) -> None:
    change(run / "last.ckpt", **fields)
    text = refused(lambda: fit(run, 3, ckpt_path=run / "last.ckpt"))
    assert text.startswith(f"{run / 'last.ckpt'}: ")
    assert any(word in text for word in words), text


@pytest.mark.parametrize(
    "change_state",
    [
        lambda state: state["state"][0].update(momentum_buffer=torch.zeros(3)),
        lambda state: state["state"][0].update(momentum_buffer="x"),
        lambda state: state["state"][0]["momentum_buffer"].fill_(torch.nan),
        lambda state: state["param_groups"][0].update(lr="x"),
        lambda state: state["param_groups"][0].update(lr=float("inf")),
        lambda state: state["param_groups"][0].update(params=[0]),
        lambda state: state["param_groups"][0].update(params=[0, "x"]),
        lambda state: state["state"].pop(1),
        lambda state: state["state"][1].update(momentum_buffer=None),
        lambda state: state["param_groups"].clear(),
    ],
)
def test_an_optimizer_state_that_does_not_fit_is_one_line(change_state: Any, run: Path) -> None:
    (found,) = torch.load(run / "last.ckpt", weights_only=True)["optimizer_states"]
    change_state(found)
    change(run / "last.ckpt", optimizer_states=[found])
    text = refused(lambda: fit(run, 3, ckpt_path=run / "last.ckpt"))
    assert "the optimizer's" in text


def test_a_callback_of_lightning_takes_only_what_fits(run: Path) -> None:
    fit(run, 3, EarlyStopping("val/loss"), ckpt_path=run / "last.ckpt")
    key = EarlyStopping("val/loss").state_key
    change(run / "last.ckpt", **{f"callbacks__{key}__wait_count": "x"})
    text = refused(lambda: fit(run, 4, EarlyStopping("val/loss"), ckpt_path=run / "last.ckpt"))
    assert "EarlyStopping.wait_count is 'x'" in text


def test_weights_alone_are_tested_but_not_resumed(run: Path) -> None:
    trainer = make_trainer(run, 3)
    trainer.strategy.connect(make_model())
    trainer.save_checkpoint(run / "weights.ckpt", weights_only=True)
    assert "save_weights_only" in refused(lambda: fit(run, 3, ckpt_path=run / "weights.ckpt"))
    make_trainer(run).test(make_model(), loader(), ckpt_path=run / "weights.ckpt", verbose=False)


def test_what_is_for_training_alone_plays_no_part_in_a_test(run: Path) -> None:
    for key in ("callbacks", "loops", "optimizer_states", "lr_schedulers"):
        change(run / "last.ckpt", **{key: ["nonsense"]})
    (tested,) = make_trainer(run).test(make_model(), loader(), ckpt_path=run / "last.ckpt", verbose=False)
    assert tested["test/accuracy"] > 0.5
