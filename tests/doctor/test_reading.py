"""The checks of the reader, tried on the CPU: they pass, and fail for pixels that are wrong."""

import math

import pytest
import torch

from lumbar.doctor.gpu.racing import STEPS, check_busy_device
from lumbar.doctor.host import reading
from lumbar.doctor.host.reading import (
    check_draw_cpu,
    check_draw_gpu,
    check_reader,
    largest_difference,
)
from lumbar.doctor.host.small_cache import check_cache

CPU = torch.device("cpu")


def test_reader_gives_the_plan():
    assert check_reader().state == "pass"


@pytest.fixture
def brighter(monkeypatch):
    """A reader whose pixels are all a little too bright."""
    genuine = reading.Reader._images
    monkeypatch.setattr(reading.Reader, "_images", lambda self: genuine(self) + 1e-2)


@pytest.mark.usefixtures("brighter")
def test_reader_that_gives_other_pixels_fails():
    found = check_reader()
    assert found.state == "fail"
    assert "view 0 of a step" in found.found


def test_draw_cpu_passes_on_the_cpu():
    assert check_draw_cpu(CPU).state == "pass"


def test_draw_gpu_passes_on_the_cpu_within_the_tolerance():
    found = check_draw_gpu(CPU)
    assert found.state == "pass", found
    assert "tier device" in found.found


@pytest.fixture
def other_pixels_the_second_time(monkeypatch):
    """Reading that gives a wrong pixel every time but the first, which is the reference."""
    genuine, calls = reading.read, []

    def read(*arguments, **options):
        images = genuine(*arguments, **options)
        calls.append(1)
        if len(calls) > 1:
            images[2] = images[2].clone()
            images[2][0, 0, 0, 0, 0] += 0.05
        return images

    monkeypatch.setattr(reading, "read", read)


@pytest.mark.usefixtures("other_pixels_the_second_time")
def test_draw_cpu_fails_for_one_pixel():
    found = check_draw_cpu(CPU)
    assert (found.state, found.found) == ("fail", "1 of 4 batches differ from the CPU's")


@pytest.mark.usefixtures("other_pixels_the_second_time")
def test_draw_gpu_fails_for_one_pixel():
    found = check_draw_gpu(CPU)
    assert found.state == "fail"
    assert "expected at most 2e-03" in found.found
    assert "--draw cpu" in found.cure


def test_draw_gpu_fails_for_noise_of_another_spread(monkeypatch):
    """The pixels without noise are right; the noise itself is not the plan's."""
    genuine = reading.Reader._images

    def louder(self):
        images = genuine(self)
        return images if self.plan.augment.noise == 0 else images + 0.1 * torch.randn(images.shape)

    monkeypatch.setattr(reading.Reader, "_images", louder)
    found = check_draw_gpu(CPU)
    assert found.state == "fail"
    assert "rendered on the GPU" in found.found


@pytest.mark.parametrize("views", [1, 8, 64])
def test_busy_device_is_held_before_every_batch(views):
    held = []
    found = check_busy_device(CPU, views, lambda: held.append(1))
    assert found.state == "pass", found
    assert len(held) == STEPS


def test_batches_that_are_written_over_fail():
    """What a race leaves behind: the batch before is seen instead of its own."""
    kept = []
    genuine = reading.Reader._next_batch

    def stale(self):
        batch = genuine(self)
        kept.append(batch.image.clone())
        if self._feed is not None and len(kept) > STEPS + 1:
            batch.image.copy_(kept[-2])
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading.Reader, "_next_batch", stale)
        found = check_busy_device(CPU, 1, lambda: None)
    assert found.state == "fail"
    assert found.found == f"{STEPS - 1} of {STEPS} batches have other pixels"


def test_not_a_number_differs_without_end():
    ours = [torch.zeros(1, 1, 1, 1, 2)]
    assert largest_difference(ours, [torch.full((1, 1, 1, 1, 2), 0.25)]) == 0.25
    assert (
        largest_difference(ours, [torch.tensor([0.0, math.nan]).reshape(1, 1, 1, 1, 2)]) == math.inf
    )


def test_cache_is_written_and_verified():
    assert check_cache().state == "pass"
