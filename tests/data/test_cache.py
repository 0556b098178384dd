from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_data_set, save_picture
from PIL import Image

from gel_lightning.data.cache import THUMBNAIL, PictureCache
from gel_lightning.data.duplicates import hash_pictures
from gel_lightning.data.images import PictureError, picture_digest, read_picture


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Twelve pictures, one of them twice, and a black one, whose hash is a small number."""
    folder = save_data_set(tmp_path / "pictures", 6)
    save_picture(folder / "again.png", 0, striped=True)
    Image.new("L", (40, 36)).save(folder / "black.png")
    Image.new("L", (40, 36), 200).save(folder / "grey.png")
    return sorted(folder.rglob("*.png"))


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr("gel_lightning.data.images._opened", fail)


def test_hashes_are_those_of_the_pictures(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = hash_pictures(paths)
    assert len({hash_[0] >= 2**63 for hash_ in expected}) == 2, "NumPy could make floats of no pair of them"
    assert PictureCache(tmp_path / "cache").hashes(paths) == expected
    forbid_decoding(monkeypatch)
    assert PictureCache(tmp_path / "cache").hashes(paths[::-1] + paths) == expected[::-1] + expected
    with pytest.raises(AssertionError, match="decoded"):
        PictureCache(tmp_path / "other").hashes(paths)
    assert PictureCache(tmp_path / "cache").hashes([]) == []


@pytest.mark.parametrize("colour", [False, True])
def test_thumbnails_are_small_pictures(
    colour: bool, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (70, 50), "teal").save(paths[0])
    small = [np.asarray(read_picture(path, colour).resize((THUMBNAIL, THUMBNAIL))) for path in paths]
    expected = torch.from_numpy(np.stack(small) / np.float32(255)).reshape(-1, THUMBNAIL, THUMBNAIL, 3 if colour else 1)
    cache = PictureCache(tmp_path / "cache")
    cache.thumbnails(paths, not colour)  # others, of the same files
    for _ in range(2):
        torch.testing.assert_close(cache.thumbnails(paths, colour), expected.permute(0, 3, 1, 2))
        forbid_decoding(monkeypatch)
        cache = PictureCache(tmp_path / "cache")


def test_pictures_are_known_by_their_content(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PictureCache(tmp_path / "cache")
    before = dict(zip(paths, cache.hashes(paths), strict=True))
    moved = paths[0].rename(tmp_path / "moved.tif")
    save_picture(paths[0], 77, striped=False)
    (changed,) = PictureCache(tmp_path / "cache").hashes(paths[:1])
    assert changed == hash_pictures(paths[:1])[0] != before[paths[0]]
    forbid_decoding(monkeypatch)
    assert PictureCache(tmp_path / "cache").hashes([moved]) == [before[paths[0]]]


def test_another_way_of_decoding_is_computed_anew(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PictureCache(tmp_path / "cache").hashes(paths)
    monkeypatch.setattr("gel_lightning.data.cache.DECODING", "2, Pillow 99")
    forbid_decoding(monkeypatch)
    with pytest.raises(AssertionError, match="decoded"):
        PictureCache(tmp_path / "cache").hashes(paths)


def test_what_cannot_be_read_is_said_each_time(paths: list[Path], tmp_path: Path) -> None:
    paths[1].write_bytes(b"no picture")
    paths[3].unlink()
    paths[5].write_bytes(b"")
    for _ in range(2):
        cache = PictureCache(tmp_path / "cache")
        hashes = cache.hashes(paths)
        assert [str(found) for found in hashes] == [str(found) for found in hash_pictures(paths)]
        assert [i for i, found in enumerate(hashes) if isinstance(found, PictureError)] == [1, 3, 5]
        for i in (1, 3, 5):
            with pytest.raises(PictureError, match=paths[i].name):
                cache.thumbnails([paths[0], paths[i]])


def test_digests_stay_those_of_what_was_decoded(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that is replaced between its digest and its decoding is never taken for the one before."""
    cache = PictureCache(tmp_path / "cache")
    before = cache.digests(paths)
    assert before == [picture_digest(path) for path in paths]
    old = paths[-1].read_bytes()
    save_picture(paths[-1], 77, striped=False)
    assert cache.digests(paths) == before
    assert cache.hashes(paths) == hash_pictures(paths)
    assert cache.digests(paths) == [picture_digest(path) for path in paths]

    paths[-1].write_bytes(old)
    forbid_decoding(monkeypatch)
    with pytest.raises(AssertionError, match="decoded"):
        PictureCache(tmp_path / "cache").hashes(paths)


def test_the_views_of_a_picture_are_made_of_one_decoding(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an earlier run has kept the hashes, so that nothing was decoded for them."""
    PictureCache(tmp_path / "cache").hashes(paths)
    cache = PictureCache(tmp_path / "cache")
    cache.hashes(paths, 32)
    first = [cache.values(path, 32) for path in paths]
    forbid_decoding(monkeypatch)
    for path, (values, digest) in zip(paths, first, strict=True):
        again, same = cache.values(path, 32)
        assert np.array_equal(again, values)
        assert same == digest


def test_rows_that_vanish_meanwhile_do_no_harm(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another process clears the stores, or the disk keeps nothing."""
    monkeypatch.setattr("gel_lightning.data.cache.Store._write", lambda *_: None)
    assert PictureCache(tmp_path / "cache").hashes(paths) == hash_pictures(paths)
