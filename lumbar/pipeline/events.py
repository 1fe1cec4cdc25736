"""What a run of `lumbar.pipeline.preprocess` reports while it works."""

from __future__ import annotations

from dataclasses import dataclass, field

from lumbar.pipeline.reject import Reason


@dataclass(frozen=True, slots=True)
class Scanned:
    """So many files have been found so far."""

    n_files: int


@dataclass(frozen=True, slots=True)
class HeadersRead:
    """Of a bare tree: so many headers have been read for their ids, of those that have to be."""

    n_files: int
    n_total: int


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to do; ``n_reused`` series are stored already and only compared with their files."""

    n_series: int
    n_files: int
    n_reused: int


@dataclass(frozen=True, slots=True)
class SeriesFinished:
    """One series is done.

    ``nbytes`` is the size of its source files. ``cached`` says that the cache held it already,
    unchanged, so that nothing was decoded. ``reason`` says why it was left out, None where it is
    in the cache.
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
    """How a CSV file and the images met.

    ``unit`` is what was compared, studies or series; ``n_repaired`` of those that matched are spelt
    otherwise in the file.
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

    ``n_series`` series are in the cache, ``n_reused`` of them unchanged from before, ``n_changed``
    decoded again because their source is another; ``n_rejected_series`` were left out,
    ``n_vanished`` are in the cache but no longer in the source. ``rejected_by_reason`` counts rows
    of ``rejected.parquet``, ``flags`` counts series. ``joins`` says how the CSV files of the source
    met its images, ``points_by_flag`` what became of the points that have no place.
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
        """Tell whether there was something in the source and nothing of it is in the cache."""
        return self.n_series == self.n_vanished and bool(self.n_files or self.rejected_by_reason)


Event = Scanned | HeadersRead | Planned | SeriesFinished | Finished
