"""The configuration of a sweep, ``sweep.toml``, and that of the run of each trial."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from lumbar.cache.errors import InputError, expected_value
from lumbar.train.run.config import (
    SERIES_DEFAULTS,
    RunConfig,
    merged,
    read_toml,
    trained_on,
    validated,
)

FIXED = ("series", "study_types", "split")
"""Keys that decide what is held out: scores of other studies cannot be compared."""

KINDS = ("float", "int", "choices")


class FloatRange(BaseModel):
    """``{ float = [low, high] }``: any number between, sampled evenly, or by its logarithm."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bounds: tuple[float, float] = Field(alias="float")
    log: bool = False

    @model_validator(mode="after")
    def _check_bounds(self) -> FloatRange:
        _check_ascending(self.bounds, log=self.log)
        return self


class IntRange(BaseModel):
    """``{ int = [low, high] }``: whole numbers, both ends with them, every ``step`` of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bounds: tuple[int, int] = Field(alias="int")
    log: bool = False
    step: PositiveInt = 1

    @model_validator(mode="after")
    def _check_bounds(self) -> IntRange:
        _check_ascending(self.bounds, log=self.log)
        if self.log and self.step != 1:
            msg = "a range by its logarithm has no step"
            raise ValueError(msg)
        return self


class Choices(BaseModel):
    """``{ choices = [...] }``: one of some values; lists and tables are values too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    choices: tuple[Any, ...] = Field(min_length=1)

    @property
    def by_label(self) -> dict[str | bool | int | float, Any]:
        """The values by what a storage can hold of them: lists and tables as text."""
        return {
            value
            if isinstance(value, str | bool | int | float)
            else json.dumps(value, default=str): value
            for value in self.choices
        }

    @model_validator(mode="after")
    def _check_different(self) -> Choices:
        if len(self.by_label) < len(self.choices):
            msg = "choices that differ"
            raise ValueError(msg)
        return self


def _check_ascending(bounds: tuple[float, float] | tuple[int, int], *, log: bool) -> None:
    low, high = bounds
    if low >= high:
        msg = "[low, high] with low below high"
        raise ValueError(msg)
    if log and low <= 0:
        msg = "a low end above 0, since the range is by its logarithm"
        raise ValueError(msg)


def _kind(value: object) -> str | None:
    """Return which kind of distribution a table in ``[search]`` describes."""
    match value:
        case FloatRange():
            return "float"
        case IntRange():
            return "int"
        case Choices():
            return "choices"
    named = [kind for kind in KINDS if isinstance(value, dict) and kind in value]
    return named[0] if len(named) == 1 else None


def _by_dotted_key(search: object) -> object:
    """Return ``[search]`` by dotted keys: TOML reads an unquoted ``optim.lr`` as nested tables."""
    return dict(_flat(search, "")) if isinstance(search, dict) else search


