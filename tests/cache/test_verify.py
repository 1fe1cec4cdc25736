import json

import numpy as np
import polars as pl
import pytest

from lumbar.cache.errors import FormatError, InputError
from lumbar.cache.files.lock import locked
from lumbar.cache.format import (
    CACHE_FILE,
    COORDINATES_TABLE,
    LABELS_TABLE,
    SERIES_TABLE,
    TABLE_SCHEMAS,
    VOLUMES,
)
from lumbar.cache.index import build_index
from lumbar.cache.tables import read_cache_file, read_table, write_cache_file, write_table
from lumbar.cache.verify import Checked, Problem, verify
from lumbar.cache.volumes import CHUNK, METADATA, SCRATCH, volume_folder, write_volume

SERIES = ("100.1", "100.2")


def problems_of(cache):
    return [event for event in verify(cache) if isinstance(event, Problem)]


def the_problem(cache):
    """The one problem of a cache; it says where, in detail, and what to do."""
    problems = problems_of(cache)
    assert len(problems) == 1, problems
    assert all((problems[0].what, problems[0].where, problems[0].detail, problems[0].cure))
    return problems[0]


def change_table(cache, name, change):
    """Change a table and its checksum, as a writer with a defect would."""
    write_table(cache, name, change(read_table(cache, name)))
    description = read_cache_file(cache)
    write_cache_file(cache, config=description["config"], counts=description["counts"])


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x41
    path.write_bytes(data)


def test_a_sound_cache_has_no_problem_and_all_of_it_was_read(tiny_cache):
    with locked(tiny_cache):
        events = list(verify(tiny_cache))
    assert [event.where for event in events] == [*TABLE_SCHEMAS, "100/100.1", "100/100.2"]
    assert all(isinstance(event, Checked) for event in events)
    assert [event.nbytes for event in events[-2:]] == [5 * 96 * 80, 4 * 72 * 64]


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_byte_in_any_volume_is_found_and_names_the_series(tiny_cache, seed):
    rng = np.random.default_rng(seed)
    files = sorted(path for path in (tiny_cache / VOLUMES).rglob("100.*/**/*") if path.is_file())
    assert len(files) == 4
    path = files[seed % 4]
    flip(path, int(rng.integers(path.stat().st_size)))
    series_id = path.relative_to(tiny_cache / VOLUMES).parts[1]
    problem = the_problem(tiny_cache)
    assert problem.where == f"100/{series_id}"
    assert problem.what == (
        "metadata is damaged" if path.name == METADATA else "a chunk is damaged"
    )


def test_a_sound_archive_has_no_problem_and_all_of_it_was_read(archive_cache):
    events = list(verify(archive_cache))
    assert all(isinstance(event, Checked) for event in events)
    sizes = [(volume_folder(archive_cache, "100", i) / CHUNK).stat().st_size for i in SERIES]
    assert [event.nbytes for event in events[-2:]] == sizes


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_byte_in_any_file_of_an_archive_is_found(archive_cache, seed):
    path = volume_folder(archive_cache, "100", SERIES[seed % 2]) / (CHUNK, METADATA)[seed % 3 == 0]
    flip(path, int(np.random.default_rng(seed).integers(path.stat().st_size)))
    problem = the_problem(archive_cache)
    assert problem.where == f"100/{SERIES[seed % 2]}"
    assert problem.what == (
        "metadata is damaged" if path.name == METADATA else "a chunk is damaged"
    )


def test_an_archive_that_is_cut_short_is_found(archive_cache):
    chunk = volume_folder(archive_cache, "100", "100.2") / CHUNK
    chunk.write_bytes(chunk.read_bytes()[:-5])
    assert the_problem(archive_cache).what == "a chunk has another size"


def test_volumes_of_another_profile_are_found(archive_cache):
    description = read_cache_file(archive_cache)
    write_cache_file(archive_cache, config={"profile": "fast"}, counts=description["counts"])
    assert [(p.what, p.where, p.detail) for p in problems_of(archive_cache)] == [
        ("a volume of another profile", f"100/{i}", "archive, cache.json says fast") for i in SERIES
    ]


