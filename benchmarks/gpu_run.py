"""Everything that needs a GPU, tests and benchmarks, in one command; no network is needed.

    python3 benchmarks/gpu_run.py --parts FOLDER --out OUT
    python3 benchmarks/gpu_run.py --site SITE --out OUT --only reader

FOLDER holds a bundle of the packages that the machine lacks: its parts, SHA256SUMS and its unpack
script, the one Python file there. It is unpacked into a temporary folder, which is kept and named,
so that a second call takes it as ``--site``. With neither, all has to be installed.

The machine is taken to have Python 3.12 with torch, numpy and the usual packages around them. What
has to be packed beside DALI, zarr, polars, pydantic and pydicom, which the bundle has anyway:

    beartype==0.23.1 imagecodecs==2026.3.6 tomli-w==1.2.0 typer==0.29.2

The step ``packages`` says before anything else runs what is still missing.

Each step has a limit; a step that fails or is stopped does not keep the next from running, and one
that no longer fits into ``--minutes`` is left out. OUT gets eight files: ``summary.json`` and
``summary.md``, written anew after each step, ``log.txt``, the reader's results as ``reader.json``
and ``reader.md``, and those of `lumbar bench` in ``bench/``. Exit status 0: every step passed.

``--device cpu`` does the same in small where there is no GPU, to try the command.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
STUDIES = 40
LOG_BYTES = 1_000_000
"""What is kept of a step's log: its end."""
SHOWN_LINES = 15
"""What is shown of the log of a step that did not pass."""
GRACE_SECONDS = 5.0
"""What a step that is interrupted has to clear up, and what is left of the minutes at the end."""

Device = Literal["cuda", "cpu"]
Status = Literal["passed", "failed", "timed out", "left out"]

GPU_BENCH = (
    "crop.slices=16", "crop.height=256", "crop.width=256", "crop.pixel_mm=1.0",
    "model.backbone=resnet18", "bfloat16=true", "optim.batch=16",
)  # fmt: skip
CPU_BENCH = (
    "crop.slices=8", "crop.height=64", "crop.width=48", "crop.pixel_mm=4.0",
    "model.backbone=test_resnet", "model.stride=8", "bfloat16=false", "optim.batch=2",
)  # fmt: skip
GPU_WINDOWS = ("--seconds", "1.5")
GPU_BENCH_WINDOWS = ("--seconds", "0.6", "--repeats", "5", "--minutes", "2")
CPU_WINDOWS = ("--seconds", "0.2", "--repeats", "1")
CPU_BENCH_WINDOWS = (*CPU_WINDOWS, "--minutes", "0.5")
CPU_DECODE = ("--sides", "64", "--series", "2", "--workers", "0", "--repeats", "1")
CPU_READER = (*CPU_WINDOWS, "--only", "lumbar", "opencv", "waiting")


@dataclass(frozen=True, slots=True)
class Step:
    """One command; it has ``most`` seconds, and is not begun with less than ``least``."""

    name: str
    command: tuple[str, ...]
    most: float
    least: float = 10.0


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a step; ``said`` is the last line of its log, or why it was left out."""

    name: str
    command: str
    status: Status
    seconds: float
    limit: float
    said: str


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    packages = parser.add_mutually_exclusive_group()
    packages.add_argument("--parts", type=_whole_path, help="folder of the bundle's parts")
    packages.add_argument("--site", type=_whole_path, help="where the bundle is unpacked already")
    parser.add_argument("--out", type=_whole_path, required=True, help="an empty or a new folder")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all steps together")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="of the steps after unpacking")
    options = parser.parse_args(arguments)
    if options.out.is_dir() and any(options.out.iterdir()):
        parser.error(f"--out {options.out} is not empty")
    if options.parts and len(list(options.parts.glob("*.py"))) != 1:
        parser.error(f"--parts {options.parts} does not hold one Python file, the unpack script")
    return options


def _whole_path(text: str) -> Path:
    """Return a path that means the same in the checkout, where the steps run."""
    return Path(text).resolve()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; return 0 if all passed, else 1."""
    options = parse_arguments(arguments)
    end = time.monotonic() + 60 * options.minutes - GRACE_SECONDS
    options.out.mkdir(parents=True, exist_ok=True)
    site = options.site
    if options.parts is not None:
        site = Path(tempfile.mkdtemp(prefix="site-"))
        sys.stdout.write(f"unpacking; take it with --site {site} the next time\n")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        names = {"PARTS": options.parts, "SITE": site, "OUT": options.out, "WORK": work}
        steps = unpacking(options.parts, site) if options.parts is not None else []
        planned = planned_steps(options.device, work, options.out)
        steps += [step for step in planned if not options.only or step.name in options.only]
        done: list[Done] = []
        for step in steps:
            done.append(run_step(step, end, names, options.out / "log.txt"))
            write_summary(options, done)
    sys.stdout.write((options.out / "summary.md").read_text())
    return 0 if all(one.status == "passed" for one in done) else 1


def unpacking(parts: Path, site: Path) -> list[Step]:
    """Return the step that unpacks the bundle by its own script."""
    (script,) = parts.glob("*.py")
    command = (str(script), "unpack", "--parts", str(parts), "--target", str(site))
    return [Step("unpack", (sys.executable, *command), 120)]


