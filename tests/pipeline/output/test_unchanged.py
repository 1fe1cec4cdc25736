"""An unchanged source is told by size and time, and is not read; whatever changed is."""

import os
import shutil
from dataclasses import replace

import pytest
from fixtures.dicom import tree

from lumbar.cache.source_records import read_sources
from lumbar.cache.tables import SOURCES_FILE
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.execution import isolate
from lumbar.pipeline.output import unchanged
from lumbar.pipeline.series import convert as series_module

pytestmark = pytest.mark.usefixtures("settled")


@pytest.fixture
def read(converted, monkeypatch):
    """A list of the series that are read, and of the files whose header is read for their ids."""
    genuine = isolate.identify

    def counted(root, paths):
        converted.extend(paths)
        return genuine(root, paths)

    monkeypatch.setattr(isolate, "identify", counted)
    return converted


def test_nothing_of_an_unchanged_source_is_read(tools, tmp_path, rsna, read):
    (rsna / "train_images" / "100" / "8" / "broken.dcm").write_bytes(b"no")
    tools.run(rsna, tmp_path / "out")
    assert len(read) == 3
    before = tree(tmp_path / "out")
    read.clear()
    finished = tools.run(rsna, tmp_path / "out")[-1]
    assert read == []
    assert (finished.n_reused, finished.n_changed, finished.n_files) == (3, 0, 22)
    assert tree(tmp_path / "out") == before


def test_contents_are_read_where_that_is_asked(tools, tmp_path, rsna, read):
    tools.run(rsna, tmp_path / "out")
    read.clear()
    assert tools.run(rsna, tmp_path / "out", check="contents")[-1].n_reused == 3
    assert len(read) == 3
    tools.run(rsna, tmp_path / "out")
    assert len(read) == 3


def test_a_byte_that_changes_under_the_old_time_is_found(tools, tmp_path, rsna, read):
    tools.run(rsna, tmp_path / "out")
    path = rsna / "train_images" / "200" / "7" / "3.dcm"
    state = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    read.clear()
    finished = tools.run(rsna, tmp_path / "out")[-1]
    assert read == ["200/7"]
    assert (finished.n_changed, finished.n_reused) == (1, 2)
    tools.run(rsna, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.parametrize(
    "change", ["new file", "lost file", "new study", "type", "volume", "chunk"]
)
def test_what_changed_is_read_again(tools, tmp_path, rsna, read, change):
    tools.run(rsna, tmp_path / "out")
    images = rsna / "train_images"
    changed = "100/8"
    match change:
        case "new file":
            (images / "100" / "8" / "new.dcm").write_bytes(b"x")
        case "lost file":
            (images / "100" / "8" / "3.dcm").unlink()
        case "new study":
            changed = "300/8"
            shutil.copytree(images / "100" / "8", images / "300" / "8")
        case "type":
            path = rsna / "train_series_descriptions.csv"
            path.write_text(path.read_text().replace("8,Axial T2", "8,Sagittal T1"))
        case "volume":
            shutil.rmtree(tmp_path / "out" / "volumes.zarr" / "100" / "8")
        case "chunk":
            (tmp_path / "out" / "volumes.zarr" / "100" / "8" / "c" / "0" / "0" / "0").unlink()
    read.clear()
    tools.run(rsna, tmp_path / "out")
    assert read == [changed]


def test_a_bound_of_untrusted_input_is_a_premise(tools, tmp_path, rsna, read):
    tools.run(rsna, tmp_path / "out")
    read.clear()
    tools.run(rsna, tmp_path / "out", replace_bound(tools.exact))
    assert len(read) == 3


def replace_bound(config):
    return PreprocessConfig(**config.model_dump() | {"max_pixels": 2**20})


def test_nothing_of_an_unchanged_bare_tree_is_read(tools, tmp_path, read):
    tags = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}
    replace(tools.phantom, tags=tags).write(tmp_path / "src")
    tools.run(tmp_path / "src", tmp_path / "out")
    read.clear()
    assert tools.run(tmp_path / "src", tmp_path / "out")[-1].n_reused == 1
    assert read == []
    (tmp_path / "src" / "3.dcm").touch()
    tools.run(tmp_path / "src", tmp_path / "out")
    # The headers of the rest of the study too: they say whether the file is still of their series.
    assert sorted(read) == ["1.2.3/1.2.3.1", *(f"{n}.dcm" for n in range(1, 8))]


def test_a_file_that_was_just_written_is_read_again(tools, tmp_path, rsna, read, monkeypatch):
    """Its time could stay the same while its bytes change once more."""
    monkeypatch.setattr(unchanged, "SETTLED_NS", 10**15)
    tools.run(rsna, tmp_path / "out")
    read.clear()
    tools.run(rsna, tmp_path / "out")
    assert len(read) == 3
    assert read_sources(tmp_path / "out").is_empty()


def test_a_stopped_run_keeps_what_it_has_read(tools, tmp_path, rsna, read, monkeypatch):
    def fails_at_the_last(task):
        if task.study_id == "200":
            raise OSError(28, "No space left on device")
        return series_module.convert(task)

    with monkeypatch.context() as patched:
        patched.setattr(isolate, "convert", fails_at_the_last)
        with pytest.raises(Exception, match="No space"):
            tools.run(rsna, tmp_path / "out")
    tools.run(rsna, tmp_path / "out")
    assert read == ["200/7"]


@pytest.mark.parametrize("damage", [None, 5, 40, 400])
def test_without_the_record_every_file_is_read_and_it_is_written_again(
    tools, tmp_path, rsna, read, caplog, damage
):
    tools.run(rsna, tmp_path / "out")
    before = tree(tmp_path / "out")
    path = tmp_path / "out" / SOURCES_FILE
    data = bytearray(path.read_bytes())
    if damage is None:
        path.unlink()
    else:
        data[damage] ^= 0x20
        path.write_bytes(data)
    read.clear()
    assert tools.run(rsna, tmp_path / "out")[-1].n_reused == 3
    assert len(read) == 3
    assert ("record of the sources" in caplog.text) == (damage is not None)
    assert tree(tmp_path / "out") == before
    read.clear()
    tools.run(rsna, tmp_path / "out")
    assert read == []
