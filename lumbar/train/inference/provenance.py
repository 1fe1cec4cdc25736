"""Which models produced each row of a submission: the file beside it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl

from lumbar.cache.errors import LumbarError
from lumbar.cache.files.atomic import write_atomically
from lumbar.train.ensemble.combine import CellReason, Combined
from lumbar.train.evaluation.submission import Rows


def provenance_file(submission: Path) -> Path:
    """Return the file beside a submission that names the models of each row."""
    return submission.with_name(f"{submission.stem}_served_by.csv")


def write_provenance(submission: Path, combined: Combined, rows: Rows) -> Path:
    """Write ``row_id,served_by,n_models,reason`` beside a submission; return the file."""
    table = pl.DataFrame(
        {
            "row_id": rows.row_ids,
            "served_by": [combined.model_names[study][cell] for study, cell in rows.cells],
            "n_models": combined.n_models[rows.study, rows.cell],
            "reason": [str(combined.reasons[study][cell]) for study, cell in rows.cells],
        }
    )
    path = provenance_file(submission)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, table.write_csv().encode())
    return path


def check_predicted(out: Path, combined: Combined, rows: Rows) -> None:
    """Raise `LumbarError` if no model predicted any row of a submission.

    Rows whose weight a blend gives to the prior count as predicted.
    """
    by_none = Counter(
        combined.reasons[study][cell]
        for study, cell in rows.cells
        if combined.n_models[study, cell] == 0
        and combined.reasons[study][cell] != CellReason.PRIOR_WEIGHS_MORE
    )
    if rows.cells and sum(by_none.values()) == len(rows.cells):
        # Rows that no model was trained on do not tell what went wrong with the others.
        reason = max(by_none, key=lambda why: (why != CellReason.NO_MODEL, by_none[why]))
        raise LumbarError(
            what="no model predicted anything: every row of the submission is the training prior",
            where=out,
            got=f"{by_none[reason]} of {len(rows.cells)} rows {reason}: {reason.sentence}",
            expected="one study or more with a series for a model",
            cure="see the messages on files and series above, and name other runs or images",
        )
