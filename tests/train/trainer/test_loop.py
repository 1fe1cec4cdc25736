import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib import pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.labels import severities_of
from lumbar.cache.names import TARGET_COLUMNS, SeriesType
from lumbar.cache.store import Cache
from lumbar.train.evaluation.baselines import weighted_prior, with_floor
from lumbar.train.evaluation.evaluate import evaluate
from lumbar.train.evaluation.metric import Score, score
from lumbar.train.inference.forward import predict_batches, study_means
from lumbar.train.loss import CellLoss
from lumbar.train.optim import learning_rate_factor
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.reader.reader import Reader
from lumbar.train.run.checkpoint import load_checkpoint, save_checkpoint
from lumbar.train.run.config import resolve_config
from lumbar.train.run.predictions import read_run
from lumbar.train.run.split import split_samples
from lumbar.train.trainer.events import EpochFinished, RunFinished, RunStarted, StepFinished
from lumbar.train.trainer.loop import train
from lumbar.train.trainer.trainer import DivergedError

CPU = torch.device("cpu")
TIMED = ("samples_per_second", "data_wait", "gpu_percent")


def start(cache, config, run, *, resume=False):
    return train(cache, config, run, device=CPU, threads=2, resume=resume)


def untimed(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMED} for line in lines]


def weights(path):
    return load_checkpoint(path)[0].model.state_dict()


def assert_same_run(run, reference):
    assert untimed(run) == untimed(reference)
    for name in ("last.pt", "best.pt"):
        expected = weights(reference / name)
        for key, value in weights(run / name).items():
            assert torch.equal(value, expected[key]), (name, key)
    for name in ("oof.parquet", "config.toml"):
        assert (run / name).read_bytes() == (reference / name).read_bytes()


@pytest.fixture
def quick(uncompiled_reader, small_config, monkeypatch):
    """Configurations of runs that wait neither for DALI to compile nor for pictures."""
    monkeypatch.setattr("lumbar.train.trainer.run_log.draw_curves", lambda *_: None)
    return small_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory, spine_root, small_overrides):
    """A finished run of three epochs, read by DALI in bfloat16, with its events."""
    config = resolve_config(
        SeriesType.SAGITTAL_T2,
        overrides=[*small_overrides, "optim.epochs=3", "bfloat16=true", "optim.lr=2e-3"],
    )
    run, events, pictures = tmp_path_factory.mktemp("finished") / "run", [], []
    for event in start(Cache(spine_root), config, run):
        events.append(event)
        # A picture is drawn while the next epoch trains.
        if isinstance(event, EpochFinished | RunFinished) and (run / "curves.png").exists():
            pictures.append((run / "curves.png").read_bytes())
    return SimpleNamespace(run=run, config=config, events=events, pictures=pictures)


