import json

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lumbar.cache.errors import FormatError
from lumbar.cache.format import VOLUMES
from lumbar.cache.index import build_index, series_row
from lumbar.cache.volumes import (
    CHUNK,
    METADATA,
    SCRATCH,
    crc32c,
    map_volume,
    parse_metadata,
    read_attributes,
    volume_folder,
    write_volume,
)

STORED = st.sampled_from([np.uint8, np.int16])
SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=6)


def map_row(cache, row):
    shape = (row["depth"], row["height"], row["width"])
    return map_volume(cache / row["path"], dtype=row["dtype"], shape=shape)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(volume_dhw=STORED.flatmap(lambda dtype: arrays(dtype, SHAPES)))
def test_the_memory_map_and_zarr_read_what_was_written(tmp_path, make_attributes, volume_dhw):
    attributes = make_attributes(len(volume_dhw))
    write_volume(tmp_path, volume_dhw, attributes)
    row = series_row(tmp_path, "7", "7.1")
    mapped = map_row(tmp_path, row)
    assert mapped.dtype == volume_dhw.dtype
    assert np.array_equal(mapped, volume_dhw)
    array = zarr.open_group(tmp_path / VOLUMES, mode="r")["7/7.1"]
    assert np.array_equal(array[:], volume_dhw)
    assert array.metadata.dimension_names == ("d", "h", "w")
    read = read_attributes(tmp_path, "7", "7.1")
    assert read.to_json() == attributes.to_json()
    normalised = volume_dhw * attributes.scale + attributes.offset
    assert row["mean"] == pytest.approx(normalised.mean(), abs=1e-9)
    assert row["std"] == pytest.approx(normalised.std(), abs=1e-9)
    assert row["nbytes"] == volume_dhw.nbytes
    assert row["crc32c"] == crc32c(volume_dhw.tobytes())


def test_a_memory_map_cannot_be_written_to(tmp_path, make_attributes):
    write_volume(tmp_path, np.ones((3, 4, 5), np.uint8), make_attributes())
    with pytest.raises(ValueError, match="read-only"):
        map_row(tmp_path, series_row(tmp_path, "7", "7.1"))[0, 0, 0] = 2


def test_a_volume_of_zeros_has_a_chunk_file(tmp_path, make_attributes):
    write_volume(tmp_path, np.zeros((3, 4, 5), np.uint8), make_attributes())
    chunk = volume_folder(tmp_path, "7", "7.1") / CHUNK
    assert chunk.read_bytes() == bytes(60)
    assert not zarr.open_group(tmp_path / VOLUMES, mode="r")["7/7.1"][:].any()


def test_a_view_that_is_not_contiguous_is_stored_in_c_order(tmp_path, make_attributes):
    whole = np.arange(3 * 8 * 10, dtype=np.int16).reshape(3, 8, 10)
    view = whole[::-1, ::2, ::-2]
    write_volume(tmp_path, view, make_attributes())
    assert np.array_equal(map_row(tmp_path, series_row(tmp_path, "7", "7.1")), view)


def test_the_same_volume_gives_the_same_bytes(tmp_path, make_attributes):
    volume_dhw = np.random.default_rng(1).integers(0, 256, (3, 4, 5), np.uint8)
    for name in ("a", "b"):
        write_volume(tmp_path / name, volume_dhw, make_attributes())
    files = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 4


def test_writing_again_replaces_the_volume_and_leaves_nothing_behind(tmp_path, make_attributes):
    write_volume(tmp_path, np.zeros((3, 4, 5), np.uint8), make_attributes())
    write_volume(tmp_path, np.ones((2, 6, 7), np.int16), make_attributes(2))
    row = series_row(tmp_path, "7", "7.1")
    assert map_row(tmp_path, row).tolist() == np.ones((2, 6, 7)).tolist()
    assert build_index(tmp_path).height == 1
    assert list((tmp_path / SCRATCH).iterdir()) == []