def planned_steps(device: Device, work: Path, out: Path) -> list[Step]:
    """Return the steps in their order; the longest comes last and takes what time is left."""
    # Warnings of versions that are not the tested ones fail no test here: -W default.
    python, lumbar = (sys.executable,), (sys.executable, "-m", "lumbar.cli")
    check = (*python, "benchmarks/gpu_checks.py")
    dicoms, cache, bench = str(work / "dicoms"), str(work / "cache"), str(out / "bench")
    on_gpu = device == "cuda"
    overrides = [
        part for value in (GPU_BENCH if on_gpu else CPU_BENCH) for part in ("--set", value)
    ]
    studies = str(STUDIES if on_gpu else 8)
    results = ("--json", str(out / "reader.json"), "--markdown", str(out / "reader.md"))
    return [
        Step("packages", (*check, "packages", device), 60),
        Step("pipeline", (*check, "pipeline", device), 60),
        Step(
            "tests",
            (*python, "-m", "pytest", "-m", "gpu", "--continue-on-collection-errors",
             "-W", "default", "-p", "no:cacheprovider", "--durations=10", *find_gpu_tests()),
            150,
        ),
        Step("synth", (*lumbar, "synth", "--out", dicoms, "--studies", studies), 60),
        Step("preprocess", (*lumbar, "preprocess", "--src", dicoms, "--out", cache), 60),
        Step(
            "decode",
            # Its results stand in the log, the medians in the summary.
            (*python, "benchmarks/gpu_decode.py", "--device", device,
             *(() if on_gpu else CPU_DECODE)),
            90,
        ),
        Step(
            "bench",
            (*lumbar, "bench", "--cache", cache, "--src", dicoms, "--out", bench,
             "--device", device, *(GPU_BENCH_WINDOWS if on_gpu else CPU_BENCH_WINDOWS), *overrides),
            170,
            least=40,
        ),
        Step(
            "reader",
            (*python, "benchmarks/reader.py", "--cache", cache, "--device", device,
             *results, *(GPU_WINDOWS if on_gpu else CPU_READER)),
            590,
            least=120 if on_gpu else 20,
        ),
    ]  # fmt: skip


def find_gpu_tests() -> list[str]:
    """Return the test files that name the mark, so that nothing is imported for all the others.

    They need packages that the bundle does not have.
    """
    files = (ROOT / "tests").rglob("test_*.py")
    named = [file for file in files if "@pytest.mark.gpu\n" in file.read_text()]
    return sorted(file.relative_to(ROOT).as_posix() for file in named)


def run_step(step: Step, end: float, names: dict[str, Path | None], log: Path) -> Done:
    """Run a step in a process group of its own until its limit, its output going to the log."""
    limit = round(min(step.most, end - time.monotonic()), 1)
    told = _told(" ".join(step.command), names)
    if limit < min(step.least, step.most):
        note = f"{max(limit, 0):.0f} s were left, it needs {step.least:.0f}"
        return _shown(Done(step.name, told, "left out", 0.0, max(limit, 0.0), note), [])
    sys.stdout.write(f"{step.name} ...\n")
    sys.stdout.flush()
    with log.open("a") as output:
        output.write(f"\n===== {step.name}: {told}\n")
    start = log.stat().st_size
    began = time.monotonic()
    with log.open("a") as output, subprocess.Popen(
        step.command,
        cwd=ROOT,
        env=_environment(names["SITE"]),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            status: Status = "passed" if process.wait(limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "timed out"
        _end_group(process)
    seconds = round(time.monotonic() - began, 1)
    _shorten(log, start)
    with log.open("rb") as written:
        written.seek(start)
        lines = written.read().decode(errors="replace").split("\n")
    said = [line.strip(" │=\r") for line in lines if re.search(r"\w", line)] or ["nothing"]
    last = _told(said[-1][:300], names)
    return _shown(Done(step.name, told, status, seconds, limit, last), said)


def _environment(site: Path | None) -> dict[str, str]:
    """Return the environment of a step: the checkout comes before the bundle's packages."""
    folders = [ROOT, site, os.environ.get("PYTHONPATH")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in folders if folder),
        "PYTHONUNBUFFERED": "1",
        "MPLBACKEND": "Agg",
        "COLUMNS": "140",
    }


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what a step left running: it may clear up for a moment, then it is killed."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _shorten(log: Path, start: int) -> None:
    """Keep the end of what was written to the log since ``start``."""
    if log.stat().st_size - start > LOG_BYTES:
        with log.open("r+b") as written:
            written.seek(-LOG_BYTES, os.SEEK_END)
            kept = written.read()
            written.seek(start)
            written.truncate()
            written.write(b"(the end alone)\n" + kept)


def _told(text: str, names: dict[str, Path | None]) -> str:
    """Return a text as it can be published: names instead of this machine's folders."""
    text = text.replace(sys.executable, "python")
    for name, path in names.items():
        text = text.replace(str(path), name) if path is not None else text
    return text


def _shown(done: Done, said: Sequence[str]) -> Done:
    sys.stdout.write(f"{done.name}: {done.status}, {done.seconds:.0f} s: {done.said}\n")
    if done.status in {"failed", "timed out"}:
        sys.stdout.writelines(f"  | {line}\n" for line in said[-SHOWN_LINES:])
    sys.stdout.flush()
    return done


def write_summary(options: argparse.Namespace, done: Sequence[Done]) -> None:
    """Write what came of the steps so far, for machines and for people."""
    context = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": options.device,
        "minutes": options.minutes,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
    }
    document = {"context": context, "steps": [asdict(one) for one in done]}
    (options.out / "summary.json").write_text(json.dumps(document, indent=2) + "\n")
    lines = [", ".join(f"{key} {value}" for key, value in context.items()), ""]
    lines += ["| step | status | seconds | limit | last line |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.name} | {one.status} | {one.seconds:.1f} | {one.limit:.0f} | "
        f"{one.said.replace('|', '/')} |"
        for one in done
    ]
    lines += ["", *(f"- {one.name}: `{one.command}`" for one in done)]
    (options.out / "summary.md").write_text("\n".join(["# Run on a GPU machine", "", *lines, ""]))


if __name__ == "__main__":
    sys.exit(main())
