"""Use timm's hub of weights if it answers within seconds, else the local cache alone."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from huggingface_hub import constants

ANSWER_SECONDS = 3.0
"""How long connecting to the hub may take; its own retries take a minute."""

_PORTS = {"http": 80, "https": 443}


@contextmanager
def hub_or_cache() -> Iterator[bool]:
    """Yield whether the hub answers; if not, files come from the local cache alone."""
    before = constants.HF_HUB_OFFLINE
    answers = not before and _answers()
    constants.HF_HUB_OFFLINE = not answers
    try:
        yield answers
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers() -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return True  # whether a proxy leads there only a download can tell
    place = urlsplit(constants.ENDPOINT)
    port = place.port or _PORTS.get(place.scheme, 443)
    try:
        with socket.create_connection((place.hostname or "", port), timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False
