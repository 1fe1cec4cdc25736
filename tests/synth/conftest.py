from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumbar.cache.names import SeriesType
from lumbar.synth.dataset import SynthConfig, write_dataset
from lumbar.synth.study import SampledStudy, sample_study

ALL_TYPES = (SeriesType.SAGITTAL_T1, SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2)


@pytest.fixture
def sample() -> Callable[..., SampledStudy]:
    """Sample study 0 of a seed; all its cells are normal but those given as cell=severity."""

    def sample_with(
        seed: int, cells: dict[tuple[int, int], int], matrix: int = 256
    ) -> SampledStudy:
        grades = np.zeros((5, 5), np.int8)
        for (condition, level), severity in cells.items():
            grades[condition, level] = severity
        return sample_study(seed, 0, test=False, wanted=ALL_TYPES, max_matrix=matrix, grades=grades)

    return sample_with


@pytest.fixture(scope="session")
def small_config() -> SynthConfig:
    return SynthConfig(studies=3, test_studies=1, seed=11, max_matrix=96)


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory, small_config: SynthConfig) -> Path:
    folder = tmp_path_factory.mktemp("synth") / "data"
    list(write_dataset(folder, small_config, workers=0))
    return folder
