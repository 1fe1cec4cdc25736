"""The rules of the tree, read off the syntax: who imports whom, who prints, how long a file is."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lumbar"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "cli": {"commands", "display", "cache"},
    "commands": {"commands", "demo", "display", "doctor", "pipeline", "train", "cache"},
    "demo": {"display", "pipeline", "train", "cache"},
    "display": {"display", "doctor", "pipeline", "train", "cache"},
    "doctor": {"doctor", "pipeline", "train", "cache"},
    "pipeline": {"pipeline", "cache"},
    "train": {"train", "cache"},
    "cache": {"cache"},
}
OWNERS = {
    "pydicom": {"doctor", "pipeline"},
    "distributed": {"pipeline"},
    "pylibjpeg": {"pipeline"},
    "libjpeg": {"pipeline"},
    "openjpeg": {"pipeline"},
    "rle": {"pipeline"},
    "zarr": {"cache"},
    "torch": {"doctor", "train"},
    "torchvision": {"train"},
    "timm": {"train"},
    "tensorboard": {"train"},
    "optuna": {"train"},
    "onnx": {"train"},
    "onnxruntime": {"train"},
    "nvidia.dali": {"doctor", "train"},
    "numba": {"train"},
    "monai": {"train"},
    "torchio": {"train"},
    "SimpleITK": {"train"},
    "batchgeneratorsv2": {"train"},
    "typer": {"cli", "commands"},
    "click": {"cli", "commands"},
    "rich": {"display"},
}
DRAWING_FILES = {
    "cache/contact_sheet.py",
    "train/augment_sheet.py",
    "train/bench/picture.py",
    "train/curves.py",
    "train/evaluation_pictures.py",
    "train/sweep/picture.py",
}
TALKS = {"sys.stdout", "sys.stderr", "logging.basicConfig"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
MAX_LINES = 400
HEAVY = ("torch", "nvidia.dali", "timm", "numba", "matplotlib", "optuna")


def part_of(path):
    """Return the part of the package a file belongs to: a folder, or a file at its top."""
    inside = path.relative_to(PACKAGE).parts
    return "lumbar" if inside == ("__init__.py",) else inside[0].removesuffix(".py")


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
    """Return a sentence for each import that the file's part may not make."""
    part = part_of(path)
    faults = []
    for line, name in imported_names(tree):
        if within(name, "lumbar") and name != "lumbar.__version__":
            target = name.split(".")[1] if "." in name else "lumbar"
            if target not in MAY_IMPORT.get(part, set()):
                faults.append(f"{path.name}:{line} {part} imports {name}")
        faults += [
            f"{path.name}:{line} {name} belongs to {' and '.join(sorted(owners))}"
            for package, owners in OWNERS.items()
            if within(name, package) and part not in owners
        ]
        if within(name, "matplotlib") and path.relative_to(PACKAGE).as_posix() not in DRAWING_FILES:
            faults.append(f"{path.name}:{line} draws, and is not one of {sorted(DRAWING_FILES)}")
    return faults


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


RULES = (import_faults, print_faults, relative_import_faults, shape_faults)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_keeps_the_rules(path):
    tree = ast.parse(path.read_text())
    assert [fault for rule in RULES for fault in rule(path, tree)] == []


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("cache/x.py", "import lumbar.pipeline.scan", "cache imports lumbar.pipeline.scan"),
        ("cache/x.py", "from lumbar import train", "cache imports lumbar.train"),
        ("pipeline/x.py", "from lumbar.train.plan import plan", "pipeline imports lumbar.train"),
        ("train/x.py", "def f():\n    from lumbar import cli", "train imports lumbar.cli"),
        ("__init__.py", "from lumbar.cache import store", "lumbar imports lumbar.cache.store"),
        ("train/x.py", "import pydicom.uid", "pydicom.uid belongs to doctor and pipeline"),
        ("train/x.py", "from zarr import open_array", "zarr.open_array belongs to cache"),
        ("cli.py", "from nvidia import dali", "nvidia.dali belongs to doctor and train"),
        ("pipeline/x.py", "import torch as t", "torch belongs to doctor and train"),
        ("cache/x.py", "import rich.progress", "rich.progress belongs to display"),
        ("commands/x.py", "from rich.table import Table", "rich.table.Table belongs to display"),
        ("display/x.py", "import typer", "typer belongs to cli and commands"),
        ("cli.py", "from lumbar.train import loop", "cli imports lumbar.train"),
        ("demo.py", "import lumbar.commands.options", "demo imports lumbar.commands"),
        ("display/x.py", "from lumbar import commands", "display imports lumbar.commands"),
        ("train/x.py", "import lumbar.display", "train imports lumbar.display"),
        ("train/x.py", "from matplotlib.figure import Figure", "draws"),
        ("cache/x.py", "print('x')", "prints"),
        ("commands/x.py", "import sys\nsys.stdout.write('x')", "prints"),
        ("train/x.py", "import logging\nlogging.basicConfig()", "sets up logging"),
        ("cache/x.py", "from . import names", "imports relatively"),
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
    assert import_faults(PACKAGE / "train/x.py", ast.parse(source)) == []


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
