"""The package imports nothing that Windows or macOS lacks."""

import ast
from pathlib import Path

import pytest

import gel_lightning

PACKAGE = Path(gel_lightning.__file__).parent
UNIX_ONLY = {
    *("crypt", "curses", "fcntl", "grp", "nis", "ossaudiodev", "pty", "pwd", "readline", "resource", "spwd", "syslog"),
    *("termios", "tty", "winreg", "msvcrt", "winsound", "_winapi"),
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_of_one_system_is_imported(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported.update(name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add((node.module or "").partition(".")[0])
    assert not imported & UNIX_ONLY
