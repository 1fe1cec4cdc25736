"""Copies, counters and the sum over devices, as far as they can be seen without a GPU."""

from types import SimpleNamespace

import pytest
import torch

from lumbar.doctor.gpu import all_reduce, copying, counting
from lumbar.doctor.gpu.all_reduce import check_all_reduce
from lumbar.doctor.gpu.copying import check_bandwidth, check_overlap, hidden_share
from lumbar.doctor.gpu.counting import check_gpm, check_nvml
from lumbar.train.telemetry.gpu import GpuReading

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("both_ms", "share"), [(10.0, 1.0), (14.0, 0.0), (12.0, 0.5), (9.0, 1.0), (20.0, 0.0)]
)
def test_hidden_share(both_ms, share):
    assert hidden_share(10.0, 4.0, both_ms) == share
    assert hidden_share(4.0, 10.0, both_ms) == share


@pytest.mark.parametrize(("milliseconds", "state"), [(100.0, "pass"), (1000.0, "fail")])
def test_bandwidth_is_of_all_copies(monkeypatch, milliseconds, state):
    monkeypatch.setattr(copying, "_copies", lambda _: None)
    monkeypatch.setattr(copying, "_milliseconds", lambda *_: milliseconds)
    found = check_bandwidth(CPU)
    assert found.state == state
    assert found.found.startswith("5.4 GB/s" if state == "pass" else "0.5 GB/s; expected 1")


@pytest.mark.parametrize(("both_ms", "state"), [(10.0, "pass"), (13.9, "fail")])
def test_overlap(monkeypatch, both_ms, state):
    times = iter([10.0, 4.0, both_ms])
    monkeypatch.setattr(copying, "_copies", lambda _: None)
    monkeypatch.setattr(copying, "_kernels", lambda _: None)
    monkeypatch.setattr(copying, "_milliseconds", lambda *_: next(times))
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: None)
    assert check_overlap(CPU).state == state


@pytest.mark.parametrize("check", [check_nvml, check_gpm])
def test_counters_that_are_not_there_are_not_measured(check):
    assert check(CPU).state == "not measured"


@pytest.fixture
def counters(monkeypatch):
    """Return a function that has the driver give a reading; it is closed again."""
    closed = []

    def give(**values):
        opened = SimpleNamespace(read=lambda: GpuReading(**values), close=lambda: closed.append(1))
        monkeypatch.setattr(counting.GpuCounters, "open", lambda _: opened)
        return closed

    return give


def test_counters_that_are_there(counters):
    closed = counters(gpu_percent=7.0, memory_used_bytes=10**9, sm_percent=81.0)
    assert check_nvml(CPU).found == "utilisation 7.0 %, memory 1.0 GB"
    assert check_gpm(CPU).found == "multiprocessors busy 81 % of a moment of work"
    assert len(closed) == 2


def test_driver_without_gpm(counters):
    counters(gpu_percent=7.0)
    found = check_gpm(CPU)
    assert (found.state, "Hopper" in found.found) == ("not measured", True)


def test_sum_over_two_processes():
    assert check_all_reduce([CPU, CPU]).found == "2 processes, the right sum"


def test_sum_that_fails_keeps_its_cause(monkeypatch):
    def start(*_, **__):
        def join(**_):
            message = "-- Process 1 terminated\nTraceback\nRuntimeError: NCCL error"
            raise RuntimeError(message)

        return SimpleNamespace(join=join, processes=[])

    monkeypatch.setattr(all_reduce, "start_processes", start)
    found = check_all_reduce([CPU, CPU])
    assert (found.state, found.found) == ("fail", "RuntimeError: NCCL error")
    assert "NCCL_DEBUG" in found.cure
