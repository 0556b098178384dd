import threading
import time

import pytest

from gel_lightning.data import reading
from gel_lightning.data.reading import in_threads


def test_results_come_in_the_order_of_the_items() -> None:
    def slow(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        return number**2

    assert list(in_threads(slow, range(20))) == [number**2 for number in range(20)]
    assert list(in_threads(slow, [])) == []


def test_some_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    both = threading.Barrier(2, timeout=20)
    assert list(in_threads(lambda _: both.wait() >= 0, range(6))) == [True] * 6


def test_an_error_is_raised_where_the_results_are_taken() -> None:
    def failing(number: int) -> int:
        if number == 3:
            raise ValueError("the fourth")
        return number

    results = in_threads(failing, range(20))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(results)


@pytest.mark.parametrize(
    ("items", "terminal", "shown"), [(4, True, True), (3, True, False), (4, False, False)], ids=str
)
def test_a_bar_is_shown_over_many_on_a_terminal(
    items: int, terminal: bool, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "MANY_PICTURES", 3)
    monkeypatch.setattr("rich.console.Console.is_terminal", terminal)
    list(in_threads(str, range(items)))
    output = capsys.readouterr()
    assert output.out == ""
    assert ("Reading pictures" in output.err) == shown
    assert shown or output.err == ""
