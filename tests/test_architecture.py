"""The rules of the tree, read off the syntax: who imports whom, who prints, how long a file is."""

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lumbar"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = """
cache.errors cache.names cache.spelling pipeline.flags
train.device_tensors train.telemetry doctor.result
cache.files cache.format
cache.labels cache.volumes
cache.compressed_slices cache.index cache.label_csv cache.tables
cache.patients cache.source_records
cache.store cache.verify
synth pipeline.reject
pipeline.config pipeline.events pipeline.dicom
pipeline.geometry
pipeline.source
pipeline.series
pipeline.execution pipeline.output
pipeline.survey
pipeline.preprocess
pipeline.maintenance
train.plan train.model train.loss train.evaluation
train.optim train.kernels train.ensemble
train.reader
train.locator
train.run
train.inference
train.trainer
train.sweep
inspect.annotated inspect.selection inspect.summary
inspect.contact_sheet inspect.report
inspect.augment_sheet
bench.verdict
bench.loaders
bench.changes bench.measure
bench.report
bench.session
bench.judge
bench.run
doctor.checks doctor.report
doctor.run
doctor.machine
doctor.host
doctor.gpu
display
demo
commands
cli
"""
"""Rooms, and the files beside them, from the ground up: each imports from lines above its own."""

LAYER_OF = {room: n for n, line in enumerate(LAYERS.split("\n")) for room in line.split()}
OFFLINE = {"synth", "pipeline"}
"""Where DICOM is read: knows no DALI and no torch, and what has tensors knows nothing of it."""

TENSORS = {"train"}
ONE_FILE_A_COMMAND = {"commands", "display"}
MAX_FILES = 16
NOBODY: set[str] = set()
"""Of packages that only `benchmarks/` imports."""

OWNERS = {
    "pydicom": {"bench", "doctor", "pipeline", "synth"},
    "distributed": {"pipeline"},
    "pylibjpeg": {"pipeline", "synth"},
    "libjpeg": {"pipeline", "synth"},
    "openjpeg": {"pipeline", "synth"},
    "rle": {"pipeline", "synth"},
    "zarr": {"cache"},
    "torch": {"bench", "doctor", "inspect", "train"},
    "torchvision": {"train"},
    "timm": {"train"},
    "tensorboard": {"train"},
    "optuna": {"train"},
    "onnx": {"train"},
    "onnxruntime": {"train"},
    "nvidia.dali": {"doctor", "train"},
    "numba": {"train"},
    "psutil": {"train"},
    "monai": NOBODY,
    "torchio": NOBODY,
    "SimpleITK": NOBODY,
    "batchgeneratorsv2": NOBODY,
    "typer": {"cli", "commands"},
    "click": {"cli", "commands"},
    "rich": {"display"},
}
DRAWING_FILES = {
    "bench/report/plot.py",
    "inspect/augment_sheet.py",
    "inspect/contact_sheet.py",
    "train/evaluation/plots.py",
    "train/sweep/plots.py",
    "train/trainer/curves.py",
}
TALKS = {"sys.stdout", "sys.stderr", "logging.basicConfig"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
MAX_LINES = 400
HEAVY = ("torch", "nvidia.dali", "timm", "numba", "matplotlib", "optuna")


def part_of(path):
    """Return the part of the package a file belongs to: a folder, or a file at its top."""
    inside = path.relative_to(PACKAGE).parts
    return "lumbar" if inside == ("__init__.py",) else inside[0].removesuffix(".py")


def room_of(name):
    """Return the room of a dotted name inside of the package, "" for a name of no room.

    A room is a folder without rooms of its own. Where a folder has rooms, each file beside them
    stands for itself.
    """
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in LAYER_OF:
            return ".".join(parts[:n])
    return ""


def imported_names(tree):
    """Yield (line, dotted name) of everything a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def within(name, package):
    return name == package or name.startswith(f"{package}.")


