"""The reader gives the plan's batches, byte for byte, from anywhere, and leaves nothing."""

import gc
import os
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.kernels.render import RENDERERS
from lumbar.train.plan.augment import AugmentConfig, for_stored
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.plan.slices import NO_SLICE
from lumbar.train.reader import reader as reader_module
from lumbar.train.reader.reader import Reader
from lumbar.train.reader.verify_pixels import WrongPixelsError

CPU = torch.device("cpu")
CROP = CropConfig(slices=8, height=32, width=24, pixel_mm=6.0)
EVERYTHING = AugmentConfig(
    shear_degrees=5,
    side_exchange=0.5,
    mirror_head_foot=0.3,
    noise=0.1,
    gamma=0.3,
    bias_field=0.4,
    blur_mm=3,
    low_resolution=1,
    cutout=0.4,
    slice_dropout=0.2,
    mixup=0.4,
    cutmix=0.4,
)
UNMIXED = EVERYTHING.model_copy(update={"mixup": 0.0, "cutmix": 0.0})
"""Samples are mixed on the device, whose last bit may be another than the CPU's."""
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")


@pytest.fixture(scope="module")
def contents():
    """Eleven int16 studies, shallow and deep; four have two series."""
    rng = np.random.default_rng(6)
    volumes, labels = [], {}
    affine = np.array([[4.0, 0, 0, 0], [0, 0, 2.5, 0], [0, -3.0, 0, 0], [0, 0, 0, 1]])
    for number in range(11):
        study_id = f"s{number:02}"
        types = [SeriesType.SAGITTAL_T1, SeriesType.SAGITTAL_T2][: 2 if number % 3 == 0 else 1]
        for series_type in types:
            shape = (int(rng.integers(3, 14)), int(rng.integers(40, 80)), int(rng.integers(40, 80)))
            volume = rng.integers(0, 32768, shape).astype(np.int16)
            volumes.append((study_id, series_type[-2:], series_type, volume, affine))
        labels[study_id] = rng.integers(-1, 3, 25)
    return volumes, labels


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache, contents):
    """A cache of them, stored with a scale and an offset."""
    root = tmp_path_factory.mktemp("reader") / "cache"
    return Cache(write_cache(root, *contents, scale=1 / 32767, offset=-0.25))


@pytest.fixture(scope="module")
def archive(tmp_path_factory, write_cache, contents):
    """The same, compressed."""
    root = tmp_path_factory.mktemp("reader") / "archive"
    config = {"size": 80, "dtype": "int16", "profile": "archive"}
    return Cache(write_cache(root, *contents, scale=1 / 32767, offset=-0.25, config=config))


def series_plan(cache, augment=EVERYTHING, crop=CROP, **options):
    samples = Samples.of_series(cache, cache.rows_of(SeriesType.SAGITTAL_T1))
    return Plan(samples, crop, augment, batch=4, shuffle=True, seed=3, **options)


def study_plan(cache, augment=EVERYTHING):
    types = [SeriesType.SAGITTAL_T1, SeriesType.SAGITTAL_T2]
    samples = Samples.of_studies(cache, cache.labels["study_id"].to_list(), types)
    return Plan(samples, CROP, augment, batch=4, shuffle=True, seed=3)


def by_hand(cache, view):
    """The pixels of a view, from the plan's definition of it."""
    image = np.empty((len(view.slices), CROP.height, CROP.width), np.float32)
    attributes = cache.attributes(view.row)
    numbers = for_stored(view.numbers, attributes.scale, attributes.offset)
    volume = np.array(cache.volume(view.row))
    RENDERERS["float32"](image, volume, view.slices, view.matrix, numbers, view.key)
    return image


def read(cache, plan, epochs, **options):
    with Reader(cache, plan, device=CPU, **options) as reader:
        return [list(reader.epoch()) for _ in range(epochs)]


@pytest.fixture(scope="module")
def three_epochs(cache):
    """All batches of three epochs, read with one thread and kept, as the reader gave them."""
    return read(cache, series_plan(cache), 3, threads=1)


