"""Two Gloo ranks train what one process trains; one that is killed ends the run, which resumes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lumbar.train.evaluation.predictions import read_oof
from lumbar.train.inference.forward import predict_batches, study_means
from lumbar.train.loss import CellLoss
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.reader.reader import Reader
from lumbar.train.run.checkpoint import load_checkpoint
from lumbar.train.run.split import split_samples

pytestmark = pytest.mark.slow

TRAIN = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.run.config import resolve_config
from lumbar.train.trainer.events import EpochFinished
from lumbar.train.trainer.loop import train
from lumbar.train.run.distributed import joined_ranks

root, run, resume, killed, *settings = sys.argv[1:]
config = resolve_config(
    "study" if "series=study" in settings else SeriesType.SAGITTAL_T2, overrides=settings
)
cpu = torch.device("cpu")
with joined_ranks(cpu) as ranks:
    events = train(
        Cache(Path(root)), config, Path(run), device=cpu, threads=1, resume=resume == "resume",
        ranks=ranks,
    )
    for event in events:
        if isinstance(event, EpochFinished) and killed == f"{ranks.rank}@{event.epoch}":
            os.kill(os.getpid(), signal.SIGKILL)
"""

SETTINGS = (
    "bfloat16=false",
    "optim.epochs=3",
    "optim.lr=1e-3",
    "model.dropout=0",
    # A batch norm counts on the samples of its own process.
    "model.backbone=convnext_atto",
)


@pytest.fixture
def start(spine_root, small_overrides):
    """Return a function that trains with some ranks in processes of their own."""

    def train(run, *, world, resume=False, killed="nobody", settings=SETTINGS):
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        line += [f"--nproc-per-node={world}", "--no-python", sys.executable, "-c", TRAIN]
        line += [str(spine_root), str(run), "resume" if resume else "new", killed]
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [*line, *small_overrides, *settings],
            capture_output=True,
            text=True,
            timeout=240,
            env=environment,
            check=False,
        )

    return train


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_ranks_train_what_one_does_and_a_killed_rank_ends_a_run_that_resumes(start, tmp_path):
    done = start(tmp_path / "one", world=1)
    assert done.returncode == 0, done.stderr
    done = start(tmp_path / "two", world=2)
    assert done.returncode == 0, done.stderr
    alone, shared = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert len(alone) == len(shared) == 3
    for one, two in zip(alone, shared, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=2e-3)
        assert two["valid_loss"] == pytest.approx(one["valid_loss"], rel=2e-3)
        for part, value in one["score"].items():
            assert two["score"][part] == pytest.approx(value, rel=2e-3), part
    # The first epoch has seen only few steps of rounding.
    assert shared[0]["train_loss"] == pytest.approx(alone[0]["train_loss"], rel=1e-4)

    killed = start(tmp_path / "killed", world=2, killed="1@0")
    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr or "Signal 9" in killed.stderr
    resumed = start(tmp_path / "killed", world=2, resume=True)
    assert resumed.returncode == 0, resumed.stderr
    assert [line["epoch"] for line in lines(tmp_path / "killed")] == [0, 1, 2]
    for one, two in zip(lines(tmp_path / "killed"), shared, strict=True):
        assert (one["train_loss"], one["score"]) == (two["train_loss"], two["score"])
    expected = load_checkpoint(tmp_path / "two" / "last.pt")[0].model.state_dict()
    for name, value in (
        load_checkpoint(tmp_path / "killed" / "last.pt")[0].model.state_dict().items()
    ):
        assert torch.equal(value, expected[name]), name


def test_what_two_ranks_score_is_what_is_kept(start, spine, tmp_path, uncompiled_reader):
    # Batch norms that count on each rank's own samples, and a last batch that is taken in parts
    # and that the ranks cannot share out evenly.
    settings = ("bfloat16=false", "optim.epochs=1", "optim.lr=1e-3", "optim.ema=0.5")
    settings += ("optim.batch=8", "optim.accumulate=3")
    done = start(tmp_path / "run", world=2, settings=settings)
    assert done.returncode == 0, done.stderr
    trained, _ = load_checkpoint(tmp_path / "run" / "best.pt")
    config = trained.config
    split = split_samples(spine, config)
    assert len(split.train) % 2, "as many on both ranks"
    plan = Plan(split.held_out, config.crop, AugmentConfig.none(), batch=4, shuffle=False)
    loss = CellLoss(config.loss, config.series_types)
    with Reader(spine, plan, device=torch.device("cpu")) as reader:
        probabilities, valid_loss = predict_batches(
            trained.model, loss, reader.epoch(), bfloat16=False
        )
    (epoch,) = lines(tmp_path / "run")
    assert epoch["valid_loss"] == pytest.approx(valid_loss, rel=1e-5)
    expected = study_means(split.held_out, probabilities)
    kept = read_oof(tmp_path / "run" / "oof.parquet")
    canal = expected.of(kept.study_ids).probabilities[:, :5]
    assert kept.probabilities[:, :5] == pytest.approx(canal, abs=1e-5)


def test_two_ranks_train_studies_of_which_one_lacks_a_type(start, tmp_path):
    settings = (*SETTINGS, "series=study", "study_types=['sagittal_t2', 'axial_t2']")
    settings += ("model.series_dropout=0", "optim.epochs=1")
    for world in (1, 2):
        done = start(tmp_path / f"of-{world}", world=world, settings=settings)
        assert done.returncode == 0, done.stderr
    for one, two in zip(lines(tmp_path / "of-1"), lines(tmp_path / "of-2"), strict=True):
        for name in ("train_loss", "valid_loss"):
            assert two[name] == pytest.approx(one[name], rel=2e-3), name


def test_a_batch_that_the_ranks_cannot_share_is_refused(start, tmp_path):
    done = start(tmp_path / "run", world=2, settings=(*SETTINGS, "optim.batch=3"))
    assert done.returncode != 0
    assert "cannot be divided evenly" in done.stderr
    assert "a multiple of 2" in done.stderr
