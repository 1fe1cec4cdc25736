"""How ``lumbar inspect`` looks: a cache in numbers, and lists of series."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from lumbar.display.preprocess import show_reasons
from lumbar.display.terminal import console, say, size_text

if TYPE_CHECKING:
    import polars as pl

    from lumbar.inspect.summary import Summary

MOST_SERIES = 50
"""Series that are listed on the terminal."""

MILLIMETRES = ("mm per pixel", "mm per slice")


def show_summary(summary: Summary, cache: Path) -> None:
    """Show what a cache holds."""
    say(
        f"cache format {summary.format_version}, written by lumbar {summary.lumbar_version}, "
        f"configuration {summary.config_hash}: {summary.n_studies:,} studies, "
        f"{summary.n_series:,} series, {size_text(summary.nbytes)}"
    )
    say(_patients_line(summary))
    types = _numbers("series", "type", "studies", "series", "files", "slices", *MILLIMETRES, "size")
    for kind, entry in summary.types.items():
        types.add_row(
            kind,
            f"{entry.n_studies:,}",
            f"{entry.n_series:,}",
            f"{entry.n_files:,}",
            f"{entry.depth.minimum:.0f} / {entry.depth.median:.0f} / {entry.depth.maximum:.0f}",
            f"{entry.spacing_w_mm.median:.2f}",
            f"{entry.spacing_d_mm.median:.2f}",
            size_text(entry.nbytes),
        )
    console.print(types)
    title = f"labels of {summary.n_labelled_studies:,} studies"
    severities = "normal/mild", "moderate", "severe", "unknown"
    grades = _numbers(title, "condition", *severities, "points")
    for condition, counts in summary.severities.items():
        points = summary.points.get(condition, 0)
        grades.add_row(condition, *(f"{n:,}" for n in counts.values()), f"{points:,}")
    console.print(grades)
    for title, counts in (("flags", summary.flags), ("rejected", summary.rejected)):
        if counts:
            listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            console.print(f"{title}: {listed}", highlight=False)
    show_reasons(summary.rejected, cache)


def _numbers(title: str, first: str, *others: str) -> Table:
    """Return a table whose first column has names and the others numbers."""
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def show_rejected(rejected: pl.DataFrame) -> None:
    """List rejected files and series."""
    table = Table(title=f"{rejected.height:,} rejected files and series")
    for name in ("series", "file", "reason", "detail"):
        table.add_column(name, overflow="fold")
    for row in rejected.head(MOST_SERIES).iter_rows(named=True):
        series = f"{row['study_id']}/{row['series_id']}".strip("/")
        table.add_row(*map(escape, (series, row["path"], row["reason"], row["detail"])))
    console.print(table)
    if rejected.height > MOST_SERIES:
        say(f"the first {MOST_SERIES} of {rejected.height:,}; all are in rejected.parquet")


def _patients_line(summary: Summary) -> str:
    """Return how many patients have several studies; a split keeps these together."""
    if summary.n_patients_with_several is None:
        return (
            "which studies are of one patient is not recorded, so each counts as a patient of its "
            "own; `lumbar preprocess` again records it"
        )
    if not summary.n_patients_with_several:
        return "no patient has several studies"
    return (
        f"{summary.n_patients_with_several:,} patients have several studies, "
        f"{summary.n_studies_of_these:,} in all"
    )


def show_series(series: pl.DataFrame) -> None:
    """List series, cached or left out."""
    table = Table(title=f"{series.height:,} series")
    for name in ("series", "type", "slices", "worst", "flags", "left out"):
        table.add_column(name, overflow="fold", no_wrap=name == "type")
    for row in series.head(MOST_SERIES).iter_rows(named=True):
        cells = (
            f"{row['study_id']}/{row['series_id']}".strip("/") or "files of no series",
            row["series_type"] or "not cached",
            "" if row["depth"] is None else str(row["depth"]),
            "".join(row["severities"][-1:]),
            ", ".join(row["flags"]),
            ", ".join(row["reasons"]),
        )
        table.add_row(*map(escape, cells))
    console.print(table)
    if series.height > MOST_SERIES:
        say(f"the first {MOST_SERIES}; --export writes all {series.height:,}")
