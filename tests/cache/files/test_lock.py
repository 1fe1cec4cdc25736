import os
import subprocess
import sys

import pytest

from lumbar.cache.errors import BusyError
from lumbar.cache.files.lock import locked

HOLD = """
import sys
from pathlib import Path
from lumbar.cache.files.lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the cache until its stdin closes."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_with_the_owners_id(tmp_path, holder):
    with pytest.raises(BusyError, match=f"got process {holder.pid};"), locked(tmp_path):
        pass


def test_a_killed_owner_lets_go(tmp_path, holder):
    holder.kill()
    holder.wait()
    with locked(tmp_path):
        pass


def lock_twice(cache):
    with locked(cache), locked(cache):
        pass


def test_an_owner_lets_go_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(BusyError, match=f"process {os.getpid()}"):
            lock_twice(tmp_path)
