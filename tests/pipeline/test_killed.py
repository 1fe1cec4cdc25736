"""SIGKILL at any moment, then a second run: byte for byte the cache of an undisturbed one.

``.sources`` may differ, and nothing else. One process is forked for each run, so that
no run pays for the imports. ``LUMBAR_KILLS`` says how many runs are killed.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

from lumbar.cache.tables import SOURCES_FILE
from lumbar.cache.verify import Problem, verify
from lumbar.pipeline.config import PreprocessConfig

KILLS = int(os.environ.get("LUMBAR_KILLS", "25"))

FORKING = """
import os, sys
from pathlib import Path
from lumbar.pipeline.preprocess import PreprocessConfig, preprocess

src, config = Path(sys.argv[1]), PreprocessConfig.model_validate_json(sys.argv[2])
for line in sys.stdin:
    if (child := os.fork()) == 0:
        for event in preprocess(src, Path(line.strip()), config, workers=0):
            pass
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def tree(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in {SOURCES_FILE, ".lock"}
    }


@pytest.fixture
def forking(tmp_path, rsna):
    """A process that runs preprocess in a child for each folder that it is told."""
    arguments = [sys.executable, "-c", FORKING, rsna, PreprocessConfig(size=32).model_dump_json()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process
        process.stdin.close()


def run(process, out, kill_after_s=None):
    """Run once; return the seconds that it took, and whether it was killed."""
    started = time.perf_counter()
    process.stdin.write(f"{out}\n")
    process.stdin.flush()
    child = int(process.stdout.readline())
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        with suppress(ProcessLookupError):  # it was faster than those that were measured
            os.kill(child, signal.SIGKILL)
    status = int(process.stdout.readline())
    assert status in {0, int(signal.SIGKILL)}
    return time.perf_counter() - started, status != 0


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tools, tmp_path, rsna, forking):
    for study in range(300, 304):
        tools.phantom.write(rsna / "train_images" / str(study) / "1", rle=True)
    (rsna / "train_images" / "300" / "1" / "broken.dcm").write_bytes(b"no")
    run(forking, tmp_path / "whole")
    seconds = min(run(forking, tmp_path / f"measured{n}")[0] for n in range(3))
    whole = tree(tmp_path / "whole")
    rng = np.random.default_rng(9)
    n_killed = 0
    stages = set()
    for number in range(KILLS):
        out = tmp_path / f"out{number}"
        kill_after_s = (number + rng.random()) / KILLS * seconds
        n_killed += run(forking, out, kill_after_s)[1]
        stages.add(len(tree(out)) if out.exists() else -1)
        run(forking, out)
        assert tree(out) == whole, f"killed after {kill_after_s:.4f} s"
    assert [event for event in verify(out) if isinstance(event, Problem)] == []
    assert n_killed > KILLS / 2
    assert len(stages) > 3
