"""The one kind of error a user can mend."""


class GelError(Exception):
    """Something the user can mend: one line saying what is wrong, where, and what to do.

    The command line prints the text and exits with status 1, with no traceback. Everything else that is
    raised is a bug of ours and keeps its traceback.
    """
