"""Blurred, dark, overexposed and blank pictures, as cleanvision finds them."""

from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from PIL import Image

from gel_lightning.core.errors import missing_package
from gel_lightning.core.progress import picture_progress
from gel_lightning.data.images import read_picture

ISSUES = {"blurry": "blurred", "dark": "dark", "light": "overexposed", "low_information": "blank"}
"""What cleanvision looks for, and what it is called here."""
BLANK = 0.1
"""The most information, as cleanvision measures it, of a blank picture. Plots and gels on a white page have more."""


class _Pictures:
    """Pictures as cleanvision takes them: a sequence of tuples with a picture each."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image]:
        return (read_picture(self.paths[index]),)


def poor_pictures(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """Finds blurred, dark, overexposed and blank pictures.

    Args:
        paths: picture files that can be read.

    Returns:
        What is wrong with each of those with which something is, of the values of :data:`ISSUES`.

    Raises:
        GelError: cleanvision is not installed.
        PictureError: a picture cannot be read.
    """
    try:
        from cleanvision import Imagelab
    except ImportError as error:
        raise missing_package("cleanvision", "clean") from error
    if not paths:
        return {}
    thresholds = {"low_information": {"threshold": BLANK}}
    with picture_progress("Looking at pictures", len(paths)) as advance, redirect_stderr(StringIO()):  # its own bar
        lab = Imagelab(torchvision_dataset=_Pictures(paths), verbose=False)
        lab.find_issues({issue: thresholds.get(issue, {}) for issue in ISSUES}, n_jobs=1, verbose=False)
        advance(len(paths))
    found = {
        path: [word for issue, word in ISSUES.items() if lab.issues.loc[n, f"is_{issue}_issue"]]
        for n, path in enumerate(paths)
    }
    return {path: words for path, words in found.items() if words}
