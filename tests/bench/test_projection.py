"""The model of the full data set: shown arithmetic that comes to the value, and no invented 0."""

import math
import re
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.bench.projection import FILES, SERIES, STUDIES, MeasuredRates, project
from lumbar.cache.names import SeriesType

UNITS = {
    "preprocess": "s",
    "cache_size": "GB",
    "trained_volumes": "GB",
    "epoch": "s",
    "run": "s",
    "hours": "h",
    "cost": "in the price's currency",
    "node_volumes": "volumes/s",
    "node_readers": "readers",
    "node_cores": "cores",
}
NEEDS = {
    "preprocess": {"files_per_second"},
    "cache_size": set(),
    "trained_volumes": set(),
    "epoch": {"training_volumes_per_second"},
    "run": {"training_volumes_per_second"},
    "hours": {"files_per_second", "training_volumes_per_second"},
    "cost": {"files_per_second", "training_volumes_per_second", "price_per_hour"},
    "node_volumes": {"ceiling_volumes_per_second"},
    "node_readers": {"ceiling_volumes_per_second", "reader_volumes_per_second"},
    "node_cores": {"ceiling_volumes_per_second", "reader_volumes_per_second"},
}
OPTIONAL = [field.name for field in fields(MeasuredRates) if "None" in field.type]

rate = st.floats(0.01, 1e6)
all_measured = st.builds(
    MeasuredRates,
    series_type=st.sampled_from(sorted(SERIES)),
    epochs=st.integers(1, 500),
    folds=st.integers(2, 10),
    files_per_second=rate,
    preprocess_workers=st.integers(0, 256),
    bytes_per_slice=st.floats(100, 4e6),
    profile=st.sampled_from(["fast", "archive"]),
    slices_per_series=st.floats(1, 200),
    voxel_bytes_per_slice=st.floats(100, 4e6),
    training_volumes_per_second=rate,
    ceiling_volumes_per_second=rate,
    reader_volumes_per_second=rate,
    reader_threads=st.integers(1, 64),
    cores=st.integers(1, 256),
    price_per_hour=st.floats(0.01, 100),
)


@pytest.fixture(scope="module")
def measured():
    return MeasuredRates(
        series_type=SeriesType.SAGITTAL_T2,
        epochs=30,
        folds=5,
        files_per_second=1160.0,
        preprocess_workers=2,
        bytes_per_slice=147456.0,
        profile="fast",
        slices_per_series=17.25,
        voxel_bytes_per_slice=294912.0,
        training_volumes_per_second=210.0,
        ceiling_volumes_per_second=2100.0,
        reader_volumes_per_second=1300.0,
        reader_threads=2,
        cores=16,
        price_per_hour=2.5,
    )


def by_name(rates):
    return {line.name: line for line in project(rates)}


def evaluate(arithmetic):
    """Compute what stands before the equals sign, units and all."""
    terms = arithmetic.partition(": ")[2] or arithmetic
    terms = terms.partition(" = ")[0].replace(",", "").replace(" x ", " * ")
    terms = re.sub(r"[a-z]+/s\b|(?<![\d.])[a-z]+\b", "", terms)
    return eval(terms, {"__builtins__": {}})


def test_counts_are_those_of_the_data_set():
    assert (STUDIES, sum(SERIES.values()), FILES) == (1975, 6294, 147218)


def test_arithmetic_by_hand(measured):
    lines = by_name(measured)
    assert {name: line.arithmetic for name, line in lines.items()} == {
        "preprocess": "147,218 files / 1,160 files/s = 126.9 s",
        "cache_size": "147,218 slices x 147,456 bytes = 21.71 GB",
        "trained_volumes": "1,974 series x 17.25 slices x 294,912 bytes = 10.04 GB",
        "epoch": "4 of 5 folds of 1,974 series: 1,579 series / 210 volumes/s = 7.519 s",
        "run": "30 epochs x 7.519 s = 225.6 s",
        "hours": "(126.9 s + 225.6 s) / 3,600 s = 0.09791 h",
        "cost": "0.09791 h x 2.5 an hour = 0.2448",
        "node_volumes": "8 x 2,100 volumes/s = 16,800 volumes/s",
        "node_readers": "16,800 volumes/s / 1,300 volumes/s = 12.92, rounded up",
        "node_cores": "13 readers x 2 threads = 26 cores; too many for this machine, which has 16",
    }
    assert lines["node_readers"].value == 13
    assert lines["cache_size"].value == pytest.approx(21.708, abs=0.001)


def test_cores_that_suffice_are_no_warning(measured):
    cores = by_name(replace(measured, cores=26))["node_cores"]
    assert cores.arithmetic.endswith("= 26 cores; this machine has 26")


@given(all_measured)
def test_value_is_what_the_arithmetic_comes_to(rates):
    lines = by_name(rates)
    assert {name: line.unit for name, line in lines.items()} == UNITS
    for name, line in lines.items():
        shown = evaluate(line.arithmetic)
        if line.unit == "GB":
            shown /= 1e9
        if name == "node_readers":
            wanted = lines["node_volumes"].value / rates.reader_volumes_per_second
            assert shown == pytest.approx(wanted, rel=2e-3)
            assert line.value == math.ceil(wanted)
        else:
            assert line.value == pytest.approx(shown, rel=2e-3)


@given(all_measured, st.sets(st.sampled_from(OPTIONAL)))
def test_what_is_missing_is_none_and_says_so(rates, missing):
    known = by_name(rates)
    for name, line in by_name(replace(rates, **dict.fromkeys(missing))).items():
        if NEEDS[name] & missing:
            assert line.value is None
            assert re.match("not (measured|stated): .*--", line.arithmetic)
            assert "=" not in line.arithmetic
        else:
            assert line.value > 0
            assert line == known[name]


def test_free_machine_costs_nothing(measured):
    assert by_name(replace(measured, price_per_hour=0.0))["cost"].value == 0
