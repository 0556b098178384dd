"""The 92 + 22 original pictures: one pinned archive, every picture checked, all of them or none."""

import hashlib
import http.client
import struct
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from gel_lightning.core.errors import GelError

REPOSITORY = "kalthommusa/Gel-Electrophoresis-Image-Classification"
COMMIT = "81e0ed5806ced4b2f421071804171d4442e7376b"
ARCHIVE_URL = f"https://github.com/{REPOSITORY}/archive/{COMMIT}.zip"
TIMEOUT = 10.0
"""Seconds to connect, and seconds without any data after that."""
MAX_BYTES = 64 * 2**20
"""The largest archive accepted; the pictures are 7 MB and the rest of the repository is smaller."""

_BLOCK = 64 * 2**10
# What zipfile raises for anything but a valid archive without encryption.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


class Picture(NamedTuple):
    """One line of the manifest: the path, size and checksum of a picture."""

    path: str
    bytes: int
    sha256: str


def read_manifest() -> tuple[Picture, ...]:
    """The 114 originals, as the package lists them."""
    text = resources.files("gel_lightning.data").joinpath("manifest.tsv").read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return tuple(Picture(path, int(size), digest) for path, size, digest in rows)


def ways_on(to: Path) -> str:
    """What users can do if there are no pictures in ``to`` and the download fails."""
    return (
        f"put the pictures in {to}/dataset/gel and {to}/dataset/not_gel, "
        "name your own with --data.train_dir, or run with drawn ones: --config configs/offline.yaml"
    )


def download_originals(to: Path, url: str = ARCHIVE_URL) -> None:
    """Downloads the original pictures to ``to/dataset`` and ``to/test_images``, completely or not at all.

    A folder that exists and is not empty is left unchanged; if both do, nothing is downloaded. Of several processes,
    one downloads and the others wait.

    Args:
        to: the folder of the data set; created if missing.
        url: of the archive, in which the pictures may be at any depth.

    Raises:
        GelError: no network, an HTTP error, an incomplete or too long transfer, no zip archive, a picture that is
            missing or differs from the manifest, or ``to`` is not a folder.
        OSError: the folder cannot be written, or the disk is full.
    """
    # Resolved, so that the final rename stays on one file system if `to` is a link.
    place, manifest = to.resolve(), read_manifest()
    try:
        if _absent(place, manifest):
            with _alone(place):
                if _absent(place, manifest):  # still, after waiting for another process
                    _download(url, place, manifest)
    except GelError as error:
        raise GelError(f"{error}; {ways_on(to)}") from error


def _absent(place: Path, manifest: Sequence[Picture]) -> list[str]:
    """The top folders of the data set that are missing or empty in ``place``."""
    tops = sorted({picture.path.split("/")[0] for picture in manifest})
    return [top for top in tops if not _taken(place / top)]


def _taken(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return any(path.iterdir())
    return path.is_symlink() or path.exists()  # a dangling link is the user's, too


def _nearest_folder(path: Path) -> Path:
    """``path``, or its nearest parent that exists, so that nothing is created before the end."""
    nearest = next(there for there in (path, *path.parents) if there.exists())
    if not nearest.is_dir():
        raise GelError(f"{nearest} is not a folder")
    return nearest


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    lock = _nearest_folder(place.parent) / f".{place.name}.lock"
    with FileLock(lock):
        try:
            yield
        finally:
            # Removed while locked: filelock checks that the locked file still has its name. (With an old filelock two
            # processes may download, and the second finds the folders in place.)
            with suppress(OSError):
                lock.unlink()


def _download(url: str, place: Path, manifest: Sequence[Picture]) -> None:
    # Inside `place` if it exists, because a rename must not cross file systems.
    near = _nearest_folder(place)
    with TemporaryDirectory(prefix=f".{place.name}-", suffix=".tmp", dir=near) as temporary:
        archive, pictures = Path(temporary, "archive.zip"), Path(temporary, "pictures")
        fetch(url, archive)
        _unpack(archive, url, pictures, manifest)
        _put(pictures, place, manifest)


def fetch(url: str, to: Path, shown: bool = True) -> None:
    """Streams ``url`` to a file.

    Args:
        url: of at most :data:`MAX_BYTES`.
        to: the file, which may be incomplete after an error.
        shown: whether to show a progress bar.

    Raises:
        GelError: the network fails, or the response is too long.
        OSError: the file cannot be written, or the disk is full.
    """
    with _explained(url):
        answer = urllib.request.urlopen(url, timeout=TIMEOUT)
    with answer, to.open("wb") as file, _progress(shown) as bar:
        size: int | None = getattr(answer, "length", None)  # None for chunked transfer encoding
        task, got = bar.add_task("gel pictures", total=size), 0
        while block := _read(answer, url):
            got += len(block)
            if max(got, size or 0) > MAX_BYTES:
                raise GelError(f"{url} is longer than the {MAX_BYTES} bytes that are taken")
            file.write(block)
            bar.update(task, completed=got)
    if size is not None and got != size:
        raise GelError(f"{url} was cut off after {got} of {size} bytes")


def _read(answer: http.client.HTTPResponse, url: str) -> bytes:
    with _explained(url):
        return answer.read(_BLOCK)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise GelError(f"cannot download {url}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _progress(shown: bool) -> Progress:
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True), disable=not shown)


def _unpack(archive: Path, url: str, folder: Path, manifest: Sequence[Picture]) -> None:
    """Extracts the pictures of the manifest to ``folder``, under the names of the manifest."""
    try:
        opened = zipfile.ZipFile(archive)
    except _UNREADABLE as error:
        raise GelError(f"{url} is not a zip archive: {_one_line(error)}") from error
    with opened:
        for picture in manifest:
            content = _find(opened, picture, url)
            target = folder / picture.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def _find(opened: zipfile.ZipFile, picture: Picture, url: str) -> bytes:
    """The content of the first member of the archive whose name ends with the path and that has the checksum."""
    members = [m for m in opened.infolist() if f"/{m.filename}".endswith(f"/{picture.path}")]
    if not members:
        raise GelError(f"{picture.path} is missing from {url}")
    for member in members:
        content = _content(opened, member, picture)
        if content is not None:
            return content
    raise GelError(f"{picture.path} in {url} does not have the size and sha256 of the original")


def _content(opened: zipfile.ZipFile, member: zipfile.ZipInfo, picture: Picture) -> bytes | None:
    # GitHub uses deflate; zipfile decompresses other methods without a bound on memory.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None
    if member.file_size != picture.bytes:
        return None
    try:
        with opened.open(member) as file:
            content = file.read(picture.bytes + 1)
    except _UNREADABLE:
        return None
    same = len(content) == picture.bytes and hashlib.sha256(content).hexdigest() == picture.sha256
    return content if same else None


def _put(pictures: Path, place: Path, manifest: Sequence[Picture]) -> None:
    """Renames the missing folders into place; undone if that fails."""
    absent = _absent(place, manifest)  # again, because another process may have created them meanwhile
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        for top in absent:
            with suppress(FileNotFoundError):
                (place / top).rmdir()  # Windows does not rename onto an empty folder
            (pictures / top).rename(place / top)  # fails if it exists now
    except BaseException:
        for top in absent:
            if not (pictures / top).exists():
                (place / top).rename(pictures / top)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise
