"""The page of the first hour has a row for each check, and the lines that a failure names."""

import re
from pathlib import Path

from lumbar.doctor.checks import CHECKS
from lumbar.doctor.machine.limits import LEAST_OPEN_FILES, LEAST_SHARED_BYTES
from lumbar.train.telemetry.unusable_gpu import LEAST_DRIVER, install_line

PAGE = (Path(__file__).parents[2] / "docs/first-hour-on-a-gpu.md").read_text()


def test_every_check_has_its_row_in_order():
    table = PAGE.split("\n## `lumbar doctor`\n")[1].split("\n## ")[0]
    names = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    assert names[1:] == [check.name for check in CHECKS]


def test_the_lines_to_install_are_those_of_the_cure():
    assert f"\n{install_line(12)}\n" in PAGE
    assert f"| {LEAST_DRIVER[13]} or newer |" in PAGE
    assert f"| {LEAST_DRIVER[12]} to {LEAST_DRIVER[13] - 1} |" in PAGE


def test_limits_of_the_page_are_those_of_the_checks():
    assert f"the hard limit is {LEAST_OPEN_FILES:,} or more" in PAGE
    assert f"{LEAST_SHARED_BYTES / 1e6:.0f} MB of `/dev/shm`" in PAGE
