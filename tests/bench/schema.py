"""``bench.json`` as a model: what `lumbar bench` and the scripts in ``benchmarks/`` write.

``docs/bench.schema.json`` is `json_schema`; to write it anew after a change here:

    PYTHONPATH=tests python -c "from bench.schema import schema_text; print(schema_text(), end='')"
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from lumbar.bench.measure.spread import Spread
from lumbar.bench.verdict import Bound

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]

FORBID = ConfigDict(frozen=True, extra="forbid")
ALLOW = ConfigDict(frozen=True, extra="allow")


class Context(BaseModel):
    """What is needed to read the numbers again; other keys are welcome.

    ``gpu`` is null, or says why, where there was none. ``command`` has no path in it.
    """

    model_config = ALLOW
    __pydantic_extra__: dict[str, JsonValue]

    date: StrictStr
    cpu: StrictStr
    cores: StrictInt
    gpu: StrictStr | None
    versions: dict[str, StrictStr]
    seed: StrictInt
    ram_gib: Number | None = None
    load_average: Number | None = None
    gpu_driver: StrictStr | None = None
    command: StrictStr | None = None
    repeats: StrictInt | None = None
    seconds: Number | None = None
    notes: list[StrictStr] = []


class Result(BaseModel):
    """One number; other keys, such as ``workers``, are welcome.

    ``value`` is null where nothing was measured, never 0. ``low`` and ``high`` are the least and
    the greatest of the repeats. ``wanted`` and ``met`` say what the target is and whether it
    is reached, null without one.
    """

    model_config = ALLOW
    __pydantic_extra__: dict[str, JsonValue]

    name: StrictStr = Field(min_length=1)
    value: Number | None
    unit: StrictStr
    target: Number | None
    wanted: Literal["at least", "at most", "below"] | None = None
    met: StrictBool | None
    low: Number | None = None
    high: Number | None = None

    @model_validator(mode="after")
    def _numbers_agree(self) -> Result:
        if (self.low is None) != (self.high is None):
            message = "low and high, or neither"
            raise ValueError(message)
        if self.low is not None and self.high is not None and self.low > self.high:
            message = "low not above high"
            raise ValueError(message)
        if self.value is None and self.low is not None:
            message = "no spread where nothing was measured"
            raise ValueError(message)
        if self.met is not None and (self.target is None or self.value is None):
            message = "met only where there are a target and a value"
            raise ValueError(message)
        return self


class VerdictEntry(BaseModel):
    """What bounds a step behind lumbar's reader; ``au``, ``stall`` and ``host`` are shares."""

    model_config = FORBID

    step: StrictStr
    bound: Bound
    au: Number
    stall: Number
    host: Number
    text: StrictStr
    advice: StrictStr


class AlternativeEntry(BaseModel):
    """One setting changed and measured end to end; ``gain`` is how many times as fast it is."""

    model_config = FORBID

    setting: StrictStr
    step: StrictStr
    volumes_per_second: Spread
    ceiling_volumes_per_second: Spread
    gain: Number


class TimelineSample(BaseModel):
    """What the counters said, ``seconds`` after the start; null is not measured."""

    model_config = ALLOW
    __pydantic_extra__: dict[str, Number | None]

    seconds: Number


class TimelineMark(BaseModel):
    """Something that began, ``seconds`` after the start."""

    model_config = FORBID

    seconds: Number
    label: StrictStr


class BenchFile(BaseModel):
    """The whole file; `lumbar bench` writes all of it, a script of ours the first two keys."""

    model_config = FORBID

    context: Context
    results: list[Result]
    verdicts: list[VerdictEntry] = []
    alternatives: list[AlternativeEntry] = []
    timeline: list[TimelineSample] = []
    marks: list[TimelineMark] = []

    @model_validator(mode="after")
    def _names_are_unique(self) -> BenchFile:
        names = [result.name for result in self.results]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            message = f"each name once, not {min(twice)} twice"
            raise ValueError(message)
        return self


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of ``bench.json``."""
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return draft | BenchFile.model_json_schema()


def schema_text() -> str:
    """Return the schema as it stands in ``docs/bench.schema.json``: sorted and indented."""
    return json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"