def assert_same(ours, theirs):
    for name in ("image", "present", "position", "lengths", "series_type", "target", "known"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_batches_are_the_plan_epoch_after_epoch_with_the_last_one_short(cache, three_epochs):
    plan = series_plan(cache)
    for epoch, batches in enumerate(three_epochs):
        assert [len(batch.requests) for batch in batches] == [4, 4, 3]
        for step, batch in enumerate(batches):
            wanted = plan.requests(epoch, step)
            assert [r.index for r in batch.requests] == [r.index for r in wanted]
            for ours, theirs in zip(batch.requests, wanted, strict=True):
                assert ours.views[0].intensity == theirs.views[0].intensity


def test_images_are_the_compiled_function_over_the_stored_voxels(cache):
    # The batches are all kept while later ones are made: their memory is still their own.
    for batches in read(cache, series_plan(cache, UNMIXED), 2):
        for batch in batches:
            assert batch.image.dtype == torch.float32
            assert batch.image.shape == (len(batch.requests), 8, 1, 32, 24)
            for image, request in zip(batch.image, batch.requests, strict=True):
                assert np.array_equal(image[:, 0].numpy(), by_hand(cache, request.views[0]))


def test_everything_beside_the_image_is_the_request(cache):
    ((*batches,),) = read(cache, series_plan(cache, UNMIXED), 1)
    requests = [r for batch in batches for r in batch.requests]
    assert any(NO_SLICE in r.views[0].slices for r in requests)
    assert len({r.sides_exchanged for r in requests}) == 2
    for batch in batches:
        for i, request in enumerate(batch.requests):
            (view,) = request.views
            length = int((view.slices != NO_SLICE).sum())
            assert batch.present[i].tolist() == [d < length for d in range(8)]
            assert batch.lengths[i] == length
            assert batch.position[i].tolist() == view.position.tolist()
            assert batch.known[i].tolist() == (request.severity >= 0).tolist()
            known = request.severity >= 0
            assert batch.target[i].argmax(dim=1)[known].tolist() == request.severity[known].tolist()
            assert batch.target[i].sum(dim=1).tolist() == known.astype(float).tolist()
            assert not batch.image[i, length:].any()


@pytest.mark.parametrize(("epoch", "step"), [(1, 0), (0, 2), (1, 1)])
def test_a_start_anywhere_gives_the_bytes_of_having_read_up_to_there(
    cache, three_epochs, epoch, step
):
    # And so do other threads, another depth of prefetching, and volumes in memory.
    options = {"threads": 4, "prefetch": 3, "tier": "device", "epoch": epoch, "step": step}
    with Reader(cache, series_plan(cache), device=CPU, **options) as reader:
        for number, expected in enumerate(three_epochs[epoch:], start=epoch):
            wanted = expected[step:] if number == epoch else expected
            assert reader.next_step == (number, step if number == epoch else 0)
            for ours, theirs in zip(reader.epoch(), wanted, strict=True):
                assert_same(ours, theirs)


def test_an_epoch_that_was_left_in_the_middle_goes_on_where_it_was(cache, three_epochs):
    with Reader(cache, series_plan(cache), device=CPU) as reader:
        for batch in reader.epoch():
            assert_same(batch, three_epochs[0][0])
            break
        assert reader.next_step == (0, 1)
        rest = list(reader.epoch())
        assert len(rest) == 2
        assert_same(rest[0], three_epochs[0][1])
        assert reader.next_step == (1, 0)


@pytest.mark.parametrize("tier", ["disk", "device"])
def test_an_archive_gives_the_bytes_of_the_uncompressed_cache(cache, archive, tier):
    assert archive.profile == "archive"
    for plan in (series_plan, study_plan):
        ((*wanted,),) = read(cache, plan(cache), 1)
        ((*found,),) = read(archive, plan(archive), 1, threads=3, tier=tier)
        for ours, theirs in zip(found, wanted, strict=True):
            assert_same(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_rounded_image(cache, dtype):
    plan = series_plan(cache, UNMIXED)
    ((*wide,),) = read(cache, plan, 1)
    ((*narrow,),) = read(cache, plan, 1, dtype=dtype)
    for ours, theirs in zip(narrow, wide, strict=True):
        assert ours.image.dtype == dtype
        assert torch.equal(ours.image, theirs.image.to(dtype))


def test_folded_slices_are_laid_out_channels_last(three_epochs):
    folded = three_epochs[0][0].image.flatten(0, 1)
    assert folded.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_of_studies_has_an_axis_of_series_and_absent_ones_are_empty(cache):
    ((*batches,),) = read(cache, study_plan(cache, UNMIXED), 1)
    assert sum(len(batch.requests) for batch in batches) == 11
    absent = 0
    for batch in batches:
        b = len(batch.requests)
        assert batch.image.shape == (b, 2, 8, 1, 32, 24)
        assert batch.present.shape == batch.position.shape == (b, 2, 8)
        assert batch.lengths.shape == batch.series_type.shape == (b, 2)
        for image, request, lengths in zip(batch.image, batch.requests, batch.lengths, strict=True):
            for slot, view in enumerate(request.views):
                assert np.array_equal(image[slot, :, 0].numpy(), by_hand(cache, view))
                absent += int(lengths[slot] == 0)
                assert bool(image[slot].any()) == bool(lengths[slot] > 0)
    assert absent == 7


def test_all_slices_are_padded_to_the_deepest_of_the_batch(cache):
    crop = CROP.model_copy(update={"slices": 4, "pick": "all"})
    ((*batches,),) = read(cache, series_plan(cache, crop=crop), 1)
    for batch in batches:
        deepest = max(int((r.views[0].slices >= 0).sum()) for r in batch.requests)
        assert batch.image.shape[1] % 4 == 0
        assert deepest <= batch.image.shape[1] < deepest + 8


def test_ranks_share_an_epoch_and_a_rank_with_one_less_gets_a_filler(cache):
    seen = []
    for rank in range(8):
        plan = series_plan(cache, rank=rank, world=8)
        ((batch,),) = read(cache, plan, 1)
        fillers = [r.filler for r in batch.requests]
        seen += [r.index for r in batch.requests if not r.filler]
        assert fillers == [False, rank > 2]
        assert batch.known.any(dim=1).tolist() == [not filler for filler in fillers]
    assert sorted(seen) == list(range(11))


# What a reader leaves behind.


def counts():
    """Return the threads, descriptors and mapped shared memory of this process."""
    return (
        len(list(Path("/proc/self/task").iterdir())),
        len(list(Path("/proc/self/fd").iterdir())),
        Path("/proc/self/maps").read_text().count("/dev/shm"),
        threading.active_count(),
    )


def settled(before):
    """Return the counts, once threads have had time to end."""
    for _ in range(100):
        now = counts()
        if all(after <= earlier for after, earlier in zip(now, before, strict=True)):
            break
        time.sleep(0.05)
    return now


@pytest.mark.parametrize("way", ["closed", "twice closed", "dropped", "left in an epoch"])
@pytest.mark.parametrize("tier", ["disk", "device"])
def test_a_reader_leaves_no_thread_descriptor_or_shared_memory(cache, way, tier):
    plan = series_plan(cache)
    read(cache, plan, 1)  # maps every volume, which the cache keeps
    gc.collect()
    before = counts()
    reader = Reader(cache, plan, device=CPU, threads=3, tier=tier)
    batches = reader.epoch()
    kept = next(batches).image
    copy = kept.clone()
    assert counts()[0] >= before[0] + 4
    if way.endswith("closed"):
        reader.close()
    if way == "twice closed":
        reader.close()
    if way == "left in an epoch":
        batches.close()
    del reader, batches
    gc.collect()
    assert settled(before) <= before
    assert torch.equal(kept, copy)


def test_no_process_is_started(cache):
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    with Reader(cache, series_plan(cache), device=CPU, threads=2) as reader:
        next(reader.epoch())
        assert children.read_text() == before


def test_a_volume_that_is_gone_is_raised_in_the_loop_and_the_threads_end(cache, monkeypatch):
    def fail(self, row):
        raise InputError(what="gone", where=row)

    before = threading.active_count()
    monkeypatch.setattr(Cache, "volume", fail)
    with (
        pytest.raises(InputError, match="gone"),
        Reader(cache, series_plan(cache), device=CPU) as reader,
    ):
        next(reader.epoch())
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 3}, "no such step: the plan; got epoch 0, step 3; .*from 0 to 2"),
        ({"step": -1}, "got epoch 0, step -1"),
        ({"epoch": -1}, "got epoch -1, step 0"),
        ({"threads": 0}, "threads of a reader; got 0"),
        ({"prefetch": 0}, "prefetch of a reader; got 0"),
        ({"dtype": torch.float64}, "type of the images; got torch.float64; .*torch.bfloat16"),
    ],
)
def test_what_a_reader_cannot_be_opened_with_is_refused_before_a_thread_starts(
    cache, options, message
):
    before = threading.active_count()
    with pytest.raises(InputError, match=message):
        Reader(cache, series_plan(cache), device=CPU, **options)
    assert threading.active_count() == before


