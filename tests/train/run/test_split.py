import numpy as np
import pytest

from lumbar.cache.errors import InputError
from lumbar.cache.labels import severities_of
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.plan.folds import SplitConfig
from lumbar.train.run.config import RunConfig
from lumbar.train.run.split import split_samples

T2 = SeriesType.SAGITTAL_T2
UNLABELLED = {"s03", "s07"}


def deal(cache, series=T2, **split):
    return split_samples(cache, RunConfig(series=series, split=SplitConfig(**split)))


def splits(cache, series=T2, n_folds=5):
    return [deal(cache, series, folds=n_folds, fold=k) for k in range(n_folds)]


def test_no_study_is_on_both_sides_and_none_without_labels_on_either(spine):
    for split in splits(spine):
        train, held_out = set(split.train.study_id), set(split.held_out.study_id)
        assert not train & held_out
        assert not (train | held_out) & UNLABELLED
        assert len(train | held_out) == 35, "38 but two unlabelled and one without a sagittal T2"
        assert (split.train.severity != -1).any(axis=1).all()


def test_every_study_is_held_out_once_over_the_folds(spine):
    held_out = [study for split in splits(spine) for study in set(split.held_out.study_id)]
    table = spine.series.filter(spine.series["series_type"] == T2)
    assert sorted(held_out) == sorted(set(table["study_id"]) - UNLABELLED)


def test_both_series_of_a_study_go_together(spine):
    for split in splits(spine):
        for study in ("s02", "s08"):
            counts = [s.study_id.count(study) for s in (split.train, split.held_out)]
            assert sorted(counts) == [0, 2]


def test_series_types_share_the_held_out_studies(spine):
    sagittal, axial = splits(spine, T2, 2), splits(spine, SeriesType.AXIAL_T2, 2)
    for one, other in zip(sagittal, axial, strict=True):
        assert set(other.held_out.study_id) - {"s04"} <= set(one.held_out.study_id)
        assert set(other.train.study_id) - {"s04"} <= set(one.train.study_id)


def test_labels_are_those_of_the_sides(spine):
    split = splits(spine)[1]
    grades = dict(zip(spine.labels["study_id"], severities_of(spine.labels).tolist(), strict=True))
    assert split.held_out_severity.keys() == set(split.held_out.study_id)
    for study, severity in split.held_out_severity.items():
        assert severity.tolist() == grades[study]
    # The prior may learn from a study that lacks this series, but not from a held-out one.
    outside = [
        grades[study]
        for study in spine.labels["study_id"]
        if study not in split.held_out_severity and study not in UNLABELLED
    ]
    assert sorted(split.train_severity.tolist()) in (
        sorted(outside),
        sorted(row for row in outside if row != grades["s04"]),
    )


def test_the_seed_of_the_split_is_its_own(spine):
    first = deal(spine)
    again = deal(spine)
    other = deal(spine, seed=1)
    assert first.held_out.study_id == again.held_out.study_id != other.held_out.study_id


@pytest.mark.parametrize(
    ("config", "series", "message"),
    [
        (SplitConfig(folds=40), T2, "36 labelled studies, fold 0 of 40"),
        (SplitConfig(folds=5, fold=5), T2, "fold 5 of 5"),
        (SplitConfig(), SeriesType.SAGITTAL_T1, "holds no series of type sagittal_t1"),
    ],
)
def test_what_cannot_be_split_is_refused(spine, config, series, message):
    with pytest.raises(InputError, match=message):
        split_samples(spine, RunConfig(series=series, split=config))


def test_a_side_without_series_is_refused(spine):
    refused = 0
    for fold in range(12):
        try:
            deal(spine, SeriesType.AXIAL_T2, folds=12, fold=fold)
        except InputError as error:
            refused += "3 to train on, 0 held out" in str(error)
    assert refused >= 9


def test_a_cache_without_labels_is_refused(tmp_path, write_cache):
    volumes = [("1", "1", T2, np.zeros((2, 4, 4), np.uint8), np.eye(4))]
    for name, labels in (("none", {}), ("empty", {"1": np.full(25, -1)})):
        cache = Cache(write_cache(tmp_path / name, volumes, labels))
        with pytest.raises(InputError, match="0 labelled studies"):
            deal(cache)


def test_what_is_excluded_is_not_trained_on_but_scored(spine):
    plain = deal(spine)
    study_id = plain.train.study_id[0]
    other = plain.train.study_id[-1]
    held_out = plain.held_out.study_id[0]
    cell = f"{other}/spinal_canal_stenosis_l2_l3"
    split = deal(spine, exclude_studies=(study_id, held_out), exclude_cells=(cell,))
    assert study_id not in split.train.study_id
    assert held_out in split.held_out.study_id
    assert len(split.train_severity) == len(plain.train_severity) - 1
    row = split.train.study_id.index(other)
    assert split.train.severity[row, 1] == -1
    assert (
        split.train.severity[row, 2:] == plain.train.severity[plain.train.study_id.index(other), 2:]
    ).all()


@pytest.mark.parametrize(
    ("excluded", "message"),
    [
        ({"exclude_studies": ("nobody",)}, "nobody"),
        ({"exclude_cells": ("s01/spinal",)}, "s01/spinal"),
        ({"exclude_cells": ("nobody/spinal_canal_stenosis_l1_l2",)}, "nobody"),
    ],
)
def test_what_cannot_be_excluded_is_named(spine, excluded, message):
    with pytest.raises(InputError, match=message):
        deal(spine, **excluded)
