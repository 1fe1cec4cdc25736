"""The documents say what the code does: their examples run, their tables are the schemas."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from lumbar import __version__
from lumbar.cache import format as cache_format
from lumbar.cache import names
from lumbar.cache.names import SeriesType
from lumbar.train.run.config import resolve_config

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FORMAT_PAGE = ROOT / "docs/cache-format.md"
ACTIVATE = "python3 -m venv .venv && . .venv/bin/activate && "


def code_blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def shell_lines(page):
    return [
        line for block in code_blocks(page, "(?:sh|bash|console)") for line in block.split("\n")
    ]


def table_of(heading):
    """Return {first cell: second cell} of the first table below a heading of the format page."""
    section = FORMAT_PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE)
    return dict(rows)


def readme_line(ending):
    (line,) = [line for line in shell_lines(ROOT / "README.md") if line.endswith(ending)]
    return line


def test_ci_runs_the_test_command_of_the_readme():
    line = readme_line("pytest")
    assert line.startswith(ACTIVATE)
    assert line.removeprefix(ACTIVATE) in (ROOT / ".ci/run").read_text().splitlines()


def test_readme_installs_the_tested_set():
    for ending in ("lumbar demo", "pytest"):
        line = readme_line(ending)
        assert line.startswith(ACTIVATE)
        assert " -c constraints.txt " in line


def test_ci_is_executable():
    assert (ROOT / ".ci/run").stat().st_mode & 0o111 == 0o111


def test_examples_of_the_format_page_run(tiny_cache, monkeypatch):
    monkeypatch.chdir(tiny_cache.parent)
    space = {}
    for block in code_blocks(FORMAT_PAGE, "python"):
        exec(compile(block, FORMAT_PAGE.name, "exec"), space)
    assert space["severe"] == ["100"]
    assert space["volume"].shape == (5, 96, 80)
    assert np.array_equal(space["volume"], space["mapped"])
    assert space["normalised"].mean() == pytest.approx(space["sagittal"]["mean"])
    assert space["normalised"].std() == pytest.approx(space["sagittal"]["std"])
    found = space["x_mm"], space["y_mm"], space["z_mm"]
    assert found == pytest.approx([space["point"][name] for name in ("x_mm", "y_mm", "z_mm")])


def test_example_finds_the_second_stack(tiny_cache, monkeypatch):
    monkeypatch.chdir(tiny_cache.parent)
    space = {}
    for block in code_blocks(FORMAT_PAGE, "python"):
        exec(compile(block, FORMAT_PAGE.name, "exec"), space)
    axial = space["volumes"]["100/100.2"].attrs
    assert space["patient_mm"](axial, 1, 0, 0)[2] == pytest.approx(12 - 3.5)
    assert space["patient_mm"](axial, 2, 0, 0)[2] == pytest.approx(12 - 30)


def test_format_page_lists_the_attributes(tiny_cache):
    metadata = json.loads((tiny_cache / "volumes.zarr/100/100.1/zarr.json").read_text())
    # Only a volume with flags has details of them.
    assert set(table_of("A volume")) == set(metadata["attributes"]) | {"flag_details"}


def test_format_page_lists_the_keys_of_the_cache_file(tiny_cache):
    document = json.loads((tiny_cache / "cache.json").read_text())
    assert set(table_of("cache.json")) == set(document)


@pytest.mark.parametrize("name", ["series", "coordinates", "rejected"])
def test_format_page_lists_the_columns(name):
    schema = cache_format.TABLE_SCHEMAS[f"{name}.parquet"]
    assert list(table_of(f"{name}.parquet").items()) == [(n, str(t)) for n, t in schema.items()]


def test_format_page_orders_the_labels_as_the_columns():
    section = FORMAT_PAGE.read_text().split("\n## labels.parquet\n")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z0-9_]+)`", section)
    ordered = [*names.CONDITIONS, *names.LEVELS, *names.SEVERITIES]
    assert [name for name in named if name in ordered] == ordered


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if not re.match(r"\w+:", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_changelog_has_this_version():
    assert f"\n## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_decisions_are_numbered_without_gap():
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs/decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_configurations_to_start_from_are_configurations():
    page = (ROOT / "docs/from-kaggle-to-submission.md").read_text()
    rows = re.findall(
        r"^\| .*`([a-z_0-9.]+=.*?)`", page.split("\n## Configurations")[1], re.MULTILINE
    )
    assert len(rows) > 5
    for settings in rows:
        assert resolve_config(SeriesType.SAGITTAL_T2, overrides=settings.split())
