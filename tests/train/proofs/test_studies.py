"""A patient-level model sees what no single series shows."""

import pytest

from lumbar.cache.names import SeriesType

pytestmark = pytest.mark.slow

TYPES = 'study_types=["sagittal_t2", "axial_t2"]'


def test_a_model_of_studies_beats_the_best_model_of_single_series(spread, train_on):
    single = [
        train_on(spread, kind, "optim.epochs=8")
        for kind in (SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2)
    ]
    study = train_on(spread, "study", TYPES, "optim.epochs=10")
    prior = study.prior.total
    assert all(one.prior.total == prior for one in single)
    best = min(one.best.total for one in single)
    # A single series learns what it shows, half of the findings, and no more.
    assert 0.4 * prior < best < 0.95 * prior
    assert study.best.total < 0.7 * best
