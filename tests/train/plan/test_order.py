from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.train.plan.order import SamplingConfig, epoch_size, sample_order


def sample(samples, seed, **options):
    return sample_order(samples, SamplingConfig(**options), np.random.default_rng(seed))


@given(n=st.integers(1, 60), seed=st.integers(0, 999))
def test_by_series_every_sample_comes_once(make_samples, n, seed):
    samples = make_samples(n)
    assert sorted(sample(samples, seed).tolist()) == list(range(n))
    assert epoch_size(samples, SamplingConfig()) == n


@given(n=st.integers(1, 60), studies=st.integers(1, 20), seed=st.integers(0, 999))
def test_by_study_every_study_comes_once(make_samples, n, studies, seed):
    samples = make_samples(n, studies=studies)
    order = sample(samples, seed, by="study")
    sampled = [samples.study_id[index] for index in order]
    assert sorted(sampled) == sorted(set(samples.study_id))
    assert epoch_size(samples, SamplingConfig(by="study")) == len(order)


def test_by_study_each_of_its_samples_is_reached(make_samples):
    samples = make_samples(9, studies=3)
    counts = np.bincount(np.concatenate([sample(samples, s, by="study") for s in range(600)]))
    assert counts == pytest.approx(np.full(9, 200), abs=45)


def one_graded_cell(samples, grades):
    """Return samples of which one cell, which every series type shows or not, is known."""
    severity = np.full_like(samples.severity, -1)
    severity[:, 2] = grades
    # A series of no known type shows everything.
    return replace(samples, severity=severity, series_type=np.full_like(samples.row, 3))


@settings(max_examples=60)
@given(
    grades=st.lists(st.integers(-1, 2), min_size=1, max_size=50),
    weights=st.tuples(*[st.floats(0.1, 10)] * 3),
    seed=st.integers(0, 999),
)
def test_by_severity_each_comes_as_often_as_its_share_rounded_down_or_up(
    make_samples, grades, weights, seed
):
    samples = one_graded_cell(make_samples(len(grades)), grades)
    counts = np.bincount(
        sample(samples, seed, by="severity", weights=weights), minlength=len(samples)
    )
    weight = np.array([*weights, min(weights)])[grades]
    share = weight / weight.sum() * len(samples)
    assert counts.sum() == len(samples) == epoch_size(samples, SamplingConfig(by="severity"))
    assert (counts >= np.floor(share - 1e-9)).all()
    assert (counts <= np.ceil(share + 1e-9)).all()


def test_by_severity_each_comes_as_often_as_its_share_on_average(make_samples):
    grades = np.random.default_rng(0).integers(-1, 3, 30)
    samples = one_graded_cell(make_samples(30), grades)
    counts = [np.bincount(sample(samples, s, by="severity"), minlength=30) for s in range(1500)]
    weight = np.array([1, 2, 4, 1])[grades]
    assert np.mean(counts, axis=0) == pytest.approx(weight / weight.sum() * 30, abs=0.06)


def test_equal_severities_come_once_each(make_samples):
    samples = one_graded_cell(make_samples(20), 1)
    assert sorted(sample(samples, 3, by="severity").tolist()) == list(range(20))


@pytest.mark.parametrize("by", ["series", "study", "severity"])
def test_an_order_is_a_function_of_its_seed_and_is_shuffled(make_samples, by):
    samples = make_samples(40, studies=25)
    orders = [sample(samples, seed, by=by).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])
