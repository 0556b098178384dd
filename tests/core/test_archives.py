import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from gel_lightning.core import archives
from gel_lightning.core.archives import DamagedFileError, UnsafeFileError, all_finite, load_plain


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.pt"
    torch.save({"a": torch.arange(3000.0), "b": [1, "two"]}, path)
    return path


def test_plain_data_are_loaded(whole: Path) -> None:
    loaded = load_plain(whole)
    assert loaded["a"].equal(torch.arange(3000.0))
    assert loaded["b"] == [1, "two"]


def test_files_of_the_older_format_are_loaded(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_plain(tmp_path / "old.pth")["a"].tolist() == [1, 1]


def test_no_single_bit_of_the_content_can_be_another(whole: Path) -> None:
    content, places = whole.read_bytes(), []
    with zipfile.ZipFile(whole) as archive:
        for entry in archive.infolist():
            start = content.index(archive.read(entry), entry.header_offset + 30)
            places += [start, start + entry.file_size // 2, start + entry.file_size - 1]
    for place in places:
        whole.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(DamagedFileError, match="CRC"):
            load_plain(whole)


def test_zeros_and_cuts_are_damage(whole: Path) -> None:
    content = whole.read_bytes()
    for damaged in (content[:4096] + bytes(4096) + content[8192:], content[:-1], content[:5000], b"", b"PK\x03\x04"):
        whole.write_bytes(damaged)
        with pytest.raises(DamagedFileError):
            load_plain(whole)


def test_an_archive_that_swells_when_read_is_refused(whole: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert torch.load(tmp_path / "bomb.pt", weights_only=True)["b"] == [1, "two"]  # torch reads it
    with pytest.raises(DamagedFileError, match="larger than the file"):
        load_plain(tmp_path / "bomb.pt")


class Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(zipped: bool, tmp_path: Path) -> None:
    torch.save([Touches(tmp_path / "executed")], tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFileError):
        load_plain(tmp_path / "x.pt")
    assert not (tmp_path / "executed").exists()


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match=r"not a regular file|it is a folder"):
            load_plain(path)


def test_a_file_beyond_the_bound_is_not_read(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    with pytest.raises(DamagedFileError, match="larger than"):
        load_plain(whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_that_are_not_finite_are_found(dtype: torch.dtype) -> None:
    tensors = [torch.ones(5, dtype=dtype), torch.empty(0, dtype=dtype), torch.tensor(3)]
    assert all_finite(tensors)
    for value in (float("nan"), float("inf"), float("-inf")):
        bad = torch.ones(5, dtype=dtype)
        bad[3] = value
        assert not all_finite([*tensors, bad])