def test_an_empty_plan_is_refused(cache):
    empty = Plan(Samples.of_discs(cache, []), CROP, EVERYTHING, batch=4, shuffle=True)
    with pytest.raises(InputError, match=r"no samples to read.*CSV file of coordinates"):
        Reader(cache, empty, device=CPU)


@pytest.fixture
def others(tmp_path, write_cache, contents):
    """Caches that differ from `cache` in one thing: fewer studies, a depth, the order of ids."""

    def write(name, change):
        volumes, labels = contents
        return Cache(write_cache(tmp_path / name, change(list(volumes)), labels, scale=1 / 32767))

    def shallower(volumes):
        study_id, series_id, series_type, volume, affine = volumes[-1]
        return [*volumes[:-1], (study_id, series_id, series_type, volume[:-1], affine)]

    return {
        "fewer": write("fewer", lambda volumes: volumes[:-1]),
        "shallower": write("shallower", shallower),
        "others": write("others", lambda volumes: [("t" + v[0][1:], *v[1:]) for v in volumes]),
    }


@pytest.mark.parametrize("other", ["fewer", "shallower", "others"])
@pytest.mark.parametrize("plan_of", [series_plan, study_plan])
def test_a_plan_of_another_cache_is_refused(cache, others, other, plan_of):
    before = threading.active_count()
    with pytest.raises(InputError, match=r"taken from another cache: .*; got row .*; expected"):
        Reader(others[other], plan_of(cache), device=CPU)
    assert threading.active_count() == before


