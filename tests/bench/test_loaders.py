"""Loaders that execute the plan give the same crops, and leave nothing running."""

import multiprocessing
import threading

import numpy as np
import pytest
import torch

from lumbar.bench.loaders import loaders
from lumbar.bench.loaders.dataloader import Steps
from lumbar.bench.loaders.loaders import LoaderInput, LoaderSpec, lacking_shared_memory, open_loader
from lumbar.bench.loaders.opencv_crops import PlanSteps, cut_crop
from lumbar.train.plan import pixel_params as numbers
from lumbar.train.plan.augment import AugmentConfig, unchanged
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.plan.view import View

CPU = torch.device("cpu")


def make_source(cache, config, decode=None):
    series = Samples.of_series(cache, cache.rows_of(config.series))
    plan = Plan(series, config.crop, config.augment, batch=2, shuffle=True, seed=3)
    return LoaderInput(cache, plan, CPU, torch.float32, decode)


def first_batches(source, spec, count):
    with open_loader(source, spec) as batches:
        # The reader may use its memory again, so the images are copied.
        return [(batch, batch.image.numpy().copy()) for batch, _ in zip(batches, range(count))]  # noqa: B905


def test_every_loader_gives_the_same_batches(smooth_cache, run_config):
    def decode(study_id, series_id, size):
        row = smooth_cache.series["series_id"].to_list().index(series_id)
        volume = smooth_cache.volume(row)
        assert (str(row), size) == (study_id, volume.shape[1:])
        return volume.astype(np.float32) / 255

    source = make_source(smooth_cache, run_config, decode)
    count = 2 * source.plan.steps  # into the second epoch
    reader = first_batches(source, LoaderSpec("lumbar_reader", 2), count)
    for spec in (
        LoaderSpec("lumbar_reader", 1, "device"),
        LoaderSpec("cache_dataloader", 0),
        LoaderSpec("cache_dataloader", 1),
        LoaderSpec("dicom_dataloader", 0),
    ):
        for (ours, image), (theirs, other) in zip(
            reader, first_batches(source, spec, count), strict=True
        ):
            assert [r.index for r in ours.requests] == [r.index for r in theirs.requests]
            assert image.shape == other.shape == (len(ours.requests), 4, 1, 48, 40)
            # OpenCV may round a pixel's place to 1/32 of a pixel; the steepest slope is 9 of 255.
            np.testing.assert_allclose(image, other, atol=0.004)
            assert image.std() > 0.1
            for name in ("present", "position", "target", "known", "lengths"):
                assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert multiprocessing.active_children() == []


def test_workers_and_threads_end_with_the_loader(smooth_cache, run_config):
    before = set(threading.enumerate())
    with open_loader(
        make_source(smooth_cache, run_config), LoaderSpec("cache_dataloader", 2)
    ) as batches:
        next(batches)
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)  # queues let go of their threads without waiting for them
        assert not thread.is_alive()


def test_samples_are_mixed_by_all(smooth_cache, run_config):
    mixing = run_config.model_copy(update={"augment": AugmentConfig(mixup=1.0, noise=0.0)})
    source = make_source(smooth_cache, mixing)
    still = make_source(smooth_cache, run_config)
    cached = LoaderSpec("cache_dataloader", 0)
    count = 2 * source.plan.steps
    ours = first_batches(source, LoaderSpec("lumbar_reader", 2), count)
    theirs = first_batches(source, cached, count)
    for (_, image), (_, other) in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(image, other, atol=0.004)
    unmixed = first_batches(still, cached, count)
    assert any(
        np.abs(image - other).max() > 0.1
        for (_, image), (_, other) in zip(theirs, unmixed, strict=True)
    )


def test_steps_go_on_and_on():
    assert list(zip(range(5), Steps(2), strict=False)) == [
        (0, (0, 0)), (1, (0, 1)), (2, (1, 0)), (3, (1, 1)), (4, (2, 0)),
    ]  # fmt: skip


def test_names_and_labels_are_told_apart():
    specs = [
        LoaderSpec("lumbar_reader", 2),
        LoaderSpec("lumbar_reader", 1, "device"),
        LoaderSpec("cache_dataloader", 4),
        LoaderSpec("dicom_dataloader", 1),
    ]
    assert [spec.name for spec in specs] == [
        "lumbar_disk_2_threads",
        "lumbar_device_1_threads",
        "cache_dataloader_4_workers",
        "dicom_dataloader_1_workers",
    ]
    assert [spec.label for spec in specs] == [
        "lumbar, disk tier, 2 threads",
        "lumbar, device tier, 1 thread",
        "cache in a DataLoader, 4 workers",
        "pydicom on the fly in a DataLoader, 1 worker",
    ]


