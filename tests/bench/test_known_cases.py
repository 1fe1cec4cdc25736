"""The benchmark measures what is known beforehand, on this machine."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from bench import account, known_cases
from bench.account import Account, Happened, Shares
from bench.known_cases import CASES, Case, Outcome, bounds_near, measure_case, measure_cases

from lumbar.bench.measure import repeats as measure
from lumbar.bench.measure import window
from lumbar.bench.measure.repeats import Stopwatch
from lumbar.train.telemetry.device_clock import DeviceClock
from lumbar.train.telemetry.sampler import UtilisationSampler

CPU = torch.device("cpu")
SEQUENTIAL = (
    Case("a loader that the step waits for", 20.0, 40.0, ahead=False, bound="input"),
    Case("no loader at all", 0.0, 40.0, ahead=False, bound="compute"),
    Case("a slower step", 5.0, 40.0, ahead=False, bound="host", slower_ms=20.0),
)


@pytest.fixture
def own_time(monkeypatch):
    """A clock that sleeping alone moves, so that no machine disturbs it."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    clock = SimpleNamespace(sleep=sleep, perf_counter=lambda: now[0])
    for module in (account, measure, known_cases, window):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr("lumbar.train.telemetry.device_clock.time", clock)
    return clock


@pytest.fixture
def stopwatch():
    with UtilisationSampler(CPU) as sampler:
        yield Stopwatch(DeviceClock(CPU), sampler, 0.5, 3)


def test_every_case_comes_out_within_two_points_and_with_its_verdict():
    before = set(threading.enumerate())
    outcomes = list(measure_cases())
    assert [outcome.case for outcome in outcomes] == list(CASES)
    assert {outcome.case.bound for outcome in outcomes} == {"compute", "input", "host"}
    for outcome in outcomes:
        assert outcome.points_off <= 2, outcome
        assert outcome.bound in bounds_near(outcome.happened), outcome
        assert outcome.is_disturbed or outcome.bound == outcome.case.bound, outcome
        assert outcome.holds
    assert set(threading.enumerate()) == before


@pytest.mark.usefixtures("own_time")
@pytest.mark.parametrize("case", SEQUENTIAL, ids=lambda case: case.name)
def test_where_nothing_disturbs_what_is_asked_for_happens_and_is_measured(stopwatch, case):
    outcome = measure_case(stopwatch, case)
    assert outcome.points_disturbed < 1e-6
    assert outcome.points_off < 1e-6
    assert outcome.holds
    assert outcome.bound == case.bound


@pytest.mark.usefixtures("own_time")
@pytest.mark.parametrize("seconds_lost", [-0.02, 0.02])
def test_a_window_with_wrong_edges_is_found_out(stopwatch, monkeypatch, seconds_lost):
    def wrong(*arguments, **settings):
        found = window.measure_window(*arguments, **settings)
        return replace(found, wall=found.wall + seconds_lost)

    monkeypatch.setattr(account, "measure_window", wrong)
    assert not measure_case(stopwatch, SEQUENTIAL[0]).holds


def test_time_between_a_wait_and_its_step_is_found_out(stopwatch, own_time):
    class Slow(DeviceClock):
        def mark(self):
            own_time.sleep(0.008)
            return super().mark()

    slow = replace(stopwatch, clock=Slow(CPU))
    outcome = measure_case(slow, SEQUENTIAL[0])
    assert outcome.points_disturbed < 1e-6
    assert not outcome.holds


def test_sleeps_that_overrun_are_told_from_a_benchmark_that_is_wrong(
    stopwatch, monkeypatch, own_time
):
    overrun = iter([0.03, 0.0, 0.0, 0.0] * 1000)

    def sleep(seconds):
        exact(seconds + next(overrun))

    exact = own_time.sleep
    monkeypatch.setattr(own_time, "sleep", sleep)
    outcome = measure_case(stopwatch, SEQUENTIAL[1])
    assert outcome.is_disturbed
    assert outcome.happened.au < 0.93
    assert outcome.points_off < 1e-6
    assert outcome.bound == "host"
    assert outcome.holds


def test_a_disturbed_case_is_run_again_and_the_least_disturbed_counts(monkeypatch):
    happened = {
        CASES[0].name: [0.9, 0.97, 0.93],
        CASES[1].name: [0.6, 0.66],
        CASES[2].name: [0.5],
        CASES[3].name: [0.3, 0.4, 0.5],
    }

    def measured(_, case):
        au = happened[case.name].pop(0)
        shares = Shares(au, case.shares.stall)
        return Outcome(case, shares, shares)

    monkeypatch.setattr(known_cases, "measure_case", measured)
    outcomes = list(measure_cases())
    assert [outcome.tries for outcome in outcomes] == [3, 2, 1, 3]
    assert [outcome.happened.au for outcome in outcomes] == [0.97, 0.66, 0.5, 0.5]
    assert not any(happened.values())


def test_the_account_is_of_the_windows_alone():
    taken = Account(windows=[Happened([], [0.04] * 3), Happened([0.01, 0.03], [0.04, 0.08])])
    assert taken.shares(1).points_from(Shares(0.5, 0.25)) < 1e-6


def test_loader_and_step_tell_how_long_they_took(own_time):
    taken = Account()
    batch = known_cases.make_batch()
    taken.of_step(lambda _: own_time.sleep(0.002))(batch)
    assert taken.steps == [0.002]

    def loader():
        own_time.sleep(0.003)
        yield batch

    assert next(taken.of_loader(loader())) is batch
    assert taken.waits == [pytest.approx(0.003)]


@pytest.mark.parametrize(
    ("case", "au", "stall"),
    [
        (Case("", 10.0, 40.0, ahead=True, bound="compute"), 1.0, 0.0),
        (Case("", 10.0, 40.0, ahead=False, bound="input"), 0.8, 0.2),
        (Case("", 80.0, 40.0, ahead=True, bound="input"), 0.5, 0.5),
        (Case("", 10.0, 40.0, ahead=True, bound="host", slower_ms=40.0), 0.5, 0.0),
    ],
)
def test_arithmetic_of_the_cases(case, au, stall):
    assert case.shares.points_from(Shares(au, stall)) < 1e-6
    assert bounds_near(case.shares) == {case.bound}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_case_is_near_another_verdict(case):
    assert bounds_near(case.shares) == {case.bound}


@pytest.mark.parametrize(
    ("shares", "bounds"),
    [
        (Shares(0.96, 0.04), {"compute", "input", "host"}),
        (Shares(0.92, 0.08), {"input"}),
        (Shares(0.94, 0.0), {"compute", "host"}),
        (Shares(0.98, 0.02), {"compute"}),
        (Shares(0.5, 0.25), {"input", "host"}),
        (Shares(0.5, 0.29), {"input"}),
        (Shares(0.5, 0.21), {"host"}),
    ],
)
def test_verdicts_within_two_points(shares, bounds):
    assert bounds_near(shares) == bounds


def test_a_wrong_share_or_verdict_does_not_hold():
    case = Case("a case", 20.0, 40.0, ahead=False, bound="input")
    truth = Shares(2 / 3, 1 / 3)
    assert Outcome(case, truth, Shares(0.67, 0.33)).holds
    assert not Outcome(case, truth, Shares(0.70, 0.30)).holds
    assert not Outcome(case, truth, Shares(2 / 3, 0.1)).holds
    # What happened was otherwise than asked: what was asked for would be wrong.
    assert Outcome(case, Shares(0.5, 0.1), Shares(0.5, 0.1)).holds
    assert not Outcome(case, Shares(0.5, 0.1), truth).holds
