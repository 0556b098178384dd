"""What all HTML pages share: a frame, a style, small pictures inside. A page stands alone: it fetches nothing.

A template extends ``base.html.jinja`` and fills its blocks ``title``, ``style``, ``body`` and ``script``. The policy in
its head lets that one script run, known by its hash, so that a name which slips in as HTML cannot.
"""

import base64
import hashlib
import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import jinja2

SIDE = 160
"""Most pixels of a side of a thumbnail."""


def environment(package: str) -> "jinja2.Environment":
    """Makes the environment of a package's templates, in which all that is filled in is escaped.

    Args:
        package: name of the package beside whose modules the templates are.
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
    """A script as the source list of a Content-Security-Policy names it."""
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
    """A JPEG as the URI of an image within a page."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
