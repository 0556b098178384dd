"""The packaged detector: a classifier of gels that needs no training, see README.md beside it."""

import hashlib
from importlib import resources

VERSION = "1"
"""Raised whenever the file is another one."""


def read_detector() -> bytes:
    """The ONNX file, as `gel-fit export` has written it."""
    return resources.files(__name__).joinpath("gel.onnx").read_bytes()


def identity() -> str:
    """The version and the sha256 of the file, in a few words."""
    return f"detector {VERSION} (sha256 {hashlib.sha256(read_detector()).hexdigest()})"
