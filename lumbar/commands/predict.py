"""``lumbar predict``: DICOM or a cache in, ``submission.csv`` out."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lumbar.cache.errors import InputError
from lumbar.commands.options import (
    CORES,
    DeviceOption,
    Part,
    ThreadsOption,
    WorkersOption,
    checked,
    threads_for,
    unclear,
    warn_of_idle_gpu,
)
from lumbar.display.predict import show_prediction, show_provenance
from lumbar.display.terminal import say, say_next, say_warning

if TYPE_CHECKING:
    from lumbar.cache.store import Cache
    from lumbar.pipeline.events import Event
    from lumbar.pipeline.source.layout import Layout
    from lumbar.train.ensemble.combine import Combined
    from lumbar.train.inference.predict import Ensemble
    from lumbar.train.inference.run_models import StudiesPredicted

STUDIES_A_PART = 16
"""Studies per part, on average: a part is preprocessed, predicted and removed."""

STUDY_BYTES = 13_000_000
"""About what a study takes on the disk."""


def predict(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of runs, or checkpoints; or --blend.")
    ] = None,
    out: Annotated[Path, typer.Option(dir_okay=False, help="The file to write.")] = Path(
        "submission.csv"
    ),
    src: Annotated[Path | None, typer.Option(help="DICOM files to predict.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Or a cache to predict.")] = None,
    split: Annotated[Part | None, typer.Option(help="Half of an RSNA folder.")] = None,
    blend: Annotated[Path | None, typer.Option(help="A blend.json, in the place of runs.")] = None,
    tta: Annotated[
        bool, typer.Option("--tta", help="Predict with the sides exchanged too, and average.")
    ] = False,
    sample: Annotated[
        Path | None,
        typer.Option(help="File whose rows to write; default that of an RSNA folder's test half."),
    ] = None,
    workers: WorkersOption = CORES,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Predict every study with runs or a blend: DICOM or cache in, submission.csv out."""
    from lumbar.cache.files.writable import require_file_place
    from lumbar.cache.store import Cache
    from lumbar.train.evaluation.submission import (
        check_sample,
        rows_of,
        rows_of_sample,
        sample_studies,
        write_submission,
    )
    from lumbar.train.inference.predict import check_preprocessing, find_studies
    from lumbar.train.inference.predict import predict as run_prediction
    from lumbar.train.inference.provenance import check_predicted, write_provenance
    from lumbar.train.run.cache import caches_of
    from lumbar.train.run.device import resolve_device

    if (src is None) == (cache is None):
        got = "neither --src nor --cache" if src is None else "both --src and --cache"
        raise unclear(predict, got, "DICOM files by --src, or a cache by --cache")
    if bool(runs) == (blend is not None):
        got = "both RUNS and --blend" if runs else "neither RUNS nor --blend"
        raise unclear(predict, got, "folders of runs, or a blend of them by --blend")
    require_file_place(out)
    if src is not None:
        _require_room()
    ensemble, named = _load(runs or [], blend)
    warn_of_idle_gpu(device)
    n_threads = threads_for(threads, device)
    is_named = sample is not None
    if src is not None:
        from lumbar.pipeline.source.layout import find_layout

        layout = find_layout(src, split, first="test")
        sample = sample or layout.sample_csv
        check = None if sample is None else partial(check_sample, sample, is_named=is_named)
        events = _from_files(
            src,
            layout,
            ensemble,
            check,
            workers=workers,
            device=device,
            threads=n_threads,
            tta=tta,
        )
    else:
        assert cache is not None
        opened = Cache(cache)
        if sample is not None:
            check_sample(sample, find_studies(opened), is_named=True)
        check_preprocessing(opened, ensemble.bundles, caches_of(named))
        _warn_of_trained(opened, named)
        events = run_prediction(
            opened, ensemble, device=resolve_device(device), threads=n_threads, tta=tta
        )
    wanted = [] if sample is None else sample_studies(sample)
    combined = show_prediction(events).completed(wanted, ensemble.prior)
    study_ids = combined.predictions.study_ids
    rows = rows_of_sample(sample, study_ids) if sample else rows_of(study_ids, where=out)
    write_submission(out, combined.predictions, rows=rows)
    provenance = write_provenance(out, combined, rows)
    show_provenance(combined, rows)
    say(f"the models of each row: {provenance}")
    by_prior = int((combined.n_models[rows.study, rows.cell] == 0).sum())
    n_studies = len(set(rows.study.tolist()))
    say(
        f"submission: {out}, {n_studies} studies, "
        f"{len(rows.row_ids)} rows, {by_prior} of them the training prior"
    )
    check_predicted(out, combined, rows)
    say_next("evaluate", "--submission", out, "--labels", "LABELS")


