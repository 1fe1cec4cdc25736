"""What a sampler adds up, on clocks and counters of ours; and its thread, on the real ones."""

import contextlib
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from lumbar.train.telemetry.gpu import GpuReading
from lumbar.train.telemetry.sampler import (
    MAX_COST,
    GpuCounters,
    Mark,
    Usage,
    UsageSample,
    UtilisationSampler,
)

CPU = torch.device("cpu")
LONG = 600.0
"""Seconds between readings in a test that expects only requested readings."""

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")


class Readings(GpuCounters):
    """A GPU with given readings."""

    def __init__(self, read):
        self.read = read


@pytest.fixture
def by_hand(monkeypatch):
    """A sampler without its thread: a function takes a reading at a given time."""
    clock = SimpleNamespace(now=100.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now, thread_time=lambda: clock.now / 50)
    monkeypatch.setattr("lumbar.train.telemetry.sampler.time", fake)
    sampler = UtilisationSampler(CPU)

    def read(at_seconds, cpu_percent=None, **values):
        clock.now = 100.0 + at_seconds
        sampler._cores = SimpleNamespace(percent=lambda: cpu_percent)
        sampler._sample(Readings(lambda: GpuReading(**values)))

    sampler.read = read
    sampler.clock = clock
    return sampler


def test_means_are_weighted_by_time(by_hand):
    by_hand.read(1, cpu_percent=80.0, gpu_percent=0.0, power_watts=100.0)
    by_hand.read(4, cpu_percent=40.0, gpu_percent=100.0, power_watts=300.0)
    usage = by_hand.summary()
    assert usage.cpu_percent == pytest.approx(50)
    assert usage.gpu_percent == pytest.approx(75)
    assert usage.power_watts == pytest.approx(250)


def test_a_counter_is_averaged_over_the_readings_that_have_it(by_hand):
    by_hand.read(1, sm_percent=None, gpu_percent=10.0)
    by_hand.read(2, sm_percent=60.0, gpu_percent=10.0)
    by_hand.read(3, sm_percent=None, gpu_percent=10.0)
    by_hand.read(4, sm_percent=20.0, gpu_percent=10.0)
    usage = by_hand.summary()
    assert usage.sm_percent == pytest.approx(40)
    assert usage == Usage(gpu_percent=usage.gpu_percent, sm_percent=usage.sm_percent)


def test_memory_is_the_greatest_and_energy_the_difference(by_hand):
    by_hand.read(0.1, energy_joules=5000.0, memory_used_bytes=10)
    by_hand.read(1, energy_joules=5300.0, memory_used_bytes=30)
    by_hand.read(2, energy_joules=5400.0, memory_used_bytes=20)
    first = by_hand.summary()
    assert (first.energy_joules, first.memory_used_bytes) == (400.0, 30)
    by_hand.read(3, energy_joules=5450.0, memory_used_bytes=20)
    second = by_hand.summary()
    assert (second.energy_joules, second.memory_used_bytes) == (50.0, 20)
    assert by_hand.summary() == Usage()
    by_hand.read(4, energy_joules=5451.0)
    assert by_hand.summary() == Usage(energy_joules=1.0)


def test_percent_and_summary_know_nothing_of_each_other(by_hand):
    by_hand.read(1, gpu_percent=10.0)
    assert by_hand.percent() == pytest.approx(10)
    by_hand.read(2, gpu_percent=30.0)
    assert by_hand.summary().gpu_percent == pytest.approx(20)
    assert by_hand.percent() == pytest.approx(30)
    assert by_hand.percent() is None
    by_hand.read(3, gpu_percent=70.0)
    assert by_hand.summary().gpu_percent == pytest.approx(70)


def test_time_line_has_every_reading_of_a_short_run(by_hand):
    by_hand.read(0.5, cpu_percent=50.0, energy_joules=7000.0)
    by_hand.read(1, cpu_percent=60.0, gpu_percent=20.0, memory_used_bytes=3, energy_joules=7010.0)
    by_hand.summary()
    by_hand.percent()
    assert by_hand.timeline() == (
        UsageSample(seconds=0.5, cpu_percent=50.0, energy_joules=0.0),
        UsageSample(
            seconds=1.0, cpu_percent=60.0, gpu_percent=20.0, memory_used_bytes=3, energy_joules=10.0
        ),
    )


@pytest.mark.parametrize("readings", [7, 8, 9, 15, 16, 100, 257])
def test_time_line_of_a_long_run_is_short_and_loses_nothing(by_hand, monkeypatch, readings):
    monkeypatch.setattr("lumbar.train.telemetry.sampler.TIMELINE_LENGTH", 8)
    for number in range(1, readings + 1):
        by_hand.read(
            number,
            cpu_percent=100.0 * number / readings,
            memory_used_bytes=1000 - abs(number - 5),
            energy_joules=50.0 + number,
        )
    samples = by_hand.timeline()
    assert 4 <= len(samples) <= 8
    ends = [sample.seconds for sample in samples]
    assert ends == sorted(ends)
    assert ends[-1] == readings
    assert [sample.energy_joules for sample in samples] == [end - 1 for end in ends]
    assert max(sample.memory_used_bytes for sample in samples) == 1000
    begins = [0, *ends[:-1]]
    for sample, begin, end in zip(samples, begins, ends, strict=True):
        assert sample.cpu_percent == pytest.approx(100 * (begin + 1 + end) / 2 / readings)


def test_marks_stand_on_the_same_clock(by_hand, monkeypatch):
    by_hand.clock.now = 102.5
    by_hand.mark("warm-up")
    by_hand.clock.now = 104.0
    by_hand.mark("windows")
    assert by_hand.marks() == (Mark(2.5, "warm-up"), Mark(4.0, "windows"))


