"""Which models produced each row of a submission: the file beside it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl

from lumbar.cache.errors import LumbarError
from lumbar.cache.files.atomic import write_atomically
from lumbar.train.ensemble.combine import Reason, Served
from lumbar.train.evaluation.submission import Rows


def served_file(submission: Path) -> Path:
    """Return the file beside a submission that says who served each row."""
    return submission.with_name(f"{submission.stem}_served_by.csv")


def write_served(submission: Path, served: Served, rows: Rows) -> Path:
    """Write ``row_id,served_by,n_models,reason`` beside a submission; return the file."""
    pairs = list(zip(rows.study.tolist(), rows.cell.tolist(), strict=True))
    table = pl.DataFrame(
        {
            "row_id": rows.row_ids,
            "served_by": [served.served_by[study][cell] for study, cell in pairs],
            "n_models": served.models[rows.study, rows.cell],
            "reason": [str(served.reasons[study][cell]) for study, cell in pairs],
        }
    )
    path = served_file(submission)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, table.write_csv().encode())
    return path


def check_served(out: Path, served: Served, rows: Rows) -> None:
    """Raise `LumbarError` if no model had a word in any row of a submission that is written."""
    pairs = list(zip(rows.study.tolist(), rows.cell.tolist(), strict=True))
    wanted = {Reason.PRIOR_WEIGHS_MORE}
    by_none = Counter(
        served.reasons[s][c]
        for s, c in pairs
        if served.models[s, c] == 0 and served.reasons[s][c] not in wanted
    )
    if pairs and sum(by_none.values()) == len(pairs):
        # Rows that no model was trained on say nothing of what went wrong with the others.
        telling = max(by_none, key=lambda why: (why != Reason.NO_MODEL, by_none[why]))
        raise LumbarError(
            what="no model predicted anything: every row of the submission is the training prior",
            where=out,
            got=f"{by_none[telling]} of {len(pairs)} rows {telling}: {telling.sentence}",
            expected="one study or more that a model can look at",
            cure="see what is said of the files and series above, and name other runs or images",
        )
