"""Which studies are predicted, how models and series are combined, what cannot be read."""

import numpy as np
import polars as pl
import pytest
import torch

from lumbar.cache.errors import FormatError
from lumbar.cache.format import REJECTED_SCHEMA, REJECTED_TABLE
from lumbar.cache.names import GROUP_CELLS, SHOWN_CONDITIONS, SeriesType
from lumbar.cache.store import Cache
from lumbar.cache.tables import read_cache_file, write_cache_file, write_table
from lumbar.train.ensemble.blend import BlendFile, MemberFile, PriorFile
from lumbar.train.ensemble.combine import CellReason, Combined
from lumbar.train.inference import run_models as models_module
from lumbar.train.inference.predict import Ensemble, find_studies, predict
from lumbar.train.inference.run_models import StudiesPredicted
from lumbar.train.plan.samples import ABSENT
from lumbar.train.run.checkpoint import ModelBundle
from lumbar.train.run.network import build_model

AFFINE = np.array([[4.5, 0, 0, 0], [0, 0, 3.2, 0], [0, -3.2, 0, 0], [0, 0, 0, 1]])
CANAL = slice(0, 5)
FORAMINA = slice(5, 15)
CPU = torch.device("cpu")
PIXELS = np.zeros((3, 8, 8), np.uint8)