def test_marks_of_a_long_run_are_the_latest(monkeypatch):
    monkeypatch.setattr("lumbar.train.telemetry.sampler.TIMELINE_LENGTH", 3)
    sampler = UtilisationSampler(CPU)
    for number in range(5):
        sampler.mark(str(number))
    assert [mark.label for mark in sampler.marks()] == ["2", "3", "4"]


def test_slow_readings_come_less_often(by_hand, monkeypatch):
    """A reading takes 3 s of CPU time, so the thread may rest no shorter than 600 s."""
    pauses = []

    def wait(_, pause):
        pauses.append(pause)
        by_hand._running = False

    def slow():
        by_hand.clock.now += 150.0  # 3 s on the thread's clock
        return GpuReading()

    by_hand._cores = SimpleNamespace(percent=lambda: None)
    by_hand._running = True
    monkeypatch.setattr(by_hand._changed, "wait_for", wait)
    by_hand._sample_until_exit(Readings(slow))
    assert pauses == [pytest.approx(3 / MAX_COST)]


def test_cost_is_cpu_time_over_wall_time(by_hand):
    assert by_hand.cost() == 0.0
    by_hand.read(10)
    by_hand._cpu_seconds = 0.05
    assert by_hand.cost() == pytest.approx(0.005)


class Counters(GpuCounters):
    """A GPU whose energy counter goes up by one joule a reading."""

    def __init__(self):
        self.readings = 0
        self.closed = 0
        self.error = None

    def read(self):
        if self.error is not None:
            raise self.error
        self.readings += 1
        return GpuReading(gpu_percent=50.0, energy_joules=float(self.readings))

    def close(self):
        self.closed += 1


@pytest.fixture
def counters(monkeypatch):
    counters = Counters()
    monkeypatch.setattr(GpuCounters, "open", lambda device: counters)
    return counters


def test_without_a_gpu_the_cores_are_measured_and_nothing_else():
    with UtilisationSampler(CPU, interval_seconds=0.005) as sampler:
        while len(sampler.timeline()) < 10 or sampler.timeline()[-1].seconds < 0.1:
            time.sleep(0.01)
        assert sampler.percent() is None
        usage = sampler.summary()
    assert usage == Usage(cpu_percent=usage.cpu_percent)
    assert 0 <= usage.cpu_percent <= 100
    assert sampler.cost() > 0


def test_its_thread_ends_with_it_after_a_last_reading(counters):
    before = threading.active_count()
    with UtilisationSampler(CPU, interval_seconds=LONG) as sampler:
        assert threading.active_count() == before + 1
        sampler.summary()
        seen = counters.readings
    assert threading.active_count() == before
    assert counters.closed == 1
    assert counters.readings == seen + 1
    assert sampler.summary().energy_joules == 1.0
    assert sampler.summary() == Usage()


def test_it_ends_when_the_work_fails(counters):
    before = threading.active_count()
    with contextlib.suppress(ZeroDivisionError), UtilisationSampler(CPU) as sampler:
        sampler.summary()
        raise ZeroDivisionError
    assert threading.active_count() == before
    assert counters.closed == 1


def test_a_summary_takes_a_reading_of_its_own(counters):
    with UtilisationSampler(CPU, interval_seconds=LONG) as sampler:
        sampler.summary()
        for _ in range(5):
            assert sampler.summary().energy_joules == 1.0


def test_threads_share_out_what_was_measured(counters):
    """Every joule is in the summary of one thread, whichever it is."""
    joules = []

    def ask():
        for _ in range(20):
            joules.append(sampler.summary().energy_joules or 0.0)
            sampler.percent()
            sampler.mark("requested")
            sampler.timeline()

    with UtilisationSampler(CPU, interval_seconds=0.001) as sampler:
        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    joules.append(sampler.summary().energy_joules or 0.0)
    assert len(joules) == 81
    assert sum(joules) == counters.readings - 1
    assert len(sampler.marks()) == 80


def test_a_driver_that_breaks_stops_the_readings_and_not_the_work(counters, caplog):
    with UtilisationSampler(CPU, interval_seconds=LONG) as sampler:
        assert sampler.summary().gpu_percent == pytest.approx(50)
        counters.error = RuntimeError("the driver is broken")
        assert sampler.summary() == Usage()
        sampler._thread.join()
        assert sampler.summary() == Usage()
        assert sampler.percent() == pytest.approx(50)
    assert counters.closed == 1
    assert "the driver is broken" in caplog.text


def test_a_device_that_cannot_be_opened_stops_nothing(monkeypatch, caplog):
    def broken(device):
        raise OSError(device.type)

    monkeypatch.setattr(GpuCounters, "open", broken)
    with UtilisationSampler(CPU) as sampler:
        assert sampler.summary() == Usage()
    assert sampler.timeline() == ()
    assert sampler.cost() == 0.0
    assert "OSError: cpu" in caplog.text


@pytest.mark.gpu
@needs_gpu
def test_work_on_a_real_gpu_is_seen():
    device = torch.device("cuda:0")
    with UtilisationSampler(device) as sampler:
        square = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
        sampler.summary()
        sampler.mark("work")
        ends = time.perf_counter() + 2.0
        while time.perf_counter() < ends:
            for _ in range(20):
                square = (square @ square).clamp(-1, 1)
            torch.cuda.synchronize(device)
        usage = sampler.summary()
    if usage.gpu_percent is None:
        pytest.skip("the GPU is divided, or its driver may not be queried")
    assert usage.gpu_percent > 50
    assert usage.memory_used_bytes >= square.nbytes
    assert usage.cpu_percent > 0
    assert usage.energy_joules is None or usage.energy_joules > 0
    assert sampler.percent() > 0
    assert sampler.timeline()[-1].seconds > 2.0
