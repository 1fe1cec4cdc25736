"""Nothing beside ``--out`` is written, whatever ids, CSV cells, links and archives name."""

import zipfile

import pytest

from lumbar.cache.files.lock import LOCK
from lumbar.cache.format import CACHE_FILE, TABLE_SCHEMAS, VOLUMES
from lumbar.cache.tables import PATIENTS_FILE, SOURCES_FILE

EVIL = ("../../evil", "../../../out", "..", "/evil", "a/b", "a b")


def everything(folder):
    """Return what lies in a folder: contents, targets of links, times."""
    return {
        path: (path.lstat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in folder.rglob("*")
    }


@pytest.fixture
def guarded(tmp_path):
    """A folder with neighbours on all sides of what a run may write."""
    for name in ("evil", "room/evil", "room/source/evil"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "precious.txt").write_text("precious")
    return tmp_path / "room"


def check(tools, guarded, src):
    """Run twice; return the cache after a look at what lies around and in it."""
    out = guarded / "out"
    out.mkdir()
    before = everything(guarded.parent)
    tools.run(src, out)
    cache = tools.cached(src, out)
    after = everything(guarded.parent)
    inside = {path for path in after if path.is_relative_to(out)}
    assert {path: after[path] for path in after.keys() - inside} == {
        path: before[path] for path in before.keys() - {out}
    }
    names = {path.name for path in out.iterdir()}
    assert names == {*TABLE_SCHEMAS, CACHE_FILE, VOLUMES, LOCK, SOURCES_FILE, PATIENTS_FILE}
    assert not [path for path in inside if path.is_symlink()]
    return cache


def test_ids_of_headers_name_no_place(tools, guarded):
    src = guarded / "source"
    tools.phantom.write(src / "sound")
    for number, text in enumerate(EVIL):
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):

            def rename(dataset, _, keyword=keyword, text=text):
                dataset[keyword].VR = "LO"
                setattr(dataset, keyword, text)

            tools.phantom.write(src / keyword / str(number), edit=rename)
    cache = check(tools, guarded, src)
    assert cache.series["series_id"].to_list() == ["100.1"]
    reasons = cache.rejected.filter(path="")["reason"].to_list()
    assert reasons == ["unsafe_id"] * len(reasons)
    assert len(reasons) >= 2 * len(EVIL) - 1


def test_ids_of_csv_files_name_no_place(tools, guarded, rsna):
    src = rsna.rename(guarded / "source" / "rsna")
    series = src / "train_series_descriptions.csv"
    points = src / "train_label_coordinates.csv"
    labels = src / "train.csv"
    row = labels.read_text().splitlines()[1].partition(",")[2]
    for text in ("../../evil", "/evil", "..", "a/b"):
        series.write_text(f"{series.read_text()}{text},{text},Axial T2\n")
        points.write_text(
            f"{points.read_text()}{text},{text},1,Spinal Canal Stenosis,L4/L5,1.0,1.0\n"
        )
        labels.write_text(f"{labels.read_text()}{text},{row}\n")
    cache = check(tools, guarded, src)
    assert cache.series.height == 3
    assert cache.rejected["reason"].to_list() == ["no_files"] * 4


def test_members_of_archives_name_no_place(tools, guarded):
    src = guarded / "source"
    tools.phantom.write(src / "sound")
    sound = (src / "sound" / "1.dcm").read_bytes()
    with zipfile.ZipFile(src / "evil.zip", "w") as archive:
        for name in ("../../evil/precious.txt", "/evil/precious.txt", "../../out/cache.json"):
            archive.writestr(name, sound)
    cache = check(tools, guarded, src)
    assert cache.series["series_id"].to_list() == ["100.1"]
