"""Warnings and log lines of libraries that say nothing to a user of the command."""

import logging
import warnings

KNOWN_WARNINGS = (
    # Lightning's own use of torch.
    ".*treespec, LeafSpec.* is deprecated",
    r"torch\.distributed\.nn\.functional\.all_gather is deprecated",
    # Whoever names the CPU wants it.
    "GPU available but not used",
    # The folder of a run that is resumed.
    "Checkpoint directory .* exists and is not empty",
    # A frozen trunk is meant to be in eval mode.
    r"Found \d+ module\(s\) in eval mode",
    # Stored features need no worker processes.
    ".*does not have many workers",
    # Metrics of several ranks are of all pictures, each once.
    "Using `DistributedSampler`",
    ".*sync_dist=True",
    # Metrics of pictures of which some class is absent are undefined, and shown as such.
    "No (positive|negative) samples in targets",
    # Names in scripts that matplotlib's font lacks are drawn as boxes.
    "Glyph .* missing from",
)


def hide_known_warnings() -> None:
    """Leaves out what Lightning, torch and torchmetrics warn of in a normal run, for the rest of this process."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
