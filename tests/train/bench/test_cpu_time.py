"""CPU time is counted of this process and of what runs below it, and of nothing else."""

import os
import subprocess
import sys

import pytest

from lumbar.train.bench.cpu_time import cpu_seconds_of_tree

BURN_THEN_WAIT = """
import subprocess, sys, time
if sys.argv[1] == "parent":
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], "child", ""], stdin=0, stdout=1)
    child.wait()
else:
    while time.process_time() < 0.5:
        pass
    print("burnt", flush=True)
    sys.stdin.read()
"""


def test_grandchildren_count_while_they_live():
    before = cpu_seconds_of_tree()
    with subprocess.Popen(
        [sys.executable, "-c", BURN_THEN_WAIT, "parent", BURN_THEN_WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "burnt\n"
        assert cpu_seconds_of_tree() - before > 0.45
        assert cpu_seconds_of_tree(process.pid) > 0.45
        process.stdin.close()
    assert cpu_seconds_of_tree(process.pid) == 0


def test_own_time_is_that_of_the_system():
    ticks = os.times()
    assert cpu_seconds_of_tree() == pytest.approx(ticks.user + ticks.system, abs=0.1)
