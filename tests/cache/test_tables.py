import json

import polars as pl
import pytest

from lumbar.cache.errors import FormatError, InputError, MissingError
from lumbar.cache.format import (
    CACHE_FILE,
    COORDINATES_TABLE,
    REJECTED_SCHEMA,
    REJECTED_TABLE,
    TABLE_SCHEMAS,
)
from lumbar.cache.tables import (
    config_hash,
    read_cache_file,
    read_table,
    write_cache_file,
    write_table,
)
from lumbar.cache.volumes import crc32c

ROW = {"study_id": "1", "series_id": "2", "path": "a.dcm", "reason": "no_pixels", "detail": ""}


@pytest.fixture
def rejected():
    return pl.DataFrame([ROW], schema=REJECTED_SCHEMA)


def test_a_table_comes_back_with_its_columns_in_order(tmp_path, rejected):
    folder = tmp_path / "odd [1]*"
    folder.mkdir()
    write_table(folder, REJECTED_TABLE, rejected.select(reversed(rejected.columns)))
    assert read_table(folder, REJECTED_TABLE).equals(rejected)
    assert [path.name for path in folder.iterdir()] == [REJECTED_TABLE]


@pytest.mark.parametrize("name", TABLE_SCHEMAS)
def test_an_empty_table_keeps_its_schema(tmp_path, name):
    write_table(tmp_path, name, pl.DataFrame(schema=TABLE_SCHEMAS[name]))
    assert read_table(tmp_path, name).schema == TABLE_SCHEMAS[name]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda t: t.drop("reason"), "reason"),
        (lambda t: t.rename({"path": "file"}), "file"),
        (lambda t: t.with_columns(pl.col("study_id").cast(pl.Int64)), "study_id"),
        (lambda t: t.with_columns(extra=pl.lit(1)), "extra"),
    ],
)
def test_wrong_columns_are_refused_by_writing_and_by_reading(tmp_path, rejected, spoil, named):
    write_table(tmp_path, REJECTED_TABLE, rejected)
    with pytest.raises(FormatError, match=named):
        write_table(tmp_path, REJECTED_TABLE, spoil(rejected))
    assert read_table(tmp_path, REJECTED_TABLE).equals(rejected)
    spoil(rejected).write_parquet(tmp_path / REJECTED_TABLE)
    with pytest.raises(FormatError, match=named):
        read_table(tmp_path, REJECTED_TABLE)


def test_a_table_that_is_gone_or_no_parquet_is_refused(tmp_path):
    with pytest.raises(MissingError, match="lacks a table"):
        read_table(tmp_path, COORDINATES_TABLE)
    (tmp_path / COORDINATES_TABLE).write_text("x,y\n")
    with pytest.raises(FormatError, match="expected a Parquet file"):
        read_table(tmp_path, COORDINATES_TABLE)


def test_the_cache_file_has_versions_configuration_counts_and_checksums(tmp_path, rejected):
    write_table(tmp_path, REJECTED_TABLE, rejected)
    write_cache_file(tmp_path, config={"size": 384}, counts={"series": 0})
    description = read_cache_file(tmp_path)
    assert description["format_version"] == 1
    assert description["config"] == {"size": 384}
    assert description["config_hash"] == config_hash({"size": 384})
    assert description["counts"] == {"series": 0}
    checksum = crc32c((tmp_path / REJECTED_TABLE).read_bytes())
    assert description["tables_crc32c"] == {REJECTED_TABLE: checksum}


def test_a_newer_cache_is_refused_naming_both_versions(tmp_path):
    write_cache_file(tmp_path, config={}, counts={})
    path = tmp_path / CACHE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    with pytest.raises(FormatError) as caught:
        read_cache_file(tmp_path)
    assert "got format_version 2; expected format_version 1" in str(caught.value)


def test_folders_that_are_no_cache_are_refused(tmp_path):
    with pytest.raises(MissingError, match="no such cache folder"):
        read_cache_file(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a cache"):
        read_cache_file(tmp_path)
    for text in ("{", "[]", "7"):
        (tmp_path / CACHE_FILE).write_text(text)
        with pytest.raises(FormatError):
            read_cache_file(tmp_path)


def test_config_hash_depends_on_values_and_not_on_their_order():
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    # Changing how it is computed would make every series stale.
    assert config_hash({}) == "44136fa355b3678a"
