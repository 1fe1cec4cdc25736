"""What lies in a source and is no file of it: links out, names that are no text, deep folders."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from lumbar.cache.errors import InputError
from lumbar.cache.verify import verify
from lumbar.pipeline.source.scan import walk


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def outside(tools, tmp_path):
    """A folder beside the source, with a sound file and nothing that a run may change."""
    tools.phantom.write(tmp_path / "outside")
    return tmp_path / "outside"


def test_links_to_files_stay_inside(tools, tmp_path, outside):
    src = tmp_path / "src"
    tools.phantom.write(src / "objects")
    (src / "series").mkdir()
    (src / "objects" / "3.dcm").rename(src / "objects" / "key")
    (src / "series" / "3.dcm").symlink_to("../objects/key")
    for name, target in {
        "absolute": outside / "1.dcm",
        "relative": "../../outside/1.dcm",
        "secret": "/etc/passwd",
        "round": "round",
        "nowhere": "nothing",
        "folder": "../objects",
        "out.zip": outside / "1.dcm",
    }.items():
        (src / "series" / name).symlink_to(target)
    before = contents(outside)
    cache = tools.cached(src, tmp_path / "out")
    links = cache.rejected.filter(reason="link")
    assert dict(links.select("path", "detail").rows()) == {
        "series/absolute": str(outside / "1.dcm"),
        "series/relative": "../../outside/1.dcm",
        "series/secret": "/etc/passwd",
        "series/round": "round",
        "series/nowhere": "nothing",
        "series/folder": "../objects",
        "series/out.zip": str(outside / "1.dcm"),
    }
    assert cache.volume(0).shape[0] == 7
    assert contents(outside) == before


def test_links_may_lead_to_what_lies_beside_the_images(tools, tmp_path, rsna):
    """Data sets under git-annex keep every file in ``.git`` and links in their places."""
    tools.run(rsna, tmp_path / "plain")
    store = rsna / ".git"
    for number, path in enumerate(sorted((rsna / "train_images").rglob("*.dcm"))):
        store.mkdir(exist_ok=True)
        path.rename(store / str(number))
        path.symlink_to(os.path.relpath(store / str(number), path.parent))
    cache = tools.cached(rsna, tmp_path / "linked")
    assert cache.rejected.is_empty()
    assert cache.series["crc32c"].to_list() == (
        tools.cached(rsna, tmp_path / "plain").series["crc32c"].to_list()
    )


def test_a_name_that_is_no_text_is_a_row(tools, tmp_path):
    """As disks of old workstations have them: neither file nor folder takes the rest along."""
    src = tmp_path / "src"
    tools.phantom.write(src)
    shutil.copy(src / "3.dcm", os.fsencode(src) + b"/M\xfcller.dcm")
    os.mkdir(os.fsencode(src) + b"/Sch\xe4fer")  # noqa: PTH102  # no Path is of bytes
    shutil.copy(src / "3.dcm", os.fsencode(src) + b"/Sch\xe4fer/1.dcm")
    os.symlink(b"\xff", os.fsencode(src) + b"/link")  # noqa: PTH211
    (src / "Schäfer.txt").write_text("x")
    cache = tools.cached(src, tmp_path / "out")
    assert cache.rejected.select("path", "reason", "detail").rows() == [
        ("M\\xfcller.dcm", "unreadable", "a name that is not UTF-8"),
        ("Sch\\xe4fer", "unreadable", "a name that is not UTF-8"),
        ("Schäfer.txt", "not_dicom", "no DICM mark"),
        ("link", "link", "\\xff"),
    ]
    assert cache.volume(0).shape[0] == 7


def test_folders_deeper_than_the_system_names_are_a_row(tools, tmp_path):
    src = tmp_path / "src"
    tools.phantom.write(src)
    descriptor = os.open(src, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("a" * 20, dir_fd=descriptor)  # no Path is that long
        inner = os.open("a" * 20, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    cache = tools.cached(src, tmp_path / "out")
    ((path, reason),) = cache.rejected.select("path", "reason").rows()
    assert reason == "unreadable"
    assert 100 < path.count("/") < 300
    assert cache.volume(0).shape[0] == 7


def test_a_source_of_nothing_readable_makes_a_sound_cache(tools, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_text("x")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.series.is_empty()
    assert not [event for event in verify(tmp_path / "out") if hasattr(event, "cure")]


def test_the_boundary_is_the_folder_itself_where_none_is_named(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "src" / "out").symlink_to(tmp_path / "file")
    (tmp_path / "src" / "in").symlink_to(tmp_path / "src" / "real")
    (tmp_path / "src" / "real").touch()
    found = list(walk(tmp_path / "src", Path()))
    assert found[0] == "in"
    assert found[1].reason == "link"
    assert found[2] == "real"
    assert list(walk(tmp_path / "src", Path(), inside=tmp_path))[1] == "out"


LEFT_BEHIND = (
    ".DS_Store", "100/.DS_Store", "100/7/._1.dcm", "100/7/Thumbs.db", "100/7/.hidden/1.dcm",
    "__MACOSX/100/7/._1.dcm", "__MACOSX/x.dcm", "@eaDir/1.dcm", "desktop.ini", ".Trash-0/1.dcm",
)  # fmt: skip


@pytest.mark.parametrize("is_bare", [False, True])
def test_what_systems_leave_behind_is_nothing(tools, tmp_path, rsna, is_bare):
    """No row, no study, no other byte of the cache; in archives neither."""
    src = rsna / "train_images" if is_bare else rsna
    if is_bare:
        src = src.rename(tmp_path / "tree")
    images = src if is_bare else src / "train_images"
    tools.run(src, tmp_path / "clean")
    for name in LEFT_BEHIND:
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(b"\0\5\26\7")
    for name in ("500", "600/1"):
        (images / name).mkdir(parents=True)
    with zipfile.ZipFile(images / "more.zip", "w") as archive:
        archive.writestr("__MACOSX/100/7/._2.dcm", b"x")
        archive.writestr(".DS_Store", b"x")
    tools.run(src, tmp_path / "strewn")
    files = [path.relative_to(tmp_path / "clean") for path in (tmp_path / "clean").rglob("*")]
    for name in files:
        if (tmp_path / "clean" / name).is_file() and name.name not in {".sources", ".lock"}:
            mine, theirs = (tmp_path / run / name for run in ("strewn", "clean"))
            assert mine.read_bytes() == theirs.read_bytes(), name


def test_a_source_of_what_systems_leave_behind_holds_no_file(tools, tmp_path):
    (tmp_path / "src" / "__MACOSX").mkdir(parents=True)
    (tmp_path / "src" / "__MACOSX" / "1.dcm").write_text("x")
    (tmp_path / "src" / ".DS_Store").write_text("x")
    with pytest.raises(InputError, match="holds no file"):
        tools.run(tmp_path / "src", tmp_path / "out")
