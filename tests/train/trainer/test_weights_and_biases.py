import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.train.evaluation.metric import Score
from lumbar.train.run.config import RunConfig
from lumbar.train.trainer.events import EpochFinished, RunFinished
from lumbar.train.trainer.weights_and_biases import recorded, run_name

CONFIG = RunConfig(series=SeriesType.SAGITTAL_T2)


def epoch(number):
    return EpochFinished(
        epoch=number,
        train_loss=0.5,
        valid_loss=0.6,
        learning_rate=1e-3,
        score=Score(0.3, None, None, 0.4, 0.35),
        is_best=True,
        samples_per_second=80.0,
        data_wait=0.01,
        gpu_percent=None,
    )


@pytest.fixture
def sent(monkeypatch):
    """What a package that looks like W&B is given."""
    given = {"logged": [], "summary": {}, "finished": 0}

    def init(**options):
        given["options"] = options
        return SimpleNamespace(
            config={},
            summary=given["summary"],
            log=lambda values, step: given["logged"].append((step, values)),
            finish=lambda: given.update(finished=given["finished"] + 1),
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return given


def test_every_epoch_is_sent_and_the_events_go_on(sent):
    end = RunFinished(Path("run"), epoch(1), Score(1.0, None, None, 1.0, 1.0))
    events = [epoch(0), epoch(1), end]
    assert list(recorded(iter(events), CONFIG, project="spines", name="runs-a")) == events
    assert sent["options"]["project"] == "spines"
    assert (sent["options"]["id"], sent["options"]["resume"]) == ("runs-a", "allow")
    assert sent["options"]["config"]["optim"]["lr"] == CONFIG.optim.lr
    assert [step for step, _ in sent["logged"]] == [0, 1]
    assert sent["logged"][0][1]["metric/total"] == 0.35
    assert "throughput/gpu_percent" not in sent["logged"][0][1]
    assert sent["summary"] == {"best/epoch": 1, "best/total": 0.35}
    assert sent["finished"] == 1


def test_a_run_that_fails_is_ended_there_too(sent):
    def failing():
        yield epoch(0)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        list(recorded(failing(), CONFIG, project="spines", name="a"))
    assert sent["finished"] == 1


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"lumbar\[wandb\]"):
        list(recorded(iter([]), CONFIG, project="spines", name="a"))


def test_a_run_is_known_by_its_folder_and_its_parent(tmp_path):
    assert run_name(tmp_path / "runs" / "t2") == "runs-t2"
