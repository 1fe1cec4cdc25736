"""SIGKILL at any point of the work on the disk, then a second run: the bytes of an undisturbed one.

``.sources`` may differ, and nothing else. Points are counted, never timed: how fast the machine is
changes nothing. Of points that leave the same files behind the first is tried, and of what is done
for each volume that of the last one; volumes are renamed by names of their own.
"""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.dicom import tree

from lumbar.cache.format import CACHE_FILE, TABLE_SCHEMAS
from lumbar.cache.tables import SOURCES_FILE
from lumbar.cache.verify import Problem, verify
from lumbar.cache.volumes import METADATA
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.source.shard import Shard

CONFIG = PreprocessConfig(size=16)
SCRIPT = Path(__file__).with_name("kill_points.py")
SCRIPTED = runpy.run_path(str(SCRIPT))
DO, ENDS = SCRIPTED["ACTIONS"], SCRIPTED["ENDS"]
"""What the script does, done in this process and to its end; and where a worker process ends."""

WRITTEN_ALIKE = (".labels.parquet", ".coordinates.parquet", ".rejected.parquet")
"""Tables that every command writes as preprocess does, one after the other."""


@pytest.fixture
def src(tools, tmp_path):
    """Two studies of one short series each, a file that is none, and no CSV file."""
    phantom = replace(tools.phantom, depth=3, rows=16, columns=16)
    for study_id in ("100", "200"):
        phantom.write(tmp_path / "src" / "train_images" / study_id / "7")
    (tmp_path / "src" / "train_images" / "100" / "7" / "broken.dcm").write_bytes(b"no")
    return tmp_path / "src"


@pytest.fixture
def both(tools, tmp_path, src):
    """The same source as two shards, and as one cache."""
    shards = [tmp_path / f"shard{n}" for n in (1, 2)]
    for n, shard in enumerate(shards, 1):
        tools.run(src, shard, CONFIG, shard=Shard(n, 2))
    tools.run(src, tmp_path / "one", CONFIG)
    return shards, tmp_path / "one"


@pytest.fixture(scope="module")
def tell():
    """A function that has something done in a process of its own: its status, points and states."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, SCRIPT]
    with subprocess.Popen(arguments, stdin=-1, stdout=-1, text=True, env=environment) as process:

        def run(action, options, end_at=None):
            said = {"action": action, "options": options, "end_at": end_at}
            process.stdin.write(json.dumps(said) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


def end_everywhere(tell, folder, action, *, start=None, but_not=(), **options):
    """Kill at each point and go on; return the names of all points, and what the whole gives.

    ``start`` is what lies there before, ``but_not`` the files whose points are passed over.
    """

    def fresh(name):
        if start is not None:
            shutil.copytree(start, folder / name)
        return folder / name, options | {"out": str(folder / name)}

    whole, arguments = fresh("whole")
    status, (names, states) = tell(action, arguments)
    assert status == 0
    expected = tree(whole)
    for number in choose(names, states, but_not):
        out, arguments = fresh(f"out{number}")
        assert tell(action, arguments, number)[0] == -signal.SIGKILL, names[number]
        DO[action](**arguments)
        assert tree(out) == expected, f"killed {names[number]}"
        assert [event for event in verify(out) if isinstance(event, Problem)] == []
    return names, expected


def choose(names, states, but_not):
    """Return the first point of each state; of what is done for each volume, that of the last."""
    first = {state: number for number, state in reversed(list(enumerate(states)))}
    chosen = {}
    for number in sorted(first.values()):
        kind = re.sub(r"[.][0-9a-f]{8}$|[.][0-9]+$", "", names[number])
        if not any(part in kind for part in but_not):
            chosen[kind] = number
    return chosen.values()


def test_preprocess(tell, tmp_path, src):
    names, _ = end_everywhere(
        tell, tmp_path, "preprocess", src=str(src), config=CONFIG.model_dump()
    )
    for call in ("in write ", "before rename "):
        done = [name.removeprefix(call) for name in names if name.startswith(call)]
        for name in (CACHE_FILE, SOURCES_FILE, *TABLE_SCHEMAS, METADATA):
            assert any(one.startswith(f".{name}.") for one in done), (call, name)
    assert names.count("in write 0") == names.count(f"in write {METADATA}") == 2
    assert names.count("before fsync") == names.count("after fsync") > len(TABLE_SCHEMAS)


def test_merge(tell, tmp_path, both):
    shards, one = both
    names, merged = end_everywhere(
        tell, tmp_path, "merge", shards=list(map(str, shards)), but_not=WRITTEN_ALIKE
    )
    assert merged == tree(one)
    assert sum(name.startswith("before link") for name in names) == 4


def test_convert(tell, tmp_path, src, both, tools):
    _, converted = end_everywhere(
        tell, tmp_path, "convert", src=str(both[1]), profile="archive", but_not=WRITTEN_ALIKE
    )
    tools.run(src, tmp_path / "archive", CONFIG.model_copy(update={"profile": "archive"}))
    assert converted == tree(tmp_path / "archive")


def test_verify_repair(tell, tmp_path, src, both):
    _, one = both
    sound = tree(one)
    chunk = one / "volumes.zarr" / "200" / "7" / "c" / "0" / "0" / "0"
    chunk.write_bytes(bytes(chunk.stat().st_size))
    _, repaired = end_everywhere(
        tell, tmp_path, "repair", start=one, src=str(src), but_not=WRITTEN_ALIKE
    )
    assert repaired == sound


def test_a_worker_that_is_killed_costs_nothing(tools, tmp_path, src):
    """One worker process ends there; another does its work, and the run comes to its end."""
    tools.run(src, tmp_path / "whole", CONFIG)
    out = tmp_path / "out"
    ends = {"root": str(out / ".scratch"), "end_at": "in write 0", "once": str(tmp_path / "ended")}
    options = {"out": str(out), "src": str(src), "config": CONFIG.model_dump(), "workers": 1}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), ENDS: json.dumps(ends)}
    subprocess.run([sys.executable, SCRIPT, json.dumps(options)], env=environment, check=True)
    assert (tmp_path / "ended").exists()
    assert tree(out) == tree(tmp_path / "whole")
