"""The page: data as escaped JSON, a style and a script; it needs no network.

Ids and texts of DICOM files are untrusted. The page holds them as JSON without ``<``, ``>`` and
``&``, the script inserts them as text, and the content security policy allows only this script, by
its hash, and nothing from outside.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

THUMBNAILS_A_CHUNK = 64
"""Thumbnails that the browser decodes together, when the user scrolls to the first of them."""

_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def page(data: dict[str, Any], thumbnails: Sequence[bytes | None]) -> Iterator[str]:
    """Yield the page piece by piece.

    ``thumbnails`` are JPEGs in the order of ``data["series"]``, None where there is none.
    """
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    # Inline styles are safe here: they cannot fetch anything, for no source is allowed.
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"script-src '{_hash(script)}'"
    )
    head, _, tail = _asset("report.html").partition("<!-- data -->")
    yield head.replace("POLICY", policy).replace("STYLE", style)
    yield _block("data", data | {"chunk": THUMBNAILS_A_CHUNK})
    for start in range(0, len(thumbnails), THUMBNAILS_A_CHUNK):
        chunk = thumbnails[start : start + THUMBNAILS_A_CHUNK]
        encoded = [one and base64.b64encode(one).decode() for one in chunk]
        yield _block(f"thumbnails-{start // THUMBNAILS_A_CHUNK}", encoded)
    yield tail.replace("SCRIPT", script)


def as_json(value: object) -> str:
    """Return JSON that is safe in a script element, whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # A lone surrogate cannot be written as UTF-8.
    return text.translate(_ESCAPES).encode("utf-8", "replace").decode()


def _block(name: str, value: object) -> str:
    return f'<script type="application/json" id="{name}">{as_json(value)}</script>\n'


def _asset(name: str) -> str:
    return files("lumbar.inspect.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
