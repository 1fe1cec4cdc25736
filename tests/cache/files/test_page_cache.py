"""Files are dropped from the page cache, written ones too."""

import os
from pathlib import Path

from lumbar.cache.files.page_cache import forget_files


def test_files_are_written_and_then_dropped(tmp_path, monkeypatch):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"voxels")
    asked = []

    def advise(descriptor, start, length, advice):
        asked.append((Path(f"/proc/self/fd/{descriptor}").readlink(), start, length, advice))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr(os, "fsync", lambda descriptor: advise(descriptor, 0, 0, "written"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    forget_files([paths[0], tmp_path / "absent", paths[1]])
    # What is not written yet stays in memory, whatever is asked.
    steps = ("written", os.POSIX_FADV_DONTNEED)
    assert asked == [(path, 0, 0, step) for path in paths for step in steps]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_is_in_the_files_stays(tmp_path):
    (tmp_path / "a").write_bytes(b"voxels")
    forget_files([tmp_path / "a"])
    assert (tmp_path / "a").read_bytes() == b"voxels"
