"""`gel-fit find`: a folder in, the gels out, without PyTorch."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gel_lightning.cli.help import HELP_ALL, PAGES
from gel_lightning.cli.mistakes import explained as explained_mistake
from gel_lightning.cli.terminal import print_answers, print_line
from gel_lightning.core.errors import GelError, explained
from gel_lightning.core.files import output_file, replacing
from gel_lightning.core.progress import picture_progress
from gel_lightning.core.text import printable
from gel_lightning.inference.find import Detector, Found
from gel_lightning.inference.listing import STDIN, list_pictures, read_list
from gel_lightning.inference.rows import CSV_OPTIONS, LEVELS, UNSURE, Row, Summary, Table, to_json

if TYPE_CHECKING:
    from gel_lightning.inference.sort import Sorter

UNREADABLE, FOUND, INTERRUPTED = 1, 3, 130
"""Exit statuses: a picture could not be read; --fail_if; Ctrl-C."""

THUMBNAIL = 320
"""The most pixels a side of the pictures that go to the page."""

SUFFIXES = {"csv": (".csv",), "page": (".html", ".htm")}
"""What the names of written files end in, so that no picture is taken for one."""

NEEDS = (("link", "sort_to"), ("dry_run", "sort_to"), ("explain", "page"))
"""Options that say how another one is to be done."""


class Parser(argparse.ArgumentParser):
    """The parser of `gel-fit find`: of the standard library, which is there at once, with errors of one line."""

    def __init__(self) -> None:
        super().__init__(
            prog="gel-fit find",
            usage=f"gel-fit find {PAGES['find'].usage}",
            description=PAGES["find"].summary,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument("pictures", nargs="*", metavar="PICTURES")
        add = self.add_argument
        add(
            "--model", type=_path, metavar="FILE", help="Model that gel-fit export has written (default: the packaged)."
        )
        add("--class", dest="class_name", metavar="NAME", help="Class that is looked for (default: the model's first).")
        add("--confidence", choices=LEVELS, default=LEVELS[0], help="How sure an answer has to be (default: high).")
        add("--json", action="store_true", help="Print a line of JSON for each picture.")
        add("--null", action="store_true", help="End the paths that are printed with NUL, for xargs -0.")
        add("--csv", type=_path, metavar="FILE", help="Table to write, a row for each picture.")
        add("--page", type=_path, metavar="FILE", help="HTML page to write, with a small copy of each picture.")
        add("--explain", action="store_true", help="Show on the page what each answer rests on.")
        add("--sort_to", type=_path, metavar="FOLDER", help="Copy the pictures into a folder for each answer there.")
        add("--link", action="store_true", help="Hard-link them in place of copies.")
        add("--dry_run", action="store_true", help="Only print what --sort_to would do.")
        add("--shard", type=_shard, metavar="K/N", help="Take every Nth picture, from the Kth on.")
        add("--fail_if", metavar="CLASS", help="Exit with status 3 if there is one of this class, or unsure.")
        add(HELP_ALL, action="help", help="Show every option of this command and exit.")

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong with the arguments in one line and exits with status 2."""
        message = explained_mistake(message, "find", self.option_names()) or message
        message = re.sub(r"^argument (--\w+): (?:invalid choice: '(.*)' \(choose from (.*)\))?", _of_argument, message)
        _complain(f"{message} (see gel-fit find --help)")
        sys.exit(2)

    def option_names(self) -> set[str]:
        """The names of all options, without dashes."""
        return set(self.get_defaults())

    def get_defaults(self) -> dict[str, Any]:
        """The default of each option, by its name without dashes."""
        return {action.option_strings[0].lstrip("-"): action.default for action in self._actions[1:]}


def main(args: Sequence[str] | None = None) -> int:
    """Runs `gel-fit find`.

    Args:
        args: the command line after `find`; None takes this process's.

    Returns:
        The exit status: 0, 1 for a picture that could not be read or an error that the user can mend, 2 for wrong
        arguments, 3 if a picture is of the class of --fail_if, 130 for Ctrl-C.

    Raises:
        BrokenPipeError: nobody reads the output.
    """
    try:
        return _find(Parser(), sys.argv[2:] if args is None else args)
    except GelError as error:
        _complain(str(error))
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if (text := explained(error)) is None:
            raise
        _complain(text)
    return 1


def _find(parser: Parser, args: Sequence[str]) -> int:
    with suppress(AttributeError):  # a stream that is no file of the system
        sys.stdout.reconfigure(encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors())  # type: ignore[union-attr]
    options = parser.parse_intermixed_args(list(args))
    _check(parser, options)
    detector = Detector(options.model, options.confidence)
    looked_for = options.class_name or detector.class_names[0]
    for option, name in (("--class", looked_for), ("--fail_if", options.fail_if)):
        if name not in (*detector.class_names, None) and (option, name) != ("--fail_if", UNSURE):
            parser.error(f"{option} {name}: the model has no such class; choose {', '.join(detector.class_names)}")
    sorter = _sorter(options)  # before folders are searched: it knows whether its own is one of them
    listed = list_pictures(_named(options.pictures), options.sort_to)
    kth, of = options.shard or (1, 1)
    files = listed.files[kth - 1 :: of]
    summary = Summary(detector.class_names, options.class_name)
    summary.left_out = listed.left_out
    # A person is shown what was found at the end; a program is given it at once.
    terminal = _is_terminal() and not (options.json or options.null)
    shown = _Shown(looked_for)
    with ExitStack() as opened:
        outputs = [lambda found: summary.add(found.row), *_outputs(options, detector, looked_for, opened)]
        if sorter is not None:
            opened.enter_context(sorter)
            outputs.append(lambda found: sorter.add(found.row, found.file.below))
        if not options.dry_run:
            outputs.append(shown.add if terminal else _printer(options, looked_for))
        also = _for_page(options, detector) if options.page is not None else None
        advance = opened.enter_context(picture_progress("looking at pictures", len(files)))
        looking = opened.enter_context(closing(detector.look(files, also)))
        for found in looking:
            for output in outputs:
                output(found)
            advance(1)
    if len(files) > 1:
        shown.print()
    said = [*summary.lines(), *([sorter.summary()] if sorter is not None else [])]
    if not detector.kept:
        said.append("answers could not be kept for the next time: the cache folder cannot be written")
    for line in said:
        print_line(line, stderr=not terminal)
    if options.fail_if and summary.counts[options.fail_if]:
        return FOUND
    return UNREADABLE if summary.unreadable else 0


