"""Text from outside (names of files and classes, messages of libraries) made safe to print."""

import re
from collections.abc import Sequence

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Escapes what would end a line, control the terminal, reorder text, or cannot be encoded.

    - Control characters, which begin all escape sequences of terminals, become ``\t``, ``\n``, ``\x1b`` ...
    - Line and paragraph separators and bidirectional overrides become ``\u2028``, ``\u202e`` ...
    - Bytes of file names that are not UTF-8, which Python keeps as lone surrogates, become ``\udcff`` ...

    Everything else stays unchanged, backslashes too, so that escaping twice has no effect.

    Args:
        text: anything that :class:`str` accepts.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def some_of(names: Sequence[str], most: int = 12) -> str:
    """Names in a row, the first ones of many.

    Args:
        names: any number of them.
        most: how many are listed at most.
    """
    more = len(names) - most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:most])} and {more} more"
