import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import refused

from gel_lightning.detector.pictures import Source, gather, main, read_sources

HERE, THERE = b"a picture that a folder has", b"a picture of the network"


def source(path: str, content: bytes, reduced: bytes = b"") -> Source:
    digest, small = (hashlib.sha256(some).hexdigest() for some in (content, reduced))
    return Source(path, "lab", "uv", "lab/repo", "c0", f"im ages/{path}", digest, small if reduced else "", "MIT", "")


SOURCES = [source("gel/a.png", HERE), source("not_gel/b.png", THERE)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "labs/gel").mkdir(parents=True)
    (tmp_path / "labs/gel/a.png").write_bytes(HERE)
    return tmp_path / "labs"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A server of the one file that the folder lacks."""
    place = tmp_path / "served/lab/repo/c0/im ages/not_gel/b.png"
    place.parent.mkdir(parents=True)
    place.write_bytes(THERE)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_what_no_folder_has_is_downloaded(folder: Path, host: str, tmp_path: Path) -> None:
    gather(tmp_path / "to", [folder], SOURCES, host)
    found = {str(path.relative_to(tmp_path / "to")): path.read_bytes() for path in (tmp_path / "to").rglob("*.png")}
    assert found == {"gel/a.png": HERE, "not_gel/b.png": THERE}


def test_a_reduced_copy_does_as_well(folder: Path, host: str, tmp_path: Path) -> None:
    gather(tmp_path / "to", [folder], [source("gel/a.png", b"large", reduced=HERE)], host)
    assert (tmp_path / "to/gel/a.png").read_bytes() == HERE


@pytest.mark.parametrize(
    ("other", "word"),
    [(source("not_gel/b.png", b"other"), "another file"), (source("gel/c.png", b"c"), "404")],
    ids=["other content", "absent"],
)
def test_all_or_nothing_and_each_failure_is_named(
    folder: Path, host: str, tmp_path: Path, other: Source, word: str
) -> None:
    text = refused(lambda: gather(tmp_path / "to", [folder], [*SOURCES, other], host))
    assert text.startswith("1 of 3 pictures cannot be had: ")
    assert word in text
    assert other.path in text
    assert {path.name for path in tmp_path.iterdir()} == {"labs", "served"}


def test_a_folder_that_is_there_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--to", str(folder)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {folder} is there already")
    assert [path.name for path in folder.iterdir()] == ["gel"]


def test_the_list() -> None:
    sources = read_sources()
    assert len({one.path for one in sources}) == len({one.sha256 for one in sources}) == len(sources) == 321
    assert {one.path.split("/")[0] for one in sources} == {"gel", "not_gel"}
    assert sum(one.group == "originals" for one in sources) == 92
    assert all(one.source for one in sources if one.group != "originals")
    assert all(len(one.sha256) == 64 and len(one.commit) == 40 and one.licence for one in sources)
