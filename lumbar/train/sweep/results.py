"""The files of a sweep beside its runs: ``results.csv``, ``best.toml`` and ``sweep.png``."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import polars as pl
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as State

from lumbar.cache.files.atomic import write_atomically
from lumbar.train.sweep.config import SweepConfig
from lumbar.train.sweep.events import TrialRow, TrialState
from lumbar.train.sweep.plots import draw_sweep
from lumbar.train.sweep.trials import RETRY_OF, SUFFIXES, run_folder

RESULTS, BEST_CONFIG, PICTURE = "results.csv", "best.toml", "sweep.png"

ERROR = "error"
"""The attribute of a failed trial with the reason."""

FEWEST_FOR_IMPORTANCES = 4
"""With fewer complete trials there are no importances."""

_STATES: dict[State, TrialState] = {
    State.COMPLETE: "complete",
    State.PRUNED: "pruned",
    State.FAIL: "failed",
    State.RUNNING: "running",
    State.WAITING: "waiting",
}


def rows_of(study: optuna.Study, config: SweepConfig) -> list[TrialRow]:
    """Return all trials of a sweep, in the order of their numbers."""
    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return [_row(trial, config, is_retried=trial.number in retried) for trial in trials]


def _row(trial: FrozenTrial, config: SweepConfig, *, is_retried: bool) -> TrialRow:
    epochs = trial.intermediate_values
    best = min(epochs, key=lambda epoch: (epochs[epoch], epoch), default=None)
    lost = "its process ended" if trial.state == State.FAIL else ""
    return TrialRow(
        number=trial.number,
        state="retried" if is_retried else _STATES[trial.state],
        score=None if best is None else epochs[best],
        best_epoch=best,
        epochs=len(epochs),
        minutes=None if trial.duration is None else trial.duration.total_seconds() / 60,
        params=config.values_of(trial.params),
        run=run_folder(Path(), trial.number, SUFFIXES.get(trial.state, "")).name,
        note=trial.user_attrs.get(ERROR, lost),
    )


def best_of(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the complete trial with the lowest score, the first of equals; None without any."""
    complete = [row for row in rows if row.state == "complete" and row.score is not None]
    return min(complete, key=lambda row: (row.score, row.number), default=None)


def in_order_of_merit(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return complete trials by their score, then the others by theirs, those without one last."""
    return sorted(
        rows,
        key=lambda row: (
            row.state != "complete",
            float("inf") if row.score is None else row.score,
            row.number,
        ),
    )


def importances_of(study: optuna.Study, rows: Sequence[TrialRow]) -> dict[str, float]:
    """Return each searched key's share in what makes trials good, the greatest first.

    Source: Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces", 2023. Empty where too few trials are complete, or all are alike.
    """
    scores = [row.score for row in rows if row.state == "complete"]
    if len(scores) < FEWEST_FOR_IMPORTANCES or len(set(scores)) < 2:
        return {}
    return optuna.importance.get_param_importances(study)


def write_results(
    folder: Path, config: SweepConfig, rows: Sequence[TrialRow], importances: dict[str, float]
) -> Path | None:
    """Write the three files anew; return that of the best configuration, if there is one."""
    write_atomically(folder / RESULTS, _csv(rows, list(config.search)))
    draw_sweep(config, rows, importances, folder / PICTURE)
    best = best_of(rows)
    if best is None:
        return None
    write_atomically(folder / BEST_CONFIG, config.run_config(best.params).to_toml().encode())
    return folder / BEST_CONFIG


def _csv(rows: Sequence[TrialRow], keys: Sequence[str]) -> bytes:
    """Return the results as CSV: a column for each searched key."""
    ordered = in_order_of_merit(rows)
    columns = {
        "trial": [row.number for row in ordered],
        "state": [row.state for row in ordered],
        "score": [row.score for row in ordered],
        "best_epoch": [row.best_epoch for row in ordered],
        "epochs": [row.epochs for row in ordered],
        "minutes": [row.minutes for row in ordered],
        **{key: [_whole(row.params.get(key, "")) for row in ordered] for key in keys},
        "run": [row.run for row in ordered],
        "note": [row.note for row in ordered],
    }
    schema = {"score": pl.Float64, "minutes": pl.Float64, "best_epoch": pl.Int64}
    written = io.BytesIO()
    pl.DataFrame(columns, schema_overrides=schema).write_csv(written)
    return written.getvalue()


def _whole(value: Any) -> str:
    """Return a value with all its digits, lists and tables as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
