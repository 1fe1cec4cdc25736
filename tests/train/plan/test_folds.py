import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.cache.errors import InputError
from lumbar.train.plan.folds import finding_counts, folds


def make_labels(n, seed):
    rng = np.random.default_rng(seed)
    severities = rng.choice(np.array([-1, 0, 1, 2], np.int8), (n, 25), p=[0.02, 0.78, 0.15, 0.05])
    return [f"{i * 7919 % 100003}" for i in range(n)], severities


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 60), n_folds=st.integers(2, 6), seed=st.integers(0, 99))
def test_every_study_is_in_one_fold_and_sizes_are_even(n, n_folds, seed):
    study_ids, severities = make_labels(n, seed)
    if n_folds > n:
        with pytest.raises(InputError, match="number of folds"):
            folds(study_ids, severities, n_folds=n_folds, seed=seed)
        return
    got = folds(study_ids, severities, n_folds=n_folds, seed=seed)
    sizes = Counter(got.values())
    assert set(got) == set(study_ids)
    assert set(sizes) == set(range(n_folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1


@settings(max_examples=30, deadline=None)
@given(n=st.integers(6, 60), seed=st.integers(0, 99), shuffle=st.integers(0, 99))
def test_the_order_of_the_rows_does_not_matter(n, seed, shuffle):
    study_ids, severities = make_labels(n, seed)
    order = np.random.default_rng(shuffle).permutation(n)
    shuffled = [study_ids[i] for i in order]
    assert folds(shuffled, severities[order], n_folds=5, seed=seed) == folds(
        study_ids, severities, n_folds=5, seed=seed
    )


def test_the_seed_changes_the_folds():
    study_ids, severities = make_labels(50, 0)
    splits = [folds(study_ids, severities, n_folds=5, seed=seed) for seed in range(4)]
    assert len({tuple(sorted(split.items())) for split in splits}) == 4


@pytest.mark.parametrize("seed", range(3))
def test_findings_are_spread_evenly(seed):
    study_ids, severities = make_labels(300, seed)
    # Rare and clustered: severe canals on few studies, as in life.
    severities[:, :5] = np.where(severities[:, :5] == 2, 0, severities[:, :5])
    severities[:20, 2:4] = 2
    fold_of = folds(study_ids, severities, n_folds=5, seed=seed)
    counts = finding_counts(severities)
    fold = np.array([fold_of[study_id] for study_id in study_ids])
    by_fold = np.stack([counts[fold == f].sum(axis=0) for f in range(5)])
    wanted = counts.sum(axis=0) / 5
    assert np.abs(by_fold / wanted - 1).max() < 0.12
    assert np.bincount(fold[:20]).tolist() == [4, 4, 4, 4, 4]


def test_a_study_twice_is_refused():
    with pytest.raises(InputError, match="twice"):
        folds(["1", "1"], np.zeros((2, 25), np.int8), n_folds=2, seed=0)


GOLDEN = {
    (40, 5, 0): "5771bacb97546876",
    (38, 3, 7): "fd6f7353360e76c2",
    (201, 5, 2): "292244987c564ed0",
    (7, 7, 1): "e66ee29856df9233",
    (1975, 5, 0): "72c4ad53b4c3a505",
}
"""Digests of the folds that lumbar 0.1 dealt before it knew of patients."""


@pytest.mark.parametrize("case", GOLDEN)
def test_where_each_patient_has_one_study_the_folds_are_those_of_before(case):
    n, n_folds, seed = case
    rng = np.random.default_rng(n)
    study_ids = [str(i) for i in rng.permutation(10**6)[:n]]
    grades = np.array([-1, 0, 1, 2], np.int8)
    severities = rng.choice(grades, (n, 25), p=[0.05, 0.7, 0.15, 0.1])
    for patients in (None, {}, dict(zip(study_ids, study_ids, strict=True))):
        got = folds(study_ids, severities, n_folds=n_folds, seed=seed, patients=patients)
        digest = hashlib.sha256(json.dumps(sorted(got.items())).encode()).hexdigest()[:16]
        assert digest == GOLDEN[case]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(12, 60), repeats=st.integers(1, 9), seed=st.integers(0, 99))
def test_no_patient_is_on_both_sides(n, repeats, seed):
    study_ids, severities = make_labels(n, seed)
    patients = {s: study_ids[i - i % repeats] for i, s in enumerate(study_ids) if i % 2}
    patients |= {patient: patient for patient in patients.values()}
    of = {s: patients.get(s, s) for s in study_ids}
    n_patients = len(set(of.values()))
    if n_patients < 4:
        with pytest.raises(InputError, match=rf"4 for {n_patients} patients with {n} studies"):
            folds(study_ids, severities, n_folds=4, seed=seed, patients=patients)
        return
    fold_of = folds(study_ids, severities, n_folds=4, seed=seed, patients=patients)
    assert set(fold_of) == set(study_ids)
    assert len({(of[s], fold) for s, fold in fold_of.items()}) == n_patients
    sizes, largest = Counter(fold_of.values()), max(Counter(of.values()).values())
    assert max(sizes.values()) - min(sizes.values() if len(sizes) == 4 else [0]) <= largest + 1
