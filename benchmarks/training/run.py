"""What `train.py` runs: a cache is written, the loops are timed in turn, the rows are written."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from results import collect, parser, say

from lumbar.bench.measure.rows import ResultRow, row
from lumbar.bench.measure.spread import Spread
from lumbar.cache.names import SeriesType
from lumbar.train.reader.placement import default_threads
from lumbar.train.run.config import RunConfig, resolve_config
from lumbar.train.run.device import resolve_device
from lumbar.train.telemetry.hardware import describe_machine
from training.gpu import PROFILED_STEPS, Peak, flops_a_step, peak_of, share_outside_kernels
from training.loops import READY, LoopTask, Timed, time_bare, time_lumbar
from training.volumes import SHAPE_DHW, write_volumes

TARGET = 0.97
TITLE = "The training loop beside a bare one"
ON_CPU = (
    "crop.slices=8", "crop.height=128", "crop.width=128", "crop.pixel_mm=2.0",
    "optim.batch=4", "bfloat16=false",
)  # fmt: skip
ON_GPU = ("crop.slices=16", "crop.height=256", "crop.width=256", "optim.batch=32")
HELD_OUT = ("split.folds=10",)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    made = parser(TITLE)
    made.add_argument("--device", default="auto", help="auto, cpu or cuda")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    made.add_argument("--threads", type=int, help="of the reader; default: lumbar's own")
    made.add_argument("--steps", type=int, default=12, help="timed steps of each round")
    return made.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show the table and write the files that were asked for."""
    options = parse_arguments(arguments)
    device = resolve_device(options.device)
    options.threads = options.threads or default_threads(device)
    usual = ON_GPU if device.type == "cuda" else ON_CPU
    config = resolve_config(
        SeriesType.SAGITTAL_T2, overrides=[*HELD_OUT, *usual, f"seed={options.seed}", *options.set]
    )
    context = describe(config, device, options)
    with tempfile.TemporaryDirectory(prefix="lumbar-train-") as folder:
        steps = READY + max(options.steps, PROFILED_STEPS) + 1
        studies = -(-steps * config.optim.batch * config.split.folds // (config.split.folds - 1))
        say(f"writing {studies} volumes")
        cache = write_volumes(Path(folder, "cache"), studies=studies, seed=options.seed)
        task = LoopTask(cache, config, device, options.threads)
        found = all_rows(task, steps=options.steps, repeats=options.repeats)
        collect(found, context, options, title=TITLE)


def all_rows(task: LoopTask, *, steps: int, repeats: int) -> Iterator[ResultRow]:
    """Measure the loops, and on a GPU what it does in lumbar's."""
    lumbar, bare = _rounds(task, steps=steps, repeats=repeats)
    rates = [[one.images_per_second for one in loop] for loop in (lumbar, bare)]
    yield row("ratio_to_bare_loop", Spread.of_ratios(*rates), "times", target=TARGET)
    yield row("lumbar/images_per_second", Spread.of(rates[0]), "images/s")
    yield row("bare/images_per_second", Spread.of(rates[1]), "images/s")
    yield row("lumbar/step", Spread.of([1000 * one.seconds for one in lumbar]), "ms")
    yield row("bare/step", Spread.of([1000 * one.seconds for one in bare]), "ms")
    work = [[one.cpu_seconds for one in loop] for loop in (lumbar, bare)]
    yield row("cpu_time_to_bare_loop", Spread.of_ratios(*work), "times")
    yield row("lumbar/cpu_time_a_step", Spread.of(work[0]).times(1000), "CPU ms")
    yield row("bare/cpu_time_a_step", Spread.of(work[1]).times(1000), "CPU ms")
    if task.device.type == "cuda":
        yield from _gpu_rows(task, lumbar, repeats)


def _rounds(task: LoopTask, *, steps: int, repeats: int) -> tuple[list[Timed], list[Timed]]:
    """Time both loops in turn, every other round the other way about."""
    lumbar, bare = [], []
    for number in range(repeats):
        if number % 2:
            bare.append(time_bare(task, steps=steps))
        lumbar.append(time_lumbar(task, steps=steps))
        if not number % 2:
            bare.append(time_bare(task, steps=steps))
        say(
            f"round {number + 1}: lumbar {lumbar[-1].images_per_second:.1f}, "
            f"bare {bare[-1].images_per_second:.1f} images/s"
        )
    return lumbar, bare


def _gpu_rows(task: LoopTask, lumbar: Sequence[Timed], repeats: int) -> Iterator[ResultRow]:
    flops = flops_a_step(task)
    yield row("lumbar/flops_a_step", Spread.of([flops / 1e12]), "TFLOP")
    peak = peak_of(task.device)
    if peak is not None and task.config.bfloat16:
        yield mfu_row(flops, [one.seconds for one in lumbar], peak)
    shares = [100 * share_outside_kernels(task) for _ in range(repeats)]
    yield row("lumbar/time_outside_kernels", Spread.of(shares), "%")


def mfu_row(flops: int, seconds: Sequence[float], peak: Peak) -> ResultRow:
    """Return the share of the device's peak: operations a step over its time and the peak."""
    shares = [100 * flops / one / (1e12 * peak.tflops) for one in seconds]
    more = {"peak_tflops": peak.tflops, "peak_source": peak.source}
    return row("lumbar/mfu", Spread.of(shares), "%", **more)


def describe(
    config: RunConfig, device: torch.device, options: argparse.Namespace
) -> dict[str, Any]:
    """Return what is needed to read the numbers again; no path, no host."""
    machine = describe_machine(device)
    named = [f"--device {device.type} --threads {options.threads} --repeats {options.repeats}"]
    named += [f"--steps {options.steps} --seed {options.seed}"]
    named += [f"--set {value}" for value in options.set]
    crop = config.crop
    return machine | {
        "gpu": machine["gpu"] or "not measured: no GPU",
        "command": " ".join(["python benchmarks/train.py", *named]),
        "seed": options.seed,
        "repeats": options.repeats,
        "torch_threads": torch.get_num_threads(),
        "volumes": " x ".join(map(str, SHAPE_DHW)),
        "backbone": config.model.backbone,
        "batch": f"{config.optim.batch} x {crop.slices} x {crop.height} x {crop.width}",
        "dtype": "bfloat16" if config.bfloat16 else "float32",
        "compile": config.compile,
    }