def _flat(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


Distribution = Annotated[
    Annotated[FloatRange, Tag("float")]
    | Annotated[IntRange, Tag("int")]
    | Annotated[Choices, Tag("choices")],
    Discriminator(
        _kind,
        custom_error_type="distribution",
        custom_error_message=(
            "a table with one of float = [low, high], int = [low, high], choices = [...]"
        ),
    ),
]


class SweepConfig(BaseModel):
    """A sweep: what all runs share, what is searched, for how long, and who chooses.

    ``trials`` are all trials of the sweep, also when it is run again; ``hours`` are those of one
    command, whose last trial is finished. ``run`` holds keys of a run's configuration. The median
    pruner ends a trial whose best score is worse than the median of the trials before it at the
    same epoch, after ``prune_after_epochs`` epochs and ``prune_after_trials`` trials; hyperband
    ends most trials at few epochs, and gives each third that is left three times as many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    series: str
    trials: PositiveInt = 30
    hours: float | None = Field(None, gt=0)
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    prune_after_epochs: PositiveInt = 3
    prune_after_trials: NonNegativeInt = 5
    seed: NonNegativeInt = 0
    run: dict[str, Any] = {}
    search: Annotated[dict[str, Distribution], BeforeValidator(_by_dotted_key)] = Field(
        min_length=1
    )

    @field_validator("series")
    @classmethod
    def _check_known(cls, series: str) -> str:
        if series not in SERIES_DEFAULTS:
            msg = f"one of {', '.join(SERIES_DEFAULTS)}"
            raise ValueError(msg)
        return series

    @field_validator("run")
    @classmethod
    def _check_series(cls, run: dict[str, Any]) -> dict[str, Any]:
        if "series" in run:
            msg = "no series in it: it stands at the top of the file"
            raise ValueError(msg)
        return run

    @field_validator("search")
    @classmethod
    def _check_comparable(cls, search: dict[str, Distribution]) -> dict[str, Distribution]:
        fixed = [key for key in search if key.split(".")[0] in FIXED]
        if fixed:
            msg = (
                f"keys that leave the held-out studies as they are; with {', '.join(fixed)} "
                "scores cannot be compared"
            )
            raise ValueError(msg)
        return search

    @property
    def base(self) -> RunConfig:
        """The configuration of a run before anything is searched."""
        return self.run_config({})

    def run_config(self, values: dict[str, Any]) -> RunConfig:
        """Return the configuration of the run with these values, by dotted key.

        Raises
        ------
        InputError
            If a key is unknown, a value out of bounds, or some exclude each other.
        """
        series = trained_on(self.series)
        keys = merged({"series": str(series)}, SERIES_DEFAULTS[series])
        keys = merged(keys, self.run)
        for key, value in values.items():
            keys = merged(keys, _nested(key, value))
        return validated(keys, where="[run] and [search] of the sweep")

    def values_of(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a trial's parameters, of which a storage holds labels."""
        return {key: _value(self.search[key], label) for key, label in params.items()}

    @property
    def most_epochs(self) -> int:
        """The epochs of the longest trial."""
        base = self.base
        return sum(
            self._largest(key, otherwise)
            for key, otherwise in (
                ("optim.epochs", base.optim.epochs),
                ("finish.epochs", base.finish.epochs),
            )
        )

    def _largest(self, key: str, otherwise: int) -> int:
        """Return the largest value that a key of whole numbers may have."""
        match self.search.get(key):
            case Choices(choices=values):
                return int(max(values))
            case FloatRange(bounds=(_, high)) | IntRange(bounds=(_, high)):
                return int(high)
        return otherwise


def read_sweep(file: Path) -> SweepConfig:
    """Read a ``sweep.toml``.

    Raises
    ------
    MissingError, InputError
        If it is absent or no TOML, a key is unknown, or a value is out of bounds.
    """
    try:
        config = SweepConfig.model_validate(read_toml(file))
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"] if part not in KINDS]
        what, got, expected = "value of a key", repr(first["input"]), expected_value(first["msg"])
        if first["type"] == "extra_forbidden":
            what, got, expected = "unknown key", repr(path[-1]), "a key of a sweep"
        elif first["type"] == "missing":
            what, got, expected = "missing key", "a file without it", "series and search at least"
        raise InputError(
            what=what,
            where=f"{'.'.join(path)} in {file}",
            got=got,
            expected=expected,
            cure="correct the file; docs/sweeps.md has every key",
        ) from error
    known = config.base.model_dump()
    for key in config.search:
        _check_key(key, known, where=file)
    return config


def _check_key(key: str, known: Any, *, where: Path) -> None:
    """Raise `InputError` unless a dotted key is one of a run's configuration."""
    for part in key.split("."):
        if not isinstance(known, dict) or (known and part not in known):
            raise InputError(
                what="unknown key to search",
                where=f"{key} in {where}",
                got=repr(part),
                expected=f"one of {', '.join(known)}" if isinstance(known, dict) else "no more",
                cure="docs/configuration.md has every key of a run",
            )
        if not known:  # an open table, such as crop.pixel_mm_of
            return
        known = known[part]


def _value(distribution: Distribution, label: Any) -> Any:
    return distribution.by_label[label] if isinstance(distribution, Choices) else label


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)
