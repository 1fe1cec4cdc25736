"""What a run of `lumbar.pipeline.preprocess` reports while it works."""

from __future__ import annotations

from dataclasses import dataclass, field

from lumbar.pipeline.reject import Reason


@dataclass(frozen=True, slots=True)
class Scanned:
    """The number of files found so far."""

    n_files: int


@dataclass(frozen=True, slots=True)
class HeadersRead:
    """In a bare tree: the number of headers read for their ids so far, and in total."""

    n_files: int
    n_total: int


@dataclass(frozen=True, slots=True)
class Planned:
    """The work to do; ``n_reused`` series are stored already and only compared with their files."""

    n_series: int
    n_files: int
    n_reused: int


@dataclass(frozen=True, slots=True)
class SeriesFinished:
    """One series is done.

    ``nbytes`` is the size of its source files. ``cached`` means that the cache already held it
    unchanged, so that nothing was decoded. ``reason`` is why it was left out, None if it is in the
    cache.
    """

    study_id: str
    series_id: str
    n_files: int
    nbytes: int
    cached: bool
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class VolumeTaken:
    """A volume of another cache is in this one."""

    study_id: str
    series_id: str


@dataclass(frozen=True, slots=True)
class Join:
    """The counts of the join of a CSV file with the images.

    ``unit`` is "studies" or "series"; ``n_repaired`` of them are spelt otherwise in the file.
    """

    file: str
    unit: str
    n_matched: int
    n_only_in_csv: int
    n_only_in_images: int
    n_repaired: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is over and the tables are written.

    ``n_series`` series are in the cache: ``n_reused`` of them were unchanged, ``n_changed`` were
    decoded again because their source changed, and ``n_vanished`` are no longer in the source.
    ``n_rejected_series`` were left out. ``rejected_by_reason`` counts rows of ``rejected.parquet``,
    ``flags`` counts series, ``points_by_flag`` counts points without a place.
    """

    n_series: int
    n_reused: int
    n_changed: int
    n_rejected_series: int
    n_vanished: int
    n_files: int
    rejected_by_reason: dict[str, int]
    flags: dict[str, int]
    joins: tuple[Join, ...] = ()
    n_points: int = 0
    points_by_flag: dict[str, int] = field(default_factory=dict)

    @property
    def is_total_loss(self) -> bool:
        """Tell whether the source had files or rows and nothing of it is in the cache."""
        return self.n_series == self.n_vanished and bool(self.n_files or self.rejected_by_reason)


Event = Scanned | HeadersRead | Planned | SeriesFinished | Finished
