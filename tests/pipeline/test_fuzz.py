"""Mutated DICOM files: each becomes a volume or a row with a named reason, and the run ends.

1,000 files, or as many as ``LUMBAR_FUZZ`` says; ``LUMBAR_FUZZ_SEED`` draws others. The originals
are generated ones, pydicom's own test files and those of a folder that LUMBAR_DICOM names.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pydicom
import pytest

from lumbar.cache.store import Cache
from lumbar.cache.verify import Problem, verify
from lumbar.pipeline.config import PreprocessConfig

FILES = int(os.environ.get("LUMBAR_FUZZ", "1000"))
SEED = int(os.environ.get("LUMBAR_FUZZ_SEED", "0"))

MOST_BYTES = 2**18
"""Larger originals say nothing more, and take longer."""

LENGTHS = (0, 1, 2, 0x7F, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


def flip_bits(data, rng):
    for _ in range(rng.integers(1, 32)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)


def flip_header_bits(data, rng):
    for _ in range(rng.integers(1, 16)):
        data[rng.integers(min(len(data), 2048))] ^= 1 << rng.integers(8)


def truncate(data, rng):
    del data[rng.integers(len(data)) :]


def change_length(data, rng):
    """Overwrite two or four bytes, as a length would stand there."""
    width = (2, 4)[rng.integers(2)]
    place = int(rng.integers(max(1, min(len(data), 4096) - width)))
    value = LENGTHS[rng.integers(len(LENGTHS))] & ((1 << 8 * width) - 1)
    data[place : place + width] = value.to_bytes(width, "little")


def exchange_tags(data, rng):
    """Put the bytes of one even place where another's are."""
    if len(data) < 2:
        return
    one, other = 2 * rng.integers(min(len(data), 2048) // 2, size=2)
    data[one : one + 4], data[other : other + 4] = data[other : other + 4], data[one : one + 4]


def change_numbers(data, rng):
    """Put extreme numbers into the text values: positions, spacings, directions."""
    texts = (b"NaN", b"inf", b"1e308", b"-0", b"", b"\\\\", b"1e-30", b"99999999999")
    place = bytes(data).find(b"DS", int(rng.integers(len(data))))
    text = texts[rng.integers(len(texts))]
    if place >= 0:
        data[place + 4 : place + 4 + len(text)] = text


def drop_block(data, rng):
    start = int(rng.integers(len(data)))
    del data[start : start + int(rng.integers(1, 512))]


def repeat_block(data, rng):
    start = int(rng.integers(len(data)))
    data[start:start] = data[start : start + int(rng.integers(1, 512))]


MUTATIONS = (
    flip_bits,
    flip_header_bits,
    truncate,
    change_length,
    exchange_tags,
    change_numbers,
    drop_block,
    repeat_block,
)


@pytest.fixture
def originals(tools, tmp_path):
    """The bytes of small DICOM files of many kinds."""
    small = replace(tools.phantom, depth=1, rows=24, columns=20)
    for name, plane in tools.planes.items():
        for rle in (False, True):
            small_plane = replace(plane, depth=1, rows=24, columns=20)
            small_plane.write(tmp_path / "originals" / f"{name}{rle}", rle=rle)
    enhanced = replace(small, tags={"NumberOfFrames": 3})
    enhanced.write(tmp_path / "originals" / "frames")
    folders = [tmp_path / "originals", Path(pydicom.__file__).parent / "data" / "test_files"]
    if real := os.environ.get("LUMBAR_DICOM"):
        folders.append(Path(real))
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path.read_bytes() for path in files if 0 < path.stat().st_size <= MOST_BYTES]


def mutate(data, rng):
    mutated = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if mutated:
            MUTATIONS[rng.integers(len(MUTATIONS))](mutated, rng)
    return bytes(mutated)


def foreseen(cache):
    """Check that no row is of a failure that nobody has thought of; return the reasons."""
    unforeseen = cache.rejected.filter(
        cache.rejected["reason"].is_in(["failed", "crashed", "timed_out"])
    )
    assert unforeseen.is_empty(), unforeseen.rows()
    assert [event for event in verify(cache.root) if isinstance(event, Problem)] == []
    return set(cache.rejected["reason"])


@pytest.mark.slow
def test_each_mutated_file_is_a_volume_or_a_row(tools, tmp_path, originals):
    rng = np.random.default_rng(SEED)
    images = tmp_path / "src" / "train_images"
    for number in range(FILES // 2):
        path = images / str(number // 50) / str(number) / "1.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutate(originals[number % len(originals)], rng))
    config = PreprocessConfig(size=32)
    tools.run(tmp_path / "src", tmp_path / "out", config, workers=2, timeout_s=60.0)
    cache = Cache(tmp_path / "out")
    cached = set(cache.series["series_id"])
    rejected = set(cache.rejected["series_id"])
    assert cached | rejected == {str(number) for number in range(FILES // 2)}
    assert len(cached) > FILES / 40
    assert len(foreseen(cache)) >= 8
    assert {path.name for path in tmp_path.iterdir()} == {"originals", "src", "out"}


@pytest.mark.slow
def test_mutated_files_of_a_bare_tree_cost_no_sound_one(tools, tmp_path, originals):
    """Damaged ids and all: files that name one series make one, sound and damaged ones."""
    rng = np.random.default_rng(SEED + 1)
    tools.planes["axial"].write(tmp_path / "sound")
    sound = [path.read_bytes() for path in sorted((tmp_path / "sound").iterdir())]
    shutil.copytree(tmp_path / "sound", tmp_path / "src" / "0")  # the first of their names
    for number in range(FILES // 2):
        original = sound[number % 7] if number % 4 == 0 else originals[number % len(originals)]
        (tmp_path / "src" / f"{number}.bin").write_bytes(mutate(original, rng))
    config = PreprocessConfig(size=32)
    events = tools.run(tmp_path / "src", tmp_path / "out", config, workers=2, timeout_s=60.0)
    cache = Cache(tmp_path / "out")
    assert len(foreseen(cache)) >= 8
    of_no_series = cache.rejected.filter((pl.col("study_id") == "") | (pl.col("series_id") == ""))
    assert events[-1].n_files + of_no_series.height == FILES // 2 + 7
    row = cache.series["series_id"].to_list().index("100.1")
    assert set(cache.attributes(row).instance_numbers) >= set(range(1, 8))
    assert {path.name for path in tmp_path.iterdir()} == {"originals", "sound", "src", "out"}
