"""The list of checks, each with the name of its module and function.

A check imports its module only when it runs: a broken package fails only the checks that need it.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from lumbar.cache.errors import LumbarError
from lumbar.doctor.result import CheckResult, Row, failed, not_measured

Needs = Literal["nothing", "gpu", "gpus"]

NO_GPU = "no GPU"
NO_TORCH = "torch cannot list GPUs"

MAX_MESSAGE = 400
"""Characters that are kept of the message of an exception."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})

REPORT = (
    "reinstall the package in the message (uv pip install --reinstall PACKAGE) and run it again; "
    "else report it with --json FILE"
)


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the report.

    ``function`` is ``module:function``. It takes ``arguments``, after the device where it needs a
    GPU, and returns a `CheckResult`. ``cure`` is what to do if it raises.
    """

    name: str
    function: str
    needs: Needs = "nothing"
    arguments: tuple[Any, ...] = ()
    cure: str = REPORT


def facts_about(cache: Path | None) -> tuple[Check, ...]:
    """Return the checks that give facts, also about a cache if one is named."""
    here = (
        Check("versions", "lumbar.doctor.machine.facts:tell_versions"),
        Check("GPUs", "lumbar.doctor.machine.gpus:tell_gpus"),
        Check("cores and memory", "lumbar.doctor.machine.facts:tell_cores_and_memory"),
        Check("files", "lumbar.doctor.machine.facts:tell_files"),
    )
    if cache is None:
        return here
    cure = "name the folder that `lumbar preprocess` made; `lumbar verify` checks every byte"
    return *here, Check(
        "cache", "lumbar.doctor.machine.cache:tell_cache", arguments=(cache,), cure=cure
    )


DECODERS = (
    "uncompressed",
    "deflated",
    "RLE",
    "JPEG",
    "JPEG lossless",
    "JPEG-LS",
    "JPEG 2000",
    "HTJ2K",
)

CHECKS = (
    Check("open files", "lumbar.doctor.machine.limits:check_open_files"),
    Check("temporary folder", "lumbar.doctor.machine.limits:check_temporary_folder"),
    Check("shared memory", "lumbar.doctor.machine.limits:check_shared_memory"),
    *(
        Check(f"decoder, {name}", "lumbar.doctor.host.decoders:check_decoder", arguments=(name,))
        for name in DECODERS
    ),
    Check("cache written, verified", "lumbar.doctor.host.small_cache:check_cache"),
    Check(
        "compiled pass, float32",
        "lumbar.doctor.host.compiled_pass:check_compiled_pass",
        arguments=("float32",),
    ),
    Check(
        "compiled pass, bfloat16",
        "lumbar.doctor.host.compiled_pass:check_compiled_pass",
        arguments=("bfloat16",),
    ),
    Check("reader on the CPU", "lumbar.doctor.host.reading:check_reader"),
    Check("training step", "lumbar.doctor.host.training_step:check_training_step"),
    Check("GPU that torch can use", "lumbar.doctor.machine.gpus:check_usable_gpu"),
    Check("draw=cpu on the GPU", "lumbar.doctor.host.reading:check_draw_cpu", "gpu"),
    Check("draw=gpu", "lumbar.doctor.host.reading:check_draw_gpu", "gpu"),
    Check("busy GPU, 1 view", "lumbar.doctor.gpu.racing:check_busy_device", "gpu", (1,)),
    Check("busy GPU, 8 views", "lumbar.doctor.gpu.racing:check_busy_device", "gpu", (8,)),
    Check("busy GPU, 64 views", "lumbar.doctor.gpu.racing:check_busy_device", "gpu", (64,)),
    Check("copy to the GPU", "lumbar.doctor.gpu.copying:check_bandwidth", "gpu"),
    Check("copy beside kernels", "lumbar.doctor.gpu.copying:check_overlap", "gpu"),
    Check("bfloat16 step", "lumbar.doctor.gpu.step:check_bfloat16_step", "gpu"),
    Check("masked LSTM", "lumbar.doctor.gpu.step:check_masked_lstm", "gpu"),
    Check("NVML counters", "lumbar.doctor.gpu.counting:check_nvml", "gpu"),
    Check("GPM counters", "lumbar.doctor.gpu.counting:check_gpm", "gpu"),
    Check("decoder, nvImageCodec", "lumbar.doctor.host.decoders:check_gpu_decoder", "gpu"),
    Check("all-reduce", "lumbar.doctor.gpu.all_reduce:check_all_reduce", "gpus"),
)
"""In the order of the table."""


def run_check(check: Check) -> Row:
    """Run one check; an exception becomes a failure with its message."""
    started = time.perf_counter()
    try:
        result = _run(check)
    except Exception as error:
        # A machine can be broken in any way; the other checks still run.
        result = failed(_message(error), _cure(error, check))
    return Row(check.name, result, round(time.perf_counter() - started, 2))


def _run(check: Check) -> CheckResult:
    module, _, function = check.function.partition(":")
    arguments = check.arguments
    if check.needs != "nothing":
        devices = _devices()
        if devices is None:
            return not_measured(NO_TORCH)
        if not devices:
            return not_measured(NO_GPU)
        if check.needs == "gpus" and len(devices) < 2:
            return not_measured("only one GPU")
        arguments = (devices if check.needs == "gpus" else devices[0], *arguments)
    run = getattr(import_module(module), function)
    result: CheckResult = run(*arguments)
    return result


def _devices() -> list[Any] | None:
    """Return the GPUs that torch sees; None where that fails, which other checks report."""
    try:
        found: list[Any] = import_module("lumbar.doctor.machine.gpus").devices()
    except Exception:
        return None
    return found


def _cure(error: Exception, check: Check) -> str:
    """Return the check's cure, or another one where it failed only because it could not write."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            return "correct what the check of the temporary folder reports, and run it again"
        cause = cause.__cause__
    return check.cure


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, LumbarError) else f"{type(error).__name__}: "
    return f"{kind}{text}"[:MAX_MESSAGE] or type(error).__name__
