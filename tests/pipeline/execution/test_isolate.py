"""A decoder that crashes or hangs costs its own file, with a reason, and changes no other byte."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

import lumbar
from lumbar.cache.store import Cache
from lumbar.cache.verify import Problem, verify
from lumbar.pipeline.events import SeriesFinished

HOSTILE = """
import os, signal, time
import pydicom

genuine = pydicom.dcmread

def hostile(file, *args, **options):
    if hasattr(file, "read"):
        data = file.read()
        file.seek(0)
    else:
        with open(file, "rb") as opened:
            data = opened.read()
    if b"SEGFAULT" in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"EXIT" in data:
        os._exit(1)
    if b"HANG" in data:
        open(os.environ["HANGING"], "w").close()
        time.sleep(3600)
    return genuine(file, *args, **options)

pydicom.dcmread = hostile
"""


@pytest.fixture
def hostile_decoder(tmp_path, monkeypatch, hanging):
    """Worker processes whose parser dies or hangs where a file says so."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HOSTILE)
    monkeypatch.setenv("PYTHONPATH", os.fspath(tmp_path / "site"))
    monkeypatch.setenv("HANGING", os.fspath(hanging))


def write(tools, folder, comments=None, *, depth=7, **tags):
    """Write a series; ``comments`` says what slices by their index are to do."""
    phantom = replace(tools.phantom, rows=24, columns=20, depth=depth, tags=tags)

    def edit(dataset, index):
        if index in (comments or {}):
            dataset.ImageComments = comments[index]

    phantom.write(folder, edit=edit)


def test_a_crash_and_a_hang_cost_their_files_alone(tools, tmp_path, hostile_decoder):
    images = tmp_path / "src" / "train_images"
    for series in range(4):
        write(tools, images / "100" / str(series))
    tools.run(tmp_path / "src", tmp_path / "undisturbed")
    write(tools, images / "200" / "1", {3: "SEGFAULT", 5: "HANG"})
    write(tools, images / "200" / "2", {0: "EXIT"}, depth=1)
    events = tools.run(tmp_path / "src", tmp_path / "out", workers=2, timeout_s=60.0)
    cache = Cache(tmp_path / "out")
    rows = cache.rejected.select("path", "reason").rows()
    assert rows == [
        ("200/1/4.dcm", "crashed"),
        ("200/1/6.dcm", "timed_out"),
        ("200/2/1.dcm", "crashed"),
    ]
    details = cache.rejected["detail"].to_list()
    assert details[0].endswith("SIGSEGV")
    assert details[1] == "more than 60 s"
    assert details[2].endswith("status 1")
    assert {
        e.series_id: e.reason for e in events if isinstance(e, SeriesFinished) and e.reason
    } == {"2": "crashed"}
    depths = dict(cache.series.filter(study_id="200").select("series_id", "depth").rows())
    assert depths == {"1": 5}
    for before in (tmp_path / "undisturbed" / "volumes.zarr" / "100").rglob("*"):
        if before.is_file():
            after = tmp_path / "out" / before.relative_to(tmp_path / "undisturbed")
            assert after.read_bytes() == before.read_bytes()
    assert [e for e in verify(tmp_path / "out") if isinstance(e, Problem)] == []


def test_what_crashes_while_a_bare_tree_is_sorted_is_a_row(tools, tmp_path, hostile_decoder):
    tags = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
    write(tools, tmp_path / "src", {2: "SEGFAULT"}, **tags)
    tools.run(tmp_path / "src", tmp_path / "out", workers=1)
    cache = Cache(tmp_path / "out")
    assert cache.rejected.select("path", "reason").rows() == [("3.dcm", "crashed")]
    assert cache.series["depth"].to_list() == [6]


def test_a_series_that_no_single_file_explains_is_left_out_whole(tools, tmp_path, monkeypatch):
    """The process dies of the whole series, as for want of memory, and of no file alone."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os\nfrom lumbar.pipeline.series import convert\n"
        "convert.build_volume = lambda *_, **__: os._exit(9)"
    )
    monkeypatch.setenv(
        "PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{Path(lumbar.__file__).parents[1]}"
    )
    write(tools, tmp_path / "src" / "train_images" / "100" / "1")
    tools.run(tmp_path / "src", tmp_path / "out", workers=1)
    assert Cache(tmp_path / "out").rejected.select("path", "reason").rows() == [("", "crashed")]
