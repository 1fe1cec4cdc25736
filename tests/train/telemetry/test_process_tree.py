"""What a tree of processes uses: of what runs below the root, and of nothing else."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from lumbar.train.telemetry import process_tree
from lumbar.train.telemetry.process_tree import (
    TreeUse,
    bytes_read_of_tree,
    cpu_seconds_of_tree,
    use_of_tree,
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
        use = use_of_tree(process.pid)
        assert 64 * MIB < use.memory_bytes < 110 * MIB


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
        assert use_of_tree(process.pid).storage_bytes >= alive
    with running(IN_A_GRANDCHILD, READ, str(path)) as process:
        process.stdout.readline()
        assert bytes_read_of_tree(process.pid) < size, "from the page cache"


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A ``/proc`` of ours: 10 has the children 11 and 12; 13 and its child 14 are strangers."""
    monkeypatch.setattr(process_tree, "_PROC", tmp_path)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "io").touch()
    (tmp_path / "meminfo").touch()
    for pid, parent in ((10, 1), (11, 10), (12, 11), (13, 1), (14, 13)):
        folder = tmp_path / str(pid)
        folder.mkdir()
        numbers = ["0"] * 9 + ["100", "20", "3", "0"]
        (folder / "stat").write_text(f"{pid} (a) b (c) S {parent} {' '.join(numbers)} 0 0\n")
        (folder / "statm").write_text("9999 5 0 0 0 0 0\n")
        (folder / "smaps_rollup").write_text("00-ff [rollup]\nRss: 9 kB\nPss: 7 kB\nPss_Anon: 1 kB")
        (folder / "io").write_text("rchar: 999\nread_bytes: 1000\nwrite_bytes: 999\n")
    return tmp_path


def test_sums_are_over_the_tree(proc):
    seconds = 3 * 123 / os.sysconf("SC_CLK_TCK")
    assert use_of_tree(10) == TreeUse(seconds, 3 * 7 * 1024, 3000)
    assert cpu_seconds_of_tree(10) == seconds
    assert bytes_read_of_tree(13) == 2000


def test_memory_is_resident_where_the_share_may_not_be_read(proc):
    (proc / "11" / "smaps_rollup").unlink()
    assert use_of_tree(10).memory_bytes == 2 * 7 * 1024 + 5 * os.sysconf("SC_PAGE_SIZE")


def test_processes_that_end_meanwhile_are_left_out(proc):
    for name in ("smaps_rollup", "statm", "io"):
        (proc / "12" / name).unlink()
    assert use_of_tree(10) == TreeUse(3 * 123 / os.sysconf("SC_CLK_TCK"), 2 * 7 * 1024, 2000)
    (proc / "12" / "stat").unlink()
    assert bytes_read_of_tree(10) == 2000


def test_bytes_that_a_process_does_not_tell_are_none(proc):
    (proc / "12" / "io").unlink()
    (proc / "12" / "io").mkdir()  # an error other than that of a process that ended
    assert bytes_read_of_tree(10) is None
    assert bytes_read_of_tree(13) == 2000


def test_bytes_are_none_where_the_kernel_keeps_no_account(proc):
    for path in proc.glob("*/io"):
        path.unlink()
    assert use_of_tree(10).storage_bytes is None
