"""``bench.json`` is read and checked; the schema of the docs is the one of the code."""

import json
from copy import deepcopy
from pathlib import Path

import pytest

from lumbar.bench.measure.spread import Spread
from lumbar.bench.projection import ProjectionLine
from lumbar.bench.report.schema import json_schema, read_bench, schema_text
from lumbar.cache.errors import InputError, MissingError

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
    "projection": [
        {"name": "cost", "label": "cost", "arithmetic": "not stated", "value": None, "unit": "h"}
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


@pytest.fixture
def read(tmp_path):
    """Write a document, or text, and read it."""

    def write_and_read(document):
        path = tmp_path / "bench.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return read_bench(path)

    return write_and_read


def test_whole_file_is_read(read):
    bench = read(WHOLE)
    assert bench.context.cores == 2
    assert bench.context.model_extra == {"batch": 16, "run_config": {"optim": {"lr": 5e-4}}}
    assert bench.results[1].value is None
    assert bench.results[2].model_extra == {"workers": 2}
    assert bench.alternatives[0].volumes_per_second == Spread(2.0, 1.0, 3.0)
    assert bench.projection[0] == ProjectionLine("cost", "cost", "not stated", None, "h")
    assert bench.timeline[0].model_extra == {"cpu_percent": 50.0, "gpu_percent": None}


def test_file_of_a_script_is_read(read):
    bench = read({"context": CONTEXT, "results": [RESULT | {"wanted": None, "label": "lumbar"}]})
    assert (bench.verdicts, bench.projection, bench.timeline) == ([], [], [])


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("context.cores", "two", "context.cores in"),
        ("context.versions", None, "context.versions in"),
        ("results", {}, "results in"),
        ("results.0.name", "", "at least 1 character"),
        ("results.0.value", "fast", "results.0.value in .*valid number"),
        ("results.0.value", True, "results.0.value in"),
        ("results.0.value", 10**400, "results.0.value in"),
        ("results.0.value", None, "no spread where nothing was measured"),
        ("results.0.low", None, "low and high, or neither"),
        ("results.0.low", 400.0, "low not above high"),
        ("results.0.met", False, "met only where there are a target and a value"),
        ("results.0.met", 0, "results.0.met in"),
        ("results.0.name", "gpu_utilisation", "each name once, not gpu_utilisation twice"),
        ("verdicts.0.bound", "disk", "'input', 'compute', 'host' or 'drawing'"),
        ("verdicts.0.why", "x", "verdicts.0.why in"),
        ("projection.0.value", "x", "projection.0.value in"),
        ("timeline.0.cpu_percent", "x", "timeline.0.cpu_percent in"),
        ("verdict", [], "verdict in"),
    ],
)
def test_wrong_value_is_named(read, path, value, complaint):
    with pytest.raises(InputError, match=complaint):
        read(changed(path, value))


@pytest.mark.parametrize("key", ["context", "results"])
def test_file_without_context_or_results_is_refused(read, key):
    with pytest.raises(InputError, match=f"not a benchmark's file: {key} in .*Field required"):
        read({name: value for name, value in WHOLE.items() if name != key})


@pytest.mark.parametrize("text", ["", "{", "# Results", "\ud7ff" + chr(0), "[" * 100_000])
def test_what_is_no_json_is_refused(read, text):
    with pytest.raises(InputError, match="benchmark file that cannot be read"):
        read(text)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"'])
def test_other_json_is_refused(read, text):
    with pytest.raises(InputError, match="not a benchmark's file"):
        read(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("path", ["results.0.value", "results.2.workers", "timeline.0.cpu_percent"])
def test_number_that_is_not_finite_is_refused(read, path, number):
    with pytest.raises(InputError, match=f"not finite, {number}"):
        read(json.dumps(changed(path, "HERE")).replace('"HERE"', number))


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingError, match=r"no such benchmark file: .*absent.json"):
        read_bench(tmp_path / "absent.json")
    with pytest.raises(InputError, match=r"cannot be read: .*directory"):
        read_bench(tmp_path)


def test_schema_of_the_docs_is_the_one_of_the_code():
    assert SCHEMA.read_text() == schema_text()
    assert json.loads(SCHEMA.read_text()) == json_schema()


def test_schema_names_what_every_file_has():
    schema = json_schema()
    assert schema["required"] == ["context", "results"]
    result = schema["$defs"]["Result"]
    assert set(result["required"]) == {"name", "value", "unit", "target", "met"}
