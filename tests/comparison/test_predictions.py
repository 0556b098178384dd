from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from conftest import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import file_names, outcomes_equal, some_text

from gel_lightning.comparison.folder import PREDICTIONS
from gel_lightning.comparison.predictions import Outcome, read_predictions, write_predictions


@given(
    class_names=st.lists(some_text, min_size=2, max_size=4, unique=True),
    paths=st.lists(st.lists(file_names | some_text, min_size=1, max_size=4), max_size=4),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=150)
def test_predictions_of_files_and_classes_of_any_name_are_read_back(
    class_names: list[str], paths: list[list[str]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    written = []
    for place, some in enumerate(paths):
        probabilities = rng.dirichlet(np.full(len(class_names), 0.1), len(some))  # many of them are next to 0 or 1
        labels = rng.integers(0, len(class_names), len(some))
        written.append(Outcome(place // 2, place % 2, tuple(some), labels, probabilities))
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "new" / PREDICTIONS
        write_predictions(path, class_names, written)
        read = read_predictions(path, class_names)
        assert len(read) == len(written)
        for one, other in zip(read, written, strict=True):
            assert outcomes_equal(one, other)
            np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-6)
        others = [*class_names[1:], class_names[0]]
        assert "not the predictions of these classes" in refused(lambda: read_predictions(path, others))


def test_predictions_of_single_precision_are_read_back_to_their_last_digit(tmp_path: Path) -> None:
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 50).astype(np.float32)
    outcome = Outcome(0, 0, tuple(map(str, range(50))), np.zeros(50, int), probabilities.astype(float))
    write_predictions(tmp_path / PREDICTIONS, "abc", [outcome])
    (read,) = read_predictions(tmp_path / PREDICTIONS, "abc")
    np.testing.assert_allclose(read.probabilities, probabilities, rtol=5e-7)
