"""How ``lumbar inspect`` looks: a cache in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from lumbar.display.terminal import console, say, size_text

if TYPE_CHECKING:
    from lumbar.cache.summary import Summary


def show_summary(summary: Summary) -> None:
    """Show what a cache holds."""
    say(
        f"cache format {summary.format_version}, written by lumbar {summary.lumbar_version}, "
        f"configuration {summary.config_hash}: {summary.n_studies:,} studies, "
        f"{summary.n_series:,} series, {size_text(summary.nbytes)}"
    )
    types = Table(title="series")
    for name in (
        "type",
        "studies",
        "series",
        "files",
        "slices",
        "mm a pixel",
        "mm a slice",
        "size",
    ):
        first = name == "type"
        types.add_column(name, justify="left" if first else "right", no_wrap=first)
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
    grades = Table(title=f"labels of {summary.n_labelled_studies:,} studies")
    for name in ("condition", "normal/mild", "moderate", "severe", "unknown", "points"):
        first = name == "condition"
        grades.add_column(name, justify="left" if first else "right", no_wrap=first)
    for condition, counts in summary.severities.items():
        points = summary.points.get(condition, 0)
        grades.add_row(condition, *(f"{n:,}" for n in counts.values()), f"{points:,}")
    console.print(grades)
    for title, counts in (("flags", summary.flags), ("rejected", summary.rejected)):
        if counts:
            listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            console.print(f"{title}: {listed}", highlight=False)
