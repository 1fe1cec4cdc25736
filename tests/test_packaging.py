"""What is shipped: the constraints, and the wheel installed into an empty environment."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from lumbar import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal_name(requirement):
    name = re.match(r"[A-Za-z0-9._-]+", requirement).group()
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_pin_every_dependency_and_name_no_host():
    comment, *lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert comment.startswith("# ")
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; .*)?", line)] == []
    extras = PROJECT["optional-dependencies"].values()
    wanted = {normal_name(name) for name in sum(extras, PROJECT["dependencies"])} - {"lumbar"}
    assert wanted - {line.partition("==")[0] for line in lines} == set()


def test_every_dependency_has_a_lower_bound():
    extras = PROJECT["optional-dependencies"].values()
    named = [name for name in sum(extras, PROJECT["dependencies"]) if "lumbar[" not in name]
    assert [name for name in named if ">=" not in name] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    run([*build, str(ROOT)], cwd=folder)
    (path,) = folder.iterdir()
    return path


@pytest.mark.slow
def test_wheel_has_one_top_level_name(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = f"lumbar-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"lumbar", info}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lumbar").rglob("*.py")}
    page = {f"lumbar/inspect/report/report.{ending}" for ending in ("html", "css", "js")}
    packed = {name for name in names if name.startswith("lumbar/")}
    assert packed == sources | page | {"lumbar/py.typed"}
    assert f"{info}/licenses/LICENSE" in names


@pytest.mark.slow
def test_wheel_runs_from_an_empty_environment(wheel, tmp_path):
    run([sys.executable, "-m", "venv", "env"], cwd=tmp_path)
    python = tmp_path / "env/bin/python"
    run([python, "-m", "pip", "install", "--no-deps", "--no-index", str(wheel)], cwd=tmp_path)
    borrow_dependencies(python, cwd=tmp_path)
    where = run([python, "-c", "import lumbar.cli as c; print(c.__file__)"], cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path / "env")
    assert "preprocess" in run([tmp_path / "env/bin/lumbar", "--help"], cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"env"}


def borrow_dependencies(python, *, cwd):
    """Let an environment see the packages of this one, after its own; no .pth of them is read."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run([python, "-c", code], cwd=cwd).strip())
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(ours)) + "\n")


def run(command, *, cwd):
    """Run a command without this process's Python settings; return what it said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    ran = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
    return ran.stdout
