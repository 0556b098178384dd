from pathlib import Path

import pytest
from conftest import refused

from gel_lightning.comparison.folder import check_places, locked


def test_a_comparison_is_worked_on_by_one_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path):
        text = refused(lambda: locked(tmp_path).__enter__())
    assert text == f"{tmp_path}: another gel-fit compare is running there; wait until it has ended"
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("name", ["about.json", "report.html", "figures", "thumbnails"])
def test_a_place_that_is_taken_is_named_before_the_work(name: str, tmp_path: Path) -> None:
    check_places(tmp_path)
    (tmp_path / name).touch() if "." not in name else (tmp_path / name).mkdir()
    kind = "a file" if "." in name else "a folder"
    assert refused(lambda: check_places(tmp_path)) == f"{tmp_path / name}: not {kind}; move it away"
