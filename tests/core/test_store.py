import errno
import multiprocessing
import os
import resource
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import file_size_limit, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gel_lightning.core import store as module
from gel_lightning.core.store import Store, clear_stores, list_stores

KEY = {"kind": "numbers"}
LENGTH = 3


def digest(number: int) -> bytes:
    """32 bytes of which some are zero, at the end too."""
    return number.to_bytes(4, "big") + bytes(24) + (number % 3).to_bytes(4, "little")


def make(root: Path, key: dict[str, Any] = KEY, dtype: Any = np.float32) -> Store:
    return Store(root, key, dtype, LENGTH)


def fill(store: Store, rows: dict[int, NDArray[Any]]) -> None:
    with store.adding() as add:
        for number, row in rows.items():
            add([digest(number)], row[None])


def numbers(count: int, seed: int = 0) -> dict[int, NDArray[Any]]:
    return dict(enumerate(np.random.default_rng(seed).normal(size=(count, LENGTH)).astype(np.float32)))


def assert_holds(store: Store, rows: dict[int, NDArray[Any]], asked: list[int] | None = None) -> None:
    """What is found is what was stored, and all else is missing."""
    wanted = asked or list(rows)
    found = store.find([digest(number) for number in wanted])
    assert found.missing.tolist() == [number not in rows for number in wanted]
    present = [i for i, number in enumerate(wanted) if number in rows]
    expected = [rows[wanted[i]] for i in present]
    np.testing.assert_array_equal(found.take(present), np.array(expected).reshape(-1, LENGTH))


# What is stored is found


def test_rows_are_found_in_any_order_by_any_process(tmp_path: Path) -> None:
    rows = numbers(50)
    fill(make(tmp_path), {number: rows[number] for number in range(0, 50, 2)})
    fill(make(tmp_path), {number: rows[number] for number in range(1, 40, 2)})
    held = {number: row for number, row in rows.items() if number < 40 or number % 2 == 0}
    assert_holds(make(tmp_path), held, [7, 49, 3, 3, 48, 41, 0, 7])
    assert_holds(make(tmp_path), held, list(range(60)))
    assert make(tmp_path).find([]).take([]).shape == (0, LENGTH)
    assert make(tmp_path / "absent").find([digest(1)]).missing.tolist() == [True]


@pytest.mark.parametrize("moment", ["mkstemp", "fdopen"])
def test_rows_are_written_though_all_is_cleared_meanwhile(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rows = make(tmp_path), numbers(5)
    module = {"mkstemp": tempfile, "fdopen": os}[moment]
    usual, calls = getattr(module, moment), []

    def cleared_first(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:  # of the key, and then of the rows
            clear_stores(tmp_path)
            assert not store.folder.exists()
        return usual(*args, **options)

    monkeypatch.setattr(module, moment, cleared_first)
    fill(store, rows)
    assert_holds(make(tmp_path), rows)
    (contents,) = list_stores(tmp_path)
    assert (contents.key, contents.rows) == (KEY, 5)


def test_another_key_is_another_store(tmp_path: Path) -> None:
    fill(make(tmp_path, {"a": 1, "b": [1, "2"]}), numbers(2))
    assert_holds(make(tmp_path, {"b": [1, "2"], "a": 1}), numbers(2))
    for key in ({"a": 2, "b": [1, "2"]}, {"a": 1}, {"a": 1, "b": [1, 2]}, {}):
        assert make(tmp_path, key).find([digest(0)]).missing.all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.uint64])