@pytest.mark.parametrize("name", TABLE_SCHEMAS)
@pytest.mark.parametrize("seed", range(2))
def test_a_flipped_byte_in_any_table_is_found(tiny_cache, name, seed):
    path = tiny_cache / name
    flip(path, int(np.random.default_rng(seed).integers(path.stat().st_size)))
    problem = the_problem(tiny_cache)
    assert (problem.what, problem.where) == ("a table is damaged", str(path))


def test_volumes_are_checked_even_when_the_series_table_is_damaged(tiny_cache):
    flip(tiny_cache / SERIES_TABLE, 40)
    flip(volume_folder(tiny_cache, "100", "100.2") / CHUNK, 7)
    assert [(p.what, p.where) for p in problems_of(tiny_cache)] == [
        ("a table is damaged", str(tiny_cache / SERIES_TABLE)),
        ("a chunk is damaged", "100/100.2"),
    ]


def test_tables_that_are_gone_or_have_other_columns_are_found(tiny_cache):
    (tiny_cache / LABELS_TABLE).unlink()
    assert the_problem(tiny_cache).what == "a table is missing"
    pl.DataFrame({"a": [1]}).write_parquet(tiny_cache / LABELS_TABLE)
    description = read_cache_file(tiny_cache)
    write_cache_file(tiny_cache, config=description["config"], counts=description["counts"])
    problem = the_problem(tiny_cache)
    assert (problem.what, problem.where) == ("a table is damaged", str(tiny_cache / LABELS_TABLE))
    assert "these differ" in problem.detail


def test_a_changed_configuration_is_found(tiny_cache):
    path = tiny_cache / CACHE_FILE
    path.write_text(path.read_text().replace('"tests"', '"toasts"'))
    assert the_problem(tiny_cache).where == str(path)


@pytest.mark.parametrize(("change", "what"), [(b"", "size"), (None, "missing")])
def test_a_chunk_that_is_cut_short_or_gone_is_found(tiny_cache, change, what):
    chunk = volume_folder(tiny_cache, "100", "100.1") / CHUNK
    chunk.unlink() if change is None else chunk.write_bytes(chunk.read_bytes()[:-1])
    problem = the_problem(tiny_cache)
    assert what in problem.what
    assert problem.where == "100/100.1"


def test_a_volume_without_a_row_and_a_row_without_a_volume_are_found(tiny_cache):
    folder = volume_folder(tiny_cache, "100", "100.1")
    folder.rename(folder.with_name("100.9"))
    assert [(p.what, p.where) for p in problems_of(tiny_cache)] == [
        ("a volume has no row", "100/100.9"),
        ("a row has no volume", "100/100.1"),
    ]


def test_a_volume_whose_metadata_is_gone_is_found(tiny_cache):
    (volume_folder(tiny_cache, "100", "100.2") / METADATA).unlink()
    assert {(p.what, p.where) for p in problems_of(tiny_cache)} == {
        ("a volume without metadata", "100/100.2"),
        ("a row has no volume", "100/100.2"),
    }


@pytest.mark.parametrize("text", [None, b"{", b"[1]", b'{"node_type": "array"}'])
def test_a_damaged_group_is_found(tiny_cache, text):
    path = tiny_cache / VOLUMES / "100" / METADATA
    path.unlink() if text is None else path.write_bytes(text)
    assert the_problem(tiny_cache).where == str(path)


@pytest.mark.parametrize(
    "left", [f"{SCRATCH}/100+100.3/c", ".labels.parquet.99", f"{VOLUMES}/100/.zarr.json.99"]
)
def test_leftovers_are_found(tiny_cache, left):
    path = tiny_cache / left
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    problem = the_problem(tiny_cache)
    assert problem.what == "a leftover of a killed run"
    assert str(path).startswith(problem.where)


def test_a_row_that_differs_from_its_volume_is_found(tiny_cache):
    change_table(
        tiny_cache,
        SERIES_TABLE,
        lambda t: t.with_columns(scale=pl.when(pl.col("series_id") == "100.2").then(1.0)),
    )
    problems = problems_of(tiny_cache)
    assert [p.where for p in problems] == ["100/100.1", "100/100.2"]
    assert problems[1].detail.startswith("scale is 1.0, in the volume 0.0039")


