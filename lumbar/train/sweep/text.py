"""Values of searched keys as tables and pictures show them."""

from __future__ import annotations

import json
from typing import Any


def text_of(value: Any) -> str:
    """Return a value in short: four digits of a number, lists and tables as JSON."""
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, default=str)
