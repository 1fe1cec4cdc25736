"""Zip and tar archives beside folders: the files in them are files, nothing else is believed."""

import io
import json
import struct
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from lumbar.pipeline.reject import Reason, RejectedError, Rejection
from lumbar.pipeline.source import archive as archive_module
from lumbar.pipeline.source.archive import (
    Member,
    is_archive,
    list_members,
    read_file,
    split_member,
    without_suffix,
)
from lumbar.pipeline.source.group import group_by_folder

KINDS = {
    "zip": None,
    "tar": "w",
    "tar.gz": "w:gz",
    "tgz": "w:gz",
    "tar.bz2": "w:bz2",
    "txz": "w:xz",
}


def pack(target, members):
    """Write bytes by name into an archive of the kind that its name says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    kind = target.name.split(".", 1)[1]
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in members.items():
                packed.writestr(name, data)
        return
    with tarfile.open(target, KINDS[kind]) as packed:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))


def files_of(phantom, folder, prefix=""):
    phantom.write(folder)
    return {f"{prefix}{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}


def rows_of(root, name):
    return [
        (item.path, item.reason) if isinstance(item, Rejection) else item
        for item in list_members(root, name)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_the_files_of_a_bare_tree(tools, tmp_path, kind):
    """One series in a folder, one in an archive beside it: the same volumes as two folders."""
    tools.phantom.write(tmp_path / "src" / "a")
    axial = replace(tools.planes["axial"], tags={"SeriesInstanceUID": "100.2"})
    pack(tmp_path / "src" / f"b.{kind}", files_of(axial, tmp_path / "plain" / "b", "deep/er/"))
    tools.phantom.write(tmp_path / "plain" / "a")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    plain = tools.cached(tmp_path / "plain", tmp_path / "out-plain")
    assert cache.series["series_id"].to_list() == ["100.1", "100.2"]
    assert cache.rejected.is_empty()
    for row in range(2):
        assert np.array_equal(cache.volume(row), plain.volume(row))
        assert np.array_equal(cache.attributes(row).affine, plain.attributes(row).affine)
    assert {path.name for path in (tmp_path / "src").iterdir()} == {"a", f"b.{kind}"}


@pytest.mark.parametrize("workers", [0, 2])
def test_archives_stand_for_the_folders_of_the_data_set(tools, tmp_path, rsna, workers):
    """A study, a series and a tree as archives: the tables of the unpacked source."""
    images = rsna / "train_images"
    plain = tools.cached(rsna, tmp_path / "out-plain")
    contents = {
        path.relative_to(images).as_posix(): path.read_bytes()
        for path in sorted(images.rglob("*.dcm"))
    }
    for path in images.rglob("*.dcm"):
        path.unlink()
    for folder in sorted(images.rglob("*"), reverse=True):
        folder.rmdir()
    split = {"100/7": {}, "100/8": {}, "200/7": {}}
    for name, data in contents.items():
        split[name.rsplit("/", 1)[0]][name] = data
    pack(images / "100" / "7.tar", {n.rsplit("/", 1)[1]: d for n, d in split["100/7"].items()})
    pack(images / "anything.tar.gz", {f"./{name}": data for name, data in split["100/8"].items()})
    pack(images / "200.zip", {n.split("/", 1)[1]: d for n, d in split["200/7"].items()})
    cache = tools.cached(rsna, tmp_path / "out", workers=workers)
    assert cache.rejected.is_empty()
    assert cache.series.select("study_id", "series_id", "series_type").equals(
        plain.series.select("study_id", "series_id", "series_type")
    )
    for row in range(3):
        assert np.array_equal(cache.volume(row), plain.volume(row))
    assert cache.coordinates.equals(plain.coordinates)


def test_place_of_a_member():
    found = group_by_folder(
        [
            "1/2.zip!/a.dcm",
            "1.tar!/3/a.dcm",
            "any/where.tgz!/4/5/a.dcm",
            "x.zip!/too/deep/1/2/a.dcm",
            "x.zip!/a.dcm",
        ]
    )
    assert list(found.files) == [("1", "2"), ("1", "3"), ("4", "5")]
    assert [row.reason for row in found.rejections] == [Reason.WRONG_PLACE] * 2


def test_names_of_archives_and_members():
    assert [is_archive(n) for n in ("a.zip", "A.ZIP", "b.tar.GZ", "c.gz", "zip", "d.zip.dcm")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    assert split_member("a/b.zip!/c/d.dcm") == Member("a/b.zip", "c/d.dcm")
    assert split_member("a/b!/c.dcm") is None
    assert split_member("a/b.zip/c.dcm") is None
    assert without_suffix("a/b.tar.gz") == "a/b"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_are_rows_and_nothing_is_written(tools, tmp_path, kind):
    names = ["../up.dcm", "/etc/passwd", "a/../../b.dcm", "fine/..dcm"]
    pack(tmp_path / "src" / f"x.{kind}", dict.fromkeys(names, b"x" * 200))
    rows = rows_of(tmp_path / "src", f"x.{kind}")
    assert [row for row in rows if isinstance(row, str)] == [f"x.{kind}!/fine/..dcm"]
    assert [row[1] for row in rows if not isinstance(row, str)] == [Reason.ARCHIVE] * 3
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert dict(cache.rejected["reason"].value_counts().iter_rows()) == {
        "archive": 3,
        "not_dicom": 1,
    }
    assert {path.name for path in tmp_path.iterdir()} == {"src", "out"}


def test_links_and_devices_in_a_tar_are_rows(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as packed:
        for name, kind in (
            ("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE),
            ("device", tarfile.CHRTYPE), ("folder", tarfile.DIRTYPE),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            packed.addfile(info)
    assert rows_of(tmp_path, "x.tar") == [
        ("x.tar!/device", Reason.ARCHIVE),
        ("x.tar!/hard", Reason.LINK),
        ("x.tar!/pipe", Reason.ARCHIVE),
        ("x.tar!/soft", Reason.LINK),
    ]


def test_archive_inside_an_archive_is_not_opened(tmp_path):
    pack(tmp_path / "inner.zip", {"1.dcm": b"x"})
    pack(tmp_path / "x.tar", {"deeper/inner.zip": (tmp_path / "inner.zip").read_bytes()})
    assert rows_of(tmp_path, "x.tar") == [("x.tar!/deeper/inner.zip", Reason.ARCHIVE)]


def test_encrypted_member_is_a_row(tmp_path):
    pack(tmp_path / "x.zip", {"1.dcm": b"x" * 50})
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    assert rows_of(tmp_path, "x.zip") == [("x.zip!/1.dcm", Reason.ARCHIVE)]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "txz"])
def test_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archive_module, "SMALL_BYTES", 2**20)
    pack(tmp_path / f"x.{kind}", {f"{n}.dcm": bytes(2**20) for n in range(3)})
    assert (tmp_path / f"x.{kind}").stat().st_size < 2**15
    (row,) = list_members(tmp_path, f"x.{kind}")
    assert (row.path, row.reason) == (f"x.{kind}", Reason.ARCHIVE)
    assert "a bomb" in row.detail


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_MEMBERS", 3)
    for kind in ("zip", "tar"):
        pack(tmp_path / f"x.{kind}", dict.fromkeys("abcd", b""))
        (row,) = list_members(tmp_path, f"x.{kind}")
        assert row.detail == "more than 3 members"


@pytest.mark.parametrize("is_large", [False, True], ids=["zip", "zip64"])
def test_list_that_would_fill_the_memory_is_not_read(tmp_path, monkeypatch, is_large):
    pack(tmp_path / "x.zip", {"1.dcm": b"x"})
    data = (tmp_path / "x.zip").read_bytes()
    at = data.index(b"PK\5\6")
    claimed = 2**31
    if is_large:
        record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, claimed, 0)
        locator = b"PK\6\7" + struct.pack("<IQI", 0, at, 1)
        end = data[at : at + 12] + struct.pack("<I", 2**32 - 1) + data[at + 16 :]
        data = data[:at] + record + locator + end
    else:
        data = data[: at + 12] + struct.pack("<I", claimed) + data[at + 16 :]
    (tmp_path / "x.zip").write_bytes(data)
    monkeypatch.setattr(zipfile, "ZipFile", lambda _: pytest.fail("the list was read"))
    (row,) = list_members(tmp_path, "x.zip")
    assert row.detail == f"a list of members of {claimed} bytes"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_member_is_never_read_beyond_the_bound(tmp_path, kind):
    pack(tmp_path / f"x.{kind}", {"1.dcm": bytes(5000)})
    member = f"x.{kind}!/1.dcm"
    assert read_file(tmp_path, member, 5000) == bytes(5000)
    with pytest.raises(RejectedError, match="more than 4999 bytes") as caught:
        read_file(tmp_path, member, 4999)
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_archives_are_rows(tools, tmp_path, kind):
    phantom = replace(tools.phantom, rows=8, columns=8)
    members = files_of(phantom, tmp_path / "plain")
    for number, share in enumerate((0, 0.01, 0.4, 0.9)):
        pack(tmp_path / "src" / f"{number}.{kind}", members)
        path = tmp_path / "src" / f"{number}.{kind}"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
    found = tools.run(tmp_path / "src", tmp_path / "out")[-1]
    assert found.rejected_by_reason["archive"] >= (1 if kind == "tar" else 3)
    assert "failed" not in found.rejected_by_reason


def test_damaged_member_costs_itself_alone(tools, tmp_path):
    pack(tmp_path / "src" / "x.zip", files_of(tools.phantom, tmp_path / "plain"))
    path = tmp_path / "src" / "x.zip"
    with zipfile.ZipFile(path) as packed:
        info = packed.getinfo("4.dcm")
        middle = info.header_offset + info.compress_size // 2 + 60
    data = bytearray(path.read_bytes())
    data[middle : middle + 20] = bytes(20)
    path.write_bytes(data)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected["path"].to_list() == ["x.zip!/4.dcm"]
    assert cache.rejected["reason"][0] in {"archive", "unreadable"}
    assert cache.attributes(0).instance_numbers == (1, 2, 3, 5, 6, 7)


def test_dicom_file_that_is_named_like_an_archive_is_a_file(tools, tmp_path):
    tools.phantom.write(tmp_path / "src")
    (tmp_path / "src" / "4.dcm").rename(tmp_path / "src" / "4.zip")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.is_empty()
    assert cache.volume(0).shape[0] == 7


def test_of_two_members_of_one_name_the_last_counts(tools, tmp_path):
    members = files_of(tools.phantom, tmp_path / "plain")
    with tarfile.open(tmp_path / "x.tar", "w") as packed:
        for data in (b"old", members["1.dcm"]):
            info = tarfile.TarInfo("1.dcm")
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    assert rows_of(tmp_path, "x.tar") == ["x.tar!/1.dcm"]
    assert read_file(tmp_path, "x.tar!/1.dcm", 2**20) == members["1.dcm"]


def test_archive_that_changes_is_opened_again(tmp_path):
    member = "x.zip!/1.dcm"
    pack(tmp_path / "x.zip", {"1.dcm": b"one"})
    assert read_file(tmp_path, member, 99) == b"one"
    pack(tmp_path / "x.zip", {"1.dcm": b"another"})
    assert read_file(tmp_path, member, 99) == b"another"
    with pytest.raises(RejectedError, match="archive"):
        read_file(tmp_path, "x.zip!/2.dcm", 99)


def test_changed_member_is_decoded_again(tools, tmp_path):
    members = files_of(tools.phantom, tmp_path / "plain")
    pack(tmp_path / "src" / "x.zip", members)
    tools.run(tmp_path / "src", tmp_path / "out")
    assert tools.run(tmp_path / "src", tmp_path / "out")[-1].n_reused == 1
    pack(tmp_path / "src" / "x.zip", members | {"1.dcm": members["1.dcm"][:-2] + b"\1\1"})
    assert tools.run(tmp_path / "src", tmp_path / "out")[-1].n_reused == 0


def test_study_that_is_an_archive_is_a_study_of_the_source(tools, tmp_path, rsna):
    """No CSV names it and it is no folder: a prediction is due for it all the same."""
    tags = {"StudyInstanceUID": "300", "SeriesInstanceUID": "300.7"}
    members = files_of(replace(tools.phantom, tags=tags), tmp_path / "plain", "7/")
    pack(rsna / "train_images" / "300.zip", members)
    cache = tools.cached(rsna, tmp_path / "out")
    assert "300" in cache.series["study_id"].to_list()
    assert json.loads((tmp_path / "out" / "cache.json").read_text())["source"]["studies"] == [
        "100", "200", "300",
    ]  # fmt: skip
