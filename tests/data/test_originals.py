import errno
import hashlib
import io
import json
import random
import socket
import stat
import subprocess
import sys
import threading
import tracemalloc
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gel_lightning.core.errors import GelError
from gel_lightning.data import originals as download
from gel_lightning.data.originals import Picture, download_originals, ways_on

TOP = "Gel-1234/"
PATHS = [
    f"{part}/{kind}/{kind}_{number}.jpg"
    for part, count in (("dataset", 2), ("test_images", 1))
    for kind in ("gel", "not_gel")
    for number in range(1, count + 1)
]
CONTENTS = {path: random.Random(path).randbytes(2000) for path in PATHS}
TINY = tuple(Picture(p, len(c), hashlib.sha256(c).hexdigest()) for p, c in CONTENTS.items())
FIRST = PATHS[0]
Members = list[tuple[str | zipfile.ZipInfo, bytes]]


def members(top: str = TOP) -> Members:
    return [(TOP + "README.md", b"hello"), *((top + path, content) for path, content in CONTENTS.items())]


def zipped(entries: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Sends ``body`` to whoever asks; what it does wrong is set by the tests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = zipped(members())
        self.declared: int | None = None  # a Content-Length that is not the body's
        self.chunked = False
        self.statuses: list[int] = []  # of the first answers; 200 after that
        self.go_on = threading.Event()  # until it is set, half of the body is held back
        self.go_on.set()
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/archive.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        server.paths.append(self.path)
        self.close_connection = True
        self.send_response(server.statuses.pop(0) if server.statuses else 200)
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(server.body) + server.body + b"\r\n")
            self.wfile.write(b"" if server.declared else b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(server.declared or len(server.body)))
        self.end_headers()
        half = len(server.body) // 2
        self.wfile.write(server.body[:half])
        self.wfile.flush()
        server.go_on.wait(30)
        self.wfile.write(server.body[half:])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server, pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        # urllib keeps the proxies it found at its first call.
        patch.setattr(urllib.request, "_opener", None)
        patch.setattr(download, "read_manifest", lambda: TINY)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below ``folder``: what files hold, where links lead."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else (path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def pictures(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def fails(to: Path, url: str, *, match: str) -> str:
    """Downloads, sees that it fails as it should and leaves nothing, and returns the message."""
    above = next(folder for folder in to.parents if folder.is_dir())
    before = tree(above)
    with pytest.raises(GelError, match=match) as caught:
        download_originals(to, url)
    assert tree(above) == before
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(f"; {ways_on(to)}")
    return message


# --- the data set whole


