"""The packaged detector, which finds gels without any training; see README.md in this folder."""

import hashlib
from importlib import resources

VERSION = "2"
"""Raised whenever the file changes."""


def read_detector() -> bytes:
    """The ONNX file, written by `gel-fit export`."""
    return resources.files(__name__).joinpath("gel.onnx").read_bytes()


def identity() -> str:
    """The version and the SHA-256 of the file."""
    return f"detector {VERSION} (sha256 {hashlib.sha256(read_detector()).hexdigest()})"
