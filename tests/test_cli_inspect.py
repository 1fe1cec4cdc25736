"""``lumbar inspect`` lists and exports series, ``lumbar report`` writes a page."""

import json

import polars as pl
import pytest

from lumbar.cache.format import SERIES_TABLE
from lumbar.cache.tables import read_table, write_table


@pytest.fixture
def lumbar(tiny_cache, monkeypatch, command_line):
    """A function that runs the command line beside a cache whose axial series has a flag."""
    series = read_table(tiny_cache, SERIES_TABLE)
    write_table(tiny_cache, SERIES_TABLE, series.with_columns(flags=pl.Series([[], ["gap"]])))
    monkeypatch.chdir(tiny_cache.parent)
    return command_line


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (("--flag", "gap"), ["100.2"]),
        (("--type", "sagittal_t2", "--type", "axial_t2"), ["100.1", "100.2"]),
        (("--severity", "severe", "--study", "100"), ["100.1"]),
        (("--severity", "severe", "--flag", "gap"), []),
    ],
)
def test_filters_list_series(lumbar, options, ids):
    shown = lumbar("inspect", "cache", *options)
    assert shown.status == 0, shown
    assert [name for name in ("100/100.1", "100/100.2") if name in shown.out] == [
        f"100/{series_id}" for series_id in ids
    ]
    rows = json.loads(lumbar("inspect", "cache", *options, "--json").out)
    assert [row["series_id"] for row in rows] == ids


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_export_writes_all_or_the_filtered(lumbar, tiny_cache, form):
    told = lumbar("inspect", "cache", "--export", form)
    assert told.out.splitlines()[-1] == f"2 series: series.{form}"
    lumbar("inspect", "cache", "--export", form, "--flag", "gap", "--out", "new/few")
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "json": pl.read_json}[form]
    assert read(tiny_cache.parent / f"series.{form}").height == 2
    assert read(tiny_cache.parent / "new/few")["depth"].to_list() == [4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--flag", "gaps"), "no series has this flag; got gaps; expected one of gap"),
        (("--flag", "gap", "--series", "100.1"), "a list of series, or a sheet of one"),
        (("--export", "csv", "--augment"), "a list of series, or a sheet of one"),
    ],
)
def test_mistakes_are_named(lumbar, options, said):
    result = lumbar("inspect", "cache", *options)
    assert result.status == 2
    assert said in result.err


def test_report_writes_a_page(lumbar, tiny_cache):
    told = lumbar("report", "cache", "--out", "pages/[red].html")
    assert told.status == 0, told
    assert told.out.splitlines()[-2] == "report: pages/[red].html"
    assert "100.2" in (tiny_cache.parent / "pages" / "[red].html").read_text()
    assert lumbar("report", "nothing").status == 2
