"""The task of converting one series, as a worker process gets it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lumbar.cache.names import SeriesType
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.reject import Reason


@dataclass(frozen=True, slots=True)
class SeriesTask:
    """One series to convert; the paths in ``files`` are relative to ``source``.

    Attributes
    ----------
    named
        The type in the descriptions CSV, None if the CSV does not name the series.
    has_csv
        Whether there is a descriptions CSV.
    knows_left_out
        Whether a finished run has recorded the files that were left out. If not, a series with such
        files is decoded again to find them.
    shares_uid
        Whether other series share the UID of this series or of its study.
    refused
        Files that are not parsed, with reason and detail: each crashed or blocked a process.
    by_folder
        Whether this is the data set's layout, where files are named by their numbers.
    companions
        In the data set's layout: one file of each other series of the study.
    """

    study_id: str
    series_id: str
    source: Path
    files: tuple[str, ...]
    named: SeriesType | None
    has_csv: bool
    cache: Path
    config: PreprocessConfig
    knows_left_out: bool = False
    shares_uid: bool = False
    refused: tuple[tuple[str, Reason, str], ...] = ()
    by_folder: bool = False
    companions: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """The ids of the study and the series."""
        return self.study_id, self.series_id
