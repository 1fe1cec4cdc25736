"""The benchmark measures what is known beforehand, on this machine."""

import threading

import pytest

from lumbar.train.bench.self_test import CASES, Case, Outcome, run_self_test


def test_every_case_comes_out_within_two_points_and_with_its_verdict():
    before = set(threading.enumerate())
    outcomes = list(run_self_test())
    assert [outcome.case for outcome in outcomes] == list(CASES)
    assert {outcome.case.bound for outcome in outcomes} == {"compute", "input", "host"}
    for outcome in outcomes:
        assert outcome.points_off <= 2, outcome
        assert outcome.bound == outcome.case.bound, outcome
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(
    ("case", "au", "stall", "bound"),
    [
        (Case("", 10.0, 40.0, ahead=True), 1, 0, "compute"),
        (Case("", 10.0, 40.0, ahead=False), 0.8, 0.2, "input"),
        (Case("", 80.0, 40.0, ahead=True), 0.5, 0.5, "input"),
        (Case("", 10.0, 40.0, ahead=True, slower_ms=40.0), 0.5, 0, "host"),
    ],
)
def test_arithmetic_of_the_cases(case, au, stall, bound):
    assert case.au == pytest.approx(au)
    assert case.stall == pytest.approx(stall)
    assert case.bound == bound


def test_a_wrong_share_or_verdict_does_not_hold():
    case = Case("a case", 20.0, 40.0, ahead=False)
    assert Outcome(case, au=0.67, stall=0.33).holds
    assert not Outcome(case, au=0.70, stall=0.30).holds
    assert not Outcome(case, au=2 / 3, stall=0.1).holds
    row = Outcome(case, au=0.70, stall=0.30).row()
    assert (row["name"], row["met"], row["target"]) == ("self_test/a_case", False, 2)
