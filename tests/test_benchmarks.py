"""The benchmarks: README claims what they demand, and they fail where it is not reached."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def run() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        import run

        yield run


def test_readme_claims_what_is_demanded(run: ModuleType) -> None:
    import targets

    assert targets.claimed(targets.README.read_text(encoding="utf-8")) == targets.table(), "run benchmarks/targets.py"


def test_bounds_are_the_least_or_the_most(run: ModuleType) -> None:
    from targets import Target

    least, most = Target("a", {"x": 1.5, "y": 2}), Target("b", {"": 45}, "s", most=True)
    assert (least.demanded(["x", "y"]), most.demanded([""])) == ("at least 1.5 and 2 times as fast", "at most 45 s")
    assert [least.reached("x", value) for value in (1.4, 1.5, 1.6)] == [False, True, True]
    assert [most.reached("", value) for value in (44, 45, 46)] == [True, True, False]


@pytest.mark.parametrize("seconds", [0.1, 0.3])
def test_a_figure_is_printed_when_it_is_measured_and_what_is_not_reached_is_named(
    seconds: float, run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from measuring import figure

    printed = []

    def measured(_: Path) -> Iterator[object]:
        yield figure("help", "", 0.5, "0.50 s")
        printed.append(capsys.readouterr().err)
        yield figure("version", "", seconds, f"{seconds} s")

    monkeypatch.setattr(run, "BENCHMARKS", {"one": measured})
    monkeypatch.setattr(run, "draw_data_set", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    status = run.main()
    ended = capsys.readouterr()
    assert "gel-fit --help" in printed[0]
    assert "0.50 s" in printed[0]
    assert "gel-fit --version" not in printed[0]
    assert "gel-fit --version" in ended.out
    reached = seconds < 0.2
    assert status == (0 if reached else 1)
    assert ("not reached: `gel-fit --version`" in ended.err) != reached
    assert "not reached: `gel-fit --help`" not in ended.err
