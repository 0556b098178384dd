"""The one kind of error that a user can mend."""


class GelError(Exception):
    """Something the user can mend: one line saying what is wrong, where, and what to do.

    The command line prints the text and exits with status 1, with no traceback. Everything else that is
    raised is a bug of ours and keeps its traceback.
    """


def missing_package(name: str, extra: str) -> GelError:
    """Makes the error of a package that is not installed, and that an extra of this one brings."""
    return GelError(f"{name} is not installed; run pip install 'gel-lightning[{extra}]'")