def test_events_come_in_order_and_count_what_is_done(finished, spine):
    run, config, events = finished.run, finished.config, finished.events
    split = split_samples(spine, config)
    steps = -(-len(split.train) // 4)
    kinds = [type(event) for event in events]
    epoch = [*[StepFinished] * steps, EpochFinished]
    assert kinds == [RunStarted, *epoch * 3, RunFinished]
    first = events[0]
    assert (first.run, first.epochs, first.first_epoch, first.steps) == (run, 3, 0, steps)
    assert (first.train_series, first.valid_series) == (len(split.train), len(split.held_out))
    model = load_checkpoint(run / "last.pt")[0].model
    assert first.parameters == sum(p.numel() for p in model.parameters())
    taken = [event for event in events if isinstance(event, StepFinished)]
    assert [(e.epoch, e.step) for e in taken] == [(e, s) for e in range(3) for s in range(steps)]
    assert sum(e.samples for e in taken) == 3 * len(split.train)
    assert all(np.isfinite(e.loss) and 0 <= e.wait_seconds <= e.seconds for e in taken)
    for number, epoch in enumerate(e for e in events if isinstance(e, EpochFinished)):
        losses = [e.loss for e in taken if e.epoch == number]
        assert epoch.train_loss == pytest.approx(np.mean(losses))
        factor = learning_rate_factor(number * steps, steps=3 * steps, warmup=0.1)
        assert epoch.learning_rate == pytest.approx(2e-3 * factor)
        assert epoch.gpu_percent is None
        assert 0 <= epoch.data_wait <= 1


def test_a_run_leaves_its_files_and_no_others(finished):
    run, config = finished.run, finished.config
    names = {path.name for path in run.iterdir()}
    boards = {name for name in names if name.startswith("events.out.tfevents.")}
    assert len(boards) == 1
    assert names - boards == {
        ".lock",
        "config.toml",
        "metrics.jsonl",
        "curves.png",
        "data.json",
        "last.pt",
        "best.pt",
        "oof.parquet",
    }
    assert resolve_config(config.series, file=run / "config.toml") == config


def test_the_metrics_are_the_events(finished):
    run, events = finished.run, finished.events
    epochs = [event for event in events if isinstance(event, EpochFinished)]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines == [epoch.to_json() for epoch in epochs]
    assert [EpochFinished.from_json(line) for line in lines] == epochs
    best = min(epochs, key=lambda epoch: epoch.score.total)
    assert events[-1].best == best


def test_curves_are_drawn_anew_every_epoch_and_no_figure_stays_open(finished):
    assert len(set(finished.pictures)) == 3
    assert all(picture.startswith(b"\x89PNG\r\n") for picture in finished.pictures)
    assert plt.get_fignums() == []


def test_tensorboard_has_the_same_numbers(finished):
    run, events = finished.run, finished.events
    board = EventAccumulator(str(run)).Reload()
    epochs = [event for event in events if isinstance(event, EpochFinished)]
    for tag, values in {
        "loss/train": [e.train_loss for e in epochs],
        "metric/total": [e.score.total for e in epochs],
        "learning_rate": [e.learning_rate for e in epochs],
    }.items():
        scalars = board.Scalars(tag)
        assert [s.step for s in scalars] == [0, 1, 2]
        assert [s.value for s in scalars] == pytest.approx(values, rel=1e-6)
    assert "throughput/gpu_percent" not in board.Tags()["scalars"]


def test_held_out_predictions_are_of_the_best_weights_and_score_as_recorded(finished, spine):
    run, config, events = finished.run, finished.config, finished.events
    split = split_samples(spine, config)
    oof = pl.read_parquet(run / "oof.parquet")
    assert oof["study_id"].to_list() == sorted(set(split.held_out.study_id))
    recorded = events[-1].best.score.to_json()
    evaluation = evaluate(read_run(run), spine.labels, where=run)
    assert evaluation.score.to_json() == pytest.approx(recorded, rel=1e-5)
    # Training and evaluating a run show one training prior, and one list of what has no model.
    assert evaluation.training_prior == events[-1].prior
    (began,) = [event for event in events if isinstance(event, RunStarted)]
    assert evaluation.parts_by_prior == began.parts_by_prior
    assert began.parts_by_prior == ["foraminal", "subarticular", "total"]

    saved, _ = load_checkpoint(run / "best.pt")
    loss = CellLoss(config.loss, config.series_types)
    plan = Plan(split.held_out, config.crop, AugmentConfig.none(), batch=2, shuffle=False)
    with Reader(spine, plan, device=CPU, dtype=torch.bfloat16) as reader:
        probabilities, _ = predict_batches(saved.model, loss, reader.epoch(), bfloat16=True)
    means = study_means(split.held_out, probabilities)
    prior = with_floor(weighted_prior(split.train_severity))
    values = oof.select(TARGET_COLUMNS).to_numpy().reshape(-1, 25, 3)
    expected = means.of(oof["study_id"].to_list()).probabilities
    for row, mean in zip(values, expected, strict=True):
        # The batches differ in size, which bfloat16 notices.
        assert row[:5] == pytest.approx(mean[:5], abs=0.02)
        assert row[5:] == pytest.approx(prior[5:], abs=1e-6)
    assert events[-1].prior == score(
        np.repeat(prior[None], len(split.held_out_severity), axis=0),
        np.stack(list(split.held_out_severity.values())),
    )


def test_a_killed_run_resumes_to_the_same_bits(finished, spine, tmp_path):
    reference, config, events = finished.run, finished.config, finished.events
    run = tmp_path / "run"
    killed = start(spine, config, run)
    for event in killed:
        if isinstance(event, StepFinished) and (event.epoch, event.step) == (1, 3):
            break
    killed.close()
    assert len(untimed(run)) == 1
    resumed = list(start(spine, config, run, resume=True))
    assert resumed[0].first_epoch == 1
    assert_same_run(run, reference)
    assert resumed[-1].best.score == events[-1].best.score
    board = EventAccumulator(str(run)).Reload()
    assert [s.step for s in board.Scalars("loss/train")] == [0, 1, 2]


def test_a_run_killed_between_its_records_resumes_to_the_same_bits(
    quick, spine, tmp_path, monkeypatch
):
    config = quick("optim.epochs=3")
    list(start(spine, config, tmp_path / "reference"))

    def save(path, bundle, *, trainer_state):
        if path.name == "last.pt" and trainer_state["next_epoch"] == 2:
            raise KeyboardInterrupt
        save_checkpoint(path, bundle, trainer_state=trainer_state)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("lumbar.train.trainer.loop.save_checkpoint", save)
        with pytest.raises(KeyboardInterrupt):
            list(start(spine, config, run))
    assert len(untimed(run)) == 2
    assert load_checkpoint(run / "last.pt")[1]["next_epoch"] == 1
    list(start(spine, config, run, resume=True))
    assert_same_run(run, tmp_path / "reference")


TRAIN_TWICE = """
import sys
from pathlib import Path

import torch

from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.run.config import resolve_config
from lumbar.train.trainer.loop import train
from lumbar.train.model.series import SeriesClassifier

# Dynamo traces the network; its own backend would take minutes to build what is traced.
SeriesClassifier.compile = lambda model: torch.nn.Module.compile(model, backend="eager")
root, out, *settings = sys.argv[1:]
for name in ("plain", "compiled"):
    chosen = [*settings, f"compile={str(name == 'compiled').lower()}"]
    config = resolve_config(SeriesType.SAGITTAL_T2, overrides=chosen)
    run, cpu = Path(out, name), torch.device("cpu")
    for _ in train(Cache(Path(root)), config, run, device=cpu, threads=1):
        pass
"""


@pytest.mark.slow
def test_a_compiled_run_gives_the_numbers_of_the_plain_one(spine_root, small_overrides, tmp_path):
    # In a process of its own: Dynamo does not trace through the type checks of the tests.
    settings = (*small_overrides, "optim.epochs=1", "bfloat16=false")
    command = [sys.executable, "-c", TRAIN_TWICE, str(spine_root), str(tmp_path), *settings]
    subprocess.run(command, check=True, timeout=240)
    plain, compiled = untimed(tmp_path / "plain"), untimed(tmp_path / "compiled")
    assert compiled[0]["train_loss"] == pytest.approx(plain[0]["train_loss"], rel=1e-5)
    before, after = weights(tmp_path / "plain/last.pt"), weights(tmp_path / "compiled/last.pt")
    assert before.keys() == after.keys()


def test_another_seed_gives_another_run(quick, spine, tmp_path):
    for seed in (0, 0, 1):
        name = f"{seed}{'again' * (tmp_path / str(seed)).exists()}"
        list(start(spine, quick(f"seed={seed}", "optim.epochs=1"), tmp_path / name))
    assert untimed(tmp_path / "0") == untimed(tmp_path / "0again")
    assert untimed(tmp_path / "0") != untimed(tmp_path / "1")


def test_the_best_checkpoint_is_of_the_epoch_with_the_lowest_total(
    quick, spine, tmp_path, monkeypatch
):
    totals = [0.9, 0.5, 0.7, 0.4, 0.4]
    scores = iter([1.0, *totals, 1.0])
    monkeypatch.setattr(
        "lumbar.train.trainer.loop.score", lambda *_: Score(1.0, None, None, 1.0, next(scores))
    )
    run = tmp_path / "run"
    after, oof, best = [], [], []
    for event in start(spine, quick("optim.epochs=5"), run):
        if isinstance(event, EpochFinished):
            after.append(weights(run / "last.pt"))
            oof.append((run / "oof.parquet").read_bytes())
            best.append(event.is_best)
    assert best == [True, True, False, True, False]
    assert event.best.epoch == 3
    assert event.best.score.total == 0.4
    kept = weights(run / "best.pt")
    same = [all(torch.equal(kept[k], w[k]) for k in kept) for w in after]
    assert same == [False, False, False, True, False]
    assert oof[1] == oof[2]
    assert len(set(oof)) == 3


def test_resuming_with_another_configuration_or_cache_is_refused(
    quick, spine, tmp_path, spine_root
):
    run = tmp_path / "run"
    config = quick("optim.epochs=1")
    list(start(spine, config, run))
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(InputError, match="another configuration"):
        list(start(spine, quick("optim.epochs=1", "optim.lr=1e-3"), run, resume=True))

    fewer = tmp_path / "fewer"
    shutil.copytree(spine_root, fewer)
    labels = pl.read_parquet(fewer / "labels.parquet")
    labels.head(30).write_parquet(fewer / "labels.parquet")
    with pytest.raises(InputError, match="not the one that the run was trained on"):
        list(start(Cache(fewer), config, run, resume=True))
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_resuming_a_finished_run_only_reports_it(quick, spine, tmp_path):
    run = tmp_path / "run"
    last = list(start(spine, quick("optim.epochs=1"), run))[-1]
    before = {path: path.read_bytes() for path in run.iterdir()}
    started, ended = start(spine, quick("optim.epochs=1"), run, resume=True)
    assert started.first_epoch == started.epochs == 1
    assert ended == last
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_folder_that_is_in_use_is_refused_and_left_alone(quick, spine, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        list(start(spine, quick(), tmp_path))
    with pytest.raises(InputError, match="not empty"):
        list(start(spine, quick(), tmp_path / "notes.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(MissingError, match="holds no run"):
        list(start(spine, quick(), tmp_path, resume=True))


def test_what_cannot_be_trained_leaves_no_folder(quick, spine, tmp_path):
    for overrides, message in (
        (["split.fold=3"], "cannot split"),
        (["model.backbone=resnet19"], "unknown backbone"),
    ):
        with pytest.raises(InputError, match=message):
            list(start(spine, quick(*overrides), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_names_the_series_of_its_batch(
    quick, spine, tmp_path, monkeypatch
):
    config = quick()
    split = split_samples(spine, config)
    plan = Plan(split.train, config.crop, config.augment, batch=4, shuffle=True, seed=config.seed)
    culprit = plan.requests(1, 2)
    sums = CellLoss.sums
    calls = iter(range(1000))

    def diverge(self, logits, target):
        value = sums(self, logits, target)
        return value * torch.nan if torch.is_grad_enabled() and next(calls) == at else value

    at = plan.steps + 2
    monkeypatch.setattr(CellLoss, "sums", diverge)
    events = []
    with pytest.raises(DivergedError) as caught:
        events.extend(start(spine, config, tmp_path / "run"))
    names = ", ".join(spine.series["series_id"][r.views[0].row] for r in culprit)
    assert f"series {names}" in str(caught.value)
    assert "got nan" in str(caught.value)
    assert load_checkpoint(tmp_path / "run" / "last.pt")[1]["next_epoch"] == 1


@pytest.mark.parametrize("batch", [4, 64])
def test_a_rate_that_is_far_too_high_is_said_to_diverge(quick, spine, tmp_path, batch):
    # With one step an epoch the held-out studies see it first.
    config = quick("optim.lr=1e30", "optim.warmup=0", f"optim.batch={batch}")
    with pytest.raises(DivergedError, match=r"lower optim\.lr"):
        list(start(spine, config, tmp_path / "run"))


def test_a_run_ends_when_its_score_has_not_got_better_for_long(quick, spine, tmp_path, monkeypatch):
    scores = iter([1.0, 0.9, 0.5, 0.6, 0.7, 1.0])
    monkeypatch.setattr(
        "lumbar.train.trainer.loop.score", lambda *_: Score(1.0, None, None, 1.0, next(scores))
    )
    config = quick("optim.epochs=9", "optim.patience=2")
    *events, last = start(spine, config, tmp_path / "run")
    assert [event.epoch for event in events if isinstance(event, EpochFinished)] == [0, 1, 2, 3]
    assert last.best.epoch == 1


def test_a_run_of_two_phases_with_a_moving_average_resumes_to_the_same_bits(quick, spine, tmp_path):
    config = quick("optim.epochs=2", "finish.epochs=2", "optim.ema=0.5", "optim.layer_decay=0.7")
    list(start(spine, config, tmp_path / "reference"))
    killed = start(spine, config, tmp_path / "run")
    for event in killed:
        if isinstance(event, StepFinished) and (event.epoch, event.step) == (3, 1):
            break
    killed.close()
    resumed = list(start(spine, config, tmp_path / "run", resume=True))
    assert resumed[0].first_epoch == 3
    assert_same_run(tmp_path / "run", tmp_path / "reference")


def test_threads_take_turns_more_often_while_a_run_trains(quick, spine, tmp_path):
    before = sys.getswitchinterval()
    events = start(spine, quick(), tmp_path / "run")
    while not isinstance(next(events), StepFinished):
        assert sys.getswitchinterval() == before
    assert sys.getswitchinterval() < before
    events.close()
    assert sys.getswitchinterval() == pytest.approx(before)


def test_steps_are_traced_on_demand(quick, spine, tmp_path):
    run = tmp_path / "run"
    config = quick("optim.epochs=2")
    list(train(spine, config, run, device=CPU, threads=1, profiled_steps=2))
    names = {
        event.get("name") for event in json.loads((run / "trace.json").read_text())["traceEvents"]
    }
    assert any("conv" in str(name) for name in names)


@pytest.mark.slow
def test_a_network_learns_what_can_be_seen(quick, spine, tmp_path):
    config = quick(
        "split.folds=5",
        "optim.epochs=10",
        "optim.lr=4e-3",
        "model.dropout=0",
        "augment.rotation_degrees=3",
        "augment.shift_mm=3",
    )
    events = list(start(spine, config, tmp_path / "run"))
    epochs = [event for event in events if isinstance(event, EpochFinished)]
    assert epochs[-1].train_loss < 0.2 * epochs[0].train_loss
    best, prior = events[-1].best.score, events[-1].prior
    assert best.spinal < 0.2 * prior.spinal
    assert best.any_severe_spinal < 0.5 * prior.any_severe_spinal
    # What a sagittal T2 does not show is left to the prior.
    assert (best.foraminal, best.subarticular) == (prior.foraminal, prior.subarticular)
    oof = pl.read_parquet(tmp_path / "run" / "oof.parquet")
    labels = spine.labels.filter(spine.labels["study_id"].is_in(oof["study_id"].to_list()))
    truth = severities_of(labels.sort("study_id"))[:, :5]
    grades = oof.select(TARGET_COLUMNS[: 5 * 3]).to_numpy().reshape(-1, 5, 3).argmax(axis=2)
    assert (grades == truth)[truth >= 0].mean() > 0.9
