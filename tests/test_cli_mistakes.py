"""What a person does wrong at the command line: status 2, one line that helps, nothing written."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lumbar.cache.names import CELLS, SEVERITIES, SeriesType
from lumbar.cache.store import Cache
from lumbar.train.evaluation.baselines import uniform
from lumbar.train.run.checkpoint import BEST, LAST, ModelBundle, build_model, save_checkpoint
from lumbar.train.run.config import resolve_config

ROOT = Path(__file__).parents[1]

ONE_LINE = re.compile(r"error: [^;\n]+: [^\n]+; got [^\n]+; expected [^\n]+; [^\n]+\n")
"""What and where, got, expected, the cure."""

MISTAKES = {
    "no source": ("preprocess --src nothing --out out", "no such source folder: nothing"),
    "a file as source": ("preprocess --src dicoms/train.csv --out out", "got a file"),
    "an empty source": ("preprocess --src empty --out out", "holds no file: empty"),
    "no such split": ("preprocess --src dicoms --out out --split test", "no split test: dicoms"),
    "a missing column": (
        "preprocess --src lacks_a_column --out out",
        "columns of a CSV file: lacks_a_column/train_series_descriptions.csv",
        "missing ['series_description'], unknown ['kind']",
    ),
    "a label column too many": (
        "preprocess --src has_a_column_more --out out",
        "has_a_column_more/train.csv",
        "unknown ['remark']",
    ),
    "an unknown severity": (
        "preprocess --src unknown_severity --out out",
        f"unknown severity: unknown_severity/train.csv line 2 column {CELLS[3]}",
        "got 'Awful'",
        "Normal/Mild, Moderate, Severe or an empty cell",
    ),
    "an unknown series description": (
        "preprocess --src unknown_type --out out",
        "unknown series_description: unknown_type/train_series_descriptions.csv line 2",
        "got 'Coronal T1'",
        "Sagittal T1, Sagittal T2/STIR, Axial T2",
    ),
    "a point that is no number": (
        "preprocess --src wrong_point --out out",
        "x is not a number: wrong_point/train_label_coordinates.csv line 2",
        "got 'here'",
    ),
    "an option out of bounds": (
        "preprocess --src dicoms --out out --size 3",
        "--size; got 3; expected greater than or equal to 16",
    ),
    "options that disagree": (
        "preprocess --src dicoms --out out --grid spacing",
        "--grid",
        "expected spacing_mm with grid = 'spacing'",
    ),
    "another configuration": (
        "preprocess --src dicoms --out cache --size 96",
        "got size = 96; expected size = 64",
        "--overwrite",
    ),
    "an output that is no cache": (
        "preprocess --src dicoms --out notes",
        "neither empty nor a cache: notes; got mine.txt",
    ),
    "an output inside a file": (
        "preprocess --src dicoms --out dicoms/train.csv/cache",
        "dicoms/train.csv/cache; got Not a directory",
    ),
    "preprocess into a newer cache": (
        "preprocess --src dicoms --out newer --size 64",
        "newer/cache.json; got format_version 2; expected format_version 1",
    ),
    "train on a newer cache": (
        "train --series sagittal_t2 --cache newer",
        "newer/cache.json; got format_version 2; expected format_version 1",
    ),
    "inspect a newer cache": ("inspect newer", "got format_version 2"),
    "verify a newer cache": ("verify newer", "got format_version 2"),
    "predict a newer cache": ("predict run --cache newer", "got format_version 2"),
    "bench a newer cache": ("bench --cache newer", "got format_version 2"),
    "evaluate on a newer cache": ("evaluate run --cache newer", "got format_version 2"),
    "no cache": ("inspect nothing", "no such cache folder: nothing", "`lumbar preprocess"),
    "a folder that is no cache": ("verify notes", "not a cache: notes", "no cache.json"),
    "brackets in a path": ("inspect [bold]no[/red]thing", "folder: [bold]no[/red]thing;"),
    "no such series": ("inspect cache --series 1/2", "no such series: cache; got 1/2"),
    "a configuration without --augment": (
        "inspect cache --config small.toml --seed 3",
        "got --config and --seed without --augment; expected --augment with them",
    ),
    "augmentations as JSON": ("inspect cache --augment --json", "got --augment and --json"),
    "augmentations of no series": (
        "inspect cache --augment --series 1/2",
        "no such series: cache; got 1/2",
    ),
    "an unknown augmentation": (
        "inspect cache --augment --set augment.swirl=1",
        "unknown key: augment.swirl in",
        "got 'swirl'; expected one of rotation_degrees",
    ),
    "augmentations of another type": (
        "inspect cache --augment --config axial.toml",
        "axial.toml; got axial_t2; expected sagittal_t2",
    ),
    "train nothing": ("train", "got neither --series nor --resume"),
    "resume with more": (
        "train --resume run --set seed=3",
        "got seed; expected optim.epochs alone",
    ),
    "resume with another series": (
        "train --resume run --series axial_t2",
        "--resume RUN, at most with --set optim.epochs=N",
    ),
    "folds that count from 1": (
        "train --series sagittal_t2 --cache cache --fold 5/5",
        "got 5/5; expected 0/5 to 4/5: folds count from 0",
    ),
    "an evaluation that cannot be written": (
        "evaluate blend.parquet --cache cache --out dicoms/train.csv/evaluation",
        "the results cannot be written: dicoms/train.csv/evaluation",
        "nothing has been computed yet",
    ),
    "resume what is no run": ("train --resume notes", "holds no run: notes; got no config.toml"),
    "resume what is not there": ("train --resume nothing", "nothing; got no such folder"),
    "resume another shape": (
        "train --resume reshaped --cache cache",
        "checkpoint of another shape: reshaped/last.pt",
    ),
    "a run's folder in use": (
        "train --series sagittal_t2 --cache cache --run notes --config small.toml",
        "the run's folder is not empty: notes",
        "name another --run",
    ),
    "no configuration file": (
        "train --series sagittal_t2 --cache cache --config nothing.toml",
        "no such configuration file: nothing.toml",
    ),
    "an unknown key": (
        "train --series sagittal_t2 --cache cache --config unknown_key.toml",
        "unknown key: optim.rate in unknown_key.toml; got 'rate'; expected one of epochs, batch",
    ),
    "a value of the wrong type": (
        "train --series sagittal_t2 --cache cache --config wrong_type.toml",
        "optim.lr in wrong_type.toml; got 'fast'; expected a valid number;",
    ),
    "broken TOML": (
        "train --series sagittal_t2 --cache cache --config broken.toml",
        "broken.toml",
        "line 1",
        "expected TOML",
    ),
    "a configuration of another type": (
        "train --series sagittal_t2 --cache cache --config axial.toml",
        "axial.toml; got axial_t2; expected sagittal_t2",
    ),
    "--set of an unknown key": (
        "train --series sagittal_t2 --cache cache --set nothing.lr=3",
        "unknown key: nothing in",
        "expected one of series, study_types",
    ),
    "--set without a value": (
        "train --series sagittal_t2 --cache cache --set optim.lr",
        "--set; got 'optim.lr'; expected KEY=VALUE",
    ),
    "an unknown backbone": (
        "train --series sagittal_t2 --cache cache --config small.toml "
        "--set model.backbone=resnet19",
        "got 'resnet19'",
        "near names: resnet",
    ),
    "too few studies": (
        "train --series sagittal_t2 --cache cache --set split.folds=9",
        "3 labelled studies",
        "split.folds",
    ),
    "an unknown series type": (
        "train --series coronal_t1 --cache cache",
        "unknown series type: --series; got coronal_t1; expected one of sagittal_t1, sagittal_t2",
    ),
    "an unknown device": ("train --series axial_t2 --cache cache --device gpu", "got gpu"),
    "evaluate nothing": ("evaluate", "got nothing; expected folders of runs, or files"),
    "evaluate folders and files": (
        "evaluate run short.csv --cache cache",
        "got folders and files; expected runs, or files",
    ),
    "two files with the same studies": (
        "evaluate two_studies.csv two_studies.csv --labels dicoms/train.csv",
        "a study is predicted in two files: two_studies.csv; got study",
        "--against",
    ),
    "no submission": (
        "evaluate --submission nothing.csv --labels dicoms/train.csv",
        "no such file: nothing.csv",
    ),
    "a submission that lacks rows": (
        "evaluate --submission short.csv --labels dicoms/train.csv",
        "missing rows: short.csv; got 24 rows",
        f"without {CELLS[0]}",
    ),
    "a submission with NaN": (
        "evaluate --submission nan.csv --labels dicoms/train.csv",
        "nan.csv line 3 column moderate; got 'nan'; expected a finite number",
    ),
    "a submission that lacks a study": (
        "evaluate --submission two_studies.csv --labels dicoms/train.csv",
        "got 1 of 3 missing",
    ),
    "evaluate what is no run": ("evaluate notes --cache cache", "notes/oof.parquet"),
    "predict nothing": ("predict run", "got neither --src nor --cache"),
    "predict both": ("predict run --src dicoms --cache cache", "got both --src and --cache"),
    "predict with nothing": ("predict --cache cache", "got neither RUNS nor --blend"),
    "predict with both": ("predict run --blend b --cache cache", "got both RUNS and --blend"),
    "no blend": ("predict --blend nothing --cache cache", "no such blend: nothing; got nothing"),
    "a blend that is none": (
        "predict --blend dicoms/train.csv --cache cache",
        "blend that cannot be read: dicoms/train.csv",
    ),
    "a sample that is none": (
        "predict run --cache cache --sample dicoms/train.csv",
        "columns of a CSV file: dicoms/train.csv",
    ),
    "a blend of a run without predictions": ("blend run --cache cache", "run/oof.parquet"),
    "no checkpoint": ("predict nothing --cache cache", "no such checkpoint: nothing"),
    "a garbage checkpoint": (
        "predict garbage.pt --cache cache",
        "cannot be read: garbage.pt",
        "a checkpoint that `lumbar train` wrote",
    ),
    "a checkpoint of another program": ("predict foreign.pt --cache cache", "foreign.pt; got none"),
    "a checkpoint of another shape": (
        "predict reshaped --src dicoms",
        "checkpoint of another shape: reshaped/best.pt; got ",
        "(1, 2, 3); expected (",
    ),
    "a cache of other values": (
        "predict run --cache coarse",
        "coarse; got size = 96; expected size = 64; preprocess",
    ),
    "runs of other values": (
        "predict run coarse_run --src dicoms",
        "coarse_run; got size = 96; expected size = 64",
    ),
    "no DICOM to predict": ("predict run --src nothing", "no such source folder: nothing"),
    "bench other DICOM files": ("bench --cache cache --src empty", "3 of 3 absent"),
    "synth into a full folder": ("synth --out notes", "notes; got a folder that is not empty"),
    "a matrix too small": ("synth --out out --max-matrix 3", "--max-matrix; got 3"),
}

USAGE = {
    "an unknown command": ("fly", "fly"),
    "an unknown option": ("inspect cache --colour", "--colour"),
    "a missing option": ("preprocess --src dicoms", "--out"),
    "a folder as submission": ("predict run --cache cache --out notes", "--out"),
    "a folder as results": ("bench --cache cache --json notes", "--json"),
    "a file as folder": ("bench --cache cache --out small.toml", "--out"),
    "a negative count": ("synth --out out --studies -3", "--studies"),
}

SMALL = """
split.folds = 3
crop = {slices = 8, height = 64, width = 32, pixel_mm = 4.0}
model = {backbone = "test_resnet", hidden = 8}
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, command_line):
    """A folder with a data set, a cache, a run, and of each kind one that is wrong."""
    root = tmp_path_factory.mktemp("workplace")
    made = [
        command_line(
            *("synth", "--out", root / "dicoms", "--studies", 3, "--max-matrix", 64),
            *("--workers", 0),
        ),
        command_line(
            *("preprocess", "--src", root / "dicoms", "--out", root / "cache", "--size", 64),
            *("--workers", 0),
        ),
    ]
    assert [result.status for result in made] == [0, 0], made
    (root / "empty" / "folder").mkdir(parents=True)
    (root / "notes").mkdir()
    (root / "notes" / "mine.txt").write_text("mine")
    write_wrong_tables(root)
    write_wrong_caches(root)
    write_configurations(root)
    write_checkpoints(root)
    write_submissions(root)
    return root


