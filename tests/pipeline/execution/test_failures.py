"""What stops a run: a full disk at any write, a source that goes away; the next run goes on."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from fixtures.dicom import tree

from lumbar.cache.errors import InputError, LumbarError
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.events import Planned
from lumbar.pipeline.execution.failures import plain_errors
from lumbar.pipeline.maintenance.convert_profile import reprofile
from lumbar.pipeline.preprocess import preprocess
from lumbar.pipeline.source import scan
from lumbar.pipeline.source.scan import is_gone

SMALL = PreprocessConfig(size=16)


class Disk:
    """A disk with room for some writes; the one after them is cut short, and so are all others."""

    def __init__(self, monkeypatch, writes):
        self.left = writes
        self._write_bytes = Path.write_bytes

        def write(path, data):  # a function, so that it is bound to the path
            return self._write(path, data)

        monkeypatch.setattr(Path, "write_bytes", write)
        monkeypatch.setattr(os, "fsync", lambda _: self._take())

    def _take(self):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def _write(self, path, data):
        self._write_bytes(path, bytes(data)[: len(data) // 2])
        self._take()
        return self._write_bytes(path, data)


def test_a_disk_that_is_full_at_any_write_costs_nothing_but_time(
    tools, tmp_path, rsna, monkeypatch
):
    (rsna / "train_images" / "100" / "8" / "broken.dcm").write_bytes(b"no")
    with monkeypatch.context() as patched:
        unlimited = Disk(patched, 10**6)
        tools.run(rsna, tmp_path / "whole", SMALL)
    whole, n_writes = tree(tmp_path / "whole"), 10**6 - unlimited.left
    assert n_writes > 15
    for writes in range(n_writes - 1):  # the record of the sources may fail unnoticed
        out = tmp_path / f"out{writes}"
        with monkeypatch.context() as patched:
            Disk(patched, writes)
            with pytest.raises(LumbarError, match=f"no room for the cache: {out}; got .*No space"):
                tools.run(rsna, out, SMALL)
        tools.run(rsna, out, SMALL)
        assert tree(out) == whole, f"full after {writes} writes"


def test_a_disk_that_is_full_stops_another_profile(tools, tmp_path, rsna, monkeypatch):
    tools.run(rsna, tmp_path / "fast", SMALL)
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        Disk(patched, 5)
        with pytest.raises(LumbarError, match=f"no room for the cache: {out}"):
            list(reprofile(tmp_path / "fast", out, "archive", workers=0))
    list(reprofile(tmp_path / "fast", out, "archive", workers=0))
    tools.run(rsna, tmp_path / "archive", SMALL.model_copy(update={"profile": "archive"}))
    assert tree(out) == tree(tmp_path / "archive")


@pytest.mark.parametrize("place", ["moved", "unmounted"])
def test_a_source_that_goes_away_is_said_and_harms_no_volume(tools, tmp_path, rsna, place):
    tools.run(rsna, tmp_path / "out", SMALL)
    before = tree(tmp_path / "out")
    images = rsna / "train_images"
    run = preprocess(rsna, tmp_path / "out", SMALL, workers=0, check="contents")
    while not isinstance(next(run), Planned):
        pass
    images.rename(tmp_path / "away")
    if place == "unmounted":
        images.mkdir()
    with pytest.raises(LumbarError, match=f"the source is gone: {images}"):
        next(run)
    assert {name for name in tree(tmp_path / "out") if name.startswith("volumes")} == {
        name for name in before if name.startswith("volumes")
    }
    shutil.rmtree(images, ignore_errors=True)
    (tmp_path / "away").rename(images)
    tools.run(rsna, tmp_path / "out", SMALL)
    assert tree(tmp_path / "out") == before


def test_a_source_that_goes_away_while_it_is_walked_is_said(tools, tmp_path, rsna, monkeypatch):
    tools.run(rsna, tmp_path / "out", SMALL)
    before = tree(tmp_path / "out")
    genuine = os.scandir

    def scandir(path):
        if isinstance(path, Path) and path.name == "8":
            rsna.rename(tmp_path / "away")
        return genuine(path)

    with monkeypatch.context() as patched:
        patched.setattr(scan.os, "scandir", scandir)
        with pytest.raises(LumbarError, match="the source is gone"):
            tools.run(rsna, tmp_path / "out", SMALL)
    (tmp_path / "away").rename(rsna)
    tools.run(rsna, tmp_path / "out", SMALL)
    assert tree(tmp_path / "out") == before


def test_a_source_that_may_not_be_read_is_the_callers_mistake(tools, tmp_path, rsna, monkeypatch):
    """As one unreadable folder among others it would be a row, and the cache empty."""

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(scan.os, "scandir", refuse)
    with pytest.raises(PermissionError, match="train_images"):
        tools.run(rsna, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_the_source_that_may_not_be_read_is_a_row(tools, tmp_path, rsna, monkeypatch):
    genuine = os.scandir

    def scandir(path):
        if isinstance(path, Path) and path.name == "8":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return genuine(path)

    monkeypatch.setattr(scan.os, "scandir", scandir)
    rows = tools.cached(rsna, tmp_path / "out", SMALL).rejected.select("path", "reason", "detail")
    assert ("100/8", "unreadable", "Permission denied") in rows.rows()


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), LumbarError, "no room for the cache: out"),
        (OSError(errno.EIO, "Input/output error"), LumbarError, "cannot be written: out; got .*In"),
        (OSError(errno.EROFS, "Read-only file system", "out/x"), InputError, "out/x; got Read-on"),
    ],
)
def test_what_the_system_refuses_is_said_with_the_folder(tmp_path, error, kind, said):
    (tmp_path / "file").touch()
    with pytest.raises(kind, match=said), plain_errors(Path("out"), tmp_path):
        raise error


def test_a_source_is_gone_where_nothing_is_left(tmp_path):
    assert is_gone(tmp_path / "nothing")
    assert is_gone(tmp_path)
    (tmp_path / "file").touch()
    assert not is_gone(tmp_path)
    assert is_gone(tmp_path / "file")


def test_nothing_is_promised_to_stay_of_a_folder_that_goes(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(LumbarError) as caught, plain_errors(tmp_path, is_kept=False):
        raise full
    assert "TMPDIR" in str(caught.value)
    assert "it begins anew" in str(caught.value)
    assert "stays" not in str(caught.value)
