import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import file_names, some_text

from gel_lightning.comparison.about import read_about, this_machine, write_about


@given(command=some_text, near=st.lists(st.lists(file_names, min_size=2, max_size=3), max_size=2))
@settings(deadline=None, max_examples=50)
def test_what_was_run_is_read_as_it_was_noted(command: str, near: list[list[str]]) -> None:
    about = {
        "commands": ["gel-fit compare", command],
        "class_names": ["ゲル", "no, 'gel'"],
        "drawn": False,
        "pictures": {"train": 1, "val": 2, "test": 3},
        "test_sets": {},
        "groups": [],
        "folds": None,
        "repeats": 1,
        "seed": False,
        "weights": {},
        "near_duplicates": near,
        "epoch": {"monitor": "val/loss", "mode": "min"},
        **this_machine(),
    }
    with TemporaryDirectory() as temporary:
        write_about(Path(temporary), about)
        assert read_about(Path(temporary)) == about


def test_this_machine_says_what_computes_here() -> None:
    machine = this_machine()
    assert torch.__version__.startswith(machine["versions"]["torch"])
    assert machine["versions"].keys() >= {"Python", "gel-lightning", "lightning", "scikit-learn"}
    assert machine["devices"]["cpu"].endswith(f", {os.cpu_count()} cores")
    assert not machine["devices"]["cpu"].startswith(",")
