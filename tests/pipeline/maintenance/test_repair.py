"""Any flipped byte of a cache is found, named and put right; only what is damaged is converted."""

import numpy as np
import pytest

from lumbar.cache.errors import InputError
from lumbar.cache.format import TABLE_SCHEMAS, VOLUMES
from lumbar.cache.tables import SOURCES_FILE
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.maintenance.repair import find_problems, repair

SMALL = PreprocessConfig(size=16)


@pytest.fixture
def sound(tools, tmp_path, rsna, settled):
    """A finished cache with a rejected file; the record of its sources is full."""
    (rsna / "train_images" / "100" / "8" / "broken.dcm").write_bytes(b"no")
    tools.run(rsna, tmp_path / "out", SMALL)
    return tmp_path / "out"


def files_of(cache):
    return sorted(
        path for path in cache.rglob("*") if path.is_file() and path.name not in {".lock"}
    )


def contents(cache):
    return {path: path.read_bytes() for path in files_of(cache) if path.name != SOURCES_FILE}


def flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)


def test_any_flipped_bit_of_any_file_is_found_and_named(sound):
    assert find_problems(sound) == []
    rng = np.random.default_rng(7)
    files = files_of(sound)
    assert {path.name for path in files} >= {*TABLE_SCHEMAS, "cache.json", "zarr.json", ".sources"}
    for number in range(200):
        path = files[number % len(files)]
        before = path.read_bytes()
        flip(path, rng)
        problems = find_problems(sound)
        assert problems, f"flip {number} in {path}"
        inside = path.relative_to(sound).parts
        wanted = "/".join(inside[1:3]) if len(inside) > 3 else str(path)
        assert wanted in {problem.where for problem in problems}, problems
        path.write_bytes(before)


@pytest.mark.parametrize("seed", range(3))
def test_one_damaged_file_of_each_kind_is_put_right(sound, rsna, converted, seed):
    before = contents(sound)
    rng = np.random.default_rng(seed)
    for path in files_of(sound):
        if path.name == "cache.json":
            continue  # it alone knows options as unusual as these
        converted.clear()
        flip(path, rng)
        list(repair(sound, rsna, find_problems(sound), workers=0))
        assert contents(sound) == before, path
        assert find_problems(sound) == []
        inside = path.relative_to(sound).parts
        if len(inside) > 3:
            assert converted == ["/".join(inside[1:3])]
        elif inside[0] in TABLE_SCHEMAS and inside[0] != "rejected.parquet":
            assert converted == []


def test_several_damaged_volumes_are_put_right_at_once(sound, rsna, converted):
    before = contents(sound)
    rng = np.random.default_rng(3)
    flip(sound / VOLUMES / "100" / "7" / "c" / "0" / "0" / "0", rng)
    (sound / VOLUMES / "200" / "7" / "zarr.json").unlink()
    list(repair(sound, rsna, find_problems(sound), workers=0))
    assert converted == ["100/7", "200/7"]
    assert contents(sound) == before


def test_options_that_nobody_remembers_are_asked_for(tools, tmp_path, rsna):
    """The damaged description does not say the options; preprocess with them puts it right."""
    tools.run(rsna, tmp_path / "out", SMALL)
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "cache.json").write_text("{")
    with pytest.raises(InputError, match="lumbar preprocess"):
        list(repair(tmp_path / "out", rsna, find_problems(tmp_path / "out"), workers=0))
    tools.run(rsna, tmp_path / "out", SMALL)
    assert contents(tmp_path / "out") == before


def test_usual_options_are_tried(tools, tmp_path, rsna):
    path = tmp_path / "out" / "cache.json"
    tools.run(rsna, tmp_path / "out", PreprocessConfig())
    before = contents(tmp_path / "out")
    rng = np.random.default_rng(5)
    for _ in range(8):
        flip(path, rng)
        list(repair(tmp_path / "out", rsna, find_problems(tmp_path / "out"), workers=0))
        assert contents(tmp_path / "out") == before
    path.write_text("{")
    list(repair(tmp_path / "out", rsna, find_problems(tmp_path / "out"), workers=0))
    assert contents(tmp_path / "out") == before
