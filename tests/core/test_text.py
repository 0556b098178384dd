import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gel_lightning.core.text import printable

DANGEROUS = "\x1b\x07\x08\r\n\t\v\f\x00\x7f\x9b\u2028\u2029\u202e\u2066\udcff"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gel_1.png", "gel_1.png"),
        ("Gele à 4 °C – 染色 🧪.png", "Gele à 4 °C – 染色 🧪.png"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("a\tb\nc\r", r"a\tb\nc\r"),
        ("\x9b31m", r"\x9b31m"),
        ("exe\u202egnp.gel", r"exe\u202egnp.gel"),
        (os.fsdecode(b"\xff\xfe.png"), r"\udcff\udcfe.png"),
        (r"C:\gel\x1b", r"C:\gel\x1b"),
        (OSError("a\nb"), r"a\nb"),
    ],
)
def test_only_what_would_do_harm_is_escaped(text: object, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters() | st.sampled_from(DANGEROUS)))
def test_what_is_printed_is_one_line_that_controls_nothing(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in shown)
    assert printable(shown) == shown
    if not any(char in DANGEROUS or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text):
        assert shown == text
