"""The training pictures of the packaged detector, collected from folders or downloaded."""

import argparse
import csv
import hashlib
import sys
import urllib.parse
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from gel_lightning.core.errors import GelError
from gel_lightning.core.text import printable
from gel_lightning.data.datamodule import DATA_ROOT
from gel_lightning.data.originals import download_originals, fetch

HOST = "https://raw.githubusercontent.com"


class Source(NamedTuple):
    """One row of pictures.csv.

    Attributes:
        path: in the folder of training pictures; its first part is the class.
        group: the lab that it comes from, which is the owner of the repository.
        kind: what it shows, in a word.
        repository: on GitHub.
        commit: of the repository.
        source: path in the repository; empty for the originals, which come as an archive.
        sha256: of the file.
        reduced_sha256: of a copy with 1,400 pixels that is accepted too; empty if there is none.
        licence: of the repository.
        note: anything else.
    """

    path: str
    group: str
    kind: str
    repository: str
    commit: str
    source: str
    sha256: str
    reduced_sha256: str
    licence: str
    note: str


def read_sources() -> tuple[Source, ...]:
    """The training pictures listed in the package."""
    text = resources.files("gel_lightning.detector").joinpath("pictures.csv").read_text("utf-8")
    return tuple(Source(*row) for row in list(csv.reader(text.splitlines()))[1:])


def gather(to: Path, folders: Sequence[Path], sources: Sequence[Source] | None = None, host: str = HOST) -> None:
    """Collects the training pictures in a folder of class folders, completely or not at all.

    Args:
        to: the folder, which must not exist.
        folders: that may contain pictures, under the paths of the list. Pictures in none of them are downloaded.
        sources: the pictures; by default those listed in the package.
        host: that serves the files of repositories as ``/REPOSITORY/COMMIT/PATH``.

    Raises:
        GelError: ``to`` exists, or some pictures can neither be found nor downloaded.
        OSError: ``to`` cannot be written.
    """
    if to.exists():
        raise GelError(f"{to} is there already: remove it, or name another folder with --to")
    to.parent.mkdir(parents=True, exist_ok=True)
    wanted = read_sources() if sources is None else sources
    with TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as temporary:
        pictures = Path(temporary, "pictures")
        absent = [source for source in wanted if not _copied(source, folders, pictures)]
        if any(not source.source for source in absent):
            download_originals(DATA_ROOT)
            here = [DATA_ROOT / "dataset"]
            absent = [source for source in absent if source.source or not _copied(source, here, pictures)]
        console = Console(stderr=True)
        bar = track(absent, "downloading pictures", console=console, transient=True, disable=not console.is_terminal)
        failed = [reason for source in bar if (reason := _downloaded(source, host, pictures))]
        if failed:
            raise GelError(f"{len(failed)} of {len(wanted)} pictures cannot be had: {'; '.join(failed)}")
        pictures.rename(to)


def _copied(source: Source, folders: Sequence[Path], to: Path) -> bool:
    """Copies a picture if one of the folders has it; whether it did."""
    for folder in folders:
        if (found := folder / source.path).is_file() and _is_listed(content := found.read_bytes(), source):
            place = to / source.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            return True
    return False


def _downloaded(source: Source, host: str, to: Path) -> str:
    """Downloads a picture; returns the reason if that fails."""
    url = f"{host}/{source.repository}/{source.commit}/{urllib.parse.quote(source.source)}"
    place = to / source.path
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        fetch(url, place, shown=False)
    except GelError as error:
        return str(error)
    return "" if _is_listed(place.read_bytes(), source) else f"{url} is another file than the one that is listed"


def _is_listed(content: bytes, source: Source) -> bool:
    return hashlib.sha256(content).hexdigest() in {source.sha256, source.reduced_sha256}


def main(args: Sequence[str] | None = None) -> int:
    """Runs `python -m gel_lightning.detector.pictures`."""
    parser = argparse.ArgumentParser(description="Gathers the pictures that the packaged detector is trained on.")
    parser.add_argument("folders", type=Path, nargs="*", help="Where some of them are; the others are downloaded.")
    parser.add_argument("--to", type=Path, default=Path("data/detector"), help="Folder to make.")
    given = parser.parse_args(args)
    try:
        gather(given.to, given.folders)
    except (GelError, OSError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    print(f"training pictures: {given.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