# After an error.


@pytest.mark.usefixtures("uncompiled_reader")
@pytest.mark.parametrize("error", [MemoryError("no room"), KeyboardInterrupt()])
def test_a_reader_that_lost_a_step_raises_until_it_is_opened_again(
    cache, three_epochs, monkeypatch, error
):
    def fail(*_, **__):
        raise error

    before = threading.active_count()
    reader = Reader(cache, series_plan(cache), device=CPU)
    next(reader.epoch())
    with monkeypatch.context() as patched:
        patched.setattr("lumbar.train.reader.reader.make_batch", fail)
        with pytest.raises(type(error)):
            next(reader.epoch())
    for _ in range(2):
        with pytest.raises(MemoryError if isinstance(error, Exception) else InputError) as caught:
            next(reader.epoch())
        assert error in {caught.value, caught.value.__cause__}
    assert threading.active_count() == before
    assert reader.next_step == (0, 1)
    epoch, step = reader.next_step
    with Reader(cache, series_plan(cache), device=CPU, epoch=epoch, step=step) as again:
        assert_same(next(again.epoch()), three_epochs[0][1])


def test_an_error_of_a_volume_is_raised_again_and_again(cache, monkeypatch):
    def fail(self, row):
        raise InputError(what="gone", where=row)

    monkeypatch.setattr(Cache, "volume", fail)
    reader = Reader(cache, series_plan(cache), device=CPU)
    for _ in range(3):
        with pytest.raises(InputError, match="gone"):
            next(reader.epoch())
    gone = weakref.ref(reader)
    del reader
    gc.collect()
    assert gone() is None


def test_a_reader_that_is_closed_raises(cache):
    reader = Reader(cache, series_plan(cache), device=CPU)
    batches = reader.epoch()
    next(batches)
    reader.close()
    for left in (batches, reader.epoch()):
        with pytest.raises(InputError, match="the reader is closed"):
            next(left)


