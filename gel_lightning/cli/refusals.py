"""What Lightning refuses, told apart from what goes wrong: the first is one line, the second a traceback."""

import traceback

# Of these Lightning raises some with a sentence for the user, such as the package that a logger needs.
REFUSALS = (ImportError, KeyError, RuntimeError, ValueError)


def lightnings_refusal(error: BaseException) -> str | None:
    """The sentence with which Lightning itself refuses a setting: a metric, a package, a value.

    Args:
        error: whose causes are looked at too, since jsonargparse wraps what a class raises.

    Returns:
        None for any other error.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, REFUSALS) or error.__traceback__ is None:
        return None
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    text = str(error.args[0]) if error.args else ""
    is_lightnings = str(frame.f_globals.get("__name__")).partition(".")[0] in ("lightning", "pytorch_lightning")
    return text if is_lightnings and " " in text else None
