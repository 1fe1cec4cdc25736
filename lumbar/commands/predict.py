"""``lumbar predict``: DICOM or a cache in, ``submission.csv`` out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
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
from lumbar.display.predict import show_prediction, show_served
from lumbar.display.terminal import say, say_warning

if TYPE_CHECKING:
    from lumbar.cache.store import Cache
    from lumbar.pipeline.events import Event
    from lumbar.pipeline.layout import Layout
    from lumbar.train.predict import Ensemble, Predictions
    from lumbar.train.voices import StudiesPredicted

STUDIES_A_PART = 16
"""Studies, on average, that are preprocessed before they are predicted and forgotten."""

STUDY_BYTES = 13_000_000
"""What a study takes on the disk, about."""

SAMPLE = "sample_submission.csv"


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
    from lumbar.cache.store import Cache
    from lumbar.cache.writable import require_file_place
    from lumbar.train.blending import read_blend
    from lumbar.train.device import resolve_device
    from lumbar.train.predict import Ensemble, load_blend, load_models
    from lumbar.train.predict import predict as run_prediction
    from lumbar.train.submission import (
        rows_of,
        rows_of_sample,
        sample_studies,
        write_served,
        write_submission,
    )

    if (src is None) == (cache is None):
        got = "neither --src nor --cache" if src is None else "both --src and --cache"
        raise unclear(predict, got, "DICOM files by --src, or a cache by --cache")
    if bool(runs) == (blend is not None):
        got = "both RUNS and --blend" if runs else "neither RUNS nor --blend"
        raise unclear(predict, got, "folders of runs, or a blend of them by --blend")
    require_file_place(out)
    if src is not None:
        _require_room()
    if blend is not None:
        folder = blend if blend.is_dir() else blend.parent
        described = read_blend(blend)
        ensemble = load_blend(described, folder)
        named = [run for member in described.runs(folder) for run in member]
    else:
        named = runs or []
        ensemble = Ensemble(load_models(runs or []))
    warn_of_idle_gpu(device)
    n_threads = threads_for(threads, device)
    if src is not None:
        from lumbar.pipeline.layout import find_layout

        half = split or ("test" if (src / "test_images").is_dir() else None)
        layout = find_layout(src, half)
        if sample is None and layout.split == "test" and (layout.tables / SAMPLE).is_file():
            sample = layout.tables / SAMPLE
        events = _from_files(
            src, layout, ensemble, workers=workers, device=device, threads=n_threads, tta=tta
        )
    else:
        assert cache is not None
        opened = Cache(cache)
        _tell_of_trained(opened, named)
        events = run_prediction(
            opened, ensemble, device=resolve_device(device), threads=n_threads, tta=tta
        )
    wanted = [] if sample is None else sample_studies(sample)
    predictions = show_prediction(events).completed(wanted, ensemble)
    study_ids, served = predictions.study_ids, predictions.served
    rows = rows_of_sample(sample, study_ids) if sample else rows_of(study_ids, where=out)
    write_submission(out, study_ids, served.probabilities, rows=rows)
    companion = write_served(out, served, rows)
    show_served(served, rows)
    say(f"who served each row: {companion}")
    by_prior = int((served.models[rows.study, rows.cell] == 0).sum())
    n_studies = len(set(rows.study.tolist()))
    say(
        f"submission: {out}, {n_studies} studies, "
        f"{len(rows.row_ids)} rows, the prior stands in for {by_prior}"
    )


def _tell_of_trained(cache: Cache, runs: Sequence[Path]) -> None:
    """Warn where studies are predicted that the models were trained on."""
    from lumbar.train.run_cache import trained_studies

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


def _from_files(
    src: Path,
    layout: Layout,
    ensemble: Ensemble,
    *,
    workers: int,
    device: str,
    threads: int,
    tta: bool,
) -> Iterator[Event | StudiesPredicted | Predictions]:
    """Preprocess and predict part after part: memory and disk hold one part, not all studies."""
    from lumbar.cache.store import Cache
    from lumbar.pipeline.config import PreprocessConfig
    from lumbar.pipeline.preprocess import preprocess
    from lumbar.pipeline.shard import Shard
    from lumbar.train.device import resolve_device
    from lumbar.train.predict import Predictions, find_studies
    from lumbar.train.predict import predict as run_prediction
    from lumbar.train.voices import StudiesPredicted

    place = resolve_device(device)
    config = checked(PreprocessConfig, ensemble.models[0].preprocess)
    total = _count_studies(layout)
    parts: list[Predictions] = []
    n_parts = -(-total // STUDIES_A_PART) or 1
    done = 0
    with tempfile.TemporaryDirectory(prefix="lumbar-predict-") as scratch:
        for number in range(1, n_parts + 1):
            folder = Path(scratch) / f"part-{number}"
            yield from preprocess(
                src,
                folder,
                config,
                workers=workers,
                split=layout.split,
                shard=Shard(number, n_parts) if n_parts > 1 else None,
                is_kept=False,
            )
            part = Cache(folder)
            if n_parts == 1 or find_studies(part):
                for event in run_prediction(part, ensemble, device=place, threads=threads, tta=tta):
                    if isinstance(event, Predictions):
                        parts.append(event)
                    else:
                        yield StudiesPredicted(done + event.done, max(total, done + event.total))
                done += len(parts[-1].study_ids)
            shutil.rmtree(folder)
    yield Predictions.of_parts(parts)


def _count_studies(layout: Layout) -> int:
    """Count the studies of a data set; those of a bare tree are not known before it is read: 0."""
    from lumbar.pipeline.rsna import read_series_descriptions
    from lumbar.pipeline.scan import find_study_folders

    if layout.split is None:
        return 0
    named = read_series_descriptions(layout.series_csv) if layout.series_csv else {}
    folders = find_study_folders(layout.images, layout.images)
    return len({study_id for study_id, _ in named}.union(folders))
