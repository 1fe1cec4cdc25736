"""The torch data set gives the reader's samples, in any process."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.reader.reader import Reader
from lumbar.train.reader.torch_dataset import PlanDataset, collate

CROP = CropConfig(slices=6, height=32, width=24, pixel_mm=6.0)
AUGMENT = AugmentConfig(side_exchange=0.5, gamma=0.3, blur_mm=3, slice_dropout=0.2)
NAMES = ("image", "present", "position", "series_type", "target", "known", "level")


def series_plan(cache, crop=CROP, augment=AUGMENT):
    samples = Samples.of_series(cache, cache.rows_of(SeriesType.SAGITTAL_T2)[:10])
    return Plan(samples, crop, augment, batch=4, shuffle=True, seed=3)


def study_plan(cache, crop=CROP):
    types = [SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2]
    samples = Samples.of_studies(cache, [f"s{n:02}" for n in range(9)], types)
    return Plan(samples, crop, AUGMENT, batch=4, shuffle=True, seed=3)


def of_reader(cache, plan, epoch, dtype=torch.float32):
    with Reader(cache, plan, device=torch.device("cpu"), dtype=dtype, epoch=epoch) as reader:
        return list(reader.epoch())


def assert_same(batches, wanted):
    for ours, theirs in zip(batches, wanted, strict=True):
        for name in NAMES:
            assert torch.equal(ours[name], getattr(theirs, name)), name


@pytest.mark.parametrize("plan_of", [series_plan, study_plan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_its_batches_are_the_readers(spine, plan_of, dtype):
    plan = plan_of(spine)
    dataset = PlanDataset(spine, plan, dtype=dtype)
    assert len(dataset) == plan.epoch_size
    for epoch in (0, 2):
        dataset.set_epoch(epoch)
        batches = list(DataLoader(dataset, batch_size=4))
        assert_same(batches, of_reader(spine, plan, epoch, dtype))
    studies = [study for batch in batches for study in batch["study_id"]]
    assert len(studies) == len(dataset)


def test_a_plan_of_another_cache_and_an_unknown_type_are_refused(spine, discs):
    with pytest.raises(InputError, match="another cache"):
        PlanDataset(discs, series_plan(spine))
    with pytest.raises(InputError, match=r"type of the images; got torch\.float64"):
        PlanDataset(spine, series_plan(spine), dtype=torch.float64)


def test_light_and_full_functions_are_chosen_as_by_the_reader(spine):
    plan = series_plan(spine, augment=AugmentConfig())
    assert_same(DataLoader(PlanDataset(spine, plan), batch_size=4), of_reader(spine, plan, 0))


@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_that_stay_see_the_next_epoch(spine, start):
    plan = series_plan(spine)
    dataset = PlanDataset(spine, plan)
    dataset[0]  # opened here first: a worker must not inherit it
    loader = DataLoader(
        dataset,
        batch_size=4,
        num_workers=1,
        multiprocessing_context=start,
        persistent_workers=True,
    )
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        assert_same(loader, of_reader(spine, plan, epoch))


@pytest.mark.parametrize("plan_of", [series_plan, study_plan])
def test_stacks_of_any_depth_are_filled_up(spine, plan_of):
    plan = plan_of(spine, crop=CROP.model_copy(update={"pick": "all", "slices": 2}))
    dataset = PlanDataset(spine, plan)
    assert len({dataset[place]["image"].shape for place in range(4)}) > 1
    batches = list(DataLoader(dataset, batch_size=4, collate_fn=collate))
    assert_same(batches, of_reader(spine, plan, 0))


@pytest.fixture
def discs(tmp_path, write_cache):
    """A compressed cache of int16 stacks with a scale and an offset, and two discs in each."""
    rng = np.random.default_rng(5)
    affine = np.array([[4.0, 0, 0, 0], [0, 0, 2.5, 0], [0, -3.0, 0, 0], [0, 0, 0, 1]])
    volumes, points = [], []
    for study_id in ("1", "2", "3"):
        volume = rng.integers(0, 32768, (9, 60, 50)).astype(np.int16)
        volumes.append((study_id, "t1", SeriesType.SAGITTAL_T1, volume, affine))
        for level, h in (("l1_l2", 20.0), ("l5_s1", 45.0)):
            point = dict.fromkeys(("x", "y", "x_mm", "y_mm", "z_mm"), 40.0)
            point |= {"study_id": study_id, "series_id": "t1", "level": level, "instance_number": 1}
            points.append(
                point | {"condition": "spinal_canal_stenosis", "d": 6.0, "h": h, "w": 25.0}
            )
    labels = {study_id: rng.integers(0, 3, 25) for study_id in ("1", "2", "3")}
    return Cache(
        write_cache(
            tmp_path / "cache",
            volumes,
            labels,
            scale=1 / 32767,
            offset=-0.25,
            config={"size": 60, "dtype": "int16", "profile": "archive"},
            points=points,
        )
    )


def test_discs_of_a_compressed_cache_are_the_readers(discs):
    samples = Samples.of_discs(discs, [0, 1, 2])
    plan = Plan(samples, CROP, AUGMENT, batch=4, shuffle=True, seed=3)
    batches = list(DataLoader(PlanDataset(discs, plan), batch_size=4))
    assert_same(batches, of_reader(discs, plan, 0))
    assert sorted(torch.cat([batch["level"] for batch in batches]).tolist()) == [0, 0, 0, 4, 4, 4]


def test_a_cache_named_from_another_folder_is_found(spine_root, tmp_path, monkeypatch):
    monkeypatch.chdir(spine_root.parent)
    cache = Cache(Path(spine_root.name))
    dataset = PlanDataset(cache, series_plan(cache))
    monkeypatch.chdir(tmp_path)
    assert dataset[0]["image"].any()


@pytest.mark.parametrize("place", [-1, 10, 1000])
def test_a_place_outside_of_the_epoch_is_an_index_error(spine, place):
    with pytest.raises(IndexError, match="of 10 samples"):
        PlanDataset(spine, series_plan(spine))[place]


def test_a_known_cell_sums_to_one_and_an_unknown_one_to_nothing(spine):
    dataset = PlanDataset(spine, series_plan(spine))
    for place in range(len(dataset)):
        sample = dataset[place]
        assert np.array_equal(sample["target"].sum(dim=1).bool(), sample["known"])
