"""A sweep over a trainer that computes its scores from the settings: pruning, resume, failures."""

import json
import math
import shutil
import threading

import numpy as np
import optuna
import polars as pl
import pytest
import torch
from optuna.samplers import RandomSampler, TPESampler

from lumbar.cache.errors import InputError, LumbarError
from lumbar.cache.files.lock import locked
from lumbar.cache.names import SeriesType
from lumbar.train.evaluation.metric import Score
from lumbar.train.run.config import resolve_config
from lumbar.train.sweep.config import SweepConfig
from lumbar.train.sweep.events import (
    SweepFinished,
    SweepStarted,
    TrialEpoch,
    TrialFinished,
    TrialStarted,
)
from lumbar.train.sweep.run import sweep
from lumbar.train.sweep.storage import STORAGE, make_sampler
from lumbar.train.trainer.events import EpochFinished, RunFinished, RunStarted
from lumbar.train.trainer.run_log import METRICS, read_metrics
from lumbar.train.trainer.trainer import DivergedError

T2 = SeriesType.SAGITTAL_T2
PRIOR = Score(None, None, None, None, 0.8)


class Killed(BaseException):
    """Stands for a signal: no handler of ordinary errors sees it."""


def score_at(config, epoch):
    """A bowl around a rate of 1e-3 that every epoch gets nearer to."""
    return 0.3 + 0.1 * abs(math.log10(config.optim.lr) + 3) + 0.2 * 0.5**epoch


class FakeTrainer:
    """Writes what a run writes, and does at a (trial, epoch) what `faults` says."""

    def __init__(self):
        self.faults = {}
        self.begun = []
        self.score_at = score_at

    def __call__(self, cache, config, run, *, device, threads, tier, draw, resume=False):
        first = len(read_metrics(run)) if resume else 0
        self.begun.append((run.name, first, config))
        if not resume:
            assert not run.exists(), "a new run has a new folder"
            run.mkdir()
            (run / "config.toml").write_text(config.to_toml())
            (run / METRICS).write_text("")
        with locked(run):
            (run / "last.pt").write_text("x")
            yield RunStarted(run, 8, 4, config.epochs, first, 2, "cpu", 10, "disk")
            entries = read_metrics(run)
            for epoch in range(first, config.epochs):
                fault = self.faults.pop((len(self.begun) - 1, epoch), None)
                if fault is not None:
                    raise fault
                total = self.score_at(config, epoch)
                best = total < min((e.score.total for e in entries), default=math.inf)
                score = Score(None, None, None, None, total)
                entries.append(EpochFinished(epoch, 1.0, 1.0, 1e-3, score, best, 1.0, 0.0, None))
                with (run / METRICS).open("a") as file:
                    file.write(json.dumps(entries[-1].to_json()) + "\n")
                yield entries[-1]
            best = [entry for entry in entries if entry.is_best][-1]
            yield RunFinished(run, best, PRIOR)


@pytest.fixture
def trainer(monkeypatch):
    fake = FakeTrainer()
    monkeypatch.setattr("lumbar.train.sweep.run.train", fake)
    return fake


@pytest.fixture(autouse=True)
def _quick_picture(request, monkeypatch):
    """A picture takes longer than a trial here; the tests of it draw it."""
    if "picture" not in request.node.name:
        monkeypatch.setattr("lumbar.train.sweep.results.draw_sweep", lambda *_: None)


@pytest.fixture
def run_sweep(spine, tmp_path):
    """Return a function that sweeps in a folder and returns the events."""

    def run(config, folder="s", storage=None, cache=spine):
        return list(
            sweep(
                cache,
                config,
                tmp_path / folder,
                name="s",
                device=torch.device("cpu"),
                threads=1,
                storage=storage,
            )
        )

    return run


def make(trials=4, epochs=3, search=None, run=None, **options):
    search = search or {"optim.lr": {"float": [1e-5, 1e-1], "log": True}}
    run = {"optim": {"epochs": epochs}, **(run or {})}
    return SweepConfig.model_validate(
        {"series": "sagittal_t2", "trials": trials, "run": run, "search": search, **options}
    )


def rows_of(events):
    assert isinstance(events[-1], SweepFinished)
    return events[-1].rows


