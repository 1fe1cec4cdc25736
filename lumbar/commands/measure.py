"""``lumbar bench``: how fast it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lumbar.commands.options import CORES, CacheOption, DeviceOption, ThreadsOption, checked
from lumbar.display.measure import show_bench


def bench(
    cache: CacheOption = Path("cache"),
    series: Annotated[str, typer.Option(help="Series type to read.")] = "sagittal_t2",
    src: Annotated[
        Path | None, typer.Option(help="The cache's DICOM files, to decode on the fly.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A run.toml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, such as optim.batch=16.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for bench.json, bench.md and bench.png."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the results to this file.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Length of one window.")] = 0.5,
    repeats: Annotated[int, typer.Option(min=1, help="Windows a measurement.")] = 3,
    step_ms: Annotated[
        float | None, typer.Option(help="Length of a simulated step; 0 for none.")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = CORES,
) -> None:
    """Measure whether loading is the bottleneck, against the usual loaders."""
    from lumbar.cache.store import Cache
    from lumbar.pipeline.notebook_reader import NotebookReader
    from lumbar.train.bench.files import write_json, write_report
    from lumbar.train.bench.run import BenchConfig, run_bench
    from lumbar.train.config import resolve_config, trained_type
    from lumbar.train.device import resolve_device

    kind = trained_type(series)
    opened = Cache(cache)
    resolved = resolve_config(kind, file=config, overrides=overrides or ())
    wanted = opened.series[opened.rows_of(kind)].select("study_id", "series_id").rows()
    report = show_bench(
        run_bench(
            opened,
            resolved,
            checked(BenchConfig, {"seconds": seconds, "repeats": repeats, "step_ms": step_ms}),
            device=resolve_device(device),
            threads=threads,
            dicom_decode=None if src is None else NotebookReader.find(src, wanted),
        )
    )
    if out is not None:
        write_report(report, out)
    if json_file is not None:
        write_json(report, json_file)
