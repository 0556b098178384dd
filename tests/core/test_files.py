import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from gel_lightning.core.files import replacing


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


def test_place_that_is_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "results.csv" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"results\.csv"), replacing(tmp_path / "results.csv") as file:
        file.write("new")
    assert names(tmp_path) == ["results.csv"]


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
