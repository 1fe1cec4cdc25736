"""Each check is found by its name; what it raises is a failure that keeps the cause."""

import errno
from importlib import import_module
from pathlib import Path

import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.doctor import here_gpus
from lumbar.doctor.checks import CHECKS, NO_GPU, NO_TORCH, Check, facts_about, run_check
from lumbar.doctor.result import passed


@pytest.mark.parametrize(
    "check", [*facts_about(Path("cache")), *CHECKS], ids=lambda check: check.name
)
def test_functions_are_where_the_list_says(check):
    module, _, function = check.function.partition(":")
    assert callable(getattr(import_module(module), function))


def test_names_are_different():
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))


def raising(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr("lumbar.doctor.limits.check_open_files", fail)
    return run_check(Check("a name", "lumbar.doctor.limits:check_open_files", cure="mend it"))


def test_what_a_check_raises_is_a_failure(monkeypatch):
    row = raising(monkeypatch, RuntimeError("lib.so:\n  no such symbol"))
    assert (row.name, row.result.state, row.result.cure) == ("a name", "fail", "mend it")
    assert row.result.found == "RuntimeError: lib.so: no such symbol"


def test_errors_of_ours_are_said_as_they_are(monkeypatch):
    error = InputError(what="no such thing", where="here")
    assert raising(monkeypatch, error).result.found == "no such thing: here"


def test_module_that_does_not_load_fails_its_check():
    row = run_check(Check("x", "lumbar.doctor.no_such_module:check", cure="reinstall it"))
    assert row.result.state == "fail"
    assert row.result.found.startswith("ModuleNotFoundError: ")


def test_what_cannot_be_written_is_the_fault_of_the_temporary_folder(monkeypatch):
    row = raising(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    assert "temporary folder" in row.result.cure
    assert raising(monkeypatch, OSError(errno.EIO, "I/O")).result.cure == "mend it"
    told = InputError(what="no room for the cache")
    told.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert "temporary folder" in raising(monkeypatch, told).result.cure


@pytest.mark.parametrize(
    ("needs", "n_gpus", "why"), [("gpu", 0, NO_GPU), ("gpus", 0, NO_GPU), ("gpus", 1, "one GPU")]
)
def test_checks_of_gpus_that_are_not_there_are_not_measured(monkeypatch, needs, n_gpus, why):
    found = [torch.device("cuda", n) for n in range(n_gpus)]
    monkeypatch.setattr(here_gpus, "devices", lambda: found)
    row = run_check(Check("x", "os:abort", needs))
    assert row.result.state == "not measured"
    assert why in row.result.found


def test_torch_that_does_not_load_fails_its_own_rows_alone(monkeypatch):
    def fail():
        raise ImportError

    monkeypatch.setattr(here_gpus, "devices", fail)
    found = run_check(Check("x", "os:abort", "gpu")).result
    assert (found.state, found.found) == ("not measured", NO_TORCH)


def test_checks_of_gpus_take_them_first(monkeypatch):
    gpus = [torch.device("cuda", n) for n in range(2)]
    monkeypatch.setattr(here_gpus, "devices", lambda: gpus)
    taken = []
    monkeypatch.setattr(
        "lumbar.doctor.racing.check_busy_device",
        lambda *arguments: taken.append(arguments) or passed("x"),
    )
    function = "lumbar.doctor.racing:check_busy_device"
    run_check(Check("x", function, "gpu", (8,)))
    run_check(Check("x", function, "gpus"))
    assert taken == [(gpus[0], 8), (gpus,)]
