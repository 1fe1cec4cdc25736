import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lumbar.cache.compressed_slices import read_slices
from lumbar.cache.errors import FormatError
from lumbar.cache.format import VOLUMES
from lumbar.cache.index import series_row
from lumbar.cache.volumes import CHUNK, crc32c, volume_folder, write_volume

STORED = st.sampled_from([np.uint8, np.int16])
SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=12)
DEPTH, HEIGHT, WIDTH = SHAPE = 6, 32, 40


def read(cache, slices):
    row = series_row(cache, "7", "7.1")
    return read_slices(
        cache / row["path"],
        dtype=row["dtype"],
        shape=(row["depth"], row["height"], row["width"]),
        nbytes=row["nbytes"],
        slices=slices,
    )


def spine_like(dtype):
    """A smooth volume with a little noise, which compresses as pictures do."""
    d, h, w = np.mgrid[:DEPTH, :HEIGHT, :WIDTH]
    noise = np.random.default_rng(5).normal(0, 0.7, SHAPE)
    return (100 + 40 * np.sin(h / 5 + d) + 30 * np.cos(w / 4) + noise).astype(dtype)


@pytest.fixture(params=[np.uint8, np.int16])
def stored(tmp_path, make_attributes, request):
    volume_dhw = spine_like(request.param)
    write_volume(tmp_path, volume_dhw, make_attributes(DEPTH), profile="archive")
    return volume_dhw


@pytest.fixture
def chunk(stored, tmp_path):
    return volume_folder(tmp_path, "7", "7.1") / CHUNK


def index_of(data):
    size = DEPTH * 16 + 4
    return [list(entry) for entry in struct.iter_unpack("<QQ", data[-size:-4])]


def with_index(data, index):
    """Return the file with another index, and the checksum that a writer would give it."""
    table = b"".join(struct.pack("<QQ", *entry) for entry in index)
    return data[: -len(table) - 4] + table + struct.pack("<I", crc32c(table))


def with_frame(data, d, change):
    """Return the file with the Blosc buffer of a slice changed, and a checksum that fits."""
    offset, length = index_of(data)[d]
    frame = bytearray(data[offset : offset + length - 4])
    change(frame)
    sealed = bytes(frame) + struct.pack("<I", crc32c(bytes(frame)))
    return data[:offset] + sealed + data[offset + length :]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), volume_dhw=STORED.flatmap(lambda dtype: arrays(dtype, SHAPES)))
def test_slices_and_zarr_give_what_was_written(tmp_path, make_attributes, data, volume_dhw):
    depth = len(volume_dhw)
    write_volume(tmp_path, volume_dhw, make_attributes(depth), profile="archive")
    slices = data.draw(st.lists(st.integers(-2, depth - 1), max_size=9))
    expected = np.array([volume_dhw[d] if d >= 0 else 0 * volume_dhw[0] for d in slices])
    picked_dhw = read(tmp_path, slices)
    assert picked_dhw.dtype == volume_dhw.dtype
    assert picked_dhw.shape == (len(slices), *volume_dhw.shape[1:])
    assert np.array_equal(picked_dhw, expected.reshape(picked_dhw.shape))
    array = zarr.open_group(tmp_path / VOLUMES, mode="r")["7/7.1"]
    assert np.array_equal(array[:], volume_dhw)
    assert array.chunks == (1, *volume_dhw.shape[1:])
    assert array.attrs["profile"] == "archive"
    file = volume_folder(tmp_path, "7", "7.1") / CHUNK
    assert array.attrs["nbytes"] == file.stat().st_size
    assert array.attrs["crc32c"] == crc32c(file.read_bytes())


@pytest.mark.parametrize(("dtype", "share"), [(np.uint8, 0.6), (np.int16, 0.3)])
def test_it_is_smaller_than_the_plain_volume(tmp_path, make_attributes, dtype, share):
    volume_dhw = spine_like(dtype).repeat(4, axis=1).repeat(4, axis=2)
    write_volume(tmp_path, volume_dhw, make_attributes(DEPTH), profile="archive")
    assert series_row(tmp_path, "7", "7.1")["nbytes"] < share * volume_dhw.nbytes


def test_the_same_volume_gives_the_same_bytes(stored, chunk, tmp_path, make_attributes):
    before = chunk.read_bytes(), (chunk.parents[3] / "zarr.json").read_bytes()
    with ThreadPoolExecutor(1) as pool:
        again = tmp_path / "again"
        options = {"profile": "archive"}
        pool.submit(write_volume, again, stored, make_attributes(DEPTH), **options).result()
    folder = volume_folder(again, "7", "7.1")
    assert ((folder / CHUNK).read_bytes(), (folder / "zarr.json").read_bytes()) == before


