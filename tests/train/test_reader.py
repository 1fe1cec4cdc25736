import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.plan import NO_SLICE, AugmentConfig, CropConfig, Plan
from lumbar.train.reader import Reader
from lumbar.train.samples import SeriesSet
from lumbar.train.warp import warp_slices

CPU = torch.device("cpu")
CROP = CropConfig(slices=8, height=32, width=24, pixel_mm=6.0)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache):
    """Eleven int16 series, shallow and deep, stored with a scale and an offset."""
    rng = np.random.default_rng(6)
    volumes, labels = [], {}
    affine = np.array([[4.0, 0, 0, 0], [0, 0, 2.5, 0], [0, -3.0, 0, 0], [0, 0, 0, 1]])
    for number in range(11):
        shape = (int(rng.integers(3, 14)), int(rng.integers(40, 80)), int(rng.integers(40, 80)))
        volume = rng.integers(0, 32768, shape).astype(np.int16)
        volumes.append((f"s{number:02}", "1", SeriesType.SAGITTAL_T1, volume, affine))
        labels[f"s{number:02}"] = rng.integers(-1, 3, 25)
    root = tmp_path_factory.mktemp("reader") / "cache"
    return Cache(write_cache(root, volumes, labels, scale=1 / 32767, offset=-0.25))


def make_plan(cache):
    series = SeriesSet.from_cache(cache, range(cache.series.height))
    augment = AugmentConfig(side_exchange=0.5, noise=0.1)
    return Plan(series, CROP, augment, batch=4, shuffle=True, seed=3)


def by_hand(cache, request):
    """The sample of a request, from the plan's definition of it."""
    image = np.empty((CROP.slices, CROP.height, CROP.width), np.float32)
    attributes = cache.attributes(request.row)
    gain = attributes.scale * request.gain
    offset = attributes.offset * request.gain + request.offset
    numbers = np.array([gain, offset, request.noise, request.noise_seed], np.float32)
    volume = np.array(cache.volume(request.row))
    warp_slices(image, volume, request.slices, request.matrix, numbers)
    return image


def thread_count():
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.fixture(scope="module")
def three_epochs(cache):
    """All batches of three epochs, read with one thread and kept, as the reader gave them."""
    with Reader(cache, make_plan(cache), device=CPU, threads=1, prefetch=2) as reader:
        return [list(reader.epoch()) for _ in range(3)]


def test_batches_are_the_plan_epoch_after_epoch_with_the_last_one_short(cache, three_epochs):
    plan = make_plan(cache)
    for epoch, batches in enumerate(three_epochs):
        assert [len(batch.requests) for batch in batches] == [4, 4, 3]
        for step, batch in enumerate(batches):
            wanted = plan.requests(epoch, step)
            assert [r.row for r in batch.requests] == [r.row for r in wanted]
            assert [r.noise_seed for r in batch.requests] == [r.noise_seed for r in wanted]


def test_images_are_the_pass_over_the_stored_voxels(cache, three_epochs):
    # The batches were all kept while later ones were made: their memory is still their own.
    for batch in (batch for batches in three_epochs for batch in batches):
        assert batch.image.dtype == torch.float32
        assert batch.image.shape == (len(batch.requests), 8, 1, 32, 24)
        for image, request in zip(batch.image, batch.requests, strict=True):
            assert image[:, 0].numpy() == pytest.approx(by_hand(cache, request), abs=1e-5)


def test_everything_beside_the_image_is_the_request(three_epochs):
    requests = [r for batches in three_epochs for batch in batches for r in batch.requests]
    assert any(NO_SLICE in r.slices for r in requests)
    assert len({r.sides_exchanged for r in requests}) == 2
    for batch in (batch for batches in three_epochs for batch in batches):
        assert batch.severity.dtype == batch.lengths.dtype == torch.int64
        for i, request in enumerate(batch.requests):
            length = int((request.slices != NO_SLICE).sum())
            assert batch.present[i].tolist() == [d < length for d in range(8)]
            assert batch.lengths[i] == length
            assert batch.position[i].tolist() == request.position.tolist()
            assert batch.severity[i].tolist() == request.severity.tolist()
            assert not batch.image[i, length:].any()


def test_starting_at_an_epoch_gives_the_bytes_of_having_read_up_to_it(cache, three_epochs):
    # And so do other threads and another depth of prefetching.
    with Reader(
        cache, make_plan(cache), device=CPU, dtype=torch.float16, threads=4, prefetch=3, epoch=1
    ) as reader:
        for expected in three_epochs[1:]:
            for ours, theirs in zip(reader.epoch(), expected, strict=True):
                assert ours.image.dtype == torch.float16
                assert torch.equal(ours.image, theirs.image.half())
                assert torch.equal(ours.severity, theirs.severity)


def test_bfloat16_is_the_rounded_image_and_closing_leaves_no_thread(cache, three_epochs):
    before, python_before = thread_count(), threading.active_count()
    reader = Reader(cache, make_plan(cache), device=CPU, dtype=torch.bfloat16, threads=3)
    batch = next(iter(reader.epoch()))
    assert thread_count() >= before + 3
    assert torch.equal(batch.image, three_epochs[0][0].image.bfloat16())
    kept = batch.image.clone()
    reader.close()
    reader.close()
    # Threads end a moment after they are told to.
    for _ in range(100):
        if thread_count() <= before:
            break
        time.sleep(0.05)
    assert thread_count() <= before
    assert threading.active_count() == python_before
    assert torch.equal(batch.image, kept)


@pytest.mark.usefixtures("uncompiled_reader")
def test_the_stand_in_of_other_tests_gives_the_same_batches(cache, three_epochs):
    with Reader(cache, make_plan(cache), device=CPU, epoch=1) as reader:
        for ours, theirs in zip(reader.epoch(), three_epochs[1], strict=True):
            assert ours.image.numpy() == pytest.approx(theirs.image.numpy(), abs=1e-6)


@pytest.mark.usefixtures("uncompiled_reader")
def test_the_source_hands_over_views_of_the_files(cache):
    with Reader(cache, make_plan(cache), device=CPU) as reader:
        volumes, slices, matrices, numbers = reader._pipeline.source(type("", (), {"iteration": 0}))
        requests = make_plan(cache).requests(0, 0)
        assert len(volumes) == len(slices) == len(matrices) == len(numbers) == 4
        for volume, request in zip(volumes, requests, strict=True):
            assert isinstance(volume, np.memmap)
            assert not volume.flags.writeable
            assert np.shares_memory(volume, cache.volume(request.row))


@pytest.mark.gpu
@needs_gpu
def test_a_reader_on_a_gpu_gives_the_batches_of_the_cpu(cache, three_epochs):
    plan = make_plan(cache)
    quiet = Plan(
        plan.series,
        CROP,
        AugmentConfig(side_exchange=0.5, noise=0),
        batch=4,
        shuffle=True,
        seed=3,
    )
    with Reader(cache, quiet, device=torch.device("cuda"), dtype=torch.float32) as reader:
        for batch, reference in zip(reader.epoch(), three_epochs[0], strict=True):
            assert batch.image.is_cuda
            assert batch.severity.is_cuda
            assert not batch.lengths.is_cuda
            assert torch.equal(batch.severity.cpu(), reference.severity)
            for image, request in zip(batch.image.cpu(), batch.requests, strict=True):
                assert image[:, 0].numpy() == pytest.approx(by_hand(cache, request), abs=2e-3)
