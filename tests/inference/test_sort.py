"""Sorting into folders: what is copied where, that nothing is lost or written elsewhere, and the manifest."""

import errno
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import file_size_limit, read_rows, refused
from test_cli import temporary_files

from gel_lightning.inference import sort
from gel_lightning.inference.rows import UNSURE, Row
from gel_lightning.inference.sort import Sorter


def row(path: Path | str, answer: str = "gel", error: str = "") -> Row:
    """What a model says of a picture."""
    if error:
        return Row(str(path), "", "", None, {}, error, "")
    return Row(str(path), answer, "gel", 0.75, {"gel": 0.75, "not_gel": 0.25}, "", "")


def picture(path: Path, content: str = "") -> Path:
    """A file, of which nothing here looks at what it holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or f"content of {path.name}", errors="surrogateescape")
    return path


def sorted_to(target: Path, rows: list[Row], below: Path, **options: Any) -> list[str]:
    """Sorts pictures, and gives what was done with each."""
    with Sorter(target, **options) as sorter:
        done = [sorter.add(one, below) for one in rows]
    assert sorter.counts == Counter(done)
    return done


def files(folder: Path) -> dict[str, str]:
    """The files below a folder and what they hold, without the manifest."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.csv")
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures."""
    for name in ("a.tif", "sub/b.tif", "sub/deep/c.tif", "d.tif"):
        picture(tmp_path / "in" / name)
    return tmp_path / "in"


def rows_of(folder: Path) -> list[Row]:
    """A picture of each answer."""
    return [
        *(row(folder / "a.tif"), row(folder / "sub/b.tif", "not_gel"), row(folder / "sub/deep/c.tif", UNSURE)),
        row(folder / "d.tif", error="=it is empty"),
    ]


@pytest.mark.parametrize("link", [False, True])
def test_each_answer_has_a_folder_that_keeps_the_paths(link: bool, pictures: Path, tmp_path: Path) -> None:
    os.utime(pictures / "a.tif", (1e9, 1e9))
    before = files(pictures)
    done = sorted_to(tmp_path / "new/out", rows_of(pictures), pictures, link=link)
    assert done == [*["linked" if link else "copied"] * 3, "skipped"]
    out = tmp_path / "new/out"
    assert files(out) == {
        "gel/a.tif": "content of a.tif",
        "not_gel/sub/b.tif": "content of b.tif",
        "unsure/sub/deep/c.tif": "content of c.tif",
    }
    assert files(pictures) == before  # never moved
    assert (out / "gel/a.tif").samefile(pictures / "a.tif") == link
    assert (out / "gel/a.tif").stat().st_mtime == 1e9
    assert temporary_files(out) == []
    shared = {"predicted": "gel", "confidence": "0.750000", "error": "", "note": ""}
    none = {"predicted": "", "confidence": "", "error": "'=it is empty", "note": ""}
    assert read_rows(out / "manifest.csv") == [
        {"path": str(pictures / "a.tif"), "sorted_to": "gel/a.tif", "answer": "gel", **shared},
        {"path": str(pictures / "sub/b.tif"), "sorted_to": "not_gel/sub/b.tif", "answer": "not_gel", **shared},
        {"path": str(pictures / "sub/deep/c.tif"), "sorted_to": "unsure/sub/deep/c.tif", "answer": "unsure", **shared},
        {"path": str(pictures / "d.tif"), "sorted_to": "", "answer": "", **none},
    ]


@pytest.mark.parametrize("link", [False, True])
def test_a_second_run_does_nothing(link: bool, pictures: Path, tmp_path: Path) -> None:
    rows, out = [*rows_of(pictures), row(picture(tmp_path / "other/a.tif", "else"))], tmp_path / "out"
    with Sorter(out, link=link) as sorter:
        for one in rows:
            sorter.add(one, Path(one.path).parent)  # all at the top: one name, two contents
    assert sorted(files(out)) == ["gel/a-2.tif", "gel/a.tif", "not_gel/b.tif", "unsure/c.tif"]
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in out.rglob("*.tif")}
    manifest = (out / "manifest.csv").read_bytes()
    with Sorter(out, link=link) as again:
        done = [again.add(one, Path(one.path).parent) for one in rows]
    assert done == ["present", "present", "present", "skipped", "present"]
    assert {path: (path.read_bytes(), path.stat().st_ino) for path in out.rglob("*.tif")} == before
    assert (out / "manifest.csv").read_bytes() == manifest
    assert again.summary() == f"sorted to {out}: 4 already there, 1 left where they are"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    taken = {"gel/scan.tif": "mine", "gel/scan-2.tif": "mine too"}
    sorted_to(out, [], tmp_path / "in")
    for name, content in taken.items():
        picture(out / name, content)
    (out / "gel/scan-3.tif").symlink_to("elsewhere")  # to nothing, which a copy would follow
    (out / "gel/scan-4.tif").mkdir()
    os.mkfifo(out / "gel/scan-5.tif")  # reading it would wait for ever
    source = picture(tmp_path / "in/scan.tif", "new")
    assert sorted_to(out, [row(source)], tmp_path / "in") == ["copied"]
    assert files(out) == taken | {"gel/scan-6.tif": "new"}
    assert not (out / "gel/elsewhere").exists()
    assert sorted_to(out, [row(source)], tmp_path / "in") == ["present"]


def test_equal_content_under_one_name_is_there_once(tmp_path: Path) -> None:
    rows = [row(picture(tmp_path / folder / "x.tif", "same")) for folder in "ab"]
    with Sorter(tmp_path / "out") as sorter:
        assert [sorter.add(one, Path(one.path).parent) for one in rows] == ["copied", "present"]
    places = [one["sorted_to"] for one in read_rows(tmp_path / "out/manifest.csv")]
    assert places == ["gel/x.tif", "gel/x.tif"]


@pytest.mark.parametrize(
    ("path", "below", "place"),
    [
        ("in/sub/x.tif", "in", "sub/x.tif"),
        ("in/sub/x.tif", ".", "in/sub/x.tif"),
        ("in/sub/x.tif", "in/sub/x.tif", "x.tif"),  # the picture itself was given
        ("in/sub/x.tif", "elsewhere", "x.tif"),
        ("in/../in/sub/x.tif", "in/..", "in/sub/x.tif"),
        ("in/sub/../../in/sub/x.tif", "in/sub", "x.tif"),
        ("../work/in/sub/x.tif", ".", "x.tif"),
        ("./in/sub/x.tif", "in", "sub/x.tif"),
    ],
)
def test_no_path_leads_out_of_the_target(
    path: str, below: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "work/in/sub/x.tif")
    monkeypatch.chdir(tmp_path / "work")
    before = files(tmp_path)
    sorted_to(tmp_path / "out", [row(path)], Path(below))
    assert files(tmp_path) == before | {f"out/gel/{place}": "content of x.tif"}


@pytest.mark.parametrize("link_at", ["gel", "gel/sub", "gel/sub/deep"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_links_in_the_target_are_refused(link_at: str, dry_run: bool, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    sorted_to(out, [], tmp_path / "in")
    (out / link_at).parent.mkdir(parents=True, exist_ok=True)
    (out / link_at).symlink_to(outside, target_is_directory=True)
    source = picture(tmp_path / "in/sub/deep/x.tif")
    text = refused(lambda: sorted_to(out, [row(source)], tmp_path / "in", dry_run=dry_run))
    assert f"{out / link_at}: is a link or a file" in text
    assert list(outside.iterdir()) == []
    assert read_rows(out / "manifest.csv") == []
    assert temporary_files(out) == []


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_folder_of_other_files_is_no_target(dry_run: bool, tmp_path: Path) -> None:
    mine = picture(tmp_path / "pictures/gel/mine.tif")
    for out in (tmp_path / "pictures", mine.parent):
        text = refused(partial(Sorter, out, dry_run=dry_run))
        assert text.startswith(f"{out}: holds files that were not sorted there; name a new folder")
    assert files(tmp_path) == {"pictures/gel/mine.tif": files(tmp_path)["pictures/gel/mine.tif"]}
    (tmp_path / "empty").mkdir()
    Sorter(tmp_path / "empty", dry_run=dry_run)


def test_a_folder_of_a_run_that_was_killed_is_known_again(tmp_path: Path) -> None:
    source = picture(tmp_path / "in/x.tif")
    sorter = Sorter(tmp_path / "out")
    sorter.__enter__().add(row(source), tmp_path / "in")  # and no more
    assert sorted_to(tmp_path / "out", [row(source)], tmp_path / "in") == ["present"]


def test_a_manifest_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", picture(tmp_path / "theirs.csv", "my,notes\n")
    manifest = picture(out / "manifest.csv", "my,notes\n1,2\n")
    assert "is no manifest of gel-fit" in refused(lambda: Sorter(out))
    for content in (b"", b"\xff\xfe\0", b"path,sorted_to\n", ",".join(sort.COLUMNS).encode() + b"\na,b\n"):
        manifest.write_bytes(content)
        assert "is no manifest" in refused(lambda: Sorter(out))
        assert manifest.read_bytes() == content
    manifest.unlink()
    manifest.symlink_to(outside)
    assert "is no manifest" in refused(lambda: Sorter(out))
    assert outside.read_text() == "my,notes\n"
    assert "is not a folder" in refused(lambda: Sorter(outside))


@pytest.mark.parametrize(
    "answer", ["..", ".", "a/b", "a\\b", "/etc", "nul\0", "gel.", " gel", "c:", "Manifest.csv", "a\nb"]
)
def test_classes_that_name_no_folder_are_refused(answer: str, tmp_path: Path) -> None:
    source = picture(tmp_path / "in/x.tif")
    before = files(tmp_path)
    assert "--sort_to cannot be used" in refused(lambda: sorted_to(tmp_path / "out", [row(source, answer)], tmp_path))
    assert files(tmp_path) == before


def test_an_answer_that_has_changed_leaves_the_older_copy_and_says_so(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sorted_to(out, [row(pictures / "a.tif", UNSURE), row(pictures / "d.tif")], pictures)
    with Sorter(out) as sorter:
        assert sorter.add(row(pictures / "a.tif"), pictures) == "copied"
    assert sorter.earlier == 1
    assert sorter.summary() == f"sorted to {out}: 1 copied; 1 older under another answer, see manifest.csv"
    assert set(files(out)) == {"gel/a.tif", "gel/d.tif", "unsure/a.tif"}
    told = {one["sorted_to"]: one["note"] for one in read_rows(out / "manifest.csv")}
    # Rows of other pictures stay as they were.
    assert told == {"gel/a.tif": "", "unsure/a.tif": "earlier answer", "gel/d.tif": ""}
    (out / "unsure/a.tif").unlink()
    assert sorted_to(out, [row(pictures / "a.tif")], pictures) == ["present"]
    assert [one["sorted_to"] for one in read_rows(out / "manifest.csv")] == ["gel/a.tif", "gel/d.tif"]


def test_a_dry_run_says_what_a_run_does_and_writes_nothing(pictures: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "out"
    twice = picture(tmp_path / "other/a.tif", "else")
    sorted_to(out, [], pictures)
    picture(out / "not_gel/sub/b.tif", "content of b.tif")
    rows = [*rows_of(pictures), row(f"{pictures}/\x1b[31m.tif", error="no picture")]
    before = files(tmp_path)
    with Sorter(out, dry_run=True, say=said.append) as sorter:
        done = [sorter.add(one, pictures) for one in rows]
        done.append(sorter.add(row(twice), tmp_path / "other"))
    assert files(tmp_path) == before
    assert {path.name for path in out.iterdir()} == {"not_gel", "manifest.csv"}
    assert said == [
        f"would copy {pictures}/a.tif to {out}/gel/a.tif",
        f"already there: {pictures}/sub/b.tif is {out}/not_gel/sub/b.tif",
        f"would copy {pictures}/sub/deep/c.tif to {out}/unsure/sub/deep/c.tif",
        f"would leave {pictures}/d.tif",
        f"would leave {pictures}/\\x1b[31m.tif",
        f"would copy {twice} to {out}/gel/a-2.tif",
    ]
    with Sorter(out) as real:
        assert [*(real.add(one, pictures) for one in rows), real.add(row(twice), tmp_path / "other")] == done
    assert sorter.counts == real.counts
    assert set(files(out)) == {"gel/a-2.tif", "gel/a.tif", "not_gel/sub/b.tif", "unsure/sub/deep/c.tif"}


def test_odd_names_arrive_and_are_harmless_in_the_manifest(tmp_path: Path) -> None:
    names = ["=1+1.tif", "line\nbreak.tif", b"caf\xe9.tif".decode(errors="surrogateescape"), "не гель.tif", "none"]
    rows = [row(picture(tmp_path / "in" / name)) for name in names]
    out = tmp_path / "out"
    assert sorted_to(out, rows, tmp_path / "in") == ["copied"] * len(names)
    assert {path.name for path in (out / "gel").iterdir()} == set(names)
    places = [one["sorted_to"] for one in read_rows(out / "manifest.csv")]
    assert places == ["gel/=1+1.tif", "gel/line\nbreak.tif", "gel/caf\\udce9.tif", "gel/не гель.tif", "gel/none"]
    assert sorted_to(out, rows, tmp_path / "in") == ["present"] * len(names)


def test_a_picture_that_has_gone_is_skipped(pictures: Path, tmp_path: Path) -> None:
    rows = rows_of(pictures)[:2]
    (pictures / "a.tif").unlink()
    assert sorted_to(tmp_path / "out", rows, pictures) == ["skipped", "copied"]
    assert read_rows(tmp_path / "out/manifest.csv")[0]["error"] == "no longer there"


def no_links(*_: Any, **__: Any) -> None:
    """A file system that has no hard links."""
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_where_there_are_no_hard_links_copies_are_made_all_the_same(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    out = tmp_path / "out"
    text = refused(lambda: sorted_to(out, [row(pictures / "a.tif")], pictures, link=True))
    assert "no hard link can be made" in text
    assert "leave out --link" in text
    assert files(out) == {}
    twice = picture(tmp_path / "other/a.tif", "else")
    sorted_to(out, [], pictures)
    with Sorter(out) as sorter:
        assert [sorter.add(row(path), path.parent) for path in (pictures / "a.tif", twice)] == ["copied"] * 2
    assert files(out) == {"gel/a.tif": "content of a.tif", "gel/a-2.tif": "else"}
    assert temporary_files(out) == []


def test_a_name_that_another_process_takes_meanwhile_is_left_to_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def too_late(source: Any, place: Any, **options: Any) -> None:
        if Path(place).name == "a.tif":
            Path(place).write_text("theirs")
        link(source, place, **options)

    monkeypatch.setattr(os, "link", too_late)
    assert sorted_to(tmp_path / "out", [row(pictures / "a.tif")], pictures) == ["copied"]
    assert files(tmp_path / "out") == {"gel/a.tif": "theirs", "gel/a-2.tif": "content of a.tif"}


def test_a_full_disk_leaves_no_half_a_file(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sorted_to(out, [row(pictures / "d.tif")], pictures)
    manifest = (out / "manifest.csv").read_bytes()
    picture(pictures / "large.tif", "x" * 100_000)
    with file_size_limit(50_000), pytest.raises(OSError, match="too large"):
        sorted_to(out, [row(pictures / "large.tif")], pictures)
    assert set(files(out)) == {"gel/d.tif"}
    assert (out / "manifest.csv").read_bytes() == manifest
    assert temporary_files(out) == []