def import_faults(path, tree):
    """Return a sentence for each import that goes up, sideways or to what another part owns."""
    part = part_of(path)
    room = room_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    faults = []
    for line, name in imported_names(tree):
        if within(name, "lumbar") and name != "lumbar.__version__":
            inside = name.removeprefix("lumbar").removeprefix(".")
            target = room_of(inside)
            if not may_import(part, room, target):
                faults.append(f"{path.name}:{line} {room or part} imports {name}")
        faults += [
            f"{path.name}:{line} {name} belongs to {' and '.join(sorted(owners)) or 'nobody'}"
            for package, owners in OWNERS.items()
            if within(name, package) and part not in owners
        ]
        if within(name, "matplotlib") and path.relative_to(PACKAGE).as_posix() not in DRAWING_FILES:
            faults.append(f"{path.name}:{line} draws, and is not one of {sorted(DRAWING_FILES)}")
    return faults


def may_import(part, room, target):
    """Tell whether a room may import from another: from itself, or from one below it."""
    if not room or not target:
        return False
    parts = {part, target.split(".")[0]}
    if parts & OFFLINE and parts & TENSORS:
        return False
    return room == target or LAYER_OF[target] < LAYER_OF[room]


def print_faults(path, tree):
    """Return a sentence for each line outside of display/ that prints or sets up logging."""
    if part_of(path) == "display":
        return []
    return [
        f"{path.name}:{node.lineno} prints or sets up logging"
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id in {"print", "pprint"})
        or (isinstance(node, ast.Attribute) and ast.unparse(node) in TALKS)
    ]


def relative_import_faults(path, tree):
    return [
        f"{path.name}:{node.lineno} imports relatively"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]


def shape_faults(path, tree):
    """Return a sentence for a vague name, a missing docstring and a file that is too long."""
    faults = []
    if path.stem in VAGUE_NAMES or VAGUE_NAMES & set(path.relative_to(PACKAGE).parts[:-1]):
        faults.append(f"{path.name}: the name says nothing")
    if not ast.get_docstring(tree):
        faults.append(f"{path.name}: no docstring")
    lines = len(path.read_text().splitlines())
    if lines > MAX_LINES:
        faults.append(f"{path.name}: {lines} lines, at most {MAX_LINES}")
    return faults


def test_every_file_has_a_room():
    homeless = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if path.name != "__init__.py"
        and not room_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    ]
    assert homeless == []


def test_every_room_is_there():
    def is_there(room):
        at = PACKAGE / room.replace(".", "/")
        return at.with_suffix(".py").is_file() or (at / "__init__.py").is_file()

    assert [room for room in LAYER_OF if not is_there(room)] == []


@pytest.mark.parametrize("top", ["lumbar", "tests", "benchmarks"])
def test_no_folder_has_too_many_files(top):
    counts = Counter(path.parent for path in (ROOT / top).rglob("*.py"))
    crowded = {
        str(folder.relative_to(ROOT)): n
        for folder, n in counts.items()
        if n > MAX_FILES and folder.name not in ONE_FILE_A_COMMAND
    }
    assert crowded == {}


def test_tests_mirror_the_package():
    """Each folder of tests is one of the package, or one that is named here."""
    others = {"benchmarks", "cache/stores", "fixtures", "train/proofs"}
    folders = {
        str(path.parent.relative_to(ROOT / "tests")) for path in (ROOT / "tests").rglob("*.py")
    }
    strange = {f for f in folders - others if not (PACKAGE / f / "__init__.py").is_file()}
    assert strange == set()


