"""The numbers of a cache that ``lumbar inspect`` shows."""

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
    """The numbers of a cache; every mapping of counts has its largest count first.

    ``n_studies`` counts studies with a cached series, ``n_labelled_studies`` those with a label
    row. ``n_patients_with_several`` counts patients with several studies, ``n_studies_of_these``
    their studies; both are None where patients are not recorded. ``severities`` counts cells by
    condition and severity, or ``unknown``. ``points`` counts annotated points, ``n_points_outside``
    those that lie in no cached volume.
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
    """Count what is in a cache, from its tables alone.

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
    """Count the cells of a labels table by condition and severity."""
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
