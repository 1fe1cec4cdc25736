"""The site has every page, and the workflow builds it as a person does."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_page_is_on_the_site_and_every_place_is_a_page():
    named = set(re.findall(r"([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert named == pages


def test_the_workflow_builds_the_site_with_the_version_of_the_extra():
    project = (ROOT / "pyproject.toml").read_text()
    (extra,) = re.findall(r'^docs = \["(.+)"\]$', project, re.MULTILINE)
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert f"pip install -q -c constraints.txt '{extra}' && mkdocs build --strict" in workflow


def test_the_gpu_job_waits_for_its_label_and_brings_the_benchmark_home():
    gpu = (ROOT / ".github/workflows/ci.yml").read_text().split("\n  gpu:\n")[1]
    assert "if: contains(github.event.pull_request.labels.*.name, 'gpu')" in gpu
    assert "lumbar doctor --json bench/doctor.json && pytest -m gpu && lumbar bench" in gpu
    assert "path: bench" in gpu
