"""Output of `lumbar doctor`: facts, checks, and what to do about those that fail."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from lumbar.display.terminal import console, say
from lumbar.doctor.report import checks_of, facts_of
from lumbar.doctor.result import Row, State

STYLES: dict[State, str] = {"pass": "green", "fail": "bold red", "not measured": "dim"}
BELOW = "see below"


def show_doctor(rows: Iterable[Row]) -> list[Row]:
    """Show the running check, then tables of all results; return the results."""
    done = []
    with console.status("checking this machine") as status:
        for row in rows:
            done.append(row)
            status.update(f"{row.name}: {row.result.state}")
    _show_facts(done)
    _show_checks(checks_of(done))
    _show_failures(checks_of(done))
    counts = Counter(row.result.state for row in checks_of(done))
    seconds = sum(row.seconds for row in done)
    summary = ", ".join(f"{counts[state]} {state}" for state in STYLES)
    say(f"{summary}; {seconds:.0f} s")
    return done


def _show_facts(rows: Sequence[Row]) -> None:
    table = Table(title="facts", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for fact in facts_of(rows):
        table.add_row(Text(fact.name), Text(fact.value))
    console.print(table)


def _show_checks(rows: Sequence[Row]) -> None:
    table = Table(title="checks", box=box.SIMPLE_HEAD)
    table.add_column("check", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("found", overflow="fold")
    for row in rows:
        state = row.result.state
        found = BELOW if state == "fail" else row.result.found
        table.add_row(Text(row.name), Text(state, STYLES[state]), Text(found))
    console.print(table)


def _show_failures(rows: Sequence[Row]) -> None:
    """Print what is wrong and what to do, once for all checks with the same fault.

    Lines are wrapped only between words, so that commands can be copied.
    """
    names: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.result.state == "fail":
            names.setdefault((row.result.found, row.result.cure), []).append(row.name)
    for (found, cure), failing in names.items():
        console.print(Text(f"fail: {'; '.join(failing)}", STYLES["fail"]))
        say(_wrapped(f"found: {found}"))
        say(_wrapped(f"cure: {cure}"))
        say("")


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text,
        width=console.width,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