def test_a_run_killed_before_the_rename_leaves_no_volume(tmp_path, make_attributes, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.rename", killed)
    with pytest.raises(KeyboardInterrupt):
        write_volume(tmp_path, np.zeros((3, 4, 5), np.uint8), make_attributes())
    monkeypatch.undo()
    assert read_attributes(tmp_path, "7", "7.1") is None
    write_volume(tmp_path, np.ones((3, 4, 5), np.uint8), make_attributes())
    assert map_row(tmp_path, series_row(tmp_path, "7", "7.1")).all()


def test_an_overwrite_that_is_killed_leaves_no_volume_in_part(
    tmp_path, make_attributes, monkeypatch
):
    write_volume(tmp_path, np.zeros((3, 4, 5), np.uint8), make_attributes())
    folder = volume_folder(tmp_path, "7", "7.1")
    removed = []

    def rmtree(path, **_):
        removed.append(path)

    monkeypatch.setattr("lumbar.cache.volumes.shutil.rmtree", rmtree)
    write_volume(tmp_path, np.ones((3, 4, 5), np.uint8), make_attributes())
    # What is removed lies in the scratch folder, so that being killed there does no harm.
    assert removed
    assert folder not in removed
    assert (folder / CHUNK).read_bytes() == bytes([1] * 60)


@pytest.mark.parametrize(
    "volume_dhw", [np.zeros((3, 4, 5), np.uint8), np.zeros((2, 4, 5), np.int16)]
)
def test_a_volume_of_another_depth_is_refused(tmp_path, make_attributes, volume_dhw):
    with pytest.raises(FormatError, match=r"volume to store: 7\.1"):
        write_volume(tmp_path, volume_dhw, make_attributes(4))
    assert list(tmp_path.iterdir()) == []


def test_a_chunk_that_is_gone_or_cut_short_is_refused(tmp_path, make_attributes):
    write_volume(tmp_path, np.zeros((3, 4, 5), np.uint8), make_attributes())
    row = series_row(tmp_path, "7", "7.1")
    chunk = tmp_path / row["path"]
    chunk.write_bytes(bytes(59))
    with pytest.raises(FormatError, match="got 59; expected 60 bytes"):
        map_row(tmp_path, row)
    chunk.unlink()
    with pytest.raises(FormatError, match="got no file"):
        map_row(tmp_path, row)


def test_a_volume_of_a_newer_format_is_refused_naming_both_versions(tmp_path, make_attributes):
    write_volume(tmp_path, np.zeros((3, 4, 5), np.uint8), make_attributes())
    path = volume_folder(tmp_path, "7", "7.1") / METADATA
    document = json.loads(path.read_text())
    document["attributes"]["format_version"] = 2
    path.write_text(json.dumps(document))
    for read in (read_attributes, series_row):
        with pytest.raises(FormatError, match=r"format_version 2; expected format_version 1"):
            read(tmp_path, "7", "7.1")


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [3, 4]},
        {"shape": [3, 4, "x"]},
        {"data_type": "float64"},
        {"attributes": [1]},
        {"attributes": None},
    ],
)
def test_damaged_metadata_is_a_format_error(tmp_path, make_attributes, change):
    write_volume(tmp_path, np.zeros((3, 4, 5), np.uint8), make_attributes())
    text = (volume_folder(tmp_path, "7", "7.1") / METADATA).read_bytes()
    assert parse_metadata(text, where="x")["shape"] == (3, 4, 5)
    with pytest.raises(FormatError, match="metadata of a volume: x"):
        parse_metadata(json.dumps(json.loads(text) | change).encode(), where="x")
    for damaged in (b"", b"[]", b"\xff", text[:-5]):
        with pytest.raises(FormatError):
            parse_metadata(damaged, where="x")


@pytest.mark.parametrize("name", ["crc32c", "mean", "std"])
def test_metadata_without_its_measurements_is_a_format_error(tmp_path, make_attributes, name):
    write_volume(tmp_path, np.zeros((3, 4, 5), np.uint8), make_attributes())
    path = volume_folder(tmp_path, "7", "7.1") / METADATA
    document = json.loads(path.read_text())
    del document["attributes"][name]
    path.write_text(json.dumps(document))
    with pytest.raises(FormatError, match=name):
        series_row(tmp_path, "7", "7.1")


def test_the_index_is_ordered_and_rebuilt_from_the_volumes_alone(tmp_path, make_attributes):
    for study_id, series_id in (("9", "1"), ("10", "2"), ("9", "0")):
        attributes = make_attributes(study_id=study_id, series_id=series_id)
        write_volume(tmp_path, np.zeros((3, 4, 5), np.uint8), attributes)
    index = build_index(tmp_path)
    assert index.select("study_id", "series_id").rows() == [("10", "2"), ("9", "0"), ("9", "1")]
    row = index.row(0, named=True)
    assert np.array_equal(np.reshape(row["affine"], (4, 4)), make_attributes().affine)
    assert (row["spacing_d_mm"], row["spacing_h_mm"], row["spacing_w_mm"]) == (4.5, 0.7, 0.7)
    assert (row["window_low"], row["window_high"]) == (3.0, 811.5)
    assert row["flags"] == ["order_reversed"]


def test_no_volume_has_no_attributes(tmp_path):
    assert read_attributes(tmp_path, "7", "7.1") is None
    assert build_index(tmp_path).height == 0


def test_crc32c_is_castagnolis():
    # The check value of the CRC catalogue (CRC-32/ISCSI).
    assert crc32c(b"123456789") == 0xE3069283