def told(rows):
    """What a sweep came to, without when."""
    return [(row.state, row.score, row.best_epoch, row.params) for row in rows]


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_every_trial_is_a_run_with_the_values_drawn_for_it(trainer, run_sweep, tmp_path):
    events = run_sweep(make())
    rows = rows_of(events)
    assert [row.state for row in rows] == ["complete"] * 4
    assert len({row.params["optim.lr"] for row in rows}) == 4
    for row, (name, first, config) in zip(rows, trainer.begun, strict=True):
        assert (name, first) == (f"trial-{row.number:04}", 0)
        assert config == resolve_config(
            T2, overrides=["optim.epochs=3", f"optim.lr={row.params['optim.lr']!r}"]
        )
        assert row.score == pytest.approx(score_at(config, 2))
        assert (row.best_epoch, row.epochs) == (3, 3)
        assert (tmp_path / "s" / row.run / METRICS).is_file()
        assert not (tmp_path / "s" / row.run / "last.pt").exists()


def test_its_events_tell_the_whole_way(trainer, run_sweep):
    events = run_sweep(make(trials=2))
    kinds = [type(event) for event in events]
    one = [TrialStarted, *[TrialEpoch] * 3, TrialFinished]
    assert kinds == [SweepStarted, *one, *one, SweepFinished]
    assert [e.over for e in of_type(events, TrialFinished)] == [1, 2]
    best = [e.best.score for e in of_type(events, TrialFinished)]
    assert best == [min(best[:1]), min(best)]


def test_the_score_of_a_trial_is_that_of_its_best_epoch(trainer, run_sweep):
    trainer.score_at = lambda config, epoch: [0.5, 0.4, 0.6][epoch]
    (row,) = rows_of(run_sweep(make(trials=1)))
    assert (row.score, row.best_epoch) == (0.4, 2)


def test_results_are_a_table_a_configuration_and_a_picture(trainer, run_sweep, tmp_path):
    trainer.faults[1, 1] = DivergedError(what="the loss is not finite", got="nan")
    choices = {"choices": [[1, 2, 4], [1, 1, 1]]}
    search = {"optim.lr": {"float": [1e-5, 1e-1], "log": True}, "loss.weights": choices}
    events = run_sweep(make(trials=6, search=search))
    best, folder = events[-1].best, tmp_path / "s"
    assert best.score == min(row.score for row in rows_of(events) if row.state == "complete")
    assert events[-1].best_config == folder / "best.toml"
    config = resolve_config(T2, file=folder / "best.toml")
    assert config.optim.lr == best.params["optim.lr"]
    assert list(config.loss.weights) == best.params["loss.weights"]
    table = pl.read_csv(folder / "results.csv")
    assert table["trial"][0] == best.number
    assert table["optim.lr"][0] == best.params["optim.lr"]
    assert json.loads(table["loss.weights"][0]) == best.params["loss.weights"]
    assert table["state"].to_list() == ["complete"] * 5 + ["failed"]
    assert "the loss is not finite" in table["note"][5]
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert set(events[-1].importances) == set(search)
    assert sum(events[-1].importances.values()) == pytest.approx(1)
    assert next(iter(events[-1].importances)) == "optim.lr", "the score depends on nothing else"


