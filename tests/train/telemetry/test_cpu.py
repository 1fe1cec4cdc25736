import os

import pytest

from lumbar.train.telemetry import cpu
from lumbar.train.telemetry.cpu import BusyCores, usable_cores


@pytest.fixture
def stat(tmp_path, monkeypatch):
    """A ``/proc/stat`` of ours: a function that writes the lines of its processors."""
    path = tmp_path / "stat"
    monkeypatch.setattr(cpu, "PROC_STAT", path)

    def write(*lines):
        path.write_text("\n".join(["cpu 9 9 9 9 9 9 9 9 9 9", *lines, "intr 123 0 0", "ctxt 7"]))

    return write


def test_share_is_of_the_named_cores_since_the_last_call(stat):
    #             user nice system idle iowait irq softirq steal guest guest_nice
    stat("cpu0 100 0 0 900 0 0 0 0 0 0", "cpu1 0 0 0 50 0 0 0 0 0 0", "cpu10 5 0 0 5 0 0 0 0 0 0")
    busy = BusyCores([0, 10])
    stat("cpu0 110 5 2 960 20 1 1 1 90 90", "cpu1 999 0 0 50 0 0 0 0 0 0", "cpu10 5 0 0 5 0 0 0")
    assert busy.percent() == pytest.approx(20)
    stat("cpu0 110 5 2 960 20 1 1 1 90 90", "cpu1 999 0 0 50 0 0 0 0 0 0", "cpu10 8 0 0 6 0 0 0")
    assert busy.percent() == pytest.approx(75)


def test_there_is_no_value_before_a_tick_and_no_tick_is_lost(stat):
    stat("cpu0 10 0 0 10 0 0 0 0 0 0")
    busy = BusyCores([0])
    assert busy.percent() is None
    stat("cpu0 13 0 0 11 0 0 0 0 0 0")
    assert busy.percent() == pytest.approx(75)


def test_idle_time_that_falls_is_no_more_than_fully_busy(stat):
    stat("cpu0 10 0 0 10 9 0 0 0 0 0")
    busy = BusyCores([0])
    stat("cpu0 20 0 0 10 8 0 0 0 0 0")
    assert busy.percent() == 100


def test_cores_of_this_machine():
    busy = BusyCores(os.sched_getaffinity(0))
    percent = None
    while percent is None:
        percent = busy.percent()
    assert 0 <= percent <= 100


@pytest.mark.parametrize(
    ("affinity", "quota", "processes", "expected"),
    [
        (8, None, None, 8),
        (8, 2.5, None, 2),
        (8, 0.5, None, 1),
        (4, 16.0, None, 4),
        (16, 12.0, "4", 3),
        (2, None, "8", 1),
        (8, None, "0", 8),
        (8, None, "many", 8),
    ],
)
def test_usable_cores_are_those_of_this_process_share(
    monkeypatch, affinity, quota, processes, expected
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    monkeypatch.setattr(cpu, "quota_cores", lambda: quota)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert usable_cores() == expected