@pytest.mark.parametrize("top", [TOP, TOP + "gel_electrophoresis/", "", TOP + "a/b/c/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_whole_archive_wherever_the_pictures_lie_in_it(tmp_path, server, top, method):
    server.body = zipped(members(top), method)
    to = tmp_path / "data" / "gel_electrophoresis"
    download_originals(to, server.url)
    assert pictures(to) == CONTENTS
    assert [path.name for path in tmp_path.rglob(".*")] == []
    assert [path.name for path in to.parent.iterdir()] == [to.name]
    assert len(server.paths) == 1

    download_originals(to, server.url)
    assert len(server.paths) == 1, "it is there already"


def test_an_archive_sent_in_chunks_without_a_length(tmp_path, server):
    server.chunked = True
    download_originals(tmp_path / "gel", server.url)
    assert pictures(tmp_path / "gel") == CONTENTS


def test_what_is_written_can_be_read_by_others(tmp_path, server):
    to = tmp_path / "gel"
    download_originals(to, server.url)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (to, *to.rglob("*")):
        like = tmp_path / ("folder" if path.is_dir() else "file")
        assert path.stat().st_mode == like.stat().st_mode


def test_a_relative_path_and_a_link(tmp_path, server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "gel").symlink_to("disk")
    download_originals(Path("gel"), server.url)
    assert pictures(tmp_path / "disk") == CONTENTS
    assert sorted(tree(tmp_path))[:2] == ["disk", "disk/dataset"]
    assert (tmp_path / "gel").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "gel"}


def test_a_proxy_from_the_environment_is_used(tmp_path, server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/archive.zip"))
    download_originals(tmp_path / "gel", "http://pictures.invalid/archive.zip")
    assert server.paths == ["http://pictures.invalid/archive.zip"]
    assert pictures(tmp_path / "gel") == CONTENTS


def test_the_progress_is_on_stderr(tmp_path, server, capsys):
    download_originals(tmp_path / "gel", server.url)
    out, err = capsys.readouterr()
    assert out == ""
    assert "gel pictures" in err


# --- what is there already


@pytest.mark.parametrize("part", ["dataset", "test_images"])
def test_the_users_own_pictures_are_left_alone(tmp_path, server, part):
    own = {"README.md": b"mine", f"{part}/gel/mine.jpg": b"my picture", f"{part}/{FIRST}": b"another"}
    for path, content in own.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    download_originals(tmp_path, server.url)
    rest = {path: content for path, content in CONTENTS.items() if not path.startswith(part)}
    assert pictures(tmp_path) == own | rest


@pytest.mark.parametrize("there", [[], ["dataset"], ["dataset", "test_images"]])
def test_empty_folders_are_filled(tmp_path, server, there):
    for name in there:
        (tmp_path / name).mkdir()
    download_originals(tmp_path, server.url)
    assert pictures(tmp_path) == CONTENTS


def test_links_and_files_in_the_way_are_left_alone(tmp_path, server):
    to = tmp_path / "gel"
    to.mkdir()
    (to / "dataset").symlink_to("nowhere")
    (to / "test_images").write_text("mine")
    before = tree(tmp_path)
    download_originals(to, server.url)
    assert tree(tmp_path) == before
    assert server.paths == []


def test_pictures_that_come_during_the_download_are_left_alone(tmp_path, server, monkeypatch):
    real = download._unpack

    def unpack(*arguments):
        real(*arguments)
        (tmp_path / "dataset").mkdir()
        (tmp_path / "dataset" / "mine.jpg").write_bytes(b"mine")

    monkeypatch.setattr(download, "_unpack", unpack)
    download_originals(tmp_path, server.url)
    rest = {path: content for path, content in CONTENTS.items() if path.startswith("test_images")}
    assert pictures(tmp_path) == {"dataset/mine.jpg": b"mine"} | rest


def test_a_file_where_the_folder_should_be(tmp_path, server):
    (tmp_path / "gel").write_text("a file")
    fails(tmp_path / "gel", server.url, match="gel is not a folder")
    fails(tmp_path / "gel" / "below", server.url, match="gel is not a folder")
    assert server.paths == []


# --- the network


@pytest.fixture(params=["absent", "absent, two deep", "empty", "with a README and test_images"])
def to(request, tmp_path) -> Path:
    """The folder of the data set as it may be before a download."""
    to = tmp_path / ("data/gel" if request.param == "absent, two deep" else "gel")
    if not request.param.startswith("absent"):
        to.mkdir()
    if request.param.startswith("with"):
        (to / "README.md").write_text("mine")
        (to / "test_images").mkdir()
        (to / "test_images" / "mine.jpg").write_bytes(b"mine")
    return to


@pytest.mark.parametrize("chunked", [False, True])
def test_cut_off(to, server, chunked):
    server.declared, server.chunked = len(server.body) + 10, chunked
    message = fails(to, server.url, match="cut off|IncompleteRead")
    assert server.url in message


def test_an_http_error(to, server):
    server.statuses = [404]
    assert server.url in fails(to, server.url, match="HTTP Error 404: Not Found")


def test_a_refused_connection(to, server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        assert url in fails(to, url, match="refused")


def test_a_server_that_says_nothing(to, server, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    server.go_on.clear()
    fails(to, server.url, match="cannot download .* timed out")


@pytest.mark.parametrize("url", ["no url", "ftp9://x/", "http://127.0.0.1:no/", "http://[::1/", "file:///no"])
def test_a_url_that_is_none(tmp_path, server, url):
    assert url in fails(tmp_path / "gel", url, match="cannot download")


@pytest.mark.parametrize("chunked", [False, True])
def test_too_long(to, server, chunked, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", len(server.body) - 1)
    server.chunked = chunked
    fails(to, server.url, match=f"longer than the {download.MAX_BYTES} bytes")


# --- the archive


def test_a_wrong_checksum(to, server):
    server.body = zipped([(n, c[::-1] if str(n).endswith(PATHS[-1]) else c) for n, c in members()])
    fails(to, server.url, match=f"{PATHS[-1]} in .* does not have the size and sha256")


def test_a_missing_member(to, server):
    # A name that only ends in the same letters is another name.
    server.body = zipped([(TOP + "my_" + FIRST if n == TOP + FIRST else n, c) for n, c in members()])
    fails(to, server.url, match=f"{FIRST} is missing from {server.url}")


@pytest.mark.parametrize("body", [b"", b"<html>Log in</html>", b"PK\5\6", zipped(members())[:-30]])
def test_not_a_zip(to, server, body):
    server.body = body
    fails(to, server.url, match=f"{server.url} is not a zip archive")


def test_an_empty_zip(to, server):
    server.body = zipped([])
    fails(to, server.url, match="is missing")


def test_of_several_members_the_one_with_the_checksum_is_taken(tmp_path, server):
    wrong = [(f"{TOP}thumbnails/{path}", b"x" * len(content)) for path, content in CONTENTS.items()]
    server.body = zipped([*wrong, *members(), *((f"copy/{n}", c) for n, c in wrong), *members("copy/")[1:]])
    download_originals(tmp_path / "gel", server.url)
    assert pictures(tmp_path / "gel") == CONTENTS


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def replaced(path: str, name: str | zipfile.ZipInfo, content: bytes) -> Members:
    return [(name, content) if n == TOP + path else (n, c) for n, c in members()]


def forged_size(entries: Members, size: int) -> bytes:
    """The archive with ``size`` as the unpacked size of ``FIRST``, in both places that say it."""
    body = bytearray(zipped(entries))
    name = (TOP + FIRST).encode()
    for signature, length, at in ((b"PK\3\4", 30, 22), (b"PK\1\2", 46, 24)):
        start = next(
            i for i in range(len(body)) if body[i : i + 4] == signature and body[i + length :].startswith(name)
        )
        body[start + at : start + at + 4] = size.to_bytes(4, "little")
    return bytes(body)


BOMB = bytes(20_000_000)
NAMES_ELSEWHERE = ["../../", "/tmp/gel-elsewhere/", "..\\..\\", "C:\\", TOP + "../../../", "//x/", "./"]


@pytest.mark.parametrize("name", NAMES_ELSEWHERE)
def test_names_that_lead_elsewhere_write_nowhere_else(tmp_path, server, name):
    evil: Members = [(name + "evil.txt", b"evil"), (name + FIRST, b"evil"), (link(name + "link"), b"/etc")]
    server.body = zipped([*evil, *members()])
    to = tmp_path / "a" / "b" / "gel"
    download_originals(to, server.url)
    assert pictures(tmp_path) == {f"a/b/gel/{path}": content for path, content in CONTENTS.items()}
    assert not Path("/tmp/gel-elsewhere").exists()


@pytest.mark.parametrize("name", NAMES_ELSEWHERE)
def test_a_picture_under_a_hostile_name_goes_to_its_own_place(tmp_path, server, name):
    server.body = zipped(replaced(FIRST, name.replace("\\", "/") + FIRST, CONTENTS[FIRST]))
    to = tmp_path / "a" / "b" / "gel"
    download_originals(to, server.url)
    assert pictures(tmp_path) == {f"a/b/gel/{path}": content for path, content in CONTENTS.items()}


@pytest.mark.parametrize(
    "body",
    [
        zipped(replaced(FIRST, link(TOP + FIRST), b"/etc/passwd")),
        zipped([(link(TOP + "dataset"), b"/tmp"), *replaced(FIRST, TOP + FIRST, b"evil")]),
        zipped(replaced(FIRST, TOP + FIRST, BOMB)),
        forged_size(replaced(FIRST, TOP + FIRST, BOMB), len(CONTENTS[FIRST])),
        zipped(members(), zipfile.ZIP_BZIP2),
        zipped(members(), zipfile.ZIP_LZMA),
    ],
    ids=["symlink", "symlinked folder", "bomb", "bomb that lies", "bzip2", "lzma"],
)
def test_hostile_members(to, server, body):
    server.body = body
    fails(to, server.url, match="does not have the size and sha256")


def test_no_more_of_a_member_is_unpacked_than_its_picture_has():
    body = forged_size(replaced(FIRST, TOP + FIRST, BOMB), TINY[0].bytes)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        tracemalloc.start()
        try:
            with pytest.raises(GelError):
                download._find(archive, TINY[0], "url")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < len(BOMB) / 20


def test_an_encrypted_member(to, server):
    body = bytearray(zipped(members()))
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = -1
        while (start := body.find(signature, start + 1)) >= 0:
            body[start + at] |= 1
    server.body = bytes(body)
    fails(to, server.url, match=f"{FIRST} in .* does not have")


# --- nothing left behind


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("name", ["archive.zip", Path(PATHS[3]).name])
def test_a_full_disk_stays_an_os_error(to, server, tmp_path, monkeypatch, name):
    real = Path.open

    def full(path, mode="r", *arguments, **options):
        return real(Path("/dev/full") if path.name == name and "w" in mode else path, mode, *arguments, **options)

    before = tree(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OSError, match="No space left") as caught:
            download_originals(to, server.url)
    assert caught.value.errno == errno.ENOSPC
    assert tree(tmp_path) == before


def interrupt(call: Callable, when: int) -> Callable:
    """``call``, with a Ctrl-C right after its ``when``-th time."""
    times = 0

    def interrupted(*arguments, **options):
        nonlocal times
        times += 1
        result = call(*arguments, **options)
        if times == when:
            raise KeyboardInterrupt
        return result

    return interrupted


@pytest.mark.parametrize(
    ("owner", "name", "when"),
    [
        (download, "_read", 1),
        (download, "_unpack", 1),
        (download, "_find", 3),
        (Path, "write_bytes", 2),
        (Path, "mkdir", 1),
        (Path, "rename", 1),
        (Path, "rename", 2),
    ],
)
def test_an_interrupt_leaves_nothing(to, server, tmp_path, monkeypatch, owner, name, when):
    if name == "rename" and (to / "README.md").exists():
        when = 1  # there is but one to do
    before = tree(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupt(getattr(owner, name), when))
        with pytest.raises(KeyboardInterrupt):
            download_originals(to, server.url)
    assert tree(tmp_path) == before
    download_originals(to, server.url)
    assert FIRST in pictures(to)


def test_a_second_rename_that_fails_undoes_the_first(to, server, tmp_path, monkeypatch):
    real = Path.rename

    def rename(path, target):
        if path.parent.name == "pictures" and path.name == ("dataset" if taken else "test_images"):
            raise PermissionError(errno.EACCES, "not there")
        return real(path, target)

    taken = (to / "test_images").exists()
    before = tree(tmp_path)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PermissionError):
        download_originals(to, server.url)
    assert tree(tmp_path) == before


# --- several at once


def release_when_they_have_come(server: Server, seconds: float) -> threading.Timer:
    server.go_on.clear()
    timer = threading.Timer(seconds, server.go_on.set)
    timer.start()
    return timer


@pytest.mark.parametrize("deep", [False, True])
def test_threads_at_once_download_once(tmp_path, server, deep):
    to = tmp_path / "data" / "gel" if deep else tmp_path / "gel"
    release_when_they_have_come(server, 0.3)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download_originals(to, server.url), range(4)))
    assert len(server.paths) == 1
    assert pictures(tmp_path) == {(to / p).relative_to(tmp_path).as_posix(): c for p, c in CONTENTS.items()}


@pytest.mark.parametrize("deep", [False, True])
def test_after_one_that_failed_the_next_one_tries(tmp_path, server, deep):
    to = tmp_path / "data" / "gel" if deep else tmp_path / "gel"
    server.statuses = [500, 503]
    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(download_originals, to, server.url) for _ in range(4)]
    raised = [end.exception() for end in ends]
    assert sorted(type(error).__name__ for error in raised) == ["GelError"] * 2 + ["NoneType"] * 2
    assert len(server.paths) == 3
    assert pictures(to) == CONTENTS
    assert list(tmp_path.rglob(".*")) == []


PROCESS = """
import json, sys
from pathlib import Path
from gel_lightning.data import originals as download
rows = json.loads(sys.argv[3])
download.read_manifest = lambda: tuple(download.Picture(*row) for row in rows)
download.download_originals(Path(sys.argv[1]), sys.argv[2])
"""


def test_processes_at_once_download_once(tmp_path, server):
    to = tmp_path / "gel"
    server.go_on.clear()
    command = [sys.executable, "-c", PROCESS, str(to), server.url, json.dumps(TINY)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    release_when_they_have_come(server, 2)
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
    assert len(server.paths) == 1
    assert pictures(tmp_path) == {f"gel/{path}": content for path, content in CONTENTS.items()}


# --- properties


def test_arbitrary_bytes_are_a_gel_error_and_write_nothing(server):
    @settings(deadline=None, max_examples=60)
    @given(body=st.binary(max_size=2000) | st.binary(max_size=200).map(lambda rest: b"PK\3\4" + rest))
    def check(body: bytes) -> None:
        server.body = body
        with TemporaryDirectory() as folder:
            fails(Path(folder, "data", "gel"), server.url, match="is not a zip archive|is missing")
            assert tree(Path(folder)) == {}

    check()


def test_a_damaged_archive_gives_all_or_nothing(server):
    whole = zipped(members(), zipfile.ZIP_STORED)
    table = len(whole) - whole.index(b"PK\1\2")
    # From the end, since the table of contents is there; half of the changes go to it.
    places = st.integers(1, table) | st.integers(1, len(whole))
    changes = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)

    @settings(deadline=None, max_examples=150)
    @given(changes=changes, cut=st.just(0) | st.integers(0, table))
    def check(changes: list[tuple[int, int]], cut: int) -> None:
        body = bytearray(whole)
        for place, byte in changes:
            body[-place] = byte
        server.body = bytes(body[: len(body) - cut])
        with TemporaryDirectory() as folder:
            try:
                download_originals(Path(folder, "gel"), server.url)
            except GelError:
                assert tree(Path(folder)) == {}
            else:
                assert pictures(Path(folder)) == {f"gel/{path}": c for path, c in CONTENTS.items()}

    check()


# --- the packaged manifest


def test_the_packaged_manifest():
    manifest = download.read_manifest()
    assert Counter(picture.path.rsplit("/", 1)[0] for picture in manifest) == {
        "dataset/gel": 46,
        "dataset/not_gel": 46,
        "test_images/gel": 11,
        "test_images/not_gel": 11,
    }
    assert len({picture.path for picture in manifest}) == 114
    for path, size, digest in manifest:
        assert ".." not in path
        assert "\\" not in path
        assert path.count("/") == 2
        assert 0 < size < 2**20
        assert len(bytes.fromhex(digest)) == 32
    assert sum(picture.bytes for picture in manifest) < download.MAX_BYTES


def test_the_ways_on():
    assert ways_on(Path("data/gel")) == (
        "put the pictures in data/gel/dataset/gel and data/gel/dataset/not_gel, "
        "name your own with --data.train_dir, or run with drawn ones: --config configs/offline.yaml"
    )


@pytest.mark.network
def test_the_real_archive(request, tmp_path):
    if "network" not in request.config.getoption("markexpr"):
        pytest.skip("asked for with -m network")
    try:
        urllib.request.urlopen(urllib.request.Request("https://github.com", method="HEAD"), timeout=3).close()
    except OSError as error:
        pytest.skip(f"github.com cannot be reached within 3 s: {error}")
    download_originals(tmp_path / "gel")
    assert set(pictures(tmp_path / "gel")) == {picture.path for picture in download.read_manifest()}