@pytest.fixture
def root(tmp_path, write_cache):
    """s1 has two sagittal T2 series, s2 an axial one, s3 broken ones; s4 is only labelled."""
    volumes = [
        ("s1", "a", SeriesType.SAGITTAL_T2, PIXELS, AFFINE),
        ("s1", "b", SeriesType.SAGITTAL_T2, PIXELS, AFFINE),
        ("s2", "c", SeriesType.AXIAL_T2, PIXELS, AFFINE),
    ]
    root = write_cache(tmp_path / "cache", volumes, {"s4": np.zeros(25, np.int8)})
    rejected = [
        ("s3", "d", "s3/d/1.dcm", "truncated", ""),
        ("s4", "e", "", "no_files", ""),
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


@pytest.fixture
def model(small_config, root):
    """A function that makes an untrained model of a series type, or of studies."""

    def make(prior=(0.7, 0.2, 0.1), series=SeriesType.SAGITTAL_T2, *overrides):
        config = small_config(*overrides, series=series)
        every_cell = np.tile(np.array(prior, np.float64), (25, 1))
        return ModelBundle(config, build_model(config), every_cell, Cache(root).voxel_config)

    return make


@pytest.fixture
def give(monkeypatch):
    """Return a function that sets the prediction of each sample, in the place of the network's.

    The key is the sample's first series; the value a prediction, or a function of the model.
    """

    def given(by_series):
        def probabilities(cache, group, samples, augment, run):
            ids = cache.series["series_id"].to_list()
            firsts = [ids[row[row != ABSENT][0]] for row in samples.row]
            return [
                np.stack(
                    [
                        np.broadcast_to(value(bundle) if callable(value) else value, (25, 3))
                        for value in (by_series[first] for first in firsts)
                    ]
                ).astype(np.float64)
                for bundle in group.bundles
            ]

        monkeypatch.setattr(models_module, "_probabilities", probabilities)

    return given


def predictions(cache, models, **more):
    *steps, last = predict(cache, Ensemble(models, **more), device=CPU, threads=1)
    assert all(isinstance(event, StudiesPredicted) for event in steps)
    assert isinstance(last, Combined)
    return steps, last


def test_studies_are_those_of_the_source_and_of_the_tables_but_not_stray_folders(root):
    assert find_studies(Cache(root)) == ["s1", "s2", "s3", "s4"]


def test_a_cache_that_says_nothing_of_its_source_has_the_studies_of_its_tables(spine):
    spine.description["source"] = {}
    assert find_studies(spine) == [f"s{number:02}" for number in range(38)]


def test_duplicate_series_are_averaged_and_other_cells_get_the_prior(give, model, root):
    give({"a": (0.8, 0.2, 0.0), "b": (0.4, 0.2, 0.4)})
    steps, found = predictions(Cache(root), [model()])
    assert [(step.done, step.total) for step in steps] == [(4, 4)]
    assert found.predictions.study_ids == ("s1", "s2", "s3", "s4")
    assert np.allclose(found.predictions.probabilities[0, CANAL], (0.6, 0.2, 0.2))
    assert np.allclose(found.predictions.probabilities[0, 5:], (0.7, 0.2, 0.1))
    assert np.allclose(found.predictions.probabilities[1:], (0.7, 0.2, 0.1))
    assert found.n_models.sum() == found.n_models[0, CANAL].sum() == 5
    assert found.model_names[0] == ["sagittal_t2"] * 5 + ["prior"] * 20
    reasons = [row[0] for row in found.reasons]
    assert reasons == [
        CellReason.OWN_SERIES,
        CellReason.NO_SERIES,
        CellReason.UNREADABLE,
        CellReason.NO_SERIES,
    ]
    assert {row[6] for row in found.reasons} == {CellReason.NO_MODEL}


def test_runs_are_averaged_with_equal_weights(give, model, root):
    first, second = model((0.6, 0.2, 0.2)), model((0.2, 0.4, 0.4))
    axial = model((0.1, 0.0, 0.9), SeriesType.AXIAL_T2)
    give(
        {
            "a": lambda bundle: (1.0, 0.0, 0.0) if bundle is first else (0.0, 0.0, 1.0),
            "b": lambda bundle: (0.0, 1.0, 0.0) if bundle is first else (0.0, 0.0, 1.0),
            "c": (0.2, 0.3, 0.5),
        }
    )
    _, found = predictions(Cache(root), [first, second, axial])
    probabilities = found.predictions.probabilities
    assert np.allclose(probabilities[0, CANAL], (0.25, 0.25, 0.5))
    assert (found.n_models[0, CANAL] == 2).all()
    shown = [c * 5 + level for c in SHOWN_CONDITIONS[SeriesType.AXIAL_T2] for level in range(5)]
    assert np.allclose(probabilities[1, shown], (0.2, 0.3, 0.5))
    assert np.allclose(probabilities[2], (0.3, 0.2, 0.5))


def test_without_a_series_the_model_of_studies_comes_before_the_others(give, model, root):
    give({"a": lambda bundle: prediction_of[id(bundle)], "b": (1, 0, 0), "c": (0, 1, 0)})
    every = "loss.conditions=all"
    sagittal = model((0.7, 0.2, 0.1), SeriesType.SAGITTAL_T2, every)
    study = model((0.7, 0.2, 0.1), "study", every)
    prediction_of = {id(sagittal): (1, 0, 0), id(study): (0, 0, 1)}
    # s1 has no T1, on which foramina are annotated: of the two only the study's model is eligible.
    _, found = predictions(Cache(root), [sagittal, study])
    assert np.allclose(found.predictions.probabilities[0, CANAL], (0.5, 0, 0.5))
    assert np.allclose(found.predictions.probabilities[0, FORAMINA], (0, 0, 1))
    assert found.model_names[0][0] == "sagittal_t2+study"
    assert found.model_names[0][6] == "study"
    assert found.reasons[0][6] == CellReason.STUDY_MODEL
    # Without one of studies, the model of the other series is eligible.
    _, found = predictions(Cache(root), [sagittal])
    assert np.allclose(found.predictions.probabilities[0, FORAMINA], (1, 0, 0))
    assert found.reasons[0][6] == CellReason.OTHER_MODEL


def test_a_blend_weighs_members_and_averages_the_runs_of_each(give, model, root):
    folds, other = [model(), model()], model()
    prediction_of = {id(folds[0]): (1, 0, 0), id(folds[1]): (0, 1, 0), id(other): (0, 0, 1)}
    give({name: lambda bundle: prediction_of[id(bundle)] for name in "abc"})
    quarter = dict.fromkeys(GROUP_CELLS, 0.25)
    members = (
        MemberFile(name="x", runs=("1", "2"), weights=dict.fromkeys(quarter, 0.75), losses=quarter),
        MemberFile(name="y", runs=("3",), weights=quarter, losses=quarter),
    )
    prior = PriorFile(weights=dict.fromkeys(quarter, 0.0), losses=quarter)
    blend = BlendFile(space="probability", members=members, prior=prior)
    _, found = predictions(Cache(root), [*folds, other], blend=blend, members=((0, 1), (2,)))
    assert np.allclose(found.predictions.probabilities[0, CANAL], (0.375, 0.375, 0.25))
    assert (found.n_models[0, CANAL] == 3).all()


def test_models_that_see_the_same_read_it_once(monkeypatch, model, root):
    seen = []

    def counted(cache, group, samples, augment, run):
        seen.append(len(group.bundles))
        return [np.full((len(samples), 25, 3), 1 / 3) for _ in group.bundles]

    monkeypatch.setattr(models_module, "_probabilities", counted)
    folds = [model((1, 0, 0), SeriesType.SAGITTAL_T2, f"split.fold={k}") for k in range(3)]
    wider = model((1, 0, 0), SeriesType.SAGITTAL_T2, "crop.slices=9")
    predictions(Cache(root), [*folds, wider])
    assert seen == [3, 1]


@pytest.fixture
def damaged(tmp_path, write_cache):
    """Five studies of a T2 series each; the volume of s3 is cut short."""
    volumes = [(f"s{i}", f"{i}", SeriesType.SAGITTAL_T2, PIXELS, AFFINE) for i in range(5)]
    root = write_cache(tmp_path / "damaged", volumes, {})
    (root / Cache(root).series["path"][3]).write_bytes(b"short")
    return root


@pytest.mark.usefixtures("uncompiled_reader")
def test_a_study_that_cannot_be_read_costs_its_rows_alone(model, damaged, caplog):
    _, found = predictions(Cache(damaged), [model()])
    assert found.n_models[:, 0].tolist() == [1, 1, 1, 0, 1]
    assert found.reasons[3][0] == CellReason.UNREADABLE
    assert found.reasons[3][6] == CellReason.NO_MODEL
    assert np.allclose(found.predictions.probabilities[3], (0.7, 0.2, 0.1))
    (warning,) = caplog.messages
    assert warning.startswith("study s3 is predicted without its sagittal_t2: ")


@pytest.mark.usefixtures("uncompiled_reader")
def test_where_nothing_can_be_read_that_is_said(model, damaged):
    cache = Cache(damaged)
    for path in cache.series["path"]:
        (damaged / path).write_bytes(b"short")
    with pytest.raises(FormatError):
        predictions(cache, [model()])


@pytest.mark.usefixtures("uncompiled_reader")
@pytest.mark.parametrize("series", [SeriesType.SAGITTAL_T2, "study"])
def test_neighbours_of_a_study_change_nothing(model, spine, series):
    """A prediction is of one study: groups, batches and padding leave no trace.

    Among the studies are those of one series alone, and of several.
    """
    torch.manual_seed(0)
    one = model((0.7, 0.2, 0.1), series)
    one.model.eval()
    bundle = ModelBundle(one.config, one.model, one.prior, spine.voxel_config)
    _, all_at_once = predictions(spine, [bundle])
    some = ["s01", "s02", "s11", "s30"]
    alone = []
    for study_id in some:
        *_, last = models_module.run_models(
            spine, [bundle], [study_id], device=CPU, threads=1, tta=False
        )
        alone.append(last.members[0].predictions.probabilities[0, CANAL])
    rows = [all_at_once.predictions.study_ids.index(study_id) for study_id in some]
    assert np.allclose(all_at_once.predictions.probabilities[rows][:, CANAL], alone, atol=1e-6)


def test_studies_of_the_sample_that_are_not_there_get_the_prior(give, model, root):
    give({"a": (0.8, 0.2, 0.0), "b": (0.4, 0.2, 0.4)})
    ensemble = Ensemble([model()])
    *_, found = predict(Cache(root), ensemble, device=CPU, threads=1)
    completed = found.completed(["s2", "s9", "s8"], ensemble.prior)
    assert completed.predictions.study_ids == ("s1", "s2", "s3", "s4", "s8", "s9")
    assert np.allclose(completed.predictions.probabilities[4:], (0.7, 0.2, 0.1))
    assert completed.reasons[5][0] == CellReason.NO_STUDY
    assert np.array_equal(completed.n_models[:4], found.n_models)
