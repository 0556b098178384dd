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
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from gel_lightning.core.errors import GelError

REPOSITORY = "kalthommusa/Gel-Electrophoresis-Image-Classification"
COMMIT = "81e0ed5806ced4b2f421071804171d4442e7376b"
ARCHIVE_URL = f"https://github.com/{REPOSITORY}/archive/{COMMIT}.zip"
TIMEOUT = 10.0
"""Seconds to connect, and seconds without a byte after that."""
MAX_BYTES = 64 * 2**20
"""The longest archive taken; the pictures are 7 MB and the rest of the repository is smaller."""

_BLOCK = 64 * 2**10
# All that zipfile raises for bytes that are no archive, or a broken or encrypted one.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


class Picture(NamedTuple):
    """One line of the manifest: where a picture belongs, and what is in it."""

    path: str
    bytes: int
    sha256: str


def read_manifest() -> tuple[Picture, ...]:
    """The 114 originals, as the package lists them."""
    text = resources.files("gel_lightning.data").joinpath("manifest.tsv").read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return tuple(Picture(path, int(size), digest) for path, size, digest in rows)


def ways_on(to: Path) -> str:
    """What a user can do who has no pictures in ``to`` and cannot download them."""
    return (
        f"put the pictures in {to}/dataset/gel and {to}/dataset/not_gel, "
        "name your own with --data.train_dir, or run with drawn ones: --config configs/offline.yaml"
    )


def download_originals(to: Path, url: str = ARCHIVE_URL) -> None:
    """Puts the original pictures in ``to/dataset`` and ``to/test_images``: the whole data set or nothing.

    Whichever of the two is there already, as anything but an empty folder, is left as it is. If both are,
    nothing is downloaded. Of several processes at once, one downloads and the others wait for it.

    Args:
        to: the folder of the data set; made if it is not there.
        url: the archive; the pictures may lie at any depth in it.

    Raises:
        GelError: no network, an HTTP error, a transfer cut off or too long, no zip archive, a picture that
            is missing or is not the one in the manifest, or ``to`` is no folder.
        OSError: the folder cannot be written, or the disk is full.
    """
    # Resolved, so that what is renamed at the end stays on one file system where `to` is a link.
    place, manifest = to.resolve(), read_manifest()
    try:
        if _absent(place, manifest):
            with _alone(place):
                if _absent(place, manifest):  # still, after the wait for another process
                    _download(url, place, manifest)
    except GelError as error:
        raise GelError(f"{error}; {ways_on(to)}") from error


def _absent(place: Path, manifest: Sequence[Picture]) -> list[str]:
    """The top folders of the data set that ``place`` lacks. An empty folder is as good as none."""
    tops = sorted({picture.path.split("/")[0] for picture in manifest})
    return [top for top in tops if not _taken(place / top)]


def _taken(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return any(path.iterdir())
    return path.is_symlink() or path.exists()  # a link that leads nowhere is the user's own, too


def _nearest_folder(path: Path) -> Path:
    """``path``, or the nearest folder above it that is there: nothing need be made before the end."""
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
            # Removed while it is held: filelock makes sure that the file it locked still has its name. (An
            # old filelock does not; then two may download, and the second to finish finds its places taken.)
            with suppress(OSError):
                lock.unlink()


def _download(url: str, place: Path, manifest: Sequence[Picture]) -> None:
    # In `place` where that exists: it may be a file system of its own, and a rename must not leave it.
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
        to: the file, which is there, in part, after an error.
        shown: whether there is a progress bar.

    Raises:
        GelError: what the network does wrong, or the answer is too long.
        OSError: the file cannot be written, or the disk is full.
    """
    with _explained(url):
        answer = urllib.request.urlopen(url, timeout=TIMEOUT)
    with answer, to.open("wb") as file, _progress(shown) as bar:
        size: int | None = getattr(answer, "length", None)  # None: sent in chunks, which say where they end
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
    """Writes every picture of the manifest below ``folder``, under the manifest's names alone."""
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
    """The first member, in the archive's order, that has the picture's path at its end and its checksum.

    Others with that path at their end are passed over, whatever they hold: with one checksum there is one
    content, so it makes no difference which of several is taken.
    """
    members = [m for m in opened.infolist() if f"/{m.filename}".endswith(f"/{picture.path}")]
    if not members:
        raise GelError(f"{picture.path} is missing from {url}")
    for member in members:
        content = _content(opened, member, picture)
        if content is not None:
            return content
    raise GelError(f"{picture.path} in {url} does not have the size and sha256 of the original")


def _content(opened: zipfile.ZipFile, member: zipfile.ZipInfo, picture: Picture) -> bytes | None:
    # GitHub deflates; the other methods unpack without a bound, however few bytes are asked for.
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
    """Renames what is absent into place; if that cannot be done to the end, it is undone."""
    absent = _absent(place, manifest)  # once more: someone may have put theirs there during the download
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        for top in absent:
            with suppress(FileNotFoundError):
                (place / top).rmdir()  # an empty folder, over which Windows does not rename
            (pictures / top).rename(place / top)  # fails if pictures have come there since
    except BaseException:
        for top in absent:
            if not (pictures / top).exists():
                (place / top).rename(pictures / top)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise
