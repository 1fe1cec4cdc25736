"""What a tree of processes uses: of what runs below the root, and of nothing else."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import psutil
import pytest

from lumbar.train.telemetry import process_tree
from lumbar.train.telemetry.process_tree import (
    bytes_read_of_tree,
    cpu_seconds_of_tree,
    memory_of_tree,
)

MIB = 2**20

IN_A_GRANDCHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], stdin=0, stdout=1)
child.wait()
print("waited", flush=True)
sys.stdin.read()
"""
BURN = """
import sys, time
while time.process_time() < 0.5:
    pass
print("burnt", flush=True)
sys.stdin.readline()
"""
READ = """
import pathlib, sys
pathlib.Path(sys.argv[1]).read_bytes()
print("read", flush=True)
sys.stdin.readline()
"""
SHARE = """
import mmap, os, sys
shared = mmap.mmap(-1, int(sys.argv[1]))
shared.write(bytes(len(shared)))
ready, tell = os.pipe()
if os.fork() == 0:
    touched = sum(shared[::4096])
    os.write(tell, b"x")
    sys.stdin.readline()
    os._exit(0)
os.read(ready, 1)
print("shared", flush=True)
os.wait()
"""


@contextmanager
def running(code, *arguments):
    """A Python process that says a line when it is so far, and goes on when it is told a line."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


def test_grandchildren_count_while_they_live_and_when_they_were_waited_for():
    before = cpu_seconds_of_tree()
    with running(IN_A_GRANDCHILD, BURN) as process:
        assert process.stdout.readline() == "burnt\n"
        alive = cpu_seconds_of_tree(process.pid)
        assert alive > 0.45
        assert cpu_seconds_of_tree() - before > 0.45
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "waited\n"
        assert cpu_seconds_of_tree(process.pid) >= alive
    assert cpu_seconds_of_tree(process.pid) == 0
    assert cpu_seconds_of_tree() - before > 0.45


def test_time_is_that_of_the_system():
    # Of a process without descendants: this one may have a fork server.
    with running(BURN) as process:
        assert process.stdout.readline() == "burnt\n"
        clock = time.clock_gettime(_cpu_clock(process.pid))
        assert cpu_seconds_of_tree(process.pid) == pytest.approx(clock, abs=0.1)


def _cpu_clock(pid):
    """The POSIX CPU-time clock of another process, as clock_getcpuclockid(3) makes it."""
    return (~pid << 3) | 2


def test_shared_pages_count_once():
    with running(SHARE, str(64 * MIB)) as process:
        assert process.stdout.readline() == "shared\n"
        assert 64 * MIB < memory_of_tree(process.pid) < 110 * MIB


def test_bytes_come_from_storage_and_stay_when_the_reader_ended(tmp_path):
    size = 8 * MIB
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    with running(IN_A_GRANDCHILD, READ, str(path)) as process:
        assert process.stdout.readline() == "read\n"
        alive = bytes_read_of_tree(process.pid)
        if alive is None or alive < size:
            process.communicate("\n")
            pytest.skip("this system keeps no account of reads, or its file system is in memory")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "waited\n"
        assert bytes_read_of_tree(process.pid) >= alive
    with running(IN_A_GRANDCHILD, READ, str(path)) as process:
        process.stdout.readline()
        assert bytes_read_of_tree(process.pid) < size, "from the page cache"


class Stub(psutil.Process):
    """A process that uses this much; ``fails`` has the error of what it does not tell."""

    def __init__(self, **fails):
        self.fails = fails

    def told(self, name, **values):
        if name in self.fails:
            raise self.fails[name]
        return SimpleNamespace(**values)

    def cpu_times(self):
        return self.told("cpu", user=1.0, system=0.2, children_user=0.03, children_system=0.004)

    def memory_full_info(self):
        return self.told("pss", rss=9000, pss=7000)

    def memory_info(self):
        return self.told("rss", rss=9000)

    def io_counters(self):
        return self.told("io", read_bytes=1000)


@pytest.fixture
def tree(monkeypatch):
    """Have a tree of two processes and one more, whose errors a test names."""

    def make(**fails):
        processes = [Stub(), Stub(), Stub(**fails)]
        monkeypatch.setattr(process_tree, "_tree", lambda _: processes)

    return make


GONE, FORBIDDEN = psutil.NoSuchProcess(12), psutil.AccessDenied(12)


def test_sums_are_over_the_tree(tree):
    tree()
    assert cpu_seconds_of_tree() == pytest.approx(3 * 1.234)
    assert (memory_of_tree(), bytes_read_of_tree()) == (21000, 3000)


def test_memory_is_resident_where_the_share_may_not_be_read(tree):
    tree(pss=FORBIDDEN)
    assert memory_of_tree() == 7000 + 7000 + 9000
    tree(pss=FORBIDDEN, rss=GONE)
    assert memory_of_tree() == 7000 + 7000


def test_processes_that_end_meanwhile_are_left_out(tree):
    tree(cpu=GONE, pss=GONE, io=GONE)
    assert cpu_seconds_of_tree() == pytest.approx(2 * 1.234)
    assert (memory_of_tree(), bytes_read_of_tree()) == (14000, 2000)
    tree(io=psutil.ZombieProcess(12))
    assert bytes_read_of_tree() == 2000


@pytest.mark.parametrize("error", [FORBIDDEN, AttributeError("io_counters"), RuntimeError("empty")])
def test_bytes_that_are_not_told_are_none(tree, error):
    tree(io=error)
    assert bytes_read_of_tree() is None


def test_a_process_that_has_ended_uses_nothing():
    with running(BURN) as process:
        process.stdin.write("\n")
    assert cpu_seconds_of_tree(process.pid) == 0
    assert (memory_of_tree(process.pid), bytes_read_of_tree(process.pid)) == (0, 0)
