"""Is data loading the bottleneck? `lumbar bench` as a script, with five repeats.

    python benchmarks/bench.py --cache cache/ --src dicoms/ --series sagittal_t2 --json bench.json

Without ``--src`` the DICOM baseline is left out.
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
    parser.add_argument("--device", default=None, help="cpu or cuda; by default cuda if there is")
    parser.add_argument("--threads", type=int, default=2, help="DALI's threads")
    parser.add_argument("--workers", help="numbers of DataLoader workers to try, such as 0,2,4")
    parser.add_argument("--step-ms", type=float, help="length of the simulated step; 0 for none")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--picture", type=Path, help="where the picture goes")
    return parser.parse_args()


def main() -> None:
    """Measure, write the table to standard output and the files that were asked for."""
    # Worker processes import this file again, and need none of this.
    import torch  # noqa: PLC0415

    from lumbar.cache.names import SeriesType  # noqa: PLC0415
    from lumbar.cache.store import Cache  # noqa: PLC0415
    from lumbar.pipeline.notebook_reader import NotebookReader  # noqa: PLC0415
    from lumbar.train.bench.picture import draw_bench  # noqa: PLC0415
    from lumbar.train.bench.report import BenchReport  # noqa: PLC0415
    from lumbar.train.bench.run import BenchConfig, run_bench  # noqa: PLC0415
    from lumbar.train.config import resolve_config  # noqa: PLC0415

    arguments = parse_arguments()
    cache = Cache(arguments.cache)
    config = resolve_config(SeriesType(arguments.series), overrides=arguments.set)
    decode = None
    if arguments.src is not None:
        wanted = cache.series[cache.rows_of(config.series)].select("study_id", "series_id").rows()
        decode = NotebookReader.find(arguments.src, wanted)
    events = run_bench(
        cache,
        config,
        BenchConfig(
            seconds=arguments.seconds,
            repeats=arguments.repeats,
            workers=arguments.workers and tuple(map(int, arguments.workers.split(","))),
            step_ms=arguments.step_ms,
        ),
        device=torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")),
        threads=arguments.threads,
        dicom_decode=decode,
    )
    for event in events:
        if not isinstance(event, BenchReport):
            sys.stderr.write(f"{event.done + 1}/{event.total} {event.doing}\n")
            continue
        sys.stdout.write(event.to_markdown())
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(event.to_json(), indent=2, allow_nan=False) + "\n")
        if arguments.picture is not None:
            draw_bench(event, arguments.picture)


if __name__ == "__main__":
    main()