def test_the_sampler_is_the_one_that_is_named():
    assert isinstance(make_sampler(make(), 0, storage=None), TPESampler)
    assert isinstance(make_sampler(make(sampler="random"), 0, storage=None), RandomSampler)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_seed_decides_what_is_drawn(trainer, run_sweep, sampler):
    once, again, other = (
        [row.params for row in rows_of(run_sweep(make(3, 1, seed=seed, sampler=sampler), name))]
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert once == again
    assert not [params for params in once if params in other]


def test_a_hopeless_trial_is_pruned_and_its_folder_says_so(trainer, run_sweep, tmp_path):
    events = run_sweep(make(trials=12, epochs=4, prune_after_epochs=2, prune_after_trials=3))
    rows = rows_of(events)
    assert [row.state for row in rows[:3]] == ["complete"] * 3
    pruned = [row for row in rows if row.state == "pruned"]
    assert pruned
    complete = {}
    for row in rows:
        folder = tmp_path / "s" / row.run
        entries = [entry.score.total for entry in read_metrics(folder)]
        assert len(entries) == row.epochs
        if row.state == "pruned":
            assert row.run == f"trial-{row.number:04}-pruned"
            before = [scores[row.epochs - 1] for scores in complete.values()]
            assert 2 <= row.epochs < 4
            assert min(entries) > np.median(before)
        else:
            complete[row.number] = np.minimum.accumulate(entries)
    assert not (tmp_path / "s" / f"trial-{pruned[0].number:04}").exists()
    assert events[-1].best.state == "complete"


def test_a_trial_is_not_pruned_by_its_last_epoch(trainer, run_sweep):
    rows = rows_of(run_sweep(make(epochs=2, prune_after_epochs=2, prune_after_trials=1)))
    assert max(row.score for row in rows) > np.median([row.score for row in rows])
    assert [row.state for row in rows] == ["complete"] * 4


def test_hyperband_ends_trials_early(trainer, run_sweep):
    config = make(trials=9, epochs=9, prune_after_epochs=1, pruner="hyperband")
    states = [row.state for row in rows_of(run_sweep(config))]
    assert states.count("pruned") >= 2
    assert "complete" in states


def test_no_pruner_ends_none(trainer, run_sweep):
    options = {"trials": 6, "prune_after_epochs": 1, "prune_after_trials": 1}
    pruned = [row.state for row in rows_of(run_sweep(make(**options), "median"))]
    assert "pruned" in pruned
    whole = [row.state for row in rows_of(run_sweep(make(pruner="none", **options), "none"))]
    assert whole == ["complete"] * 6


def test_the_same_call_goes_on_and_does_nothing_where_all_is_done(trainer, run_sweep):
    whole = rows_of(run_sweep(make(trials=6), "whole"))
    run_sweep(make(trials=2), "parts")
    trainer.begun.clear()
    events = run_sweep(make(trials=6), "parts")
    assert events[0].over == 2
    assert [name for name, _, _ in trainer.begun] == [f"trial-{n:04}" for n in range(2, 6)]
    assert told(rows_of(events)) == told(whole)
    trainer.begun.clear()
    again = run_sweep(make(trials=6), "parts")
    assert trainer.begun == []
    assert told(rows_of(again)) == told(whole)


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_killed_trial_is_failed_and_tried_again_from_its_last_epoch(
    trainer, run_sweep, tmp_path, epoch
):
    whole = rows_of(run_sweep(make(), "whole"))
    trainer.begun.clear()
    trainer.faults[1, epoch] = Killed()
    with pytest.raises(Killed):
        run_sweep(make(), "killed")
    events = run_sweep(make(), "killed")
    rows = rows_of(events)
    assert [row.state for row in rows] == ["complete", "retried"] + ["complete"] * 3
    assert rows[2].params == rows[1].params
    assert trainer.begun[2][:2] == ("trial-0002", epoch)
    assert of_type(events, TrialStarted)[0].attempt == 2
    assert [told([row]) for row in rows if row.state != "retried"] == [told([r]) for r in whole]
    assert len(read_metrics(tmp_path / "killed" / "trial-0002")) == 3
    assert not list((tmp_path / "killed").glob("trial-0001*"))
    assert events[-1].best == max(rows, key=lambda row: row.number == events[-1].best.number)


def test_a_killed_trial_without_a_checkpoint_begins_anew(trainer, run_sweep, tmp_path):
    trainer.faults[0, 2] = Killed()
    with pytest.raises(Killed):
        run_sweep(make(trials=1))
    (tmp_path / "s/trial-0000/last.pt").unlink()
    rows = rows_of(run_sweep(make(trials=1)))
    assert trainer.begun[1][:2] == ("trial-0001", 0)
    assert rows[1].epochs == 3


def test_a_run_that_cannot_be_resumed_begins_anew(trainer, run_sweep, tmp_path, monkeypatch):
    trainer.faults[0, 2] = Killed()
    with pytest.raises(Killed):
        run_sweep(make(trials=1))

    def damaged(*args, resume, **options):
        if resume:
            raise InputError(what="a damaged checkpoint")
        yield from trainer(*args, resume=False, **options)

    monkeypatch.setattr("lumbar.train.sweep.run.train", damaged)
    rows = rows_of(run_sweep(make(trials=1)))
    assert [row.state for row in rows] == ["retried", "complete"]
    assert trainer.begun[1][:2] == ("trial-0001", 0)


def test_a_trial_killed_between_its_last_epoch_and_the_telling_keeps_its_score(
    trainer, run_sweep, monkeypatch
):
    with monkeypatch.context() as patched:

        def killed(*_):
            raise Killed

        patched.setattr("lumbar.train.sweep.run._tell", killed)
        with pytest.raises(Killed):
            run_sweep(make(trials=1))
    rows = rows_of(run_sweep(make(trials=1)))
    assert trainer.begun[1][:2] == ("trial-0001", 3)
    assert [row.state for row in rows] == ["retried", "complete"]
    assert rows[1].score == rows[0].score
    assert rows[1].epochs == 3


def test_a_trial_that_kills_its_process_again_and_again_stays_failed(trainer, run_sweep, tmp_path):
    trainer.faults |= {(number, 1): Killed() for number in range(3)}
    for _ in range(3):
        with pytest.raises(Killed):
            run_sweep(make(trials=2))
    rows = rows_of(run_sweep(make(trials=2)))
    assert [row.state for row in rows] == ["retried", "retried", "failed", "complete"]
    assert rows[2].note == "its process ended"
    assert (tmp_path / "s/trial-0002-failed").is_dir()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (DivergedError(what="the loss is not finite", got="nan"), "the loss is not finite"),
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryError: CUDA out of memory"),
        (RuntimeError("sizes 3 and 4"), "RuntimeError: sizes 3 and 4"),
    ],
)
def test_a_trial_that_fails_costs_itself_alone(trainer, run_sweep, tmp_path, fault, said):
    trainer.faults[1, 1] = fault
    rows = rows_of(run_sweep(make()))
    assert [row.state for row in rows] == ["complete", "failed", "complete", "complete"]
    assert said in rows[1].note
    assert (tmp_path / "s" / "trial-0001-failed" / METRICS).is_file()
    assert rows[1].run == "trial-0001-failed"
    again = rows_of(run_sweep(make()))
    assert len(again) == 4, "a failed trial is not tried again"


