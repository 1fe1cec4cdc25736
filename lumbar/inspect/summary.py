"""What is in a cache, as numbers: what ``lumbar inspect`` shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from lumbar.cache.labels import UNKNOWN, severities_of
from lumbar.cache.names import CONDITIONS, LEVELS, SEVERITIES, SeriesType
from lumbar.cache.store import Cache


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The smallest, the middle and the largest of some values."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeSummary:
    """The series of one type; ``shapes`` counts ``height x width``, the most frequent first."""

    n_studies: int
    n_series: int
    n_files: int
    nbytes: int
    depth: ValueRange
    spacing_d_mm: ValueRange
    spacing_h_mm: ValueRange
    spacing_w_mm: ValueRange
    shapes: dict[str, int]
    n_with_several_stacks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A cache in numbers; every mapping of counts has its largest count first.

    ``n_studies`` have a cached series, ``n_labelled_studies`` a label row.
    ``n_patients_with_several`` have more than one study, ``n_studies_of_these`` in all; None where
    it is not recorded whose studies these are. ``severities`` counts,
    for each condition, the cells by severity and those that are ``unknown``; ``points`` counts the
    annotated points, ``n_points_outside`` those of them without a place in a cached volume.
    """

    format_version: int
    lumbar_version: str
    config_hash: str
    profile: str
    n_studies: int
    n_patients_with_several: int | None
    n_studies_of_these: int | None
    n_series: int
    nbytes: int
    types: dict[str, TypeSummary]
    dtypes: dict[str, int]
    transfer_syntaxes: dict[str, int]
    manufacturers: dict[str, int]
    flags: dict[str, int]
    rejected: dict[str, int]
    n_labelled_studies: int
    severities: dict[str, dict[str, int]]
    points: dict[str, int]
    n_points_outside: int

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain types."""
        return asdict(self)


def summarise(cache: Cache) -> Summary:
    """Count what is in a cache; only its tables are read.

    Raises
    ------
    MissingError, FormatError
        If a table is absent or damaged.
    """
    series = cache.series
    types = [kind for kind in SeriesType if series["series_type"].eq(str(kind)).any()]
    return Summary(
        format_version=cache.description["format_version"],
        lumbar_version=cache.description["lumbar_version"],
        config_hash=cache.description["config_hash"],
        profile=cache.profile,
        n_studies=series["study_id"].n_unique(),
        n_patients_with_several=len(set(cache.patients.values())) if cache.knows_patients else None,
        n_studies_of_these=len(cache.patients) if cache.knows_patients else None,
        n_series=series.height,
        nbytes=int(series["nbytes"].sum()),
        types={
            str(kind): _summarise_type(series.filter(pl.col("series_type") == str(kind)))
            for kind in types
        },
        dtypes=_counts(series["dtype"]),
        transfer_syntaxes=_counts(series["transfer_syntax"]),
        manufacturers=_counts(series["manufacturer"]),
        flags=_counts(series["flags"].explode()),
        rejected=_counts(cache.rejected["reason"]),
        n_labelled_studies=cache.labels.height,
        severities=count_severities(cache.labels),
        points=_counts(cache.coordinates["condition"]),
        n_points_outside=cache.coordinates["d"].null_count(),
    )


def count_severities(labels: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Return, for each condition, how many cells of a labels table have which severity."""
    severities = severities_of(labels).reshape(-1, len(CONDITIONS), len(LEVELS))
    codes = {name: code for code, name in enumerate(SEVERITIES)} | {"unknown": UNKNOWN}
    return {
        condition: {name: int((severities[:, c] == code).sum()) for name, code in codes.items()}
        for c, condition in enumerate(CONDITIONS)
    }


def _summarise_type(series: pl.DataFrame) -> TypeSummary:
    """Summarise the series of one type."""
    shapes = series.select(pl.format("{} x {}", "height", "width")).to_series()
    return TypeSummary(
        n_studies=series["study_id"].n_unique(),
        n_series=series.height,
        n_files=int(series["n_files"].sum()),
        nbytes=int(series["nbytes"].sum()),
        depth=_span(series["depth"]),
        spacing_d_mm=_span(series["spacing_d_mm"]),
        spacing_h_mm=_span(series["spacing_h_mm"]),
        spacing_w_mm=_span(series["spacing_w_mm"]),
        shapes=_counts(shapes),
        n_with_several_stacks=int((series["n_stacks"] > 1).sum()),
    )


def _span(values: pl.Series) -> ValueRange:
    """Return the smallest, the middle and the largest value of a column that is not empty."""
    ordered = values.cast(pl.Float64).sort()
    return ValueRange(ordered[0], ordered[len(ordered) // 2], ordered[-1])


def _counts(values: pl.Series) -> dict[str, int]:
    """Count equal texts, the most frequent first, then in alphabetical order."""
    counts = Counter(values.drop_nulls().to_list())
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
