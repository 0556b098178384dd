import pytest

from gel_lightning.core.progress import RANKS, picture_progress


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes rich take stderr for a terminal, of one process."""
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setenv("COLUMNS", "80")
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("asked", [True, False])
def test_progress_says_what_is_done_and_how_far(asked: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with picture_progress("computing features", 50, asked) as advance:
        advance(20)
        advance(30)
    output = capsys.readouterr().err
    assert ("computing features" in output) == asked
    assert ("50/50" in output) == asked
    assert all(len(line) < 200 for line in output.splitlines())


@pytest.mark.parametrize(("rank", "shown"), [("0", True), ("3", False)])
@pytest.mark.parametrize("name", RANKS)
def test_of_several_processes_the_first_shows_it(
    name: str, rank: str, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, rank)
    with picture_progress("reading", 1) as advance:
        advance(1)
    assert ("1/1" in capsys.readouterr().err) == shown
