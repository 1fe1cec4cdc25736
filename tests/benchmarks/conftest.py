"""A contest of a few small generated series, DICOM files and cache, and its modules at hand."""

from pathlib import Path

import pytest

from lumbar.bench.loaders.notebook_reader import NotebookReader
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.preprocess import preprocess
from lumbar.synth.dataset import SynthConfig, write_dataset
from lumbar.train.plan.crop import CropConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CROP = CropConfig(slices=18, height=48, width=64, pixel_mm=2.5)


@pytest.fixture(scope="session", autouse=True)
def _find_peers():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


@pytest.fixture(scope="session")
def contest(tmp_path_factory):
    """Four series of 96 x 96, of which some are shallower than the box and some deeper."""
    from contest.contest import Contest  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("contest")
    config = SynthConfig(
        studies=4, series_types=(SeriesType.SAGITTAL_T2,), max_matrix=96, noise=0.0, seed=5
    )
    list(write_dataset(folder / "dicoms", config, workers=0))
    list(preprocess(folder / "dicoms", folder / "cache", PreprocessConfig(size=96), workers=0))
    cache = Cache(folder / "cache")
    decode = NotebookReader.find(
        folder / "dicoms", cache.series.select("study_id", "series_id").rows()
    )
    return Contest(cache.root, [0, 1, 2, 3], decode, crop=CROP, batch=2, seed=3)