@pytest.mark.parametrize("part", range(8))
def test_any_flipped_byte_of_a_wanted_slice_is_found(stored, chunk, tmp_path, part):
    data = chunk.read_bytes()
    index = index_of(data)
    for position in range(part, len(data), 8 * 23):
        damaged = bytearray(data)
        damaged[position] ^= 1 << part
        chunk.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"chunk of a volume: .*expected .*lumbar verify"):
            read(tmp_path, range(DEPTH))
        for d, (offset, length) in enumerate(index):
            if position < index[-1][0] + index[-1][1] and not offset <= position < offset + length:
                assert np.array_equal(read(tmp_path, [d])[0], stored[d])


@pytest.mark.parametrize("cut", [1, 4, 50, 100000])
@pytest.mark.usefixtures("stored")
def test_a_file_that_is_cut_short_is_refused(chunk, tmp_path, cut):
    data = chunk.read_bytes()
    chunk.write_bytes(data[: max(len(data) - cut, 0)])
    with pytest.raises(FormatError, match=f"expected {len(data)} bytes"):
        read(tmp_path, [0])


@pytest.mark.usefixtures("stored")
def test_a_file_that_is_too_long_or_gone_is_refused(chunk, tmp_path):
    size = chunk.stat().st_size
    chunk.write_bytes(chunk.read_bytes() + b"x")
    with pytest.raises(FormatError, match=f"got {size + 1}; expected {size} bytes"):
        read(tmp_path, [0])
    chunk.unlink()
    with pytest.raises(FormatError, match="got no file"):
        read(tmp_path, [0])


@pytest.mark.parametrize("nbytes", [0, 3, 20, 99])
def test_a_file_too_small_for_its_index_is_refused(tmp_path, nbytes):
    (tmp_path / "0").write_bytes(bytes(nbytes))
    with pytest.raises(FormatError, match="chunk of a volume"):
        read_slices(tmp_path / "0", dtype="uint8", shape=SHAPE, nbytes=nbytes, slices=[0])


@pytest.mark.parametrize("entry", [(2**64 - 1, 2**64 - 1), (0, 10**6), (10**6, 40)])
@pytest.mark.usefixtures("stored")
def test_a_slice_outside_the_file_is_refused(chunk, tmp_path, entry):
    data = chunk.read_bytes()
    index = index_of(data)
    index[2] = entry
    chunk.write_bytes(with_index(data, index))
    with pytest.raises(FormatError, match=r"slice 2 at \d+, \d+ bytes; expected it before"):
        read(tmp_path, [0])


@pytest.mark.parametrize("length", [0, 3, 10])
@pytest.mark.usefixtures("stored")
def test_a_slice_too_short_to_be_one_is_refused(chunk, tmp_path, length):
    data = chunk.read_bytes()
    index = index_of(data)
    index[2][1] = length
    chunk.write_bytes(with_index(data, index))
    with pytest.raises(FormatError, match="slice 2"):
        read(tmp_path, [2])


@pytest.mark.parametrize("at", [4, 12])
@pytest.mark.parametrize("size", [0, 16, 1281, 2**31])
@pytest.mark.usefixtures("stored")
def test_a_header_that_lies_about_its_sizes_is_refused(chunk, tmp_path, at, size):
    """Blosc itself would read or write beyond the end of its buffers."""

    def lie(frame):
        frame[at : at + 4] = struct.pack("<I", size)

    chunk.write_bytes(with_frame(chunk.read_bytes(), 3, lie))
    with pytest.raises(FormatError, match="slice 3 of sizes"):
        read(tmp_path, [3])


@pytest.mark.usefixtures("stored")
def test_compressed_bytes_that_are_none_are_refused(chunk, tmp_path):
    def wipe(frame):
        frame[16:] = b"\xff" * (len(frame) - 16)

    chunk.write_bytes(with_frame(chunk.read_bytes(), 1, wipe))
    with pytest.raises(FormatError, match=r"slice 1: .*expected a Blosc buffer"):
        read(tmp_path, [1])


def test_threads_read_the_same_as_one(stored, tmp_path):
    orders = [np.random.default_rng(seed).integers(-1, DEPTH, 9).tolist() for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda slices: read(tmp_path, slices), orders))
    padded_dhw = np.concatenate([stored, np.zeros((1, HEIGHT, WIDTH), stored.dtype)])
    for slices, picked_dhw in zip(orders, found, strict=True):
        assert np.array_equal(picked_dhw, padded_dhw[slices])
