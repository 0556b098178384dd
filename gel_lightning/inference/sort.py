"""`--sort_to`: copies or hard links of pictures in a folder per answer, with a manifest."""

import csv
import filecmp
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from types import TracebackType

from gel_lightning.core.errors import GelError
from gel_lightning.core.files import formula_free, remove_leftovers, replacing, text_cell
from gel_lightning.core.text import printable
from gel_lightning.inference.rows import Row

MANIFEST = "manifest.csv"
COLUMNS = ("path", "sorted_to", "answer", "predicted", "confidence", "error", "note")
EARLIER = "earlier answer"
COPIED, LINKED, PRESENT, SKIPPED = "copied", "linked", "present", "skipped"
TEMPORARY = "gel-fit"
"""Temporary copies are named ``.gel-fit.*.tmp``."""


class Sorter:
    """Sorts pictures into ``TARGET/ANSWER/``, with their paths relative to the folder they were found in.

    The originals stay, and no file of the target is changed or removed. If a name is taken by other content, the copy
    becomes ``scan-2.tif``, ``scan-3.tif`` ...; if it is taken by the same content, nothing is done, so that a second
    run changes nothing. A picture whose answer has changed since an earlier run is sorted again; its older copy stays,
    and the row of that in the manifest gets the note :data:`EARLIER`.

    Args:
        target: the folder to sort into.
        link: whether to make hard links instead of copies.
        dry_run: whether to only say what would be done.
        say: called with each line of a dry run.

    Attributes:
        counts: number of pictures ``copied``, ``linked``, already ``present`` and ``skipped``.
        earlier: number of copies from earlier runs under another answer.

    Raises:
        GelError: the target is a file, contains other files, or its manifest is not one of gel-fit.
    """

    def __init__(
        self, target: str | Path, link: bool = False, dry_run: bool = False, say: Callable[[str], None] = print
    ) -> None:
        self.target, self.link, self.dry_run, self._say = Path(target).absolute(), link, dry_run, say
        self.counts: Counter[str] = Counter()
        self.earlier = 0
        self._open = ExitStack()
        if self.target.exists() and not self.target.is_dir():
            raise GelError(f"{target}: is not a folder; name another with --sort_to")
        if self.target.is_dir() and not os.path.lexists(self.target / MANIFEST) and any(self.target.iterdir()):
            raise GelError(
                f"{target}: holds files that were not sorted there; name a new folder with --sort_to, such as sorted"
            )
        self._old = _read_manifest(self.target / MANIFEST)
        self._new: set[tuple[str, str]] = set()  # path and place of each row of this run
        self._planned: dict[Path, Path] = {}  # in a dry run, what each place would be a copy of
        self._safe: set[Path] = set()

    def __enter__(self) -> "Sorter":
        """Starts the manifest. An empty one is written at once, so that a folder is recognised after a kill."""
        if not self.dry_run:
            if not os.path.lexists(self.target / MANIFEST):
                with replacing(self.target / MANIFEST, encoding="utf-8-sig", newline="") as empty:
                    csv.writer(empty).writerow(COLUMNS)
            manifest = replacing(self.target / MANIFEST, encoding="utf-8-sig", newline="")
            self._rows = csv.writer(self._open.enter_context(manifest))
            self._rows.writerow(COLUMNS)
        return self

    def add(self, row: Row, below: str | Path) -> str:
        """Sorts a picture.

        Args:
            row: its row.
            below: the folder it was found in; of a path outside of it only the name is kept.

        Returns:
            ``"copied"``, ``"linked"``, ``"present"`` if the target has it already, or ``"skipped"`` if the picture
            could not be read or is gone.

        Raises:
            GelError: the answer cannot name a folder, a folder of the target is a link or a file, or the file system
                does not support hard links.
            OSError: the target cannot be written.
        """
        if row.answer and not Path(row.path).is_file():
            row = row._replace(answer="", error="no longer there")
        done, place = self._sort(row, _below(row.path, below)) if row.answer else (SKIPPED, None)
        self.counts[done] += 1
        shown = "" if place is None else place.relative_to(self.target).as_posix()
        if self.dry_run:
            words = {COPIED: "would copy {} to {}", LINKED: "would link {} to {}", PRESENT: "already there: {} is {}"}
            self._say(printable(words.get(done, "would leave {}").format(row.path, place)))
        else:
            confidence = "" if row.confidence is None else f"{row.confidence:.6f}"
            answers, rest = map(text_cell, (row.answer, row.predicted)), map(text_cell, (row.error, row.note))
            self._write([formula_free(row.path), formula_free(shown), *answers, confidence, *rest])
        return done

    def summary(self) -> str:
        """A sentence that says what was done."""
        words = {COPIED: "copied", LINKED: "hard-linked", PRESENT: "already there", SKIPPED: "left where they are"}
        done = ", ".join(f"{self.counts[key]} {word}" for key, word in words.items() if self.counts[key])
        note = f"; {self.earlier} older under another answer, see {MANIFEST}" if self.earlier else ""
        return (
            f"{'would be sorted' if self.dry_run else 'sorted'} to {printable(self.target)}: {done or 'nothing'}{note}"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the manifest in place; after an error the old one stays."""
        if error is not None:
            self._open.__exit__(kind, error, trace)
            return
        with self._open:
            if not self.dry_run:
                self._write_old()

    def _write_old(self) -> None:
        """Writes the rows of earlier runs that still hold: of other pictures, and of copies under another answer."""
        paths = {path for path, _ in self._new}
        for path, place, *rest in self._old:
            if (path, place) in self._new or not (os.path.lexists(self.target / place) if place else path not in paths):
                continue
            if path in paths:
                self.earlier += 1
                rest[-1] = EARLIER
            self._rows.writerow([path, place, *rest])

    def _write(self, row: list[str]) -> None:
        cells = [cell.encode(errors="backslashreplace").decode() for cell in row]
        if self._old:
            self._new.add((cells[0], cells[1]))
        self._rows.writerow(cells)

    def _sort(self, row: Row, below: Path) -> tuple[str, Path | None]:
        """Copies or links a picture unless it is there; returns what was done, and where the picture is."""
        source = Path(os.path.realpath(row.path))
        folder = self.target / _folder_name(row.answer) / below.parent
        self._make_folder(folder)
        for place in _numbered(folder / below.name):
            if (there := self._there(place)) is None:
                if self.dry_run:
                    self._planned[place] = source
                    return (LINKED if self.link else COPIED), place
                with suppress(FileExistsError):  # another process was faster: compare with its file
                    (self._link if self.link else _copy)(source, place)
                    return (LINKED if self.link else COPIED), place
                there = place
            if _same_content(source, there):
                return PRESENT, place
        raise AssertionError  # _numbered never ends

    def _there(self, place: Path) -> Path | None:
        """The file at a place, or the one that a dry run would put there; None if there is none."""
        return self._planned.get(place) or (place if os.path.lexists(place) else None)

    def _make_folder(self, folder: Path) -> None:
        """Creates a folder in the target, checking each level, so that no link leads out of the target."""
        if folder in self._safe:
            return
        if folder != self.target:
            self._make_folder(folder.parent)
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise GelError(f"{folder}: is a link or a file, not a folder; remove it, or sort to another folder")
            if not self.dry_run:
                folder.mkdir(exist_ok=True)
                remove_leftovers(folder, TEMPORARY)
        self._safe.add(folder)

    def _link(self, source: Path, place: Path) -> None:
        try:
            os.link(source, place)
        except FileExistsError:
            raise
        except OSError as error:
            raise GelError(
                f"{source}: no hard link can be made in {place.parent} ({error.strerror}); leave out --link to copy"
            ) from error


def _copy(source: Path, place: Path) -> None:
    """Copies a file with its times, to a temporary name first, which is then renamed if the name is free.

    Raises:
        FileExistsError: the name is taken.
        OSError: it cannot be read or written.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{TEMPORARY}.", suffix=".tmp", dir=place.parent)
    temporary = Path(name)
    try:
        with source.open("rb") as whole, os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(whole, copy)
        shutil.copystat(source, temporary)
        try:
            os.link(temporary, place)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links, such as FAT
            if os.path.lexists(place):
                raise FileExistsError(place) from None
            temporary.rename(place)
    finally:
        temporary.unlink(missing_ok=True)


def _below(path: str, folder: str | Path) -> Path:
    """The path of a picture relative to a folder; only its name if it is not inside."""
    try:
        below = Path(path).relative_to(folder)
    except ValueError:
        below = Path()
    return below if below.name and ".." not in below.parts and not below.anchor else Path(Path(path).name)


def _folder_name(answer: str) -> str:
    """Refuses the name of a class that cannot name a folder on every system."""
    if answer != printable(answer) or answer.strip(". ") != answer or set(answer) & set('/\\:*?"<>|'):
        raise GelError(f"the class {answer!r} is no name of a folder: --sort_to cannot be used with this model")
    if answer.casefold() == MANIFEST:
        raise GelError(f"the class {answer!r} has the name of the manifest: --sort_to cannot be used with this model")
    return answer


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def _same_content(source: Path, there: Path) -> bool:
    """Whether a file has the same content as a picture; False for links, folders and pipes."""
    return stat.S_ISREG(there.lstat().st_mode) and filecmp.cmp(source, there, shallow=False)


def _read_manifest(path: Path) -> list[list[str]]:
    """The rows of an existing manifest."""
    if not os.path.lexists(path):
        return []
    try:
        if not path.is_symlink() and path.is_file():
            with path.open(newline="", encoding="utf-8-sig") as file:
                columns, *rows = csv.reader(file)
            if tuple(columns) == COLUMNS and all(len(row) == len(COLUMNS) for row in rows):
                return rows
    except (OSError, ValueError, csv.Error):  # ValueError: not UTF-8
        pass
    raise GelError(f"{path}: is no manifest of gel-fit; move it away, or sort to another folder")
