import errno
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import refused
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from gel_lightning.core.errors import GelError
from gel_lightning.core.files import plain_path, regular_file, replacing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_text_takes_the_place_of_the_old_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "results.csv"
    with replacing(path, newline="") as file:
        file.write("a,µ\r\n")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == "a,µ\r\n".encode()
    with replacing(str(path), newline="") as file:
        file.write("b\n")
        file.flush()
        assert path.read_bytes() == "a,µ\r\n".encode(), "a reader would see half of it"
    assert path.read_bytes() == b"b\n"
    assert names(path.parent) == [path.name]


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    with replacing(tmp_path / "picture.png", "wb") as file:
        file.write(bytes(range(256)))
    assert (tmp_path / "picture.png").read_bytes() == bytes(range(256))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, "old"])
def test_exception_leaves_what_was_there(error: type[BaseException], old: str | None, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    if old is not None:
        path.write_text(old)

    def write() -> None:
        with replacing(path) as file:
            file.write("half of it")
            raise error

    with pytest.raises(error):
        write()
    assert (path.read_text() if path.exists() else None) == old
    assert names(tmp_path) == ([path.name] if old else [])


def make_folder(path: Path) -> None:
    (path / "inside").mkdir(parents=True)


def make_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound, pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # a socket's path may be no longer than 108 bytes
        bound.bind(path.name)


@pytest.mark.parametrize(
    ("make", "word"),
    [(make_folder, "folder"), (os.mkfifo, "pipe"), (make_link_to_device, "device"), (make_socket, "socket")],
)
def test_what_is_no_file_is_refused_and_left_alone(make: Callable[[Path], None], word: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    make(path)
    before = path.lstat()

    def write() -> None:
        with replacing(path) as file:
            file.write("new")

    for action in (write, lambda: regular_file(path)):
        text = refused(action)
        assert str(path) in text
        assert word in text
    assert "--results_file" in refused(lambda: regular_file(path, "--results_file"))
    assert path.lstat() == before
    assert names(tmp_path) == ["results.csv"]


def test_a_name_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        regular_file(tmp_path / ("x" * 300))


@pytest.mark.parametrize("target", ["there.csv", "absent.csv", "sub/there.csv"])
def test_a_symbolic_link_stays_and_its_target_is_replaced(target: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    real = tmp_path / target
    if "there" in target:
        real.write_text("old")
    path = tmp_path / "results.csv"
    path.symlink_to(target)
    with replacing(path) as file:
        file.write("new")
    assert path.is_symlink()
    assert real.read_text() == "new"
    assert not real.is_symlink()
    assert not [found for found in tmp_path.rglob("*") if found.name.endswith(".tmp")]


def test_only_old_temporary_files_of_the_same_name_are_removed(tmp_path: Path) -> None:
    day = 24 * 60 * 60
    ages = {
        ".results.csv.abc_1234.tmp": (2 * day, False),
        ".results.csv.7-0.tmp": (2 * day, False),
        ".results.csv.new_1234.tmp": (day / 2, True),
        ".predictions.csv.abc_1234.tmp": (2 * day, True),
        ".results_csv.abc_1234.tmp": (2 * day, True),
        ".results.csv.lock": (2 * day, True),
        "results.csv.abc.tmp": (2 * day, True),
    }
    for name, (age, _) in ages.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    (tmp_path / ".results.csv.folder.tmp").mkdir()
    (tmp_path / ".results.csv.link.tmp").symlink_to("results.csv.abc.tmp")
    with replacing(tmp_path / "results.csv") as file:
        file.write("new")
    kept = [name for name, (_, stays) in ages.items() if stays]
    assert names(tmp_path) == sorted([*kept, "results.csv", ".results.csv.folder.tmp", ".results.csv.link.tmp"])


def test_a_name_that_is_not_utf_8_is_written_as_an_escape(tmp_path: Path) -> None:
    with replacing(tmp_path / os.fsdecode(b"\xff.csv"), newline="") as file:
        file.write(os.fsdecode(b"caf\xc3\xa9 \xff.png\n"))
    assert (tmp_path / os.fsdecode(b"\xff.csv")).read_bytes() == "café \\udcff.png\n".encode()


@pytest.mark.parametrize(
    "path", ["data::v2", "a/b::c/d", "s3://bucket/x", "memory://x", "file:///tmp/x", "data:x", "::"]
)
def test_what_lightning_takes_as_a_url_is_refused(path: str) -> None:
    text = refused(lambda: plain_path(path, "--name"))
    assert path in text
    assert "--name" in text


def test_a_folder_that_tensorboard_cannot_write_to_is_refused() -> None:
    assert "not UTF-8" in refused(lambda: plain_path(os.fsdecode(b"runs/\xff"), "--name"))


def test_a_working_folder_that_lightning_takes_as_a_url_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data::v2").mkdir()
    monkeypatch.chdir(tmp_path / "data::v2")
    assert "data::v2" in refused(lambda: plain_path("runs", "--trainer.default_root_dir"))
    assert plain_path(tmp_path, "--trainer.default_root_dir") == tmp_path


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_a_path_that_is_not_refused_is_one_to_fsspec(path: str) -> None:
    try:
        absolute = plain_path(path, "--name")
    except GelError:
        return
    for given_path in (path, str(absolute)):
        system, seen = url_to_fs(given_path)
        assert isinstance(system, LocalFileSystem)
        assert Path(seen) == Path(os.path.normpath(absolute)) or ".." in path or path.startswith("~")


@pytest.fixture
def little_space() -> Iterator[None]:
    """Lets no file grow beyond 5 kB: to what writes one, that is as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# 100 kB go to the disk while the block runs, 6 kB only when the file is closed.
@pytest.mark.parametrize("size", [100_000, 6_000])
@pytest.mark.usefixtures("little_space")
def test_disk_that_is_full_leaves_the_old_file(size: int, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("old")
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)), replacing(path) as file:
        file.write("x" * size)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["results.csv"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_file_is_as_readable_as_any_other_new_one(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        (tmp_path / "plain").touch()
        with replacing(tmp_path / "replaced") as file:
            file.write("text")
        assert os.umask(mask) == mask, "the mask of the process was changed"
    finally:
        os.umask(before)
    assert (tmp_path / "replaced").stat().st_mode == (tmp_path / "plain").stat().st_mode
