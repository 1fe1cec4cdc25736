"""Options that several commands share, and errors for options that do not fit together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from lumbar.cache.errors import InputError, expected_value
from lumbar.cache.names import SeriesType
from lumbar.display.terminal import say_warning
from lumbar.train.telemetry.cpu import usable_cores

if TYPE_CHECKING:
    from lumbar.cache.store import Cache

Config = TypeVar("Config")

Part = Literal["train", "test"]
CacheOption = Annotated[Path, typer.Option("--cache", help="Folder that preprocess made.")]
RunCacheOption = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder that preprocess made; default the runs' own, or cache."),
]
CacheArgument = Annotated[Path, typer.Argument(help="Folder that preprocess made.")]
WorkersOption = Annotated[
    int, typer.Option(min=0, help="Worker processes; 0 works in this process.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Threads of the reader; by default all cores for a GPU, else a quarter of them."
    ),
]
TierOption = Annotated[
    Literal["auto", "disk", "device"],
    typer.Option(help="Where volumes lie: read from disk, or loaded to the device once."),
]
DrawOption = Annotated[
    Literal["auto", "cpu", "gpu"],
    typer.Option(help="Where pixels are drawn: by the compiled pass, or by DALI on the GPU."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
CORES = usable_cores()
"""The cores that this process may use: the default of ``--workers``."""


def checked(model: type[Config], values: dict[str, Any]) -> Config:
    """Build a configuration from options; raise `InputError` for the first wrong one."""
    from pydantic import ValidationError

    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        # An error of several values together names none of them.
        names = [str(part) for part in first["loc"][:1]] or [key for key in values if values[key]]
        raise InputError(
            what="value of an option" if first["loc"] else "options that do not fit together",
            where=", ".join("--" + name.replace("_", "-") for name in names),
            got=", ".join(str(values[name]) for name in names),
            expected=expected_value(first["msg"]),
            cure="see --help of the command",
        ) from error


def threads_for(threads: int | None, device: str) -> int:
    """Return the reader's threads: ``threads``, or the default of a device."""
    from lumbar.train.reader.placement import default_threads
    from lumbar.train.run.device import resolve_device

    return threads or default_threads(resolve_device(device))


def warn_of_idle_gpu(device: str) -> None:
    """Warn if ``--device auto`` uses the CPU although there is an NVIDIA GPU."""
    from lumbar.train.run.device import find_idle_gpu

    found = find_idle_gpu(device)
    if found is not None:
        say_warning(f"the CPU is used: {found}; `lumbar doctor` checks the machine")


def unclear(command: Callable[..., None], got: str, expected: str) -> InputError:
    """Return the error of options that leave open what to do."""
    where = f"lumbar {command.__name__}"
    what = f"cannot tell what to {command.__name__}"
    return InputError(
        what=what, where=where, got=got, expected=expected, cure=f"see {where} --help"
    )


def series_to_train(cache: Cache) -> str | None:
    """Return a series type that a model can be trained on, None where a cache has none."""
    there = set(cache.series["series_type"])
    wanted = (SeriesType.SAGITTAL_T2, SeriesType.SAGITTAL_T1, SeriesType.AXIAL_T2)
    return next((str(kind) for kind in wanted if str(kind) in there), None)
