"""The results as a file, to attach to a bug report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from lumbar.doctor.result import Fact, Row

FORMAT = 1


def facts_of(rows: Sequence[Row]) -> list[Fact]:
    """Return the facts, in order."""
    return [fact for row in rows for fact in row.result.facts]


def checks_of(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without facts: the checks, and facts that could not be read."""
    return [row for row in rows if not row.result.facts]


def is_healthy(rows: Sequence[Row]) -> bool:
    """Whether no check failed."""
    return all(row.result.state != "fail" for row in rows)


def write_report(rows: Sequence[Row], file: Path) -> None:
    """Write all facts and checks as JSON."""
    document = {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "facts": [asdict(fact) for fact in facts_of(rows)],
        "checks": [
            {
                "name": row.name,
                "state": row.result.state,
                "found": row.result.found,
                "cure": row.result.cure,
                "seconds": row.seconds,
            }
            for row in checks_of(rows)
        ],
    }
    file.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
