"""Every number that the benchmark writes is defined once, with its unit and its source."""

import re

import pytest

from lumbar.bench.definitions import DEFINITIONS, to_markdown
from lumbar.bench.report.rows import COUNTERS
from lumbar.bench.verdict import find_bound

BY_NAME = {definition.name: definition for definition in DEFINITIONS}


def test_each_number_is_defined_once_and_whole():
    assert len(BY_NAME) == len(DEFINITIONS)
    for definition in DEFINITIONS:
        assert definition.meaning
        assert definition.source


@pytest.mark.parametrize("counter", COUNTERS)
def test_each_counter_is_defined_in_its_unit(counter):
    name, unit, _ = COUNTERS[counter]
    assert BY_NAME[name.replace("_", " ")].unit == unit


def test_no_definition_names_a_host():
    assert re.findall(r"https?:|www\.|\.com|\.org|\.io\b", to_markdown()) == []


def test_sources_that_are_cited():
    assert "Data Stalls" in BY_NAME["data stall"].source
    assert "MLPerf Storage" in BY_NAME["AU"].source
    for definition in DEFINITIONS:
        if definition.name in {"gpu utilisation", "sm activity", "energy per volume"}:
            assert "NVML" in definition.source


def test_rules_of_the_verdict_are_those_of_the_code():
    assert "AU of 95 % or more" in BY_NAME["compute-bound"].meaning
    assert find_bound(0.95, 0.05) == "compute"
    assert "busy less than 80 %" in BY_NAME["compute-bound"].meaning
    assert find_bound(0.95, 0.0, 80.0) == "compute"
    assert find_bound(0.95, 0.0, 79.9) == "host"
    assert "no smaller than the host share" in BY_NAME["input-bound"].meaning
    assert find_bound(0.5, 0.25) == "input"
    assert find_bound(0.5, 0.24) == "host"


def test_markdown_is_a_table_of_all():
    header, rule, *rows = to_markdown().splitlines()
    assert header.count("|") == rule.count("|") == 5
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(BY_NAME)
    assert {row.count("|") for row in rows} == {5}
