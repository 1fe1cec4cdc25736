"""What is lost is no success: nothing cached, nothing predicted, a sample of other studies."""

import csv
import random
import re
import shutil
from types import SimpleNamespace

import pytest

from lumbar.cache.names import CELLS, SEVERITIES, SeriesType
from lumbar.cache.store import Cache
from lumbar.cache.verify import Problem, verify
from lumbar.pipeline.reject import CURES, SENTENCES, Reason
from lumbar.train.evaluation.baselines import uniform
from lumbar.train.run.checkpoint import BEST, ModelBundle, build_model, save_checkpoint
from lumbar.train.run.config import resolve_config

SMALL = """
crop = {slices = 4, height = 32, width = 32, pixel_mm = 6.0}
model = {backbone = "test_resnet", hidden = 4}
"""
QUIET = ("--workers", 0)
PREDICT = (*QUIET, "--device", "cpu", "--threads", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory, command_line):
    """A generated data set, its cache, and a run that was never trained."""
    root = tmp_path_factory.mktemp("losses")
    counts = ("--studies", 1, "--test-studies", 2)
    command_line("synth", "--out", root / "dicoms", *counts, "--max-matrix", 64, *QUIET)
    line = ("preprocess", "--src", root / "dicoms", "--out", root / "cache", "--size", 64)
    done = command_line(*line, *QUIET)
    (root / "small.toml").write_text(SMALL)
    config = resolve_config(SeriesType.SAGITTAL_T2, file=root / "small.toml")
    (root / "run").mkdir()
    (root / "run" / "config.toml").write_text(config.to_toml())
    values = Cache(root / "cache").voxel_config
    bundle = ModelBundle(config, build_model(config), uniform(), values)
    save_checkpoint(root / "run" / BEST, bundle, trainer_state=None)
    studies = sorted(path.name for path in (root / "dicoms" / "test_images").iterdir())
    return SimpleNamespace(root=root, done=done, run=root / "run", studies=studies)


@pytest.fixture
def source(place, tmp_path):
    """A copy of the test half, to be changed."""
    src = tmp_path / "src"
    shutil.copytree(place.root / "dicoms" / "test_images", src / "test_images")
    shutil.copy(place.root / "dicoms" / "test_series_descriptions.csv", src)
    return src


def write_sample(path, studies, *, shuffle=False):
    rows = [f"{study}_{cell}" for study in studies for cell in sorted(CELLS)]
    if shuffle:
        random.Random(3).shuffle(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["row_id", *SEVERITIES], *([r, 0.4, 0.3, 0.3] for r in rows)])
    return rows


def spoil(folder):
    for path in folder.rglob("*.dcm"):
        path.write_bytes(b"no DICOM")


def test_the_table_shows_how_tables_and_images_met(place):
    text = place.done.out
    for pattern in (
        r"train_series_descriptions.csv: series with images +│ +\d",
        r"train.csv: studies with images +│ +1 ",
        r"train_label_coordinates.csv: series with images",
        r"in the table alone +│ +0 ",
        r"in the images alone +│ +0 ",
        r"points with a place +│ +\d",
    ):
        assert re.search(pattern, text), text


def test_every_reason_has_a_cure():
    assert set(CURES) == set(SENTENCES) == set(Reason)
    assert all(text and not text.endswith(".") for text in CURES.values())


def test_a_run_that_caches_nothing_fails_with_the_cure(command_line, tmp_path):
    (tmp_path / "src").mkdir()
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / "src" / name).write_text("text")
    (tmp_path / "src" / "broken.zip").write_bytes(b"PK")
    out = tmp_path / "out"
    done = command_line("preprocess", "--src", tmp_path / "src", "--out", out, *QUIET)
    assert done.status == 1
    assert done.err.startswith(f"error: nothing of the source could be cached: {tmp_path / 'src'};")
    assert "got 2 not_dicom, 1 archive (The file is not DICOM.)" in done.err
    assert CURES[Reason.NOT_DICOM] in done.err
    assert f"not_dicom: {SENTENCES[Reason.NOT_DICOM]}" in done.out
    assert f"`lumbar inspect {out} --reason not_dicom`" in done.out
    assert not [event for event in verify(out) if isinstance(event, Problem)], "the cache is sound"
    listed = command_line("inspect", out, "--reason", "not_dicom")
    assert listed.status == 0
    assert "2 rejected files and series" in listed.out
    assert "a.dcm" in listed.out
    assert "b.dcm" in listed.out
    assert "broken.zip" not in listed.out


