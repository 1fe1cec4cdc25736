"""A cache changes its profile without the DICOM files, to the bytes of a preprocess with it."""

import shutil
from itertools import islice

import numpy as np
import pytest
from fixtures.dicom import tree

from lumbar.cache.errors import FormatError, InputError
from lumbar.cache.store import Cache
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.maintenance.convert_profile import reprofile


@pytest.fixture
def both(tools, tmp_path, rsna):
    """Caches of one source in both profiles; the source is gone."""
    (rsna / "train_images" / "100" / "8" / "broken.dcm").write_bytes(b"no")
    for profile in ("fast", "archive"):
        tools.run(rsna, tmp_path / profile, tools.exact.model_copy(update={"profile": profile}))
    shutil.rmtree(rsna)
    return tmp_path


@pytest.mark.parametrize(("old", "new"), [("fast", "archive"), ("archive", "fast")])
def test_the_bytes_are_those_of_a_preprocess(both, old, new):
    list(reprofile(both / old, both / "out", new, workers=0))
    assert tree(both / "out") == tree(both / new)


def test_worker_processes_give_the_same(both):
    list(reprofile(both / "fast", both / "out", "archive", workers=2))
    assert tree(both / "out") == tree(both / "archive")


def test_what_was_stopped_goes_on(both):
    run = reprofile(both / "fast", both / "out", "archive", workers=0)
    assert len(list(islice(run, 2))) == 2
    run.close()
    list(reprofile(both / "fast", both / "out", "archive", workers=0))
    assert tree(both / "out") == tree(both / "archive")


def test_a_damaged_volume_is_not_passed_on(both):
    chunk = both / "fast" / "volumes.zarr" / "100" / "7" / "c" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[7] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(FormatError, match="crc32c"):
        list(reprofile(both / "fast", both / "out", "archive", workers=0))


def test_the_output_has_to_be_another_folder_and_of_that_profile(both):
    with pytest.raises(InputError, match="the same folder"):
        list(reprofile(both / "fast", both / "fast", "archive", workers=0))
    with pytest.raises(InputError, match="another configuration"):
        list(reprofile(both / "fast", both / "archive", "fast", workers=0))


@pytest.mark.parametrize("name", ["siemens_sag_t1_gap_hfdl", "siemens_xa_jpegll_fragmented_24of96"])
def test_a_real_sagittal_series_takes_a_third_to_half(tools, tmp_path, real_dicom, name):
    tools.run(real_dicom / "series" / name, tmp_path / "fast", PreprocessConfig())
    list(reprofile(tmp_path / "fast", tmp_path / "archive", "archive", workers=0))
    plain, packed = Cache(tmp_path / "fast"), Cache(tmp_path / "archive")
    assert packed.series["nbytes"].sum() < 0.5 * plain.series["nbytes"].sum()
    for row in range(plain.series.height):
        assert np.array_equal(packed.volume(row), plain.volume(row))