def test_a_series_with_two_rows_is_found(tiny_cache):
    change_table(tiny_cache, SERIES_TABLE, lambda t: pl.concat([t, t[:1]]))
    assert the_problem(tiny_cache).what == "a series has two rows"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("spinal_canal_stenosis_l4_l5_known", pl.lit(value=False)),
        ("spinal_canal_stenosis_l4_l5_severe", pl.lit(0, pl.UInt8)),
        ("spinal_canal_stenosis_l4_l5_moderate", pl.lit(1, pl.UInt8)),
        ("spinal_canal_stenosis_l4_l5_severe", pl.lit(2, pl.UInt8)),
    ],
)
def test_a_label_that_contradicts_itself_is_found(tiny_cache, column, value):
    change_table(tiny_cache, LABELS_TABLE, lambda t: t.with_columns(value.alias(column)))
    problem = the_problem(tiny_cache)
    assert (problem.what, problem.where) == ("a label contradicts itself", "100")
    assert problem.detail.startswith("spinal_canal_stenosis_l4_l5 is ")


def test_a_study_may_have_no_label_row_but_not_two(tiny_cache):
    change_table(tiny_cache, LABELS_TABLE, lambda t: pl.concat([t, t]))
    assert the_problem(tiny_cache).what == "a study has two label rows"
    change_table(tiny_cache, LABELS_TABLE, lambda t: t[:1].with_columns(study_id=pl.lit("101")))
    assert problems_of(tiny_cache) == []
    change_table(tiny_cache, LABELS_TABLE, lambda t: t.clear())
    assert problems_of(tiny_cache) == []


@pytest.mark.parametrize(
    ("d", "h", "w", "sound"),
    [
        (4.0, 95.4, 79.5, True),
        (0.0, -0.5, 0.0, True),
        (5.0, 10.0, 10.0, False),
        (2.0, 96.0, 10.0, False),
        (2.0, 10.0, -0.6, False),
        (2.0, None, 10.0, False),
        (None, None, None, True),
    ],
)
def test_points_must_lie_in_their_volume(tiny_cache, d, h, w, sound):
    place = [pl.lit(v, pl.Float64).alias(axis) for axis, v in (("d", d), ("h", h), ("w", w))]
    change_table(tiny_cache, COORDINATES_TABLE, lambda t: t.with_columns(place))
    if sound:
        assert problems_of(tiny_cache) == []
    else:
        problem = the_problem(tiny_cache)
        assert (problem.what, problem.where) == ("a point outside its volume", "100/100.1")
        assert "spinal_canal_stenosis l4_l5" in problem.detail


def test_a_point_of_a_series_that_is_not_cached_has_no_place(tiny_cache):
    change_table(tiny_cache, COORDINATES_TABLE, lambda t: t.with_columns(series_id=pl.lit("100.7")))
    problem = the_problem(tiny_cache)
    assert (problem.what, problem.where) == ("a point in a volume that is gone", "100/100.7")
    nothing = [pl.lit(None, pl.Float64).alias(axis) for axis in "dhw"]
    change_table(tiny_cache, COORDINATES_TABLE, lambda t: t.with_columns(nothing))
    assert problems_of(tiny_cache) == []


def test_a_point_of_an_unknown_condition_is_found(tiny_cache):
    change_table(tiny_cache, COORDINATES_TABLE, lambda t: t.with_columns(level=pl.lit("L4/L5")))
    problem = the_problem(tiny_cache)
    assert (problem.what, problem.where) == ("a point of an unknown cell", "100/100.1")
    assert problem.detail == "spinal_canal_stenosis_L4/L5"


def test_a_volume_written_after_the_tables_is_found(tiny_cache, make_attributes):
    write_volume(tiny_cache, np.zeros((3, 4, 5), np.uint8), make_attributes())
    assert the_problem(tiny_cache).where == "7/7.1"
    change_table(tiny_cache, SERIES_TABLE, lambda _: build_index(tiny_cache))
    assert problems_of(tiny_cache) == []


def test_a_cache_that_was_not_finished_is_found(tiny_cache):
    write_cache_file(tiny_cache, config=read_cache_file(tiny_cache)["config"], counts={})
    assert the_problem(tiny_cache).what == "the cache is not finished"


def test_what_is_no_cache_of_ours_is_refused(tiny_cache, tmp_path):
    with pytest.raises(InputError, match="not a cache"):
        list(verify(tmp_path))
    path = tiny_cache / CACHE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    with pytest.raises(FormatError, match="format_version 2"):
        list(verify(tiny_cache))