def write_wrong_tables(root):
    series, labels, points = (
        f"train{name}.csv" for name in ("_series_descriptions", "", "_label_coordinates")
    )
    for folder, file, change in (
        ("lacks_a_column", series, lambda rows: rows[0].__setitem__(2, "kind")),
        ("has_a_column_more", labels, lambda rows: [row.append("remark") for row in rows]),
        ("unknown_severity", labels, lambda rows: rows[1].__setitem__(4, "Awful")),
        ("unknown_type", series, lambda rows: rows[1].__setitem__(2, "Coronal T1")),
        ("wrong_point", points, lambda rows: rows[1].__setitem__(5, "here")),
    ):
        (root / folder).mkdir()
        (root / folder / "train_images").symlink_to(root / "dicoms" / "train_images")
        for path in (root / "dicoms").glob("*.csv"):
            shutil.copy(path, root / folder)
        change_csv(root / folder / file, change)


def change_csv(path, change):
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    change(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_wrong_caches(root):
    for name, change in (
        ("newer", lambda document: document.update(format_version=2)),
        ("coarse", lambda document: document["config"].update(size=96)),
    ):
        shutil.copytree(root / "cache", root / name)
        file = root / name / "cache.json"
        document = json.loads(file.read_text())
        del document["crc32c"]  # as in the first caches; it would no longer hold
        change(document)
        file.write_text(json.dumps(document, indent=2) + "\n")


def write_configurations(root):
    for name, text in (
        ("small", SMALL),
        ("unknown_key", "[optim]\nrate = 3\n"),
        ("wrong_type", "[optim]\nlr = 'fast'\n"),
        ("broken", "[optim\nlr = 3\n"),
        ("axial", "series = 'axial_t2'\n"),
    ):
        (root / f"{name}.toml").write_text(text)


def write_checkpoints(root):
    """Write runs as a first epoch leaves them, without the training."""
    config = resolve_config(SeriesType.SAGITTAL_T2, file=root / "small.toml")
    preprocess = Cache(root / "cache").voxel_config
    for name, values in (
        ("run", preprocess),
        ("reshaped", preprocess),
        ("coarse_run", preprocess | {"size": 96}),
    ):
        (root / name).mkdir()
        (root / name / "config.toml").write_text(config.to_toml())
        bundle = ModelBundle(config, build_model(config), uniform(), values)
        save_checkpoint(root / name / BEST, bundle, trainer_state=None)
    document = torch.load(root / "reshaped" / BEST, weights_only=True)
    first = min(document["model"])
    document["model"][first] = torch.zeros(1, 2, 3)
    for name in (BEST, LAST):
        torch.save(document, root / "reshaped" / name)
    (root / "garbage.pt").write_bytes(b"garbage " * 40)
    torch.save({"weight": torch.zeros(3)}, root / "foreign.pt")


def write_submissions(root):
    with (root / "dicoms" / "train.csv").open(newline="") as file:
        studies = [row["study_id"] for row in csv.DictReader(file)]
    third = [str(1 / 3)] * 3
    whole = [[f"{study}_{cell}", *third] for study in studies for cell in CELLS]
    with_nan = [whole[0], [whole[1][0], third[0], "nan", third[2]], *whole[2:]]
    for name, rows in (("short", whole[1:]), ("nan", with_nan), ("two_studies", whole[:50])):
        with (root / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["row_id", *SEVERITIES], *rows])


