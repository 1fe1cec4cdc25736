"""The command line as a person runs it, from generated DICOM files to a submission."""

import contextlib
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
import typer
from bench.schema import BenchFile

from lumbar import __version__, cli
from lumbar.cache.label_csv import read_label_csv
from lumbar.cache.names import CELLS, SEVERITIES, SeriesType
from lumbar.cache.store import Cache
from lumbar.inspect.summary import summarise
from lumbar.train.evaluation.evaluate import evaluate
from lumbar.train.evaluation.submission import read_submission
from lumbar.train.run.checkpoint import load_checkpoint
from lumbar.train.run.predictions import read_run

ROOT = Path(__file__).parents[1]
PNG = b"\x89PNG\r\n"
STUDIES, TEST_STUDIES = 4, 3
SMALL = """
bfloat16 = false
split.folds = 2
optim = {epochs = 2, batch = 4}
crop = {slices = 8, height = 64, width = 32, pixel_mm = 4.0}
model = {backbone = "test_resnet", stride = 8, hidden = 8}
"""
SPINAL, FORAMINAL, SUBARTICULAR = slice(0, 5), slice(5, 15), slice(15, 25)
HEAVY = ("torch", "nvidia.dali", "timm", "numba", "matplotlib")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def lumbar(tmp_path_factory, command_line):
    """A function that runs the command line in one folder, with status 0; ``at`` is the folder."""
    root = tmp_path_factory.mktemp("person")

    def run(*arguments, status=0):
        with contextlib.chdir(root):
            result = command_line(*arguments)
        assert result.status == status, result
        assert result.err == ""
        return result.out

    return SimpleNamespace(run=run, at=root)


@pytest.fixture(scope="module")
def dicoms(lumbar):
    """A generated data set: of the test studies one is whole, one broken, one without a folder."""
    counts = ("--studies", STUDIES, "--test-studies", TEST_STUDIES)
    small = ("--max-matrix", 64, "--workers", 0)
    out = lumbar.run("synth", "--out", "dicoms", *counts, *small)
    folder = lumbar.at / "dicoms"
    whole, broken, absent = sorted(path.name for path in (folder / "test_images").iterdir())
    for path in (folder / "test_images" / broken).rglob("*.dcm"):
        path.write_bytes(b"no DICOM")
    shutil.rmtree(folder / "test_images" / absent)
    return SimpleNamespace(folder=folder, out=out, whole=whole, broken=broken, absent=absent)


@pytest.fixture(scope="module")
def cache(lumbar, dicoms):
    line = ("preprocess", "--src", "dicoms", "--out", "cache", "--size", 64, "--workers", 0)
    return SimpleNamespace(out=lumbar.run(*line), line=line, path=lumbar.at / "cache")


@pytest.fixture(scope="module")
def runs(lumbar, cache):
    """Two runs; the folder of the first has the name that no --run gives it."""
    (lumbar.at / "small.toml").write_text(SMALL)
    line = ("train", "--config", "small.toml", "--device", "cpu", "--threads", 1)
    return SimpleNamespace(
        out=lumbar.run(*line, "--series", "sagittal_t2"),
        axial_out=lumbar.run(
            *(*line, "--series", "axial_t2", "--run", "axial"),
            *("--set", "optim.epochs=1", "--set", "optim.lr=1e-3"),
        ),
        sagittal=lumbar.at / "runs" / "sagittal_t2-1",
        axial=lumbar.at / "axial",
    )