def test_values_that_do_not_fit_together_fail_their_trial(trainer, run_sweep):
    search = {
        "optim.lr": {"float": [1e-5, 1e-1], "log": True},
        "discs": {"choices": [True, False]},
    }
    rows = rows_of(run_sweep(make(trials=8, search=search, run={"loss": {"any_severe": 1.0}})))
    states = {row.params["discs"]: row.state for row in rows}
    assert states == {True: "failed", False: "complete"}
    assert "discs are single levels" in next(row.note for row in rows if row.state == "failed")


def test_a_full_disk_ends_the_sweep_and_the_trial_goes_on_later(trainer, run_sweep):
    trainer.faults[0, 1] = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        run_sweep(make(trials=1))
    assert [row.state for row in rows_of(run_sweep(make(trials=1)))] == ["retried", "complete"]


def test_failures_in_a_row_end_the_sweep(trainer, run_sweep, tmp_path):
    trainer.faults |= {(number, 0): RuntimeError(f"fault {number}") for number in range(9)}
    with pytest.raises(LumbarError, match=r"5 trials failed.*fault 4"):
        run_sweep(make(trials=9))
    assert len(pl.read_csv(tmp_path / "s/results.csv")) == 5


def test_no_trial_begins_when_the_hours_are_over(trainer, run_sweep, monkeypatch):
    clock = iter(range(0, 100_000, 1000))
    monkeypatch.setattr("lumbar.train.sweep.run.time.monotonic", lambda: next(clock))
    rows = rows_of(run_sweep(make(trials=50, hours=1.0)))
    assert [row.state for row in rows] == ["complete"] * 3
    assert len(rows_of(run_sweep(make(trials=4)))) == 4


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"run": {"seed": 1}}, "another run"),
        ({"search": {"optim.lr": {"float": [1e-5, 1.0], "log": True}}}, "another search"),
        ({"series": "study"}, "another series"),
    ],
)
def test_a_sweep_that_compares_something_else_is_refused(trainer, run_sweep, changed, said):
    run_sweep(make(trials=1))
    with pytest.raises(InputError, match=said):
        run_sweep(make(trials=2, **changed))
    trials_more = make(trials=2, seed=3, pruner="none", hours=2.0)
    assert len(rows_of(run_sweep(trials_more))) == 2, "how long and by whom may change"


def test_a_sweep_on_another_cache_is_refused(trainer, run_sweep, spine):
    run_sweep(make(trials=1))
    other = type(spine)(spine.root)
    other.__dict__["labels"] = spine.labels.reverse()
    with pytest.raises(InputError, match="another cache"):
        run_sweep(make(trials=2), cache=other)