RULES = (import_faults, print_faults, relative_import_faults, shape_faults)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_keeps_the_rules(path):
    tree = ast.parse(path.read_text())
    assert [fault for rule in RULES for fault in rule(path, tree)] == []


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("cache/store.py", "import lumbar.pipeline.source.scan", "imports lumbar.pipeline"),
        ("cache/store.py", "from lumbar import train", "cache.store imports lumbar.train"),
        ("cache/format.py", "from lumbar.cache.store import Cache", "cache.format imports"),
        ("pipeline/survey.py", "from lumbar.train.plan.plan import Plan", "imports lumbar.train"),
        ("pipeline/dicom/x.py", "from lumbar.pipeline.source.scan import is_gone", "imports"),
        ("synth/x.py", "from lumbar.train.plan.plan import Plan", "synth imports lumbar.train"),
        ("train/plan/x.py", "from lumbar.pipeline.flags import Flag", "imports lumbar.pipeline"),
        ("train/plan/x.py", "from lumbar.train.reader.reader import Reader", "train.plan imports"),
        ("train/plan/x.py", "from lumbar.train.model.heads import make_head", "train.plan imports"),
        ("train/run/x.py", "def f():\n    from lumbar import cli", "train.run imports lumbar.cli"),
        ("__init__.py", "from lumbar.cache import store", "lumbar imports lumbar.cache.store"),
        ("train/run/x.py", "import pydicom.uid", "pydicom.uid belongs to"),
        ("train/run/x.py", "from zarr import open_array", "zarr.open_array belongs to cache"),
        ("cli.py", "from nvidia import dali", "nvidia.dali belongs to"),
        ("pipeline/survey.py", "import torch as t", "torch belongs to"),
        ("bench/loaders/x.py", "import monai.data", "monai.data belongs to nobody"),
        ("cache/store.py", "import rich.progress", "rich.progress belongs to display"),
        ("commands/x.py", "from rich.table import Table", "rich.table.Table belongs to display"),
        ("display/x.py", "import typer", "typer belongs to cli and commands"),
        ("demo.py", "import lumbar.commands.options", "demo imports lumbar.commands"),
        ("display/x.py", "from lumbar import commands", "display imports lumbar.commands"),
        ("train/run/x.py", "import lumbar.display", "train.run imports lumbar.display"),
        ("train/run/x.py", "from matplotlib.figure import Figure", "draws"),
        ("cache/store.py", "print('x')", "prints"),
        ("commands/x.py", "import sys\nsys.stdout.write('x')", "prints"),
        ("train/run/x.py", "import logging\nlogging.basicConfig()", "sets up logging"),
        ("cache/store.py", "from . import names", "imports relatively"),
    ],
)
def test_each_rule_finds_its_fault(file, source, fault):
    tree = ast.parse(source)
    path = PACKAGE / file
    faults = [f for rule in RULES[:3] for f in rule(path, tree)]
    assert len(faults) == 1
    assert fault in faults[0]


def test_shape_rules_find_their_faults(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    path = tmp_path / "utils.py"
    path.write_text("x = 1\n" * (MAX_LINES + 1))
    assert len(shape_faults(path, ast.parse(path.read_text()))) == 3


def test_allowed_imports_are_allowed():
    source = "from lumbar.cache.store import Cache\nfrom lumbar import __version__\nimport torch"
    assert import_faults(PACKAGE / "train/run/x.py", ast.parse(source)) == []


@pytest.mark.parametrize("argument", [None, "--help"])
def test_command_line_loads_nothing_heavy_before_it_must(argument, tmp_path):
    call = "" if argument is None else "sys.exit(lumbar.cli.main())"
    code = f"import sys, lumbar.cli; sys.argv = ['lumbar', '{argument}']; {call}"
    loaded = modules_loaded_by(code, cwd=tmp_path)
    assert "lumbar.cli" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def modules_loaded_by(code, *, cwd):
    """Run Python code, expect exit status 0 and return the modules that it imported."""
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ran.stderr.splitlines()
    said = [line for line in lines if not line.startswith("import time:")]
    assert ran.returncode == 0, "\n".join([*said[-20:], ran.stdout[-2000:]])
    imports = [line for line in lines if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in imports}
