"""What all HTML pages share: a frame, a style, embedded thumbnails. Pages are self-contained and load nothing.

A template extends ``base.html.jinja`` and fills its blocks ``title``, ``style``, ``body`` and ``script``. The Content
Security Policy in its head allows only that script, by its hash, so that a name injected as HTML cannot run.
"""

import base64
import hashlib
import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import jinja2

SIDE = 160
"""Longest side of a thumbnail in pixels."""


def environment(package: str) -> "jinja2.Environment":
    """Makes the environment for the templates of a package, with autoescaping.

    Args:
        package: name of the package that contains the templates.
    """
    import jinja2

    own, shared = jinja2.PackageLoader(package, ""), jinja2.PackageLoader("gel_lightning.core", "html")
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([own, shared]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["script_hash"] = _script_hash
    return made


def _script_hash(script: str) -> str:
    """The hash of a script for a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def small_jpeg(picture: Image.Image) -> bytes:
    """Encodes a picture of mode ``"L"`` or ``"RGB"`` as a JPEG whose sides are at most :data:`SIDE`."""
    if max(picture.size) > SIDE:
        picture = picture.copy()
        picture.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    return data.getvalue()


def jpeg_uri(content: bytes) -> str:
    """The data URI of a JPEG."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
