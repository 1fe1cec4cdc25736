"""What a system may lack: open files, room, shared memory. Each has its cure."""

import errno
import resource
import shutil
import tempfile
from types import SimpleNamespace

import pytest

from lumbar.doctor import limits
from lumbar.doctor.limits import check_open_files, check_shared_memory, check_temporary_folder


def with_limits(monkeypatch, soft, hard):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))


def test_hard_limit_of_256_open_files(monkeypatch):
    with_limits(monkeypatch, 256, 256)
    found = check_open_files()
    assert found.state == "fail"
    assert found.found == "at most 256 (256 unless raised); expected 2048 or more"
    assert "--ulimit nofile" in found.cure


@pytest.mark.parametrize("hard", [4096, resource.RLIM_INFINITY])
def test_soft_limit_is_raised_by_itself(monkeypatch, hard):
    with_limits(monkeypatch, 256, hard)
    assert check_open_files().state == "pass"


def with_room(monkeypatch, free):
    usage = SimpleNamespace(free=free, total=10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_temporary_folder_with_too_little_room(monkeypatch):
    with_room(monkeypatch, 3 * 10**8)
    found = check_temporary_folder()
    assert (found.state, found.found) == ("fail", "0.3 GB free; expected 1 GB or more")
    assert "TMPDIR" in found.cure


def test_temporary_folder_that_is_full(monkeypatch):
    def fail(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", fail)
    found = check_temporary_folder()
    assert (found.state, found.found) == ("fail", "cannot write: No space left on device")
    assert "TMPDIR" in found.cure


def test_no_temporary_folder_at_all(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "gone"))
    found = check_temporary_folder()
    assert (found.state, found.found) == ("fail", "cannot write: No such file or directory")


def test_temporary_folder_that_works_is_left_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    with_room(monkeypatch, 5 * 10**9)
    assert check_temporary_folder().state == "pass"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free", "state"), [(10**6, "fail"), (64 * 2**20, "pass")])
def test_shared_memory(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(limits, "SHARED_MEMORY", tmp_path)
    with_room(monkeypatch, free)
    found = check_shared_memory()
    assert found.state == state
    assert ("--shm-size" in found.cure) == (state == "fail")


def test_no_shared_memory_is_not_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "SHARED_MEMORY", tmp_path / "none")
    assert check_shared_memory().state == "not measured"