def test_two_processes_share_a_folder_and_no_trial_is_trained_twice(trainer, run_sweep, tmp_path):
    """The second one begins while the first is in the middle of its first trial."""
    inside, go_on = threading.Event(), threading.Event()

    def waits(config, epoch):
        if threading.current_thread() is not threading.main_thread() and epoch == 1:
            inside.set()
            assert go_on.wait(60)
        return score_at(config, epoch)

    trainer.score_at = waits
    first = []
    thread = threading.Thread(target=lambda: first.extend(run_sweep(make(trials=5))))
    thread.start()
    assert inside.wait(60)
    second = rows_of(run_sweep(make(trials=4)))
    go_on.set()
    thread.join(60)
    assert [row.state for row in second] == ["running"] + ["complete"] * 3
    assert [row.state for row in rows_of(first)] == ["complete"] * 5
    assert sorted(name for name, _, _ in trainer.begun) == [f"trial-{n:04}" for n in range(5)]
    assert len({row.params["optim.lr"] for row in rows_of(first)}) == 5


def test_two_folders_share_a_storage_and_leave_each_others_trials_alone(
    trainer, run_sweep, tmp_path
):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    trainer.faults[1, 1] = Killed()
    with pytest.raises(Killed):
        run_sweep(make(trials=4), "one", storage)
    events = run_sweep(make(trials=4), "two", storage)
    assert [row.state for row in rows_of(events)] == ["complete", "running", "complete", "complete"]
    assert not (tmp_path / "one" / STORAGE).exists()
    assert sorted(p.name for p in (tmp_path / "two").glob("trial*")) == ["trial-0002", "trial-0003"]
    # The best is the sweep's, wherever it was trained.
    assert events[-1].best.score == min(r.score for r in rows_of(events) if r.state == "complete")
    back = rows_of(run_sweep(make(trials=4), "one", storage))
    assert [row.state for row in back] == ["complete", "retried"] + ["complete"] * 3


def test_a_running_trial_that_nobody_owns_is_tried_again_after_a_minute(
    trainer, run_sweep, tmp_path, monkeypatch
):
    run_sweep(make(trials=1))
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 's' / STORAGE}")
    study.ask()
    assert [row.state for row in rows_of(run_sweep(make(trials=2)))] == ["complete", "running"]
    monkeypatch.setattr("lumbar.train.sweep.trials.NAMELESS_SECONDS", 0)
    states = [row.state for row in rows_of(run_sweep(make(trials=2)))]
    assert states == ["complete", "retried", "complete"]


def test_a_moved_folder_goes_on(trainer, run_sweep, tmp_path):
    trainer.faults[1, 1] = Killed()
    with pytest.raises(Killed):
        run_sweep(make(), "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    states = [row.state for row in rows_of(run_sweep(make(), "there"))]
    assert states == ["complete", "retried"] + ["complete"] * 3


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("nonsense", "nonsense|--storage"),
        ("postgresql://me:secret@127.0.0.1:1/x", r"postgresql://me:\*\*\*@127\.0\.0\.1"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(
    trainer, run_sweep, storage, said
):
    with pytest.raises(InputError, match=said) as raised:
        run_sweep(make(), storage=storage)
    assert "secret" not in str(raised.value)


def test_a_storage_that_is_no_database_is_named(trainer, run_sweep, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / STORAGE).write_text("this is no database, however long one looks at it" * 99)
    with pytest.raises(InputError, match=r"sweep\.db"):
        run_sweep(make())


def test_a_storage_that_fails_on_the_way_is_no_failure_of_the_trial(trainer, run_sweep, tmp_path):
    database = tmp_path / "s" / STORAGE

    def breaks(config, epoch):
        if epoch == 1 and len(trainer.begun) == 1:
            database.rename(database.with_suffix(".away"))
            database.mkdir()
        return score_at(config, epoch)

    trainer.score_at = breaks
    with pytest.raises(LumbarError, match="the sweep's storage fails"):
        run_sweep(make(trials=2))
    database.rmdir()
    database.with_suffix(".away").rename(database)
    states = [row.state for row in rows_of(run_sweep(make(trials=2)))]
    assert states == ["retried", "complete", "complete"]