def test_of_reasons_that_cost_as_much_each_has_its_cure(command_line, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.dcm").write_text("text")
    (tmp_path / "src" / "broken.zip").write_bytes(b"PK")
    done = command_line("preprocess", "--src", tmp_path / "src", "--out", tmp_path / "out", *QUIET)
    assert done.status == 1
    for reason in (Reason.NOT_DICOM, Reason.ARCHIVE):
        assert SENTENCES[reason] in done.err
        assert CURES[reason] in done.err


def test_an_empty_cache_is_said_by_whatever_opens_it(command_line, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.dcm").write_text("text")
    out = tmp_path / "out"
    command_line("preprocess", "--src", tmp_path / "src", "--out", out, *QUIET)
    says = f"error: the cache holds no series: {out}; got rejected files and series: 1 not_dicom;"
    checked = command_line("verify", out)
    assert (checked.status, checked.err.startswith(says)) == (1, True)
    shown = command_line("inspect", out)
    assert (shown.status, shown.err.startswith(says)) == (0, True)
    made = command_line("convert", out, "--out", tmp_path / "new", "--profile", "archive", *QUIET)
    assert (made.status, made.err.startswith(says)) == (1, True)
    assert not (tmp_path / "new").exists()


def test_what_broke_later_is_a_loss_too(command_line, source, tmp_path):
    """The series of before that are no longer there do not make it a success."""
    line = ("preprocess", "--src", source, "--out", tmp_path / "out", "--size", 64, *QUIET)
    assert command_line(*line).status == 0
    first, second = sorted((source / "test_images").iterdir())
    shutil.rmtree(first)
    spoil(second)
    done = command_line(*line)
    assert (done.status, "nothing of the source could be cached" in done.err) == (1, True)
    assert not Cache(tmp_path / "out").series.is_empty()


def test_a_shard_without_studies_is_none_and_a_merge_of_nothing_is_a_loss(
    command_line, source, tmp_path
):
    (study, *others) = sorted((source / "test_images").iterdir())
    for other in others:
        shutil.rmtree(other)
    (source / "test_series_descriptions.csv").unlink()
    for whole in (True, False):
        if not whole:
            spoil(study)
        statuses = []
        for number in (1, 2):
            out = tmp_path / f"{whole}-{number}"
            line = ("preprocess", "--src", source, "--out", out, "--shard", f"{number}/2")
            statuses.append(command_line(*line, "--size", 64, *QUIET).status)
        assert sorted(statuses) == [0, 0 if whole else 1]
        shards = [tmp_path / f"{whole}-{number}" for number in (1, 2)]
        done = command_line("merge", *shards, "--out", tmp_path / f"{whole}")
        assert done.status == (0 if whole else 1)
        assert (tmp_path / f"{whole}").exists() == whole
    assert "not_dicom (The file is not DICOM.)" in done.err


def test_a_submission_of_priors_alone_is_a_failure(command_line, place, source, tmp_path):
    spoil(source)
    out = tmp_path / "submission.csv"
    done = command_line("predict", place.run, "--src", source, "--out", out, *PREDICT)
    assert done.status == 1
    assert "every row of the submission is the training prior" in done.err
    assert "10 of 50 rows unreadable" in done.err
    assert f"not_dicom: {SENTENCES[Reason.NOT_DICOM]}" in done.out
    assert len(out.read_text().splitlines()) == 51, "the file is there for who wants it"


def test_a_bare_tree_of_nothing_is_said_by_its_own_name(command_line, place, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.dcm").write_text("text")
    out = tmp_path / "submission.csv"
    done = command_line("predict", place.run, "--src", tmp_path / "src", "--out", out, *PREDICT)
    assert done.status == 1
    assert f"nothing of the source could be cached: {tmp_path / 'src'}; got 1 not_dicom" in done.err
    assert not out.exists()


@pytest.mark.parametrize("name", ["sample_submission.csv", "Sample_Submission.csv"])
def test_a_sample_of_other_studies_beside_the_images_is_refused(
    command_line, place, source, tmp_path, name
):
    write_sample(source / name, ["44036939"])
    out = tmp_path / "submission.csv"
    for more in ((), ("--sample", source / name)):
        done = command_line("predict", place.run, "--src", source, "--out", out, *PREDICT, *more)
        assert done.status == 2
        assert "names none of the studies to predict" in done.err
        assert "got 44036939; expected studies such as " + place.studies[0] in done.err
        assert "--sample" in done.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("wants", "short"),
    [
        (lambda a, _: {"studies": [a, "9"]}, True),
        (lambda a, b: {"studies": [b, "9", a], "shuffle": True}, False),
    ],
    ids=["lacks one", "another order"],
)
def test_a_sample_that_does_not_cover_the_images_has_to_be_named(
    command_line, place, source, tmp_path, caplog, wants, short
):
    asked = wants(*place.studies)
    rows = write_sample(source / "sample_submission.csv", **asked)
    out = tmp_path / "submission.csv"
    line = ("predict", place.run, "--src", source, "--out", out, *PREDICT)
    done = command_line(*line)
    assert done.status == (2 if short else 0), done.err
    if short:
        assert "does not cover them" in done.err
        assert "name it by --sample to write its rows alone" in done.err
        assert not out.exists()
        done = command_line(*line, "--sample", source / "sample_submission.csv")
        assert done.status == 0
        assert "lacks rows of 1 studies" in caplog.text
    with out.open(newline="") as file:
        assert [row["row_id"] for row in csv.DictReader(file)] == rows
    assert ("names 1 studies that are not there" in caplog.text) == ("9" in asked["studies"])


def test_samples_that_a_spreadsheet_changed_are_refused(command_line, place, source, tmp_path):
    out = tmp_path / "submission.csv"
    line = ("predict", place.run, "--src", source, "--out", out, *PREDICT)
    write_sample(source / "sample_submission.csv", [f"{study}.0" for study in place.studies])
    done = command_line(*line)
    assert done.status == 2
    assert f"{place.studies[0]}.0 for {place.studies[0]}" in done.err
    write_sample(source / "sample_submission.csv", [*place.studies, place.studies[0]])
    done = command_line(*line)
    assert (done.status, "row_id comes twice" in done.err) == (2, True)
    assert not out.exists()


def test_a_sample_is_compared_with_a_bare_tree_and_with_a_cache(
    command_line, place, source, tmp_path
):
    write_sample(tmp_path / "sample.csv", ["44036939"])
    for given in (("--src", source / "test_images" / place.studies[0]),
                  ("--cache", place.root / "cache")):  # fmt: skip
        out = tmp_path / "submission.csv"
        more = ("--out", out, "--sample", tmp_path / "sample.csv", "--device", "cpu")
        done = command_line("predict", place.run, *given, *more, *QUIET)
        assert (done.status, "names none of the studies" in done.err) == (2, True), done
        assert not out.exists()


def test_known_files_have_no_rate(command_line, place, monkeypatch):
    monkeypatch.setattr("lumbar.display.progress_lines.EVERY_S", 0.0)
    out = place.root / "cache"
    line = ("preprocess", "--src", place.root / "dicoms", "--out", out, "--size", 64, *QUIET)
    command_line(*line)
    (last,) = [text for text in command_line(*line).out.splitlines() if "100 %" in text]
    assert re.fullmatch(r"preprocess: (\d+) of \1 files \(100 %\), 0:00:00 left", last)
