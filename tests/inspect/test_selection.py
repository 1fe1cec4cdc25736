"""The table of all series, what is selected of it, and its exports."""

import json
from io import StringIO

import numpy as np
import polars as pl
import pytest

from lumbar.cache.errors import InputError
from lumbar.cache.format import LABELS_TABLE, REJECTED_SCHEMA, REJECTED_TABLE, SERIES_TABLE
from lumbar.cache.labels import label_table
from lumbar.cache.store import Cache
from lumbar.cache.tables import read_table, write_table
from lumbar.inspect.selection import COLUMNS, Selection, all_series, export, select

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def table(tiny_cache):
    """Two cached series, one of them with a flag and left out files, and one that is not cached."""
    series = read_table(tiny_cache, SERIES_TABLE)
    flags = [["gap", "few_slices"], []]
    write_table(tiny_cache, SERIES_TABLE, series.with_columns(flags=pl.Series(flags)))
    rejected = [
        ("100", "100.1", f"100/100.1/{n}.dcm", "truncated" if n else "no_position", EVIL)
        for n in range(5)
    ]
    rejected += [
        ("100", "100.9", "", "constant", "every pixel is 3.0"),
        ("", "", "x", "colour", ""),
    ]
    write_table(tiny_cache, REJECTED_TABLE, pl.DataFrame(rejected, REJECTED_SCHEMA, orient="row"))
    severities = np.full((1, 25), -1, np.int8)
    severities[0, 2:4] = 2, 0  # the canal, which the sagittal T2 series shows
    severities[0, 16] = 1  # a recess, which the axial series shows
    write_table(tiny_cache, LABELS_TABLE, label_table(["100"], severities))
    return all_series(Cache(tiny_cache))


def ids(table):
    return table["series_id"].to_list()


def test_every_series_has_one_row(table):
    assert table.columns == list(COLUMNS)
    assert ids(table) == ["", "100.1", "100.2", "100.9"]
    assert table["depth"].to_list() == [None, 5, 4, None]
    assert table["reasons"].to_list()[1] == ["no_position", "truncated"]
    assert len(table["details"][1]) == 3
    assert table["severities"].to_list() == [
        [],
        ["normal_mild", "severe"],
        ["moderate"],
        ["normal_mild", "moderate", "severe"],
    ]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), ["", "100.1", "100.2", "100.9"]),
        (Selection(flags=("gap",)), ["100.1"]),
        (Selection(reasons=("constant", "truncated")), ["100.1", "100.9"]),
        (Selection(types=("axial_t2",)), ["100.2"]),
        (Selection(severities=("moderate",)), ["100.2", "100.9"]),
        (Selection(severities=("severe",), types=("axial_t2",)), []),
        (Selection(studies=("100",), reasons=("truncated",)), ["100.1"]),
    ],
)
def test_all_filters_have_to_hold(table, selection, expected):
    assert ids(select(table, selection)) == expected
    assert bool(selection) == (len(expected) != 4)


@pytest.mark.parametrize(
    "selection",
    [
        Selection(flags=("gaps",)),
        Selection(reasons=("gap",)),
        Selection(types=("sagittal_t1",)),
        Selection(severities=("mild",)),
        Selection(studies=("10",)),
    ],
)
def test_what_no_series_has_is_refused(table, selection):
    with pytest.raises(InputError, match="no series has this"):
        select(table, selection)


def test_exports_hold_every_row(table, tmp_path):
    for form in ("csv", "parquet", "json"):
        export(table, tmp_path / "new" / f"series.{form}", form)
    assert pl.read_parquet(tmp_path / "new/series.parquet").equals(table)
    rows = json.loads((tmp_path / "new/series.json").read_text())
    assert [row["series_id"] for row in rows] == ids(table)
    assert rows[1]["details"][0].endswith(EVIL)
    text = (tmp_path / "new/series.csv").read_text()
    read = pl.read_csv(StringIO(text), schema_overrides={"series_id": pl.String})
    assert read["flags"].to_list()[1] == "gap;few_slices"
    assert ids(read.fill_null("")) == ids(table)


def test_a_cache_of_nothing_has_an_empty_table(table):
    assert select(table.clear(), Selection()).height == 0