class _Shown:
    """The pictures that a person is shown: those of the class looked for, and the unsure."""

    def __init__(self, looked_for: str) -> None:
        self._answers: dict[str, list[tuple[float, str, str]]] = {looked_for: [], UNSURE: []}

    def add(self, found: Found[Any]) -> None:
        row = found.row
        if row.answer in self._answers and row.confidence is not None:
            self._answers[row.answer].append((row.confidence, row.path, row.predicted))

    def print(self) -> None:
        for name, answers in self._answers.items():
            if answers:
                print_line(f"{name}:")
                print_answers(answers)


def _check(parser: Parser, options: argparse.Namespace) -> None:
    """Refuses options that leave nothing to do, or would be ignored."""
    if not options.pictures:
        parser.error("name pictures, or folders of them; - takes a list from standard input")
    for option, of in NEEDS:
        if getattr(options, option) and getattr(options, of) is None:
            parser.error(f"--{option} says how --{of} is done, which is not given")
    if options.json and options.null:
        parser.error("--null ends paths, and --json prints none alone; leave one of them out")
    for option in ("json", "null"):
        if getattr(options, option) and options.dry_run:
            parser.error(f"--{option} and --dry_run both say what is printed; leave one of them out")
    for option, suffixes in SUFFIXES.items():
        if (path := getattr(options, option)) is not None:
            output_file(path, f"--{option}", *suffixes)


def _of_argument(found: re.Match[str]) -> str:
    """How the message about the value of an option begins."""
    option, value, choices = found.groups()
    return f"{option} {value}: choose {choices.replace(chr(39), '')}" if value else f"{option} "


def _path(text: str) -> Path:
    return Path(text).expanduser()  # the shell does so after a space, and not after =


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text}: give K/N, such as 3/16 for the third of sixteen parts")
    return int(found[1]), int(found[2])


def _named(given: Sequence[str]) -> Iterator[str]:
    """What is named, and on standard input.

    Raises:
        GelError: what is named on the command line is not there.
    """
    for path in given:
        if path == STDIN:
            yield from read_list(sys.stdin.buffer.read() if sys.stdin else b"")
        elif os.path.lexists(path):
            yield path
        else:
            raise GelError(f"{path}: no such file or folder; check the path")


Extra = tuple[NDArray[np.uint8], NDArray[np.uint8] | None] | None
Output = Callable[[Found[Extra]], object]


def _outputs(options: argparse.Namespace, detector: Detector, looked_for: str, opened: ExitStack) -> Iterator[Output]:
    """Opens what is to be written beside the output, before the work: a place that cannot be written shows at once."""
    if options.csv is not None:
        table = Table(opened.enter_context(replacing(options.csv, **CSV_OPTIONS)), detector.class_names)
        yield lambda found: table.add(found.row)
    if options.page is not None:
        from gel_lightning.inference.page import Page

        page = opened.enter_context(Page(options.page, detector.class_names, looked_for))
        yield lambda found: page.add(found.row, *(found.extra or (None, None)))


def _sorter(options: argparse.Namespace) -> "Sorter | None":
    if options.sort_to is None:
        return None
    from gel_lightning.inference.sort import Sorter

    return Sorter(options.sort_to, options.link, options.dry_run, lambda line: _print(f"{line}\n"))


def _for_page(options: argparse.Namespace, detector: Detector) -> Callable[[Image.Image, Row], Extra]:
    """What is made of each picture for the page: a small copy, and where that is asked for a heat map."""

    def make(picture: Image.Image, row: Row) -> Extra:
        heat = None
        if options.explain:
            from gel_lightning.inference.explain import heat_map

            heat = heat_map(detector.model, picture, row.predicted)
        small = picture.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        return np.asarray(small), heat

    return make


def _printer(options: argparse.Namespace, looked_for: str) -> Output:
    """What prints each picture as soon as it is known: its row, or its path where it is of the class looked for."""
    if options.json:
        return lambda found: _print(f"{to_json(found.row)}\n")
    end = "\0" if options.null else "\n"
    return lambda found: _print(f"{found.row.path}{end}") if found.row.answer == looked_for else None


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _print(text: str) -> None:
    """Prints to whoever waits for it, names of files as the file system has them."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _complain(text: str) -> None:
    print(f"gel-fit: error: {printable(text)}", file=sys.stderr)
