"""Windows: what is measured in them, and what is made of them."""

import itertools
import time

import numpy as np
import pytest
import torch

from lumbar.bench.measure.repeats import (
    Stopwatch,
    measure_alone,
    measure_ceiling,
    spread_usage,
    summarise,
)
from lumbar.bench.measure.results import Ceiling
from lumbar.bench.measure.spread import Spread
from lumbar.bench.measure.steps import BenchStep
from lumbar.bench.measure.window import MIN_STEPS, MeasuredWindow, is_over, measure_window
from lumbar.bench.report.notes import notes_of
from lumbar.train.plan.plan import Request
from lumbar.train.reader.batch import Batch
from lumbar.train.telemetry.device_clock import DeviceClock
from lumbar.train.telemetry.sampler import Usage, UtilisationSampler

CPU = torch.device("cpu")
SAMPLES = 4


@pytest.fixture
def batch():
    return Batch(
        image=torch.zeros(SAMPLES, 1, 1, 2, 2),
        present=torch.ones(SAMPLES, 1, dtype=torch.bool),
        position=torch.zeros(SAMPLES, 1),
        lengths=torch.ones(SAMPLES, dtype=torch.int64),
        series_type=torch.zeros(SAMPLES, dtype=torch.int64),
        level=torch.full((SAMPLES,), -1),
        target=torch.zeros(SAMPLES, 25, 3),
        known=torch.zeros(SAMPLES, 25, dtype=torch.bool),
        requests=[Request(0, (), np.full(25, -1, np.int8))] * SAMPLES,
    )


@pytest.fixture
def patience(monkeypatch):
    """Windows of no length, which end with their least number of steps."""
    monkeypatch.setattr("lumbar.bench.measure.window.PATIENCE", float("inf"))


def test_arithmetic_of_a_window():
    window = MeasuredWindow(
        wall=10.0, volumes=8, waits=np.array([1.0, 2.0]), steps=np.array([3.0, 4.0]), cpu=2.0
    )
    assert window.volumes_per_second == pytest.approx(0.8)
    assert window.stall == pytest.approx(0.3)
    assert window.accelerator_utilisation(3.5) == pytest.approx(0.7)


def test_summary_pools_waits_and_spreads_over_repeats():
    spread = Spread(500.0, 500.0, 500.0)
    ceiling = Ceiling("end_to_end", "a step", simulated=False, step_ms=spread,
                      volumes_per_second=spread, usage={})  # fmt: skip
    windows = [
        MeasuredWindow(2.0, 4, np.array([0.1, 0.3]), np.full(2, 0.5), 0.0, disk_bytes=8),
        MeasuredWindow(4.0, 4, np.array([0.5, 0.7]), np.full(2, 0.5), 0.0, disk_bytes=8),
        MeasuredWindow(8.0, 4, np.array([0.9, 1.1]), np.full(2, 0.5), 0.0, disk_bytes=8),
    ]
    result = summarise(windows, ceiling, {})
    assert result.volumes_per_second == Spread(1.0, 0.5, 2.0)
    assert result.au == Spread(0.25, 0.125, 0.5)
    assert result.wait_ms_p50.value == pytest.approx(600)
    assert result.waits == sum(len(window.waits) for window in windows)
    assert (result.wait_ms_p50.low, result.wait_ms_p50.high) == pytest.approx((200, 1000))
    assert result.stall.value == pytest.approx(0.25)
    assert result.step_ms == Spread(500.0, 500.0, 500.0)
    assert result.disk_bytes_per_second == Spread(2.0, 1.0, 4.0)
    assert result.share_of_ceiling == pytest.approx(1 / 500)


def test_counters_that_were_measured_are_summarised_and_energy_is_of_a_volume():
    # Of two steps each; the step before a window belongs to what is read after it.
    windows = [MeasuredWindow(1.0, volumes, np.zeros(2), np.zeros(2), 0.0) for volumes in (4, 8)]
    usages = [
        Usage(cpu_percent=50.0, energy_joules=12.0, gpu_percent=None),
        Usage(cpu_percent=70.0, energy_joules=48.0, gpu_percent=99.0),
    ]
    spreads = spread_usage(usages, windows)
    assert spreads == {
        "cpu_percent": Spread(60.0, 50.0, 70.0),
        "energy_joules": Spread(3.0, 2.0, 4.0),
    }


def test_window_marks_lie_between_loader_and_step(batch, monkeypatch, patience):
    """On a clock of ours: a wait of 1 and a step of 2."""
    now = itertools.count()
    clock = DeviceClock(CPU)
    monkeypatch.setattr(clock, "mark", lambda: float(next(now)))
    window = measure_window(itertools.repeat(batch), lambda _: next(now), clock, seconds=1e-9)
    assert window.waits.tolist() == [1.0] * MIN_STEPS
    assert window.steps.tolist() == [2.0] * MIN_STEPS
    assert window.volumes == MIN_STEPS * SAMPLES


def test_what_a_loader_had_ready_is_not_measured(batch, patience):
    drawn = []
    stream = (drawn.append(number) or batch for number in itertools.count())
    with UtilisationSampler(CPU) as sampler:
        stopwatch = Stopwatch(DeviceClock(CPU), sampler, seconds=1e-9, repeats=2)
        measure_alone(stopwatch, stream, in_flight=5)
    assert len(drawn) == 5 + 2 * (1 + MIN_STEPS)


@pytest.mark.parametrize(
    ("elapsed", "steps", "workers", "over"),
    [
        (0.9, 100, 1, False),
        (1.0, 2, 1, False),
        (1.0, 3, 1, True),
        (1.0, 6, 4, False),  # not a whole round
        (1.0, 4, 4, False),  # one round
        (1.0, 8, 4, True),
        (4.0, 4, 4, True),  # patience is at its end
        (4.0, 3, 4, False),
        (9.0, 0, 1, False),
    ],
)
def test_windows_end_after_whole_rounds(elapsed, steps, workers, over):
    assert is_over(elapsed, steps, 1.0, workers) == over


def test_a_long_step_leaves_half_of_the_time_to_the_loaders(batch):
    taken = []

    def take(_):
        taken.append(None)
        time.sleep(0.002)

    step = BenchStep("end_to_end", "a step", simulated=False, take=take)
    with UtilisationSampler(CPU) as sampler:
        stopwatch = Stopwatch(DeviceClock(CPU), sampler, 0.01, 2)
        now = time.perf_counter()
        first = measure_ceiling(stopwatch, step, batch, longest_step=0.001, until=now)
        assert (len(taken), first.first_alone, first.usage) == (1, True, {})
        assert first.step_ms.value >= 2
        assert first.volumes_per_second.value == pytest.approx(1000 * SAMPLES / first.step_ms.value)
        second = measure_ceiling(stopwatch, step, batch, longest_step=0.001, until=now + 60)
        assert (len(taken), second.first_alone) == (3, False)
        usual = measure_ceiling(stopwatch, step, batch, longest_step=60.0, until=now)
        assert len(taken) > 2 * 3
        assert usual.step_ms.low <= usual.step_ms.value
    notes = list(notes_of(CPU, [first], [first], []))
    assert "0.0 s once, for want of time" in notes[0]
