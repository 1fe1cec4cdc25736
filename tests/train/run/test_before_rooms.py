"""A cache and runs that were made before the package got its rooms (commit a3e5b6e).

``before_rooms/runs.tar.xz`` holds a cache of four generated studies and three runs on it: ``run``,
of one series type, killed after the first of two epochs; ``discs``, with its locator; ``study``.
``expected`` holds what the code of that commit predicted with them, and the last line of
``metrics.jsonl`` that it wrote when it resumed the first.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from lumbar.train.evaluation.submission import read_submission

ARCHIVE = Path(__file__).parent / "before_rooms" / "runs.tar.xz"
HERE = ("--device", "cpu", "--threads", 1)


@pytest.fixture(scope="module")
def made_before(tmp_path_factory):
    root = tmp_path_factory.mktemp("before_rooms")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    return root


def test_the_cache_is_whole(made_before, command_line):
    result = command_line("verify", made_before / "cache")
    assert result.status == 0, result


@pytest.mark.parametrize("run", ["run", "discs", "study"])
def test_a_run_predicts_as_before(made_before, command_line, tmp_path, run):
    out = tmp_path / "submission.csv"
    line = ("predict", made_before / run, "--cache", made_before / "cache", "--out", out, *HERE)
    result = command_line(*line)
    assert result.status == 0, result
    now, before = read_submission(out), read_submission(made_before / "expected" / f"{run}.csv")
    assert now.study_ids == before.study_ids
    assert now.probabilities == pytest.approx(before.probabilities, abs=1e-5)


def test_a_killed_run_goes_on(made_before, command_line, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(made_before / "run", run)
    result = command_line("train", "--resume", run, "--cache", made_before / "cache", *HERE)
    assert result.status == 0, result
    now = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    before = json.loads((made_before / "expected" / "resumed.json").read_text())
    assert now["epoch"] == before["epoch"] == 1
    for name in ("train_loss", "valid_loss"):
        assert now[name] == pytest.approx(before[name], abs=1e-4), name
