"""Is data loading the bottleneck? `lumbar bench` with five repeats, its targets and its self-test.

    python benchmarks/bench.py --cache cache/ --src dicoms/ --series sagittal_t2 --json bench.json

Without ``--src`` the DICOM baseline is left out; a target that is missed is said so and no error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="what `lumbar preprocess` made")
    parser.add_argument("--src", type=Path, help="the DICOM folder that the cache was made from")
    parser.add_argument("--series", default="sagittal_t2", help="the series type")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="threads of the reader")
    parser.add_argument("--workers", help="numbers of DataLoader workers to try, such as 0,2,4")
    parser.add_argument("--step-ms", type=float, help="length of the simulated step; 0 for none")
    parser.add_argument("--cold", action="store_true", help="also with an empty page cache")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10.0, help="most of them for all")
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--out", type=Path, help="folder for bench.json, bench.md and bench.png")
    return parser.parse_args()


def main() -> None:
    """Measure, write the tables to standard output and the files that were asked for."""
    # Worker processes import this file again, and need none of this.
    from lumbar.bench.decoding_rate import measure_files_per_second  # noqa: PLC0415
    from lumbar.bench.loaders.notebook_reader import NotebookReader  # noqa: PLC0415
    from lumbar.bench.rates import Preprocessing  # noqa: PLC0415
    from lumbar.bench.report.files import write_report  # noqa: PLC0415
    from lumbar.bench.report.page import to_markdown  # noqa: PLC0415
    from lumbar.bench.report.report import BenchReport  # noqa: PLC0415
    from lumbar.bench.report.rows import to_json  # noqa: PLC0415
    from lumbar.bench.run import run_bench  # noqa: PLC0415
    from lumbar.bench.self_test import run_self_test  # noqa: PLC0415
    from lumbar.bench.session import BenchConfig  # noqa: PLC0415
    from lumbar.cache.names import SeriesType  # noqa: PLC0415
    from lumbar.cache.store import Cache  # noqa: PLC0415
    from lumbar.pipeline.config import PreprocessConfig  # noqa: PLC0415
    from lumbar.train.run.config import resolve_config  # noqa: PLC0415
    from lumbar.train.run.device import resolve_device  # noqa: PLC0415
    from lumbar.train.telemetry.cpu import usable_cores  # noqa: PLC0415

    options = parse_arguments()
    cache = Cache(options.cache)
    config = resolve_config(SeriesType(options.series), overrides=options.set)
    decode = preprocessing = None
    if options.src is not None:
        rows = cache.rows_of(config.series_type)
        wanted = cache.series[rows].select("study_id", "series_id").rows()
        decode = NotebookReader.find(options.src, wanted)
        made = PreprocessConfig(**cache.voxel_config, profile=cache.profile)
        rate = measure_files_per_second(options.src, made, workers=usable_cores())
        preprocessing = Preprocessing(rate.files_per_second, rate.workers)
    sys.stderr.write("self-test\n")
    outcomes = list(run_self_test(repeats=options.repeats))
    for event in run_bench(
        cache,
        config,
        BenchConfig(
            seconds=options.seconds,
            repeats=options.repeats,
            workers=options.workers and tuple(map(int, options.workers.split(","))),
            step_ms=options.step_ms,
            cold=options.cold,
            minutes=options.minutes,
        ),
        device=resolve_device(options.device),
        threads=options.threads,
        dicom_decode=decode,
        preprocessing=preprocessing,
    ):
        if not isinstance(event, BenchReport):
            sys.stderr.write(f"{event.done + 1}/{event.total} {event.doing}\n")
            continue
        sys.stdout.write(to_markdown(event))
        document = to_json(event)
        document["results"] += [outcome.row() for outcome in outcomes]
        for row in document["results"]:
            if row["target"] is not None:
                met = "not measured" if row["met"] is None else "met" if row["met"] else "missed"
                sys.stdout.write(f"{row['name']}: {row['value']}, target {row['target']}: {met}\n")
        if options.json is not None:
            options.json.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
        if options.out is not None:
            write_report(event, options.out)


if __name__ == "__main__":
    main()