def listing(root):
    """Return every folder and file below a folder, with the files' bytes."""
    found = {}
    for folder, _, files in os.walk(root):
        found[folder] = None
        for name in files:
            found[f"{folder}/{name}"] = Path(folder, name).read_bytes()
    return found


@pytest.fixture
def refuse(workplace, command_line, monkeypatch):
    """A function that runs a line which must fail with status 2 and change nothing."""
    monkeypatch.chdir(workplace)

    def run(line):
        before = listing(workplace)
        result = command_line(*shlex.split(line))
        assert (result.status, listing(workplace) == before) == (2, True), result
        assert "Traceback" not in result.err
        return result.err

    return run


def assert_one_line(err, *says):
    assert ONE_LINE.fullmatch(err), err
    for text in says:
        assert text in err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(refuse, mistake):
    line, *says = MISTAKES[mistake]
    assert_one_line(refuse(line), *says)


@pytest.mark.parametrize("mistake", USAGE)
def test_wrong_usage_names_the_option(refuse, mistake):
    line, *says = USAGE[mistake]
    err = refuse(line)
    assert err.startswith("Usage: lumbar")
    for text in says:
        assert text in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(refuse):
    for line in ("train --series sagittal_t2 --cache cache", "predict run --cache cache"):
        err = refuse(f"{line} --device cuda")
        assert_one_line(err, "no such GPU: --device; got cuda; expected cpu", "--device cpu")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(refuse, workplace):
    folder = workplace / "locked"
    folder.mkdir(mode=0o500)
    err = refuse("preprocess --src dicoms --out locked/cache")
    assert_one_line(err, "locked/cache; got Permission denied")


def test_a_cache_that_another_process_writes(refuse):
    hold = (
        "import sys; from pathlib import Path; from lumbar.cache.files.lock import locked\n"
        "with locked(Path('cache')): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        err = refuse("preprocess --src dicoms --out cache --size 64 --workers 0")
        holder.stdin.close()
    assert_one_line(err, f"writing here: cache; got process {holder.pid}; expected", "wait")


def python_m(workplace, *arguments):
    """Run ``python -m lumbar.cli`` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lumbar.cli", *arguments],
        cwd=workplace,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_process_says_the_same(workplace, refuse):
    line = ("preprocess", "--src", "unknown_severity", "--out", "out")
    done = python_m(workplace, *line)
    assert (done.returncode, done.stdout.strip()) == (2, "")
    assert done.stderr == refuse(shlex.join(line))


def test_the_traceback_is_there_when_asked_for(workplace):
    done = python_m(workplace, "-vv", "inspect", "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no such cache folder: nothing")
    assert "Traceback (most recent call last)" in done.stderr
