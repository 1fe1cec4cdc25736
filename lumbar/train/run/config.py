"""The configuration of a run: defaults < ``run.toml`` < ``--set``; unknown keys are refused."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lumbar.cache.errors import InputError, MissingError, expected_value
from lumbar.cache.names import SeriesType
from lumbar.train.locator.config import LocatorConfig
from lumbar.train.loss import LossConfig
from lumbar.train.loss.kinds import SOFTMAX_KINDS, loss_kind
from lumbar.train.model.config import ModelConfig
from lumbar.train.optim import FinishConfig, OptimConfig
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.folds import SplitConfig
from lumbar.train.plan.order import SamplingConfig

EPOCHS = "optim.epochs"
"""The one setting that a resumed run may change."""

STUDY = "study"
"""In the place of a series type: the model of whole studies."""


class RunConfig(BaseModel):
    """Everything that decides what a run computes.

    ``series`` is the type of the series that a sample is, or ``study``: then a sample is a whole
    study with its series of all ``study_types``. ``discs`` makes every disc of a series a sample.
    ``compile`` has torch compile the training step's model, which pays in long runs on a GPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    series: SeriesType | Literal["study"]
    study_types: tuple[SeriesType, ...] = Field(
        (SeriesType.SAGITTAL_T1, SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2), min_length=1
    )
    discs: bool = False
    seed: int = Field(0, ge=0)
    bfloat16: bool = True
    compile: bool = False
    split: SplitConfig = SplitConfig()
    crop: CropConfig = CropConfig()
    locator: LocatorConfig = LocatorConfig()
    sampling: SamplingConfig = SamplingConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    finish: FinishConfig = FinishConfig()

    @property
    def sample(self) -> Literal["series", "disc", "study"]:
        """What one sample is."""
        if self.series == STUDY:
            return "study"
        return "disc" if self.discs else "series"

    @property
    def series_types(self) -> tuple[SeriesType, ...]:
        """The types that a sample's series may have."""
        return self.study_types if self.series == STUDY else (self.series_type,)

    @property
    def series_type(self) -> SeriesType:
        """The one type of a model of single series or discs."""
        assert self.series != STUDY, "a model of studies has several types"
        return SeriesType(self.series)

    @property
    def epochs(self) -> int:
        """The epochs of all phases."""
        return self.optim.epochs + self.finish.epochs

    @model_validator(mode="after")
    def _check_together(self) -> RunConfig:
        if self.discs and self.series == STUDY:
            msg = "discs are those of one series type, so series cannot be study with them"
            raise ValueError(msg)
        if self.optim.patience and self.finish.epochs:
            msg = "a run with a second phase has no optim.patience: its end is known"
            raise ValueError(msg)
        losses = [self.loss, self.finish.loss][: 2 if self.finish.epochs else 1]
        for loss in losses:
            loss.check_samples(self.series_types, discs=self.discs)
        if len({(loss_kind(loss).log_probabilities, loss.conditions) for loss in losses}) > 1:
            msg = (
                "finish.loss must make the same probabilities of the same cells as loss: equal "
                f"conditions, and equal kinds or both of {', '.join(SOFTMAX_KINDS)}"
            )
            raise ValueError(msg)
        return self

    def to_toml(self) -> str:
        """Return the resolved configuration as a ``run.toml``."""
        return tomli_w.dumps(self.model_dump(mode="json"))


SERIES_DEFAULTS: dict[str, dict[str, Any]] = {
    SeriesType.SAGITTAL_T1: {},
    SeriesType.SAGITTAL_T2: {},
    SeriesType.AXIAL_T2: {
        "crop": {"slices": 32, "pixel_mm": 0.6},
        "locator": {"slices": 48, "height": 80, "width": 80},
    },
    STUDY: {"crop": {"pixel_mm_of": {"axial_t2": 0.6}}, "optim": {"batch": 4}},
}
"""Series types whose defaults differ from the classes above. Axial series have many slices and a
small field of view."""


def trained_on(name: str) -> SeriesType | Literal["study"]:
    """Parse ``--series``: a series type or ``study``; raise `InputError` for another name."""
    if name == STUDY:
        return "study"
    if name not in SERIES_DEFAULTS:
        raise _unknown_type(name, list(SERIES_DEFAULTS))
    return SeriesType(name)


