"""``lumbar sweep`` as a person runs it: real runs, a real kill, the command's words."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from lumbar.cache.names import SeriesType
from lumbar.train.run.checkpoint import BEST, load_checkpoint
from lumbar.train.run.config import read_config, resolve_config
from lumbar.train.trainer.run_log import METRICS, read_metrics

ROOT = Path(__file__).parents[3]
PNG = b"\x89PNG\r\n"
SEARCH = """
series = "sagittal_t2"
trials = 2
pruner = "none"

[search]
optim.lr = { float = [1e-4, 3e-2], log = true }
loss.kind = { choices = ["cross_entropy", "ordinal"] }

[run]
"""


@pytest.fixture
def toml(tmp_path, small_overrides):
    file = tmp_path / "small.toml"
    lines = [key.replace("test_resnet", '"test_resnet"') for key in small_overrides]
    file.write_text(SEARCH + "\n".join(lines) + "\n")
    return file


@pytest.fixture
def lumbar_sweep(command_line, spine_root, toml, tmp_path, uncompiled_reader):
    """Return a function that runs the command in this process."""

    def run(out, *options):
        return command_line(
            *("sweep", toml, "--cache", spine_root, "--out", tmp_path / out),
            *("--device", "cpu", "--threads", 1, *options),
        )

    return run


def wait_for(condition, process, seconds=600):
    """Wait until a condition holds while a process runs."""
    for _ in range(seconds * 20):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail("nothing happened for too long")


def of_runs(folder):
    """Return the scores of every epoch of every run, by the run's values."""
    scores = {}
    for run in folder.glob("trial-*"):
        config = read_config(run / "config.toml")
        entries = read_metrics(run)
        scores[config.optim.lr, config.loss.kind] = [entry.score.total for entry in entries]
    return scores


@pytest.mark.slow
def test_a_killed_sweep_ends_as_one_that_was_not(lumbar_sweep, spine_root, toml, tmp_path):
    assert lumbar_sweep("whole").status == 0
    code = "from lumbar.cli import main; main()"
    words = ["sweep", toml, "--cache", spine_root, "--out", tmp_path / "killed", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words), "--threads", "1"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    metrics = tmp_path / "killed" / "trial-0001" / METRICS
    wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 1, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    result = lumbar_sweep("killed")
    assert result.status == 0, result
    assert "1 of 2 trials are over" in result.out
    whole, killed = (of_runs(tmp_path / name) for name in ("whole", "killed"))
    assert len(whole) == 2
    assert killed.keys() == whole.keys()
    for values, scores in whole.items():
        assert killed[values] == pytest.approx(scores, rel=1e-6)
    best = [(tmp_path / name / "best.toml").read_text() for name in ("whole", "killed")]
    assert best[0] == best[1]
    states = pl.read_csv(tmp_path / "killed" / "results.csv")["state"].to_list()
    assert sorted(states) == ["complete"] * 2 + ["retried"]


def test_the_command_shows_its_trials_and_leaves_a_configuration_to_train(
    lumbar_sweep, toml, tmp_path
):
    toml.write_text(toml.read_text().replace("trials = 2", "trials = 1"))
    result = lumbar_sweep("s")
    assert (result.status, result.err) == (0, "")
    table = pl.read_csv(tmp_path / "s" / "results.csv")
    best = table.row(0, named=True)
    words = " ".join(result.out.split())
    for text in (
        "0 of 1 trials are over; storage: in the folder",
        f"trial {best['trial']} complete: {best['score']:.4f} at epoch {best['best_epoch']} of 2",
        "(best)",
        f"loss.kind={best['loss.kind']}",
        f"best: trial {best['trial']}, {best['run']}",
        f"lumbar train --series sagittal_t2 --config {tmp_path / 's' / 'best.toml'}",
    ):
        assert text in words
    assert (tmp_path / "s" / "sweep.png").read_bytes().startswith(PNG)
    config = resolve_config(SeriesType.SAGITTAL_T2, file=tmp_path / "s" / "best.toml")
    trained, _ = load_checkpoint(tmp_path / "s" / best["run"] / BEST)
    assert trained.config == config


def test_a_mistake_in_the_file_is_one_line_and_status_2(lumbar_sweep, toml):
    toml.write_text(toml.read_text().replace("optim.lr", "optim.rate"))
    result = lumbar_sweep("s")
    assert result.status == 2
    assert "optim.rate" in result.err
    assert result.out == ""


def test_without_the_extra_the_command_says_how_to_get_it(lumbar_sweep, monkeypatch):
    for module in [name for name in sys.modules if name.startswith("lumbar.train.sweep.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = lumbar_sweep("s")
    assert result.status == 2
    assert "optuna" in result.err
    assert "pip install 'lumbar[sweep]'" in result.err
