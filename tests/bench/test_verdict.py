"""The verdict: which of three losses is named, and what is advised."""

import pytest

from lumbar.bench.verdict import Tried, Verdict, find_bound


def verdict(**values):
    fields = {"step": "end_to_end", "label": "a step", "au": 0.5, "stall": 0.5, "slower": 1.0}
    return Verdict(**(fields | values))


@pytest.mark.parametrize(
    ("au", "stall", "gpu_percent", "bound"),
    [
        (0.99, 0.01, None, "compute"),
        (0.95, 0.0, None, "compute"),
        (0.99, 0.01, 97.0, "compute"),
        (0.99, 0.01, 60.0, "host"),  # even a replayed batch leaves the GPU idle
        (0.94, 0.06, None, "input"),
        (0.60, 0.40, 60.0, "input"),
        (0.60, 0.10, None, "host"),
        (0.60, 0.20, None, "input"),  # of equal losses the one that a reader can mend
        (1.30, 0.0, None, "compute"),  # behind the loader faster than replayed: noise
    ],
)
def test_the_greater_loss_names_the_bound(au, stall, gpu_percent, bound):
    assert find_bound(au, stall, gpu_percent) == bound


@pytest.mark.parametrize(
    ("au", "stall", "drawing_percent", "bound"),
    [
        (0.60, 0.10, 95.0, "drawing"),
        (0.60, 0.10, 40.0, "host"),  # the GPU idles: it is not the drawing
        (0.60, 0.40, 95.0, "input"),
        (0.97, 0.01, 95.0, "compute"),
    ],
)
def test_a_gpu_that_draws_beside_the_step_is_named(au, stall, drawing_percent, bound):
    assert find_bound(au, stall, 97.0, drawing_percent) == bound


def test_shares_come_to_one():
    one = verdict(au=0.7, stall=0.2)
    assert one.au + one.stall + one.host == pytest.approx(1)
    assert verdict(au=1.1, stall=0.0).host == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"au": 0.5, "stall": 0.5}, ("Input-bound", "50.0%", "2.00 times as fast")),
        ({"au": 0.98, "stall": 0.02}, ("Compute-bound", "98.0%", "1.02 times as fast")),
        ({"au": 0.6, "stall": 0.1, "slower": 1.5}, ("Host-bound", "10.0%", "1.50 times")),
        ({"au": 0.99, "stall": 0.0, "gpu_percent": 40.0}, ("Host-bound", "only 40 %")),
        (
            {"au": 0.7, "stall": 0.0, "slower": 1.4, "drawing_percent": 99.0},
            ("Drawing-bound", "1.40 times", "busy 99 %", "renders the next batch"),
        ),
    ],
)
def test_the_finding_says_how_much(values, words):
    text = verdict(**values).finding
    assert all(word in text for word in words), text


def test_the_best_change_that_was_measured_is_advised():
    tried = (Tried("--threads 4", 1.2), Tried("--tier device", 1.7), Tried("optim.batch=16", 0.9))
    assert verdict(tried=tried).advice == "Next: --tier device, measured here at 1.70 times."


def test_nothing_is_advised_that_was_not_measured_to_help():
    tried = (Tried("--threads 4", 1.01), Tried("--tier device", 0.97))
    text = verdict(tried=tried).advice
    assert text.startswith("Nothing that was tried")
    assert "--threads 4 1.01 times" in text
    assert "--tier device 0.97 times" in text
    assert verdict().advice == "No change was tried."
