"""What we or Lightning refuse, told apart from what goes wrong: the first is one line, the second a traceback."""

import traceback

from gel_lightning.core.errors import GelError

# Of these Lightning raises some with a sentence for the user, such as the package that a logger needs.
LIGHTNINGS = (ImportError, KeyError, RuntimeError, ValueError)


def refusal(error: BaseException) -> str | None:
    """The sentence with which we or Lightning refuse a setting: a folder, a metric, an absent package.

    Args:
        error: that error or one caused by it, since jsonargparse wraps what classes and links raise.

    Returns:
        None for any other error.
    """
    while error.__cause__ is not None and not isinstance(error, GelError):
        error = error.__cause__
    if isinstance(error, GelError):
        return str(error)
    if not isinstance(error, LIGHTNINGS) or error.__traceback__ is None:
        return None
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    text = str(error.args[0]) if error.args else ""
    is_lightnings = str(frame.f_globals.get("__name__")).partition(".")[0] in ("lightning", "pytorch_lightning")
    return text if is_lightnings and " " in text else None