def test_a_cache_of_two_stored_types_is_refused(tmp_path, write_cache):
    affine = np.eye(4)
    volumes = [
        (f"s{i}", "1", SeriesType.SAGITTAL_T1, np.zeros((2, 8, 8), dtype), affine)
        for i, dtype in enumerate([np.uint8, np.int16])
    ]
    mixed = Cache(write_cache(tmp_path / "cache", volumes, {}))
    before = threading.active_count()
    with pytest.raises(InputError, match="several stored types"):
        Reader(mixed, series_plan(mixed), device=CPU)
    assert threading.active_count() == before


@pytest.mark.usefixtures("uncompiled_reader")
def test_the_stand_in_of_other_tests_gives_the_same_batches(cache, three_epochs):
    with Reader(cache, series_plan(cache), device=CPU, epoch=1) as reader:
        for ours, theirs in zip(reader.epoch(), three_epochs[1], strict=True):
            assert_same(ours, theirs)


@pytest.mark.usefixtures("uncompiled_reader")
def test_the_source_hands_over_views_of_the_files(cache):
    with Reader(cache, series_plan(cache), device=CPU) as reader:
        volumes, *rest = reader._pipeline.source(None)
        requests = series_plan(cache).requests(0, 0)
        assert [len(values) for values in rest] == [4, 4, 4, 4]
        for volume, request in zip(volumes, requests, strict=True):
            assert isinstance(volume, np.memmap)
            assert not volume.flags.writeable
            assert np.shares_memory(volume, cache.volume(request.views[0].row))


PLACEMENTS = [("disk", "cpu"), ("disk", "gpu"), ("device", "gpu")]


@pytest.mark.parametrize("tier", ["disk", "device"])
def test_operators_render_what_the_compiled_pass_does_from_every_tier(cache, tier):
    """As on a GPU, on the CPU; every batch is compared, its noise by mean and spread."""
    plan = series_plan(cache)
    options = {"tier": tier, "draw": "gpu", "verified_steps": plan.steps}
    ((*ours,),) = read(cache, plan, 1, **options)
    assert len(ours) == plan.steps


def test_a_reader_raises_for_the_first_verified_batch_that_is_wrong(cache, monkeypatch):
    fed = reader_module.as_rendered
    monkeypatch.setattr(reader_module, "as_rendered", lambda *a: fed(*a).roll(1, dims=0))
    with (
        Reader(cache, series_plan(cache), device=CPU, verified_steps=1) as reader,
        pytest.raises(WrongPixelsError, match="view 0 of a step, rendered on the CPU"),
    ):
        next(reader.epoch())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("tier", "draw"), PLACEMENTS)
@pytest.mark.parametrize("plan_of", [series_plan, study_plan])
def test_a_reader_on_a_gpu_gives_the_batches_of_the_cpu(cache, tier, draw, plan_of):
    silent = UNMIXED.model_copy(update={"noise": 0.0})
    plan = plan_of(cache, UNMIXED if draw == "cpu" else silent)
    ((*wanted,),) = read(cache, plan, 1)
    with Reader(cache, plan, device=torch.device("cuda"), tier=tier, draw=draw) as reader:
        for batch, reference in zip(reader.epoch(), wanted, strict=True):
            assert batch.image.is_cuda
            assert batch.target.is_cuda
            assert not batch.lengths.is_cuda
            assert torch.equal(batch.target.cpu(), reference.target)
            assert torch.equal(batch.present.cpu(), reference.present)
            if draw == "cpu":
                assert torch.equal(batch.image.cpu(), reference.image)
            else:
                assert batch.image.cpu().numpy() == pytest.approx(reference.image.numpy(), abs=2e-3)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("tier", "draw"), PLACEMENTS)
def test_a_start_anywhere_on_a_gpu_gives_the_same_bytes(cache, tier, draw):
    options = {"device": torch.device("cuda"), "tier": tier, "draw": draw}
    with Reader(cache, series_plan(cache), **options) as reader:
        first, second = ([b.image.clone() for b in reader.epoch()] for _ in range(2))
    with Reader(cache, series_plan(cache), **options, step=2) as reader:
        again = [b.image.clone() for b in reader.epoch()] + [
            b.image.clone() for b in reader.epoch()
        ]
    for ours, theirs in zip(again, [*first[2:], *second], strict=True):
        assert torch.equal(ours, theirs)
