"""A small cache of generated studies, made the usual way: DICOM files, then `preprocess`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.cache.verify import Problem, verify
from lumbar.doctor.result import CheckResult, failed, passed
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.preprocess import preprocess
from lumbar.synth.dataset import SynthConfig, write_dataset

SERIES = SeriesType.SAGITTAL_T2
SIZE = 64
STUDIES = 4


@contextmanager
def small_cache() -> Iterator[Cache]:
    """Yield a cache of `STUDIES` sagittal T2 series of `SIZE` x `SIZE` pixels, then remove it."""
    with TemporaryDirectory(prefix="lumbar-doctor-") as folder:
        yield Cache(_write(Path(folder)))


def check_cache() -> CheckResult:
    """Make a cache and verify every byte of it."""
    with TemporaryDirectory(prefix="lumbar-doctor-") as folder:
        root = _write(Path(folder))
        n_series = len(Cache(root).series)
        if n_series != STUDIES:
            return failed(
                f"{n_series} of {STUDIES} generated series are in the cache",
                "see the checks of the decoders: generated files are compressed by RLE",
            )
        for event in verify(root):
            if isinstance(event, Problem):
                return failed(
                    f"{event.what}: {event.detail}",
                    "test the disk and the memory of this machine, or name another folder in "
                    "the environment variable TMPDIR",
                )
    return passed(f"{n_series} generated series, every byte")


def _write(folder: Path) -> Path:
    """Write generated DICOM files and make a cache of them, in this process; return its folder."""
    synth = SynthConfig(studies=STUDIES, series_types=(SERIES,), max_matrix=SIZE)
    for _ in write_dataset(folder / "dicoms", synth, workers=0):
        pass
    config = PreprocessConfig(size=SIZE)
    for _ in preprocess(folder / "dicoms", folder / "cache", config, workers=0):
        pass
    return folder / "cache"