def _warn_of_trained(cache: Cache, runs: Sequence[Path]) -> None:
    """Warn if some studies to predict are studies that the models were trained on."""
    from lumbar.train.run.cache import trained_studies

    studies = set(cache.series["study_id"])
    seen = studies & trained_studies(runs)
    if seen:
        say_warning(
            f"{len(seen)} of the {len(studies)} studies of {cache.root} were trained on by these "
            "runs: `lumbar evaluate RUN` scores studies that were held out"
        )


def _require_room() -> None:
    """Raise `InputError` where the temporary folder has no room for one part of the studies."""
    folder = Path(tempfile.gettempdir())
    free, needed = shutil.disk_usage(folder).free, STUDIES_A_PART * STUDY_BYTES
    if free < needed:
        raise InputError(
            what="too little room in the temporary folder",
            where=folder,
            got=f"{free / 1e6:.0f} MB free",
            expected=f"{needed / 1e6:.0f} MB for {STUDIES_A_PART} studies at a time",
            cure="make room, or set TMPDIR to a folder that has it",
        )


def _load(runs: list[Path], blend: Path | None) -> tuple[Ensemble, list[Path]]:
    """Return the models of runs or of a blend, and the runs' folders."""
    from lumbar.train.ensemble.blend import read_blend
    from lumbar.train.inference.predict import Ensemble, load_blend, load_models

    if blend is None:
        return Ensemble(load_models(runs)), runs
    folder = blend if blend.is_dir() else blend.parent
    described = read_blend(blend)
    named = [run for member in described.runs(folder) for run in member]
    return load_blend(described, folder), named


def _from_files(
    src: Path,
    layout: Layout,
    ensemble: Ensemble,
    check: Callable[[Collection[str]], None] | None,
    *,
    workers: int,
    device: str,
    threads: int,
    tta: bool,
) -> Iterator[Event | StudiesPredicted | Combined]:
    """Preprocess and predict part after part: memory and disk hold one part, not all studies.

    ``check`` is called with the studies as soon as they are known, before any is predicted.
    """
    from lumbar.cache.store import Cache
    from lumbar.pipeline.config import PreprocessConfig
    from lumbar.pipeline.preprocess import preprocess
    from lumbar.pipeline.reject import total_loss
    from lumbar.pipeline.source.rsna_csv import read_tables
    from lumbar.pipeline.source.shard import Shard
    from lumbar.pipeline.survey import check_not_empty, survey
    from lumbar.train.ensemble.combine import Combined
    from lumbar.train.inference.predict import find_studies
    from lumbar.train.inference.predict import predict as run_prediction
    from lumbar.train.inference.run_models import StudiesPredicted
    from lumbar.train.run.device import resolve_device

    place = resolve_device(device)
    config = checked(PreprocessConfig, ensemble.bundles[0].preprocess)
    nowhere = layout.images  # no cache lies in the source
    tables = read_tables(layout)
    check_not_empty(layout, nowhere)
    surveyed = yield from survey(layout, tables, src, nowhere)
    studies = surveyed.studies(nowhere)
    if check is not None and studies:
        check(studies)
    total = len(studies)
    parts: list[Combined] = []
    n_parts = -(-total // STUDIES_A_PART) or 1
    done = 0
    with tempfile.TemporaryDirectory(prefix="lumbar-predict-") as scratch:
        for number in range(1, n_parts + 1):
            folder = Path(scratch) / f"part-{number}"
            yield from preprocess(
                surveyed,
                folder,
                config,
                workers=workers,
                shard=Shard(number, n_parts) if n_parts > 1 else None,
                is_kept=False,
            )
            part = Cache(folder)
            if n_parts == 1 and not find_studies(part):
                raise total_loss(src, dict(Counter(part.rejected["reason"]).most_common()))
            if check is not None and not studies:
                check(find_studies(part))  # without tables they are known only now
            if n_parts == 1 or find_studies(part):
                for event in run_prediction(part, ensemble, device=place, threads=threads, tta=tta):
                    if isinstance(event, Combined):
                        parts.append(event)
                    else:
                        yield StudiesPredicted(done + event.done, max(total, done + event.total))
                done += len(parts[-1].predictions.study_ids)
            shutil.rmtree(folder)
    yield Combined.concatenate(parts)
