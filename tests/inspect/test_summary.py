import json

import numpy as np
import polars as pl
import pytest

from lumbar.cache.format import (
    LABELS_TABLE,
    REJECTED_SCHEMA,
    REJECTED_TABLE,
    SERIES_TABLE,
    TABLE_SCHEMAS,
)
from lumbar.cache.index import build_index
from lumbar.cache.labels import label_table
from lumbar.cache.names import CONDITIONS
from lumbar.cache.store import Cache
from lumbar.cache.tables import write_cache_file, write_table
from lumbar.cache.volumes import write_volume
from lumbar.inspect.summary import ValueRange, summarise


@pytest.fixture
def summary(tiny_cache, make_attributes):
    """The summary of the tiny cache and two further series of another study."""
    for series_id, shape in (("7.1", (3, 96, 80)), ("7.2", (9, 40, 50))):
        attributes = make_attributes(shape[0], series_id=series_id)
        write_volume(tiny_cache, np.zeros(shape, np.int16), attributes)
    write_table(tiny_cache, SERIES_TABLE, build_index(tiny_cache))
    severities = np.full((2, 25), -1, np.int8)
    severities[0, :10] = 1
    severities[1, 5:7] = 2
    write_table(tiny_cache, LABELS_TABLE, label_table(["100", "7"], severities))
    reasons = ["no_pixels", "broken", "no_pixels"]
    row = dict.fromkeys(REJECTED_SCHEMA, "x")
    rejected = [row | {"reason": reason} for reason in reasons]
    write_table(tiny_cache, REJECTED_TABLE, pl.DataFrame(rejected, schema=REJECTED_SCHEMA))
    return summarise(Cache(tiny_cache))


def test_series_are_counted_by_type(summary):
    assert (summary.n_studies, summary.n_series) == (2, 4)
    assert list(summary.types) == ["sagittal_t2", "axial_t2"]
    sagittal = summary.types["sagittal_t2"]
    assert (sagittal.n_studies, sagittal.n_series, sagittal.n_files) == (2, 3, 5 + 3 + 9)
    assert sagittal.nbytes == 5 * 96 * 80 + 2 * 3 * 96 * 80 + 2 * 9 * 40 * 50
    assert sagittal.depth == ValueRange(3.0, 5.0, 9.0)
    assert sagittal.spacing_d_mm == ValueRange(4.0, 4.5, 4.5)
    assert list(sagittal.shapes.items()) == [("96 x 80", 2), ("40 x 50", 1)]
    assert summary.types["axial_t2"].n_with_several_stacks == 1
    assert summary.nbytes == sum(kind.nbytes for kind in summary.types.values())


def test_labels_flags_and_reasons_are_counted(summary):
    assert summary.n_labelled_studies == 2
    left = summary.severities[CONDITIONS[1]]
    assert left == {"normal_mild": 0, "moderate": 5, "severe": 2, "unknown": 3}
    assert sum(sum(counts.values()) for counts in summary.severities.values()) == 50
    assert list(summary.rejected.items()) == [("no_pixels", 2), ("broken", 1)]
    assert summary.flags == {"order_reversed": 2}
    assert summary.dtypes == {"int16": 2, "uint8": 2}
    assert summary.points == {"spinal_canal_stenosis": 1}
    assert summary.n_points_outside == 0


def test_a_summary_is_json_of_plain_types(summary):
    assert json.loads(json.dumps(summary.to_json(), allow_nan=False)) == summary.to_json()


def test_an_empty_cache_has_a_summary(tmp_path):
    for name, schema in TABLE_SCHEMAS.items():
        write_table(tmp_path, name, pl.DataFrame(schema=schema))
    write_cache_file(tmp_path, config={}, counts={"series": 0})
    empty = summarise(Cache(tmp_path))
    assert (empty.n_series, empty.nbytes, empty.types, empty.flags) == (0, 0, {}, {})
    assert empty.severities[CONDITIONS[0]]["unknown"] == 0