def trained_type(name: str) -> SeriesType:
    """Return the series type of a name; raise `InputError` unless a model can be trained on it."""
    types = [kind for kind in SERIES_DEFAULTS if kind != STUDY]
    if name not in types:
        raise _unknown_type(name, types)
    return SeriesType(name)


def _unknown_type(name: str, known: Sequence[str]) -> InputError:
    return InputError(
        what="unknown series type",
        where="--series",
        got=name,
        expected=f"one of {', '.join(known)}",
        cure="name one of them",
    )


def resolve_config(
    series: SeriesType | Literal["study"],
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Return the configuration of a run.

    ``overrides`` are dotted assignments such as ``optim.lr=3e-4``; a value that is no TOML is text.

    Raises
    ------
    MissingError, InputError
        If the file is absent or no TOML, or a key is unknown or a value out of bounds.
    """
    series = trained_on(series)
    values = merged({"series": str(series)}, SERIES_DEFAULTS[series])
    if file is not None:
        values = merged(values, read_toml(file))
    for override in overrides:
        values = merged(values, _parse_override(override))
    if values["series"] != series:
        raise InputError(
            what="the configuration is of another series type",
            where=file or "--set",
            got=values["series"],
            expected=f"{series}, which --series names",
            cure="name the same type in both places",
        )
    return validated(values, where=f"{file}" if file else "the run configuration")


def resumed_config(file: Path, overrides: Sequence[str]) -> RunConfig:
    """Return the configuration of a resumed run: its own, apart from ``optim.epochs``.

    Raises
    ------
    MissingError, InputError
        As `read_config`, or if another key is to be set: it would make another run.
    """
    config = read_config(file)
    values: dict[str, Any] = {}
    for override in overrides:
        values = merged(values, _parse_override(override))
    others = [key for key in _dotted(values) if key != EPOCHS]
    if others:
        raise InputError(
            what="a resumed run keeps its configuration",
            where="--set with --resume",
            got=", ".join(others),
            expected=f"{EPOCHS} alone",
            cure="leave it out, or start another run",
        )
    return validated(merged(config.model_dump(mode="json"), values), where=file)


def _dotted(values: dict[str, Any], above: str = "") -> list[str]:
    """Return the keys of nested tables as ``--set`` names them."""
    return [
        dotted
        for key, value in values.items()
        for dotted in (
            _dotted(value, f"{above}{key}.") if isinstance(value, dict) else [f"{above}{key}"]
        )
    ]


def read_config(file: Path) -> RunConfig:
    """Return the resolved configuration that a run saved.

    Raises
    ------
    MissingError, InputError
        If the file is absent or no TOML, or a key is unknown or a value out of bounds.
    """
    if not file.is_file():
        raise MissingError(
            what="this folder holds no run",
            where=file.parent,
            got=f"no {file.name} in it" if file.parent.is_dir() else "no such folder",
            expected="a folder that `lumbar train` made",
            cure="name another folder, or start a run",
        )
    return validated(read_toml(file), where=file)


def validated(values: dict[str, Any], *, where: object) -> RunConfig:
    """Check values against `RunConfig`; raise `InputError` for the first that does not fit."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        unknown = first["type"] == "extra_forbidden"
        raise InputError(
            what="unknown key" if unknown else "value of a key",
            where=f"{'.'.join(path)} in {where}",
            got=repr(path[-1] if unknown else first["input"]),
            expected=f"one of {_known_keys(path[:-1])}"
            if unknown
            else expected_value(first["msg"]),
            cure="correct it in the file or with --set",
        ) from error


def _known_keys(path: list[str]) -> str:
    model: type[BaseModel] = RunConfig
    for part in path:
        annotation = model.model_fields[part].annotation
        assert isinstance(annotation, type)
        model = annotation
    return ", ".join(model.model_fields)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``over``, table by table."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result


def read_toml(file: Path) -> dict[str, Any]:
    """Return the content of a TOML file; raise `MissingError` or `InputError` if it is not one."""
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise MissingError(
            what="no such configuration file",
            where=file,
            got="nothing",
            expected="a TOML file, such as the config.toml of a run",
            cure="name one that is there",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            what="configuration file that cannot be read",
            where=file,
            got=error,
            expected="TOML, such as the config.toml of a run",
            cure="correct the file",
        ) from error


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(
            what="a setting without a value",
            where="--set",
            got=repr(override),
            expected="KEY=VALUE, such as optim.lr=3e-4",
            cure="write key, equals sign and value without spaces",
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return dict(value)
