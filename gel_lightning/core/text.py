"""Text from outside (names of files and classes, messages of libraries) made safe to print."""

import re

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Escapes what would end a line, control the terminal, reorder text, or cannot be encoded.

    - Control characters, with which every escape sequence of a terminal begins, become ``\t``, ``\n``, ``\x1b`` ...
    - Line and paragraph separators and bidirectional overrides become ``\u2028``, ``\u202e`` ...
    - A byte of a file name that is not UTF-8, which Python keeps as a lone surrogate, becomes ``\udcff``.

    Everything else stays as it is, backslashes too, so that escaping twice changes nothing.

    Args:
        text: anything that has a text.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))
