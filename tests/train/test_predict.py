"""Which studies are predicted, and how the words of models and series become one."""

import numpy as np
import polars as pl
import pytest
import torch

from lumbar.cache.format import REJECTED_SCHEMA, REJECTED_TABLE
from lumbar.cache.names import SHOWN_CONDITIONS, SeriesType
from lumbar.cache.store import Cache
from lumbar.cache.tables import read_cache_file, write_cache_file, write_table
from lumbar.train import predict as predict_module
from lumbar.train.checkpoint import TrainedModel, build_model
from lumbar.train.predict import BatchPredicted, Predictions, find_studies, predict

AFFINE = np.array([[4.5, 0, 0, 0], [0, 0, 3.2, 0], [0, -3.2, 0, 0], [0, 0, 0, 1]])
CANAL = slice(0, 5)


@pytest.fixture
def root(tmp_path, write_cache):
    """s1 has two sagittal T2 series, s2 an axial one, s3 none; s4 is only labelled."""
    pixels = np.zeros((3, 8, 8), np.uint8)
    volumes = [
        ("s1", "a", SeriesType.SAGITTAL_T2, pixels, AFFINE),
        ("s1", "b", SeriesType.SAGITTAL_T2, pixels, AFFINE),
        ("s2", "c", SeriesType.AXIAL_T2, pixels, AFFINE),
    ]
    root = write_cache(tmp_path / "cache", volumes, {"s4": np.zeros(25, np.int8)})
    rejected = [
        ("s3", "d", "s3/d/1.dcm", "truncated", ""),
        ("notes", "", "notes/readme.txt", "wrong_place", ""),
        (".git", "objects", ".git/objects/1", "unsafe_id", ""),
    ]
    write_table(root, REJECTED_TABLE, pl.DataFrame(rejected, schema=REJECTED_SCHEMA, orient="row"))
    description = read_cache_file(root)
    write_cache_file(
        root,
        config=description["config"],
        counts=description["counts"],
        split="test",
        studies=["s1", "s2", "s3"],
    )
    return root


def model_of(small_config, root, prior, series=SeriesType.SAGITTAL_T2):
    config = small_config(series=series)
    every_cell = np.tile(np.array(prior), (25, 1))
    return TrainedModel(config, build_model(config), every_cell, Cache(root).voxel_config)


def say(monkeypatch, words):
    """Let each series of a cache, by its id, get probabilities instead of going through a model."""

    def spoken(cache, model, loss, series, **_):
        ids = cache.series["series_id"].to_list()
        for row in series.rows:
            word = words[ids[row]]
            yield np.broadcast_to(np.array(word(model) if callable(word) else word), (1, 25, 3))

    monkeypatch.setattr(predict_module, "_predict_series", spoken)


def predictions(cache, models):
    *batches, last = predict(cache, models, device=torch.device("cpu"), threads=1)
    assert all(isinstance(event, BatchPredicted) for event in batches)
    assert isinstance(last, Predictions)
    return batches, last


def test_studies_are_those_of_the_source_and_of_the_tables_but_not_stray_folders(root):
    assert find_studies(Cache(root)) == ["s1", "s2", "s3", "s4"]


def test_a_cache_that_says_nothing_of_its_source_has_the_studies_of_its_tables(spine):
    del spine.description["source"]
    assert find_studies(spine) == [f"s{number:02}" for number in range(38)]


def test_duplicate_series_are_averaged_and_the_prior_stands_in(monkeypatch, small_config, root):
    say(monkeypatch, {"a": (0.8, 0.2, 0.0), "b": (0.4, 0.2, 0.4)})
    prior = (0.7, 0.2, 0.1)
    batches, found = predictions(Cache(root), [model_of(small_config, root, prior)])
    assert [(batch.done, batch.total) for batch in batches] == [(1, 2), (2, 2)]
    assert found.study_ids == ("s1", "s2", "s3", "s4")
    assert np.allclose(found.probabilities[0, CANAL], (0.6, 0.2, 0.2))
    assert np.allclose(found.probabilities[0, 5:], prior)
    assert np.allclose(found.probabilities[1:], prior)
    assert found.models.sum() == found.models[0, CANAL].sum() == 5


def test_runs_are_averaged_each_with_one_voice(monkeypatch, small_config, root):
    first = model_of(small_config, root, (0.6, 0.2, 0.2))
    second = model_of(small_config, root, (0.2, 0.4, 0.4))
    axial = model_of(small_config, root, (0.1, 0.0, 0.9), SeriesType.AXIAL_T2)
    say(
        monkeypatch,
        {
            "a": lambda model: (1.0, 0.0, 0.0) if model is first else (0.0, 0.0, 1.0),
            "b": lambda model: (0.0, 1.0, 0.0) if model is first else (0.0, 0.0, 1.0),
            "c": (0.2, 0.3, 0.5),
        },
    )
    _, found = predictions(Cache(root), [first, second, axial])
    assert np.allclose(found.probabilities[0, CANAL], (0.25, 0.25, 0.5))
    assert (found.models[0, CANAL] == 2).all()
    shown = [c * 5 + level for c in SHOWN_CONDITIONS[SeriesType.AXIAL_T2] for level in range(5)]
    assert np.allclose(found.probabilities[1, shown], (0.2, 0.3, 0.5))
    assert np.allclose(found.probabilities[2], (0.3, 0.2, 0.5))