@pytest.fixture(scope="module")
def predicted(lumbar, runs):
    """What one run predicts from DICOM."""
    out = lumbar.run(
        *("predict", runs.sagittal, "--src", "dicoms", "--split", "test", "--workers", 0),
        *("--device", "cpu", "--threads", 1, "--out", "predictions/submission.csv"),
    )
    path = lumbar.at / "predictions" / "submission.csv"
    return SimpleNamespace(out=out, path=path, line=out.splitlines()[-2])


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def process(folder, *arguments):
    """Run Python in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def prior_of(*runs):
    return np.mean([load_checkpoint(run / "best.pt")[0].prior for run in runs], axis=0)


def test_synth_says_where_and_how_much(lumbar, dicoms):
    assert dicoms.out.splitlines()[-2] == "data set: dicoms"
    assert f"{STUDIES + TEST_STUDIES}/{STUDIES + TEST_STUDIES}" in dicoms.out
    assert len(list((dicoms.folder / "train_images").iterdir())) == STUDIES


def test_preprocess_ends_with_a_table_and_the_path(lumbar, cache):
    assert cache.out.splitlines()[-2] == "cache: cache"
    assert row_of(cache.out, "series in the cache") == str(Cache(cache.path).series.height)
    assert row_of(cache.out, "unchanged from before") == "0"
    assert row_of(cache.out, "series left out") == "0"


def row_of(out, name):
    """Return the second cell of a printed row."""
    (line,) = (line for line in out.splitlines() if name in line)
    return line.split("│")[2].strip()


def test_a_second_preprocess_decodes_nothing(lumbar, cache):
    before = files_below(cache.path)
    out = lumbar.run(*cache.line)
    n_series = row_of(out, "series in the cache")
    assert row_of(out, "unchanged from before") == n_series == str(3 * STUDIES)
    assert files_below(cache.path) == before


def test_a_broken_file_is_a_rejected_row(lumbar, dicoms):
    study = next((dicoms.folder / "train_images").iterdir())
    shutil.copytree(study, lumbar.at / "tree" / "study")
    broken = next((lumbar.at / "tree").rglob("*.dcm"))
    broken.write_bytes(broken.read_bytes()[:300])
    line = ("preprocess", "--src", "tree", "--size", 64, "--workers", 0)
    out = lumbar.run(*line, "--out", "tolerant")
    rejected = Cache(lumbar.at / "tolerant").rejected
    assert rejected["path"].to_list() == [str(broken.relative_to(lumbar.at / "tree"))]
    assert row_of(out, f"rejected: {rejected['reason'][0]}") == "1"

    done = process(lumbar.at, "-m", "lumbar.cli", *map(str, line), "--out", "strict", "--strict")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines()[-2] == "cache: strict"
    for table in ("series", "rejected"):
        strict = pl.read_parquet(lumbar.at / "strict" / f"{table}.parquet")
        assert strict.equals(pl.read_parquet(lumbar.at / "tolerant" / f"{table}.parquet"))


def test_verify_finds_one_changed_byte(lumbar, cache):
    assert lumbar.run("verify", "cache").splitlines()[-2].endswith("no problem")
    shutil.copytree(cache.path, lumbar.at / "damaged")
    entry = Cache(cache.path).series.row(0, named=True)
    chunk = lumbar.at / "damaged" / entry["path"]
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    *problems, verdict = lumbar.run("verify", "damaged", status=1).splitlines()
    assert verdict.endswith("1 problems")
    assert f"{entry['study_id']}/{entry['series_id']}" in problems[-1]


def test_inspect_shows_what_there_is(lumbar, cache):
    out = lumbar.run("inspect", "cache")
    assert f"{STUDIES} studies, {3 * STUDIES} series" in out
    for name in ("sagittal_t1", "sagittal_t2", "axial_t2", "spinal_canal_stenosis", "severe"):
        assert name in out
    parsed = json.loads(lumbar.run("inspect", "cache", "--json"))
    assert parsed == summarise(Cache(cache.path)).to_json()


def test_inspect_draws_a_sheet(lumbar, cache):
    study_id, series_id = Cache(cache.path).series.select("study_id", "series_id").row(0)
    series = ("inspect", "cache", "--series", f"{study_id}/{series_id}")
    out = lumbar.run(*series, "--out", "sheets/[red].png")
    assert out.splitlines()[-1] == "sheet: sheets/[red].png"
    assert (lumbar.at / "sheets" / "[red].png").read_bytes().startswith(PNG)


def test_inspect_draws_every_augmentation(lumbar, cache):
    (lumbar.at / "strong.toml").write_text("augment.rotation_degrees = 30.0\n")
    small = ("--set", "crop.slices=4", "--set", "crop.height=32", "--set", "crop.width=32")
    line = ("inspect", "cache", "--augment", "--config", "strong.toml", *small)
    rows = Cache(cache.path).series.select("study_id", "series_id", "series_type").rows()
    study_id, series_id, _ = next(row for row in rows if row[2] == "axial_t2")
    sheets = {
        "default.png": (),
        "type.png": ("--series", "axial_t2"),
        "named.png": ("--series", f"{study_id}/{series_id}"),
        "seed.png": ("--series", "axial_t2", "--seed", 7),
    }
    drawn = {}
    for name, more in sheets.items():
        out = lumbar.run(*line, *more, "--out", f"augmented/{name}")
        assert out.splitlines()[-1] == f"sheet: augmented/{name}"
        drawn[name] = (lumbar.at / "augmented" / name).read_bytes()
        assert drawn[name].startswith(PNG)
    assert drawn["type.png"] == drawn["named.png"]
    assert len(set(drawn.values())) == 3


def test_inspect_without_augment_loads_no_torch(lumbar, cache):
    source = """
