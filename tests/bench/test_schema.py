"""The schema in the docs is that of the model, and the model refuses wrong files."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
from bench.schema import BenchFile, json_schema, schema_text
from pydantic import ValidationError

from lumbar.bench.measure.spread import Spread

SCHEMA = Path(__file__).parents[2] / "docs" / "bench.schema.json"

CONTEXT = {
    "date": "2026-11-24T04:01:37+00:00",
    "cpu": "AMD EPYC",
    "cores": 2,
    "gpu": None,
    "versions": {"lumbar": "0.1.0"},
    "seed": 0,
    "batch": 16,
    "run_config": {"optim": {"lr": 5e-4}},
}
RESULT = {
    "name": "lumbar_disk_2_threads/alone/volumes_per_second",
    "value": 310.2,
    "unit": "volumes/s",
    "target": None,
    "met": None,
    "low": 301.7,
    "high": 316.0,
}
SPREAD = {"value": 2.0, "low": 1.0, "high": 3.0}
WHOLE = {
    "context": CONTEXT,
    "results": [
        RESULT,
        {"name": "gpu_utilisation", "value": None, "unit": "%", "target": 98.0, "met": None},
        RESULT | {"name": "ratio", "value": 4, "target": 4, "met": True, "workers": 2, "low": 4},
    ],
    "verdicts": [
        {"step": "end_to_end", "bound": "input", "au": 0.5, "stall": 0.4, "host": 0.1}
        | {"text": "Input-bound.", "advice": "Next: --threads 4."}
    ],
    "alternatives": [
        {"setting": "--threads 4", "step": "end_to_end", "gain": 1.5}
        | {"volumes_per_second": SPREAD, "ceiling_volumes_per_second": SPREAD}
    ],
    "timeline": [{"seconds": 0.1, "cpu_percent": 50.0, "gpu_percent": None}],
    "marks": [{"seconds": 0.0, "label": "replayed batch"}],
}


def changed(path, value):
    """Return the whole document with one value changed; "results.0.unit" is its unit."""
    document = deepcopy(WHOLE)
    *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner = document
    for part in above:
        inner = inner[part]
    inner[last] = value
    return document


def test_whole_file_is_read():
    bench = BenchFile.model_validate(WHOLE)
    assert bench.context.model_extra == {"batch": 16, "run_config": {"optim": {"lr": 5e-4}}}
    assert bench.results[1].value is None
    assert bench.results[2].model_extra == {"workers": 2}
    assert bench.alternatives[0].volumes_per_second == Spread(2.0, 1.0, 3.0)
    assert bench.timeline[0].model_extra == {"cpu_percent": 50.0, "gpu_percent": None}


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("context.cores", "two", "context.cores"),
        ("context.versions", None, "context.versions"),
        ("results", {}, "results"),
        ("results.0.name", "", "at least 1 character"),
        ("results.0.value", True, "results.0.value"),
        ("results.0.value", float("inf"), "results.0.value"),
        ("results.0.value", None, "no spread where nothing was measured"),
        ("results.0.low", None, "low and high, or neither"),
        ("results.0.low", 400.0, "low not above high"),
        ("results.0.met", False, "met only where there are a target and a value"),
        ("results.0.wanted", "above", "'at least', 'at most' or 'below'"),
        ("results.0.name", "gpu_utilisation", "each name once, not gpu_utilisation twice"),
        ("verdicts.0.bound", "disk", "'input', 'compute', 'host' or 'drawing'"),
        ("verdicts.0.why", "x", "verdicts.0.why"),
        ("timeline.0.cpu_percent", "x", "timeline.0.cpu_percent"),
        ("projection", [], "projection"),
    ],
)
def test_wrong_value_is_named(path, value, complaint):
    with pytest.raises(ValidationError, match=complaint):
        BenchFile.model_validate(changed(path, value))


def test_schema_of_the_docs_is_the_one_of_the_code():
    assert SCHEMA.read_text() == schema_text()
    assert json.loads(SCHEMA.read_text()) == json_schema()


def test_schema_names_what_every_file_has():
    schema = json_schema()
    assert schema["required"] == ["context", "results"]
    result = schema["$defs"]["Result"]
    assert set(result["required"]) == {"name", "value", "unit", "target", "met"}
