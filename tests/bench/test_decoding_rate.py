"""A part of a source goes through the whole of preprocess, and leaves nothing behind."""

import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.bench import decoding_rate
from lumbar.bench.decoding_rate import evenly_spread, measure_files_per_second
from lumbar.cache.errors import InputError, LumbarError, MissingError
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.execution import isolate as suspects
from lumbar.pipeline.reject import Reason

LONG = 600.0
"""Seconds that the sources of these tests never take: all of their files are measured."""


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The system's folder for temporary files, to see what is left in it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def converted(monkeypatch):
    """The task and result of every series that this process converts for the clock, in order."""
    found = []
    convert = suspects.convert

    def remember(task):
        result = convert(task)
        if not task.cache.name.startswith(decoding_rate.WARM):
            found.append((task, result))
        return result

    monkeypatch.setattr(suspects, "convert", remember)
    return found


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def snapshot(folder):
    """Return all that a write would change: names, sizes, times, contents."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else names(path),
        )
        for path in (folder, *folder.rglob("*"))
    }


def keys(converted):
    return sorted((task.study_id, task.series_id) for task, _ in converted)


@pytest.mark.parametrize("profile", ["fast", "archive"])
def test_whole_source_is_measured_and_nothing_is_left(tools, rsna, tmp_path, scratch, profile):
    config = PreprocessConfig(size=64, profile=profile)
    before = snapshot(rsna)
    rate = measure_files_per_second(rsna, config, workers=0, seconds=LONG)
    assert snapshot(rsna) == before
    assert names(scratch) == []
    stored = tools.cached(rsna, tmp_path / "cache", config).series["nbytes"].sum()
    assert (rate.files, rate.workers, rate.stored_bytes) == (21, 0, stored)
    assert 0 < rate.seconds < LONG
    assert rate.files_per_second == rate.files / rate.seconds


def test_workers_measure_the_same(rsna, scratch):
    config = PreprocessConfig(size=64)
    alone = measure_files_per_second(rsna, config, workers=0, seconds=LONG)
    rate = measure_files_per_second(rsna, config, workers=1, seconds=LONG)
    assert (rate.files, rate.stored_bytes, rate.workers) == (alone.files, alone.stored_bytes, 1)
    assert names(scratch) == []


def test_volumes_are_those_of_preprocess(tools, rsna, tmp_path, scratch, monkeypatch):
    kept = {}

    def keep(folder):
        kept[folder.parent.name, folder.name] = {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        return 0

    monkeypatch.setattr(decoding_rate, "_remove_volume", keep)
    measure_files_per_second(rsna, PreprocessConfig(), workers=0, seconds=LONG)
    cache = tools.cached(rsna, tmp_path / "cache", PreprocessConfig())
    assert sorted(kept) == sorted(cache.series.select("study_id", "series_id").rows())
    for (study_id, series_id), files in kept.items():
        folder = cache.root / "volumes.zarr" / study_id / series_id
        assert files == {path: (folder / path).read_bytes() for path in files}


@pytest.mark.usefixtures("scratch")
def test_time_that_is_over_leaves_one_series(rsna, converted):
    rate = measure_files_per_second(rsna, PreprocessConfig(), workers=0, seconds=1e-9)
    assert len(converted) == 1
    assert rate.files == 7


@pytest.mark.usefixtures("scratch")
def test_bare_tree_is_grouped_by_uid(rsna, converted):
    folder = rsna / "train_images" / "100" / "7"
    rate = measure_files_per_second(folder, PreprocessConfig(), workers=0, seconds=LONG)
    assert keys(converted) == [("100", "100.7")]
    assert rate.files == 7


@pytest.mark.usefixtures("scratch")
def test_bare_tree_below_single_folders(tools, tmp_path, converted):
    for study in ("1", "2"):
        tools.phantom.write(
            tmp_path / "src" / "all" / study,
            edit=lambda dataset, _, study=study: setattr(dataset, "StudyInstanceUID", study),
        )
    rate = measure_files_per_second(tmp_path / "src", tools.exact, workers=0, seconds=LONG)
    assert keys(converted) == [("1", "100.1"), ("2", "100.1")]
    assert rate.files == 14


@pytest.mark.usefixtures("scratch")
def test_cache_inside_of_a_bare_tree_is_no_study(tools, tmp_path, monkeypatch):
    src = tmp_path / "src"
    tools.phantom.write(src / "study")
    tools.run(src, src / "cache")
    looked_at = []
    identify = suspects.identify

    def remember(root, paths):
        looked_at.extend(paths)
        return identify(root, paths)

    monkeypatch.setattr(suspects, "identify", remember)
    before = snapshot(src / "cache")
    rate = measure_files_per_second(src, tools.exact, workers=0, seconds=LONG)
    assert snapshot(src / "cache") == before
    assert len(Cache(src / "cache").series) == 1
    assert rate.files == 7
    assert looked_at == [f"study/{number}.dcm" for number in range(1, 8)]


@pytest.mark.usefixtures("scratch")
def test_type_that_the_csv_names_is_known(rsna, converted):
    measure_files_per_second(rsna, PreprocessConfig(), workers=0, seconds=LONG)
    assert {(task.study_id, task.series_id): task.named for task, _ in converted} == {
        ("100", "7"): SeriesType.SAGITTAL_T2,
        ("100", "8"): SeriesType.AXIAL_T2,
        ("200", "7"): SeriesType.SAGITTAL_T1,
    }
    assert all(task.has_csv for task, _ in converted)


def test_rejected_series_counts_its_files(rsna, scratch, converted):
    for path in (rsna / "train_images" / "100" / "7").iterdir():
        path.write_bytes(b"no DICOM")
    rate = measure_files_per_second(rsna, PreprocessConfig(size=64), workers=0, seconds=LONG)
    assert rate.files == 21
    assert rate.stored_bytes == 14 * 64 * 64
    reasons = {(task.study_id, task.series_id): result.reason for task, result in converted}
    assert reasons["100", "7"] is Reason.NOT_DICOM
    assert [reason for reason in reasons.values() if reason is None] == [None, None]
    assert names(scratch) == []


@pytest.mark.usefixtures("scratch")
def test_source_without_a_series_is_refused(tmp_path):
    with pytest.raises(MissingError, match="no such source folder"):
        measure_files_per_second(tmp_path / "absent", PreprocessConfig(), workers=0)
    (tmp_path / "src").mkdir()
    with pytest.raises(InputError, match="the source holds no series"):
        measure_files_per_second(tmp_path / "src", PreprocessConfig(), workers=0)
    (tmp_path / "src" / "notes.txt").write_text("no DICOM")
    with pytest.raises(InputError, match="the source holds no series"):
        measure_files_per_second(tmp_path / "src", PreprocessConfig(), workers=0)


def test_temporary_folder_inside_of_the_source_is_refused(rsna, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(rsna / "train_images"))
    with pytest.raises(InputError, match="TMPDIR"):
        measure_files_per_second(rsna, PreprocessConfig(), workers=0)
    assert names(rsna / "train_images") == ["100", "200"]


def test_disk_that_is_full_is_an_error_and_leaves_nothing(rsna, scratch, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(suspects, "convert", fail)
    with pytest.raises(LumbarError, match="No space left"):
        measure_files_per_second(rsna, PreprocessConfig(), workers=0)
    assert names(scratch) == []


@pytest.mark.usefixtures("scratch")
def test_files_come_from_storage(rsna, converted, monkeypatch):
    forgotten = []
    forget = decoding_rate.forget_files
    monkeypatch.setattr(
        decoding_rate,
        "forget_files",
        lambda paths: forget(forgotten.append((path, len(converted))) or path for path in paths),
    )
    measure_files_per_second(rsna, PreprocessConfig(size=64), workers=0, seconds=LONG)
    sources = [
        (task.source / path, n) for n, (task, _) in enumerate(converted) for path in task.files
    ]
    assert forgotten == sources


@given(st.integers(0, 300), st.data())
def test_first_few_are_spread_over_all(n, data):
    order = evenly_spread(range(n))
    assert sorted(order) == list(range(n))
    if n == 0:
        return
    taken = sorted(order[: data.draw(st.integers(1, n))])
    widest = max(b - a for a, b in zip([0, *taken], [*taken, n], strict=True))
    assert widest <= 4 * n / len(taken)