def test_numbers_keep_every_bit(dtype: Any, tmp_path: Path) -> None:
    if np.issubdtype(dtype, np.floating):
        rows = {0: np.array([np.nan, np.inf, -0.0], dtype), 1: np.full(LENGTH, np.pi, dtype)}
    else:
        top = np.iinfo(dtype).max
        rows = {0: np.array([top, top - 1, top // 2 + 1], dtype), 1: np.array([0, 1, top // 2], dtype)}
    store = make(tmp_path, dtype=dtype)
    with store.adding() as add:
        for number, row in rows.items():
            add([digest(number)], np.array([row.tolist()]))  # as NumPy makes an array of Python's numbers
    taken = make(tmp_path, dtype=dtype).find([digest(0), digest(1)]).take([0, 1])
    assert taken.dtype == dtype
    assert taken.tobytes() == np.stack([rows[0], rows[1]]).tobytes()


def test_rows_cannot_hold_code(tmp_path: Path) -> None:
    fill(make(tmp_path), numbers(5))
    (path,) = tmp_path.glob("*/*.npy")
    assert len(np.load(path, allow_pickle=False)) == 5
    np.save(path, np.array([{"a": 1}, None]), allow_pickle=True)  # which would be loaded by unpickling
    assert make(tmp_path).find([digest(0)]).missing.all()


def test_time_of_computing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0, 1000, 4.0))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    fill(make(tmp_path), numbers(4))
    one, three, all_four = (
        make(tmp_path).find([digest(number) for number in asked]).seconds for asked in ([0, 9], [1, 2, 3], range(4))
    )
    assert 0 < one < three < all_four == pytest.approx(one + three)


def test_rows_are_written_down_while_others_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At an interval that grows with the whole: many files would be too many to keep open."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    files = []
    with make(tmp_path).adding() as add:
        for number in range(1000):
            now[0] += 4.0
            add([digest(number)], np.ones((1, LENGTH)))
            files.append(len(list(tmp_path.glob("*/*.npy"))))
            if number % 50 == 49:
                kept = make(tmp_path).find([digest(i) for i in range(number + 1)])
                assert kept.missing.sum() <= 0.12 * number
    assert files[3] == 1
    assert files[-1] < 60

    # And whenever there are many bytes of them.
    monkeypatch.setattr(module, "FLUSH_BYTES", 100)
    with make(tmp_path / "other").adding() as add:
        for number in range(40):
            add([digest(number)], np.ones((1, LENGTH)))
    assert len(list(tmp_path.glob("other/*/*.npy"))) == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_computed_before_an_interruption_is_kept(error: type[BaseException], tmp_path: Path) -> None:
    def interrupted() -> None:
        with make(tmp_path).adding() as add:
            add([digest(0)], numbers(1)[0][None])
            raise error

    with pytest.raises(error):
        interrupted()
    assert_holds(make(tmp_path), numbers(1), [0, 1])


def add_many(root: Path, seed: int, start: Any) -> None:
    start.wait()
    for part in range(20):
        rows = numbers(100)
        with make(root).adding() as add:
            for number in np.random.default_rng(seed + part).permutation(100)[:30].tolist():
                add([digest(number)], rows[number][None])
        found = make(root).find([digest(number) for number in range(100)])
        present = np.flatnonzero(~found.missing)
        np.testing.assert_array_equal(found.take(present.tolist()), np.array([rows[i] for i in present]))


def test_processes_add_and_read_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    processes = [context.Process(target=add_many, args=(tmp_path, seed * 100, start)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert_holds(make(tmp_path), numbers(100))


# A store that is damaged


@st.composite
def damages(draw: st.DrawFn) -> tuple[int, int, int]:
    """Which file, the place in it as a share of 1000, and what is done: 0 cuts it there, else bits are flipped."""
    place = draw(st.one_of(st.integers(0, 999), st.integers(0, 300)))
    return draw(st.integers(0, 9)), place, draw(st.integers(0, 255))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    damage=st.lists(damages(), min_size=1, max_size=2),
    of_header=st.booleans(),
)
def test_damage_is_found_out(
    tmp_path: Path, parts: list[int], seed: int, damage: list[tuple[int, int, int]], of_header: bool
) -> None:
    shutil.rmtree(tmp_path)
    rows = numbers(sum(parts), seed)
    left = iter(rows.items())
    for count in parts:
        fill(make(tmp_path), dict(next(left) for _ in range(count)))
    paths = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for file, place, flip in damage:
        path = paths[file % len(paths)]
        content = bytearray(path.read_bytes())
        if content:
            at = place % len(content) if of_header else place * len(content) // 1000
            if flip:
                content[at] ^= flip
            path.write_bytes(content if flip else content[:at])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's about a header of Python 2
        found = make(tmp_path).find([digest(number) for number in rows])
        present = np.flatnonzero(~found.missing).tolist()
        np.testing.assert_array_equal(found.take(present), np.array([rows[i] for i in present]).reshape(-1, LENGTH))
        # All but what lay in a damaged file is there still.
        assert len(present) >= len(rows) - sum(sorted(parts)[-len(damage) :])
        list_stores(tmp_path)

        fill(make(tmp_path), {number: rows[number] for number in np.flatnonzero(found.missing).tolist()})
        assert_holds(make(tmp_path), rows)
        assert clear_stores(tmp_path) > 0
    assert not list(tmp_path.iterdir())


def test_a_file_of_rows_that_are_something_else_is_left_alone(tmp_path: Path) -> None:
    store = make(tmp_path)
    fill(store, numbers(2))
    for number, array in enumerate((np.zeros(3), np.zeros((), store.dtype), np.zeros(0, store.dtype))):
        np.save(store.folder / f"{number:032}.npy", array)
    np.save(store.folder / f"{9:032}.npy", np.zeros((2, 2), store.dtype))
    (store.folder / f"{8:032}.npy").mkdir()
    assert_holds(store, numbers(2), [0, 1, 2])


def test_a_full_disk_is_an_error_that_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    fill(make(tmp_path), numbers(3))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for limit in (100, 300, 3000, 20_000):
        with file_size_limit(limit):
            text = refused(lambda: fill(make(tmp_path), numbers(2000)))
        assert "too large" in text
        assert str(tmp_path) in text
        assert "--data.cache_dir" in text
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    fill(make(tmp_path), numbers(2000))
    assert_holds(make(tmp_path), numbers(2000))


# Listing and clearing


def test_stores_are_listed_the_largest_first(tmp_path: Path) -> None:
    assert list_stores(tmp_path / "absent") == []
    fill(make(tmp_path, {"kind": "small"}), numbers(2))
    fill(make(tmp_path, {"kind": "large"}), numbers(100))
    fill(make(tmp_path, {"kind": "large"}), numbers(7, seed=1))
    large, small = list_stores(tmp_path)
    assert (large.key, large.rows, small.key, small.rows) == ({"kind": "large"}, 107, {"kind": "small"}, 2)
    assert large.size == sum(path.stat().st_size for path in large.folder.iterdir())
    for content in (b"", b"[]", b"\xff", b'{"kind": "features"}'):
        (small.folder / "key.json").write_bytes(content)
        assert [contents.key for contents in list_stores(tmp_path)] == [{"kind": "large"}, {}]


def test_clearing_removes_nothing_else(tmp_path: Path) -> None:
    fill(make(tmp_path), numbers(20))
    fill(make(tmp_path, {"kind": "other"}), numbers(20))
    folder = make(tmp_path).folder
    (folder / f".{'0' * 32}.npy.abc.tmp").write_bytes(b"left by a killed process")
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    kept = [
        tmp_path / "notes.txt",
        tmp_path / "pictures" / "key.json",
        tmp_path / ("a" * 64) / "layer.tar",  # named as a store is
        tmp_path / ("b" * 64),
        folder / "thesis.docx",
        folder / "results.npy",
    ]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
    assert clear_stores(tmp_path) == size
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert clear_stores(tmp_path) == 0
    assert clear_stores(tmp_path / "absent") == 0
    fill(make(tmp_path), numbers(20))
    assert_holds(make(tmp_path), numbers(20))


def test_rows_that_were_found_outlive_the_clearing(tmp_path: Path) -> None:
    fill(make(tmp_path), numbers(20))
    found = make(tmp_path).find([digest(number) for number in range(20)])
    clear_stores(tmp_path)
    np.testing.assert_array_equal(found.take(range(20)), np.array(list(numbers(20).values())))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        fill(make(tmp_path), numbers(1))
    tmp_path.chmod(0o700)
    assert make(tmp_path).find([digest(0)]).missing.all()


# Many files, and files that are no files


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def open_file_limit(number: int) -> Iterator[None]:
    """Lets this process have no more than so many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_small_files_are_merged_when_rows_are_added(tmp_path: Path) -> None:
    rows = numbers(100)
    for number, row in rows.items():
        fill(make(tmp_path), {number: row})
        assert len(list(make(tmp_path).folder.glob("*.npy"))) <= module.FEW_FILES
    assert_holds(make(tmp_path), rows)
    (contents,) = list_stores(tmp_path)
    assert contents.rows == 100


def test_merging_keeps_each_row_once_and_no_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, rows = make(tmp_path), numbers(40)
    monkeypatch.setattr(module, "FEW_FILES", 1000)
    for number in [*range(20), *range(10)]:
        fill(store, {number: rows[number]})
    seconds = store.find([digest(number) for number in range(20)]).seconds
    damaged = next(path for path in store.folder.glob("*.npy") if digest(15) in path.read_bytes())
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(module, "FEW_FILES", 16)
    fill(store, {30: rows[30]})
    (path,) = store.folder.glob("*.npy")
    assert len(np.load(path)) == 20
    held = {number: row for number, row in rows.items() if (number < 20 and number != 15) or number == 30}
    assert_holds(store, held, list(range(40)))
    assert 0 < store.find([digest(number) for number in held]).seconds <= seconds + 1


def test_large_files_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_BYTES", 2000)
    store, rows = make(tmp_path), numbers(1000)
    for first in range(0, 1000, 50):
        fill(store, {number: rows[number] for number in range(first, first + 50)})
    large = set(store.folder.glob("*.npy"))
    assert len(large) == 20
    fill(store, {5000: rows[0]})
    assert len(set(store.folder.glob("*.npy")) - large) == 1
    assert_holds(store, rows | {5000: rows[0]})


def test_rows_that_were_found_outlive_the_merging(tmp_path: Path) -> None:
    rows = numbers(3000)  # more than SMALL_BYTES
    fill(make(tmp_path), rows)
    found = make(tmp_path).find([digest(number) for number in rows])
    for number in range(20):
        fill(make(tmp_path), {5000 + number: rows[number]})
    assert len(list(make(tmp_path).folder.glob("*.npy"))) < 20
    np.testing.assert_array_equal(found.take(range(3000)), np.array(list(rows.values())))
    assert_holds(make(tmp_path), rows)


def test_rows_are_found_though_another_process_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after the files were listed, the first of them is merged with others and removed."""
    store, rows = make(tmp_path), numbers(30)
    monkeypatch.setattr(module, "FEW_FILES", 1000)
    for number, row in rows.items():
        fill(store, {number: row})
    monkeypatch.setattr(module, "FEW_FILES", 16)
    usual, opened = module.opened_records, []

    def merged_first(path: Path, *args: Any) -> Any:
        opened.append(path)
        if len(opened) == 3:
            monkeypatch.setattr(module, "opened_records", usual)
            make(tmp_path)._merge()
        return usual(path, *args)

    monkeypatch.setattr(module, "opened_records", merged_first)
    assert_holds(store, rows)
    assert len(list(store.folder.glob("*.npy"))) == 1


@pytest.mark.parametrize("size", [1, 10_000], ids=["small files", "large files"])
def test_more_files_than_may_be_open(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, KEY, np.float64, size)
    monkeypatch.setattr(module, "FEW_FILES", 1000)
    for number in range(60):
        with store.adding() as add:
            add([digest(number)], np.full((1, size), number))
    wanted = [digest(number) for number in range(60)]
    with open_file_limit(50):
        if size == 1:
            np.testing.assert_array_equal(store.find(wanted).take(range(60))[:, 0], np.arange(60))
        else:
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                store.find(wanted)
            monkeypatch.setattr(module, "FEW_FILES", 16)
            with store.adding() as add:
                add([digest(60)], np.full((1, size), 60))
            np.testing.assert_array_equal(store.find(wanted).take(range(60))[:, 0], np.arange(60))


def test_no_file_stays_open(tmp_path: Path) -> None:
    before = open_files()
    fill(make(tmp_path), numbers(3000))
    found = make(tmp_path).find([digest(number) for number in range(3000)])
    assert open_files() == before + 1
    del found
    assert open_files() == before


def test_a_file_cut_short_while_in_use_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    fill(make(tmp_path), numbers(3000))
    found = make(tmp_path).find([digest(number) for number in range(3000)])
    (path,) = tmp_path.glob("*/*.npy")
    os.truncate(path, 1000)
    assert found.take([0]).shape == (1, LENGTH)
    assert "run again" in refused(lambda: found.take([2999]))
    assert make(tmp_path).find([digest(number) for number in range(3000)]).missing.sum() > 2900


@pytest.mark.parametrize("name", [f"{'0' * 32}.npy", "key.json", f".{'0' * 32}.npy.abc.tmp"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "dangling link"])
def test_what_is_no_file_is_left_alone(name: str, kind: str, tmp_path: Path) -> None:
    store = make(tmp_path)
    fill(store, numbers(3))
    place = store.folder / name
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
        (place / "mine").touch()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound, pytest.MonkeyPatch.context() as patch:
            patch.chdir(store.folder)  # a socket's path may be no longer than 108 bytes
            bound.bind(name)
    else:
        place.symlink_to("nowhere")
    assert_holds(make(tmp_path), numbers(3))
    assert list_stores(tmp_path)[0].rows == 3
    assert clear_stores(tmp_path) > 0
    assert [path.name for path in store.folder.iterdir()] == [name]
    if name != "key.json" or kind == "dangling link":
        fill(make(tmp_path), numbers(3))
        assert_holds(make(tmp_path), numbers(3))


def test_what_a_killed_process_left_is_removed_a_day_later(tmp_path: Path) -> None:
    store, rows = make(tmp_path), numbers(40)
    fill(store, {0: rows[0]})
    old, new, mine = (
        store.folder / f".{'0' * 32}.npy.abcdefgh.tmp",
        store.folder / f".{'1' * 32}.npy.abcdefgh.tmp",
        store.folder / ".thesis.tmp",
    )
    for path in (old, new, mine):
        path.write_bytes(b"half")
    for path in (old, mine):
        os.utime(path, (0, 0))
    fill(store, {1: rows[1]})
    assert [path.exists() for path in (old, new, mine)] == [False, True, True]
