"""The documents say what the code does: their examples run, their tables are the schemas."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer

from lumbar import __version__, cli
from lumbar.cache import format as cache_format
from lumbar.cache import names
from lumbar.cache.names import SeriesType
from lumbar.train.run.config import resolve_config

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lumbar"
COMMANDS = typer.main.get_command(cli.app).commands
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
    line = readme_line("pytest -n 2 --dist worksteal")
    assert line.startswith(ACTIVATE)
    assert line.removeprefix(ACTIVATE) in (ROOT / ".ci/run").read_text().splitlines()


def test_readme_installs_the_tested_set():
    for ending in ("lumbar demo", "pytest -n 2 --dist worksteal"):
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


def rooms():
    """Return every folder of the package, "" aside, and the files beside them that are rooms."""
    folders = {str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py")}
    return (folders - {"."}) | {"cli.py", "demo.py"}


def tree_of(page):
    """Return the paths that the tree of a page names, a trailing slash aside."""
    (block,) = re.findall(r"^lumbar/\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    paths, above = [], []
    for indent, name, text in re.findall(r"^( +)([\w.]+)/? +(\S.*)$", block, re.MULTILINE):
        above = [*above[: len(indent) // 2 - 1], name]
        paths.append("/".join(above))
        assert text
    assert len(paths) == len(block.splitlines())
    return paths


def test_the_tree_of_the_readme_is_the_tree():
    assert sorted(tree_of(ROOT / "README.md")) == sorted(rooms())


def test_where_do_i_find_is_found_there():
    (table,) = re.findall(
        r"^\| Where do I find .*?\n\n", (ROOT / "README.md").read_text(), re.M | re.S
    )
    links = re.findall(r"\[`(\w+)`\]\((lumbar/[\w/]+\.py)\)", table)
    assert len(table.splitlines()) >= 12
    assert all(".py)" in row for row in table.strip().splitlines()[2:])
    for name, path in links:
        source = (ROOT / path).read_text()
        defined = re.search(rf"^ *(def |class ){name}\b|^{name}(: .*)? = ", source, re.MULTILINE)
        assert defined, f"{path} has no {name}"


def test_the_design_names_every_room_and_every_command():
    page = (ROOT / "docs/design.md").read_text()
    named = re.findall(
        r"^\| `([\w/]+?)(?:/|\.py)?` \|", page.split("\n## Rooms\n")[1], re.MULTILINE
    )
    assert sorted(named) == sorted(room.removesuffix(".py") for room in rooms())
    table = page.split("\n## Commands\n")[1].split("\n## ")[0]
    commands = re.findall(r"`lumbar (\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.M)))
    assert sorted(commands) == sorted(COMMANDS)


def test_the_rooms_of_the_design_stand_in_the_order_of_their_layers():
    page = (ROOT / "docs/design.md").read_text().split("\n## Rooms\n")[1]
    text = (ROOT / "tests/test_architecture.py").read_text()
    (layers,) = re.findall(r'^LAYERS = """\n(.*?)^"""', text, re.MULTILINE | re.DOTALL)
    layer = {room: n for n, line in enumerate(layers.splitlines()) for room in line.split()}
    n_rooms = 0
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        rows = re.findall(r"^\| `([\w/]+?)(?:/|\.py)?` \|", table, re.MULTILINE)
        listed = [room for room in (row.replace("/", ".") for row in rows) if room in layer]
        n_rooms += len(listed)
        assert listed == sorted(listed, key=layer.__getitem__)
    assert n_rooms >= 30


def test_the_first_page_leads_to_every_page():
    docs = ROOT / "docs"

    def linked_from(page):
        targets = re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", page.read_text())
        return {(page.parent / target).resolve() for target in targets}

    found = linked_from(docs / "index.md") | linked_from(docs / "benchmarks/README.md")
    pages = set(docs.rglob("*.md")) - {docs / "index.md"}
    assert pages - found == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_files_that_are_there(page):
    """A path in the text is one of the repository; decisions and the changelog tell of the past."""
    if page.name == "CHANGELOG.md" or page.parent.name in {"decisions", "benchmarks"}:
        return
    named = set(re.findall(r"`((?:lumbar|tests|benchmarks|docs)/[\w./-]+\.\w+)`", page.read_text()))
    assert {path for path in named if not (ROOT / path).exists()} == set()


PRIVATE = r"\b(voice[s]?|hear[d]|liste[n])\b"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_have_no_private_words(page):
    assert re.findall(PRIVATE, page.read_text(), re.IGNORECASE) == []


def test_options_of_the_pages_are_options():
    """Each long option in a shell block belongs to the command that it is given to."""
    wrong = []
    for page in PAGES:
        text = "\n".join(shell_lines(page)).replace("\\\n", " ")
        for name, rest in re.findall(r"\b(?:lumbar|lumbar\.cli) ([a-z]+)\b([^#&|\n]*)", text):
            known = {option for one in COMMANDS[name].params for option in one.opts}
            wrong += [
                f"{page.name}: {name} {o}"
                for o in re.findall(r" (--[\w-]+)", rest)
                if o not in known
            ]
    assert wrong == []