import sys
from lumbar import cli
sys.argv = ["lumbar", "inspect", "cache"]
try:
    cli.main()
except SystemExit as end:
    assert not end.code
print([name for name in ("torch", "nvidia.dali", "numba") if name in sys.modules], file=sys.stderr)
"""
    done = process(lumbar.at, "-c", source)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_train_writes_a_run_and_says_how_it_went(lumbar, runs):
    assert runs.out.splitlines()[-2] == "run: runs/sagittal_t2-1"
    assert runs.axial_out.splitlines()[-2] == "run: axial"
    for text in ("2 series to train on, 2 held out", "epoch 1/2: loss", "epoch 2/2: loss"):
        assert text in runs.out
    for text in ("samples/s", "data wait", "GPU not measured", "best epoch", "training prior"):
        assert text in runs.out
    line = (
        "no model of foraminal, subarticular: the training prior stands in there and in the total"
    )
    assert line in runs.out.replace("\n", " ")
    names = {path.name for path in runs.sagittal.iterdir()}
    assert names > {"config.toml", "metrics.jsonl", "curves.png", "best.pt", "last.pt"}
    config = load_checkpoint(runs.axial / "best.pt")[0].config
    assert (config.series, config.optim.epochs, config.optim.lr) == (SeriesType.AXIAL_T2, 1, 1e-3)
    assert config.optim.batch == 4


def test_resuming_a_finished_run_trains_nothing(lumbar, runs):
    before = files_below(runs.sagittal)
    out = lumbar.run("train", "--resume", "runs/sagittal_t2-1", "--device", "cpu")
    assert "all 2 epochs are done, there is nothing left to train" in out
    assert "loss" not in out.partition("held-out studies")[0]
    assert files_below(runs.sagittal) == before


def test_evaluate_a_run(lumbar, runs, cache):
    evaluation = evaluate(read_run(runs.sagittal), Cache(cache.path).labels, where="run")
    parsed = json.loads(lumbar.run("evaluate", runs.sagittal, "--json"))
    assert parsed == evaluation.to_json()
    out = lumbar.run("evaluate", "runs/sagittal_t2-1")
    assert evaluation.training_prior is not None
    assert "training prior" in runs.out
    # What training ended with is what evaluating says: of the model, and of the training prior.
    for score in (evaluation.score, evaluation.training_prior):
        assert f"{score.total:.4f}" in runs.out
    for score in (
        *(evaluation.score, evaluation.training_prior),
        *(evaluation.best_constant, evaluation.uniform),
    ):
        assert f"{score.total:.4f}" in out
    assert "2 studies" in out
    epochs = map(json.loads, (runs.sagittal / "metrics.jsonl").read_text().splitlines())
    best = min(epoch["score"]["total"] for epoch in epochs)
    assert parsed["score"]["total"] == pytest.approx(best, rel=1e-5)


def test_evaluate_a_submission(lumbar, predicted, dicoms):
    labels = dicoms.folder / "test_solution.csv"
    line = ("evaluate", "--submission", predicted.path, "--labels", "dicoms/test_solution.csv")
    evaluation = evaluate(
        read_submission(predicted.path), read_label_csv(labels), where="a submission"
    )
    assert evaluation.training_prior is None
    assert json.loads(lumbar.run(*line, "--json")) == evaluation.to_json()
    out = lumbar.run(*line)
    assert f"{evaluation.score.total:.4f}" in out
    assert "best constant of these labels" in out
    assert "training prior: not known" in out


def test_evaluate_compares_and_draws(lumbar, runs, cache):
    line = ("evaluate", runs.sagittal, "--against", "axial", "--out", "evaluation")
    out = lumbar.run(*line)
    for text in ("95 % interval of the total", "L4/L5", "less axial, 2 studies of both"):
        assert text in out
    assert out.splitlines()[-2] == "evaluation: evaluation"
    folder = lumbar.at / "evaluation"
    document = json.loads((folder / "evaluation.json").read_text())
    ours, theirs = (
        evaluate(read_run(run), Cache(cache.path).labels, where="run").score
        for run in (runs.sagittal, runs.axial)
    )
    assert document["score"] == ours.to_json()
    assert document["comparison"]["difference"]["total"] == pytest.approx(ours.total - theirs.total)
    for name in ("reliability.png", "confusion.png"):
        assert (folder / name).read_bytes().startswith(PNG)

    # Together they are the ensemble: the canal of the one, the recesses of the other.
    both = json.loads(lumbar.run("evaluate", runs.sagittal, "axial", "--json"))["score"]
    assert both["spinal"] == pytest.approx(ours.spinal, rel=1e-6)
    assert both["subarticular"] == pytest.approx(theirs.subarticular, rel=1e-6)


def test_every_study_has_its_rows_whatever_is_missing(dicoms, runs, predicted):
    with predicted.path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    studies = (dicoms.whole, dicoms.broken, dicoms.absent)
    assert list(rows[0]) == ["row_id", *SEVERITIES]
    assert {row["row_id"] for row in rows} == {f"{s}_{c}" for s in studies for c in CELLS}
    assert len(rows) == 25 * TEST_STUDIES
    for row in rows:
        assert sum(float(row[name]) for name in SEVERITIES) == pytest.approx(1, abs=1e-9)

    read = read_submission(predicted.path)
    of = dict(zip(read.study_ids, read.probabilities, strict=True))
    prior = prior_of(runs.sagittal)
    assert of[dicoms.broken] == pytest.approx(prior)
    assert of[dicoms.absent] == pytest.approx(prior)
    assert of[dicoms.whole][5:] == pytest.approx(prior[5:])
    assert np.abs(of[dicoms.whole][SPINAL] - prior[SPINAL]).max() > 1e-3
    assert predicted.line == (
        "submission: predictions/submission.csv, 3 studies, 75 rows, 70 of them the training prior"
    )


def test_the_models_of_each_row_are_beside_the_submission(dicoms, predicted):
    served = pl.read_csv(predicted.path.with_name("submission_served_by.csv"))
    rows = pl.read_csv(predicted.path, infer_schema=False)
    assert served["row_id"].to_list() == rows["row_id"].to_list()
    sample = pl.read_csv(dicoms.folder / "sample_submission.csv", infer_schema=False)
    assert rows["row_id"].to_list() == sample["row_id"].to_list()
    of = {row[0]: row[1:] for row in served.iter_rows()}
    assert of[f"{dicoms.whole}_{CELLS[0]}"] == ("sagittal_t2", 1, "own_series")
    assert of[f"{dicoms.whole}_{CELLS[7]}"] == ("prior", 0, "no_model")
    assert of[f"{dicoms.broken}_{CELLS[0]}"] == ("prior", 0, "unreadable")
    assert of[f"{dicoms.absent}_{CELLS[0]}"] == ("prior", 0, "nothing_to_look_at")


def test_part_after_part_gives_the_same_and_leaves_nothing(
    lumbar, runs, predicted, monkeypatch, tmp_path
):
    monkeypatch.setattr("lumbar.commands.predict.STUDIES_A_PART", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    removed = []
    remove = shutil.rmtree

    def seen(path, *more, **options):
        removed.append(Path(path).name)
        remove(path, *more, **options)

    monkeypatch.setattr(shutil, "rmtree", seen)
    lumbar.run(
        *("predict", runs.sagittal, "--src", "dicoms", "--workers", 0),
        *("--device", "cpu", "--threads", 1, "--out", "parts.csv"),
    )
    for name, whole in (("parts.csv", ""), ("parts_served_by.csv", "_served_by")):
        expected = predicted.path.with_name(f"submission{whole}.csv").read_bytes()
        assert (lumbar.at / name).read_bytes() == expected
    parts = [name for name in removed if name.startswith("part-")]
    assert parts == ["part-1", "part-2", "part-3"]
    assert list(tmp_path.iterdir()) == []


def test_a_cache_gives_the_same_submission_and_two_runs_an_ensemble(
    lumbar, dicoms, runs, predicted
):
    lumbar.run(
        *("preprocess", "--src", "dicoms", "--split", "test", "--out", "test-cache"),
        *("--size", 64, "--workers", 0),
    )
    line = ("--cache", "test-cache", "--device", "cpu", "--threads", 1)
    lumbar.run("predict", runs.sagittal, *line)
    assert (lumbar.at / "submission.csv").read_bytes() == predicted.path.read_bytes()

    out = lumbar.run("predict", runs.sagittal, runs.axial / "best.pt", *line, "--out", "both.csv")
    assert "60 of them the training prior" in out
    alone, both = read_submission(predicted.path), read_submission(lumbar.at / "both.csv")
    row, prior = both.study_ids.index(dicoms.whole), prior_of(runs.sagittal, runs.axial)
    whole = both.probabilities[row]
    assert whole[SPINAL] == pytest.approx(alone.probabilities[row][SPINAL], abs=1e-6)
    assert whole[FORAMINAL] == pytest.approx(prior[FORAMINAL])
    assert np.abs(whole[SUBARTICULAR] - prior[SUBARTICULAR]).max() > 1e-3


def test_bench_writes_what_it_shows(lumbar, runs, monkeypatch):
    monkeypatch.setattr("lumbar.commands.bench.CORES", 0)  # no process but this one
    out = lumbar.run(
        *("bench", "--src", "dicoms", "--config", "small.toml", "--step-ms", 0),
        *("--seconds", 0.05, "--repeats", 1, "--device", "cpu", "--threads", 1),
        *("--json", "results/bench.json", "--out", "report", "--workers", 0),
        *("--minutes", 10),
    )
    report = json.loads((lumbar.at / "results" / "bench.json").read_text())
    BenchFile.model_validate(report)
    assert report["context"]["bench_config"]["seconds"] == 0.05
    assert report["context"]["run_config"]["crop"]["slices"] == 8
    for result in report["results"]:
        assert set(result) >= {"name", "value", "unit", "target", "met"}
    names = {result["name"].partition("/")[0] for result in report["results"]}
    assert names == {
        "replayed_batch",
        "dicom_dataloader_0_workers",
        "cache_dataloader_0_workers",
        "cache_dataloader_best",
        "lumbar_disk_1_threads",
        "lumbar_device_1_threads",
        "sampler",
        "whole_benchmark",
    }
    assert report["verdicts"][0]["text"] in out.replace("\n", " ")
    assert json.loads((lumbar.at / "report" / "bench.json").read_text()) == report
    assert (lumbar.at / "report" / "bench.png").read_bytes().startswith(PNG)
    for text in ("not measured", "lumbar, disk tier"):
        assert text in (lumbar.at / "report" / "bench.md").read_text()
    assert "test_resnet training step" in out


def test_version(lumbar):
    assert lumbar.run("--version") == f"{__version__}\n"


COMMANDS = typer.main.get_command(cli.app).commands


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(lumbar, command):
    out = lumbar.run(command, "--help")
    for parameter in COMMANDS[command].params:
        assert parameter.help or parameter.name == "help"
        for name in (*parameter.opts, *parameter.secondary_opts):
            assert name.strip("-") in out
    assert lumbar.run(command, "-h") == out


def test_help_names_every_command(lumbar):
    out = lumbar.run("--help")
    for command in COMMANDS:
        assert f"│ {command} " in out


def test_help_loads_nothing_heavy():
    source = f"""
import sys
from lumbar import cli
for command in {list(COMMANDS)}:
    sys.argv = ["lumbar", command, "--help"]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    done = process(ROOT, "-c", source)
    assert (done.returncode, done.stderr) == (0, "[]\n")