def view_of(slices, crop, *, gain=1.0, offset=0.0, noise=0.0, key=(0, 0)):
    """A view without any change of its pixels but these."""
    drawn = unchanged((crop.height, crop.width))
    drawn[[numbers.GAIN, numbers.OFFSET, numbers.NOISE]] = gain, offset, noise
    return View(
        row=0,
        slices=np.array(slices, np.int32),
        position=np.zeros(len(slices), np.float32),
        matrix=np.array([[1, 0, 0], [0, 1, 0]], np.float32),
        numbers=drawn,
        key=np.array(key, np.uint32),
    )


def test_crop_scales_and_leaves_absent_slices_empty():
    volume = np.full((3, 16, 16), 100, np.uint8)
    crop = CropConfig(slices=3, height=16, width=20)
    image = np.full((3, 16, 20), 9, np.float32)
    cut_crop(image, volume, view_of([0, 7, -1], crop, offset=0.5), scale=0.01)
    np.testing.assert_allclose(image[:2, :, :16], 1.5, atol=1e-5)
    np.testing.assert_allclose(image[:2, :, 16:], 0.5, atol=1e-5)
    assert (image[2] == 0).all()


def test_noise_has_its_strength_and_is_seeded():
    volume = np.zeros((2, 16, 16), np.uint8)
    crop = CropConfig(slices=2, height=64, width=64)
    noisy = np.empty((3, 2, 64, 64), np.float32)
    for image, key in zip(noisy, (1, 1, 2), strict=True):
        cut_crop(image, volume, view_of([0, -1], crop, noise=0.05, key=(key << 8, 0)))
    assert (noisy[0] == noisy[1]).all()
    assert (noisy[0][0] != noisy[2][0]).any()
    assert noisy[0][0].std() == pytest.approx(0.05, rel=0.05)
    assert abs(noisy[0][0].mean()) < 0.005
    assert (noisy[0][1] == 0).all()


def test_opencv_takes_every_step_as_the_reader_does(smooth_cache, run_config):
    augment = AugmentConfig(
        noise=0, gamma=0.3, bias_field=0.4, blur_mm=2, low_resolution=1, cutout=0.5, probability=0.9
    )
    samples = Samples.of_series(smooth_cache, smooth_cache.rows_of(run_config.series))
    plan = Plan(samples, run_config.crop, augment, batch=2, shuffle=True, seed=3)
    source = LoaderInput(smooth_cache, plan, CPU, torch.float32, None)
    ours = first_batches(source, LoaderSpec("lumbar_reader", 2), plan.steps)
    theirs = first_batches(source, LoaderSpec("cache_dataloader", 0), plan.steps)
    for (_, image), (_, other) in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(image, other, atol=0.02)


def test_data_set_folds_storage_scale_and_augmentation(smooth_cache, run_config):
    steps = PlanSteps(smooth_cache.root, make_source(smooth_cache, run_config).plan)
    crop = CropConfig(slices=1, height=16, width=16)
    image = np.empty((1, 1, 16, 16), np.float32)
    steps.fill(image, [view_of([0], crop, gain=2.0, offset=0.25)])
    expected = smooth_cache.volume(0)[0, :16, :16] / 255 * 2 + 0.25
    np.testing.assert_allclose(image[0, 0], expected, atol=1e-5)


def test_too_little_shared_memory_is_told(smooth_cache, run_config, monkeypatch):
    source = make_source(smooth_cache, run_config)
    with_workers = LoaderSpec("cache_dataloader", 2)
    assert lacking_shared_memory(source, with_workers) is None
    usage = type("Usage", (), {"free": 4 * 2 * 4 * 48 * 40 * 5 - 1})
    monkeypatch.setattr(loaders.shutil, "disk_usage", lambda _: usage)
    assert "cache_dataloader_2_workers" in lacking_shared_memory(source, with_workers)
    assert lacking_shared_memory(source, LoaderSpec("cache_dataloader", 0)) is None
    assert lacking_shared_memory(source, LoaderSpec("lumbar_reader", 2)) is None


def test_the_dataloader_reads_an_archive_too(smooth_cache, smooth_archive, run_config):
    spec = LoaderSpec("cache_dataloader", 0)
    ours = first_batches(make_source(smooth_archive, run_config), spec, 2)
    theirs = first_batches(make_source(smooth_cache, run_config), spec, 2)
    for (_, image), (_, other) in zip(ours, theirs, strict=True):
        assert np.array_equal(image, other)
