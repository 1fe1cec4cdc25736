"""The run on a GPU machine goes on after a failure, keeps its limits, and says what came of it."""

import json
import re
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

LEFT_BEHIND = "import subprocess, time; subprocess.Popen(['sleep', '60']); "


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs Python lines as steps: exit status, summary and log."""
    import gpu_run  # noqa: PLC0415

    out = tmp_path / "out"

    def go(steps, *arguments):
        def planned(device, work, planned_out):
            assert (device, planned_out) == ("cpu", out)
            return [
                gpu_run.Step(name, (sys.executable, "-c", line.replace("WORK", str(work))), *limits)
                for name, line, *limits in steps
            ]

        monkeypatch.setattr(gpu_run, "planned_steps", planned)
        status = gpu_run.main(["--out", str(out), "--device", "cpu", *arguments])
        return status, json.loads((out / "summary.json").read_text()), (out / "log.txt").read_text()

    return go


def statuses(summary):
    return {step["name"]: step["status"] for step in summary["steps"]}


def test_a_failing_step_does_not_stop_the_next(run, tmp_path, capsys):
    status, summary, log = run(
        [
            ("bad", "import sys; sys.exit('it broke')", 60),
            ("good", "import lumbar; print('all well in', 'WORK')", 60),
        ]
    )
    assert status == 1
    assert statuses(summary) == {"bad": "failed", "good": "passed"}
    assert "bad: failed" in capsys.readouterr().out
    assert "===== bad: python -c" in log
    assert "all well in" in log
    # What is published names no folder of the machine.
    for name in ("summary.json", "summary.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "it broke" in text
        assert "all well in WORK" in text
        assert sys.executable not in text
        assert str(tmp_path) not in text


def test_steps_keep_their_limits_and_the_last_ones_are_left_out(run, monkeypatch):
    monkeypatch.setattr("gpu_run.GRACE_SECONDS", 1.0)
    status, summary, log = run(
        [
            ("slow", f"{LEFT_BEHIND}print('started'); time.sleep(60)", 2.0),
            ("late", "print('never')", 60, 50),
            ("quick", "print('still')", 60, 1),
        ],
        "--minutes",
        "0.5",
    )
    assert status == 1
    assert statuses(summary) == {"slow": "timed out", "late": "left out", "quick": "passed"}
    slow, late, _ = summary["steps"]
    assert slow["limit"] == 2
    assert slow["seconds"] < 30
    assert "KeyboardInterrupt" in log
    assert re.fullmatch(r"\d+ s were left, it needs 50", late["said"])
    assert "never" not in log


def test_a_long_log_is_kept_at_its_end(run, monkeypatch):
    monkeypatch.setattr("gpu_run.LOG_BYTES", 1000)
    _, summary, log = run(
        [("loud", "for n in range(5000): print(n)", 60), ("next", "print('heard')", 60)]
    )
    assert len(log) < 1500
    assert "\n4999\n" in log
    assert log.endswith("heard\n")
    assert [step["said"] for step in summary["steps"]] == ["4999", "heard"]


def test_some_of_the_steps(run):
    status, summary, _ = run([("one", "print(1)", 60), ("two", "print(2)", 60)], "--only", "two")
    assert status == 0
    assert statuses(summary) == {"two": "passed"}


def test_a_bundle_comes_after_the_checkout(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    parts = tmp_path / "parts"
    parts.mkdir()
    unpack = """\
        import pathlib, sys
        command, parts, _, target, folder = sys.argv[1:]
        assert (command, parts, target) == ("unpack", "--parts", "--target")
        site = pathlib.Path(folder)
        for name in ("packed", "lumbar"):
            (site / f"{name}.py").write_text("")
        """
    (parts / "bundle.py").write_text(textwrap.dedent(unpack))
    line = "import packed, lumbar; print(packed.__file__); assert lumbar.__path__"
    status, summary, _ = run([("step", line, 60)], "--parts", str(parts))
    assert status == 0
    assert statuses(summary) == {"unpack": "passed", "step": "passed"}
    assert summary["steps"][0]["command"].startswith("python PARTS/bundle.py unpack")
    site = re.search(r"--site (\S+)", capsys.readouterr().out)[1]
    assert Path(site, "packed.py").is_file()
    assert summary["steps"][1]["said"] == "SITE/packed.py"


def test_mistakes_are_told(tmp_path, capsys):
    import gpu_run  # noqa: PLC0415

    (tmp_path / "there").write_text("")
    for arguments, message in (
        (["--out", str(tmp_path)], "is not empty"),
        (["--out", str(tmp_path / "new"), "--parts", str(tmp_path)], "one Python file"),
    ):
        with pytest.raises(SystemExit):
            gpu_run.parse_arguments(arguments)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_what_is_planned(tmp_path, device):
    """At most eight files in all, two folders deep, and scripts that exist."""
    import gpu_run  # noqa: PLC0415

    steps = gpu_run.planned_steps(device, tmp_path / "work", tmp_path / "out")
    assert [step.name for step in steps] == [
        "packages", "pipeline", "tests", "synth", "preprocess", "decode", "bench", "reader",
    ]  # fmt: skip
    for step in steps:
        scripts = [part for part in step.command if part.startswith("benchmarks/")]
        assert all((gpu_run.ROOT / script).is_file() for script in scripts)
        assert device in step.command or step.name in {"tests", "synth", "preprocess"}
    named = {Path(part) for step in steps for part in step.command if str(tmp_path / "out") in part}
    assert named == {tmp_path / "out" / name for name in ("bench", "reader.json", "reader.md")}


def test_the_checks_pass_here_and_say_what_is_missing(monkeypatch, capsys):
    import gpu_checks  # noqa: PLC0415

    assert gpu_checks.check_packages("cpu") is None
    assert "numpy " in capsys.readouterr().out
    assert gpu_checks.check_pipeline("cpu") is None

    # What other tests need alone is not asked for.
    absent = {"beartype", "build", "dcm2niix", "nibabel", "optuna"}

    def without_beartype(name):
        if name in absent:
            raise gpu_checks.PackageNotFoundError(name)
        return found(name)

    found = gpu_checks.version
    monkeypatch.setattr(gpu_checks, "version", without_beartype)
    assert gpu_checks.check_packages("cpu") == "missing: beartype"
    out = capsys.readouterr().out
    assert re.findall(r"^the bundle needs --also (\S+)$", out, re.M) == ["beartype==0.23.1"]
    absent.remove("beartype")
    assert gpu_checks.check_packages("cpu") is None


def test_the_tests_for_a_gpu_need_what_is_checked_alone():
    import gpu_checks  # noqa: PLC0415
    import gpu_run  # noqa: PLC0415

    files = {gpu_run.ROOT / file for file in gpu_run.find_gpu_tests()}
    assert gpu_run.ROOT / "tests/train/test_reader.py" in files
    folders = {folder for file in files for folder in file.parents}
    files |= {file for file in gpu_run.ROOT.glob("tests/**/conftest.py") if file.parent in folders}
    project = tomllib.loads((gpu_run.ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    optional = {re.match(r"[\w-]+", line)[0] for lines in extras for line in lines}
    named = re.compile(r"^\s*(?:import|from) (\w+)", re.M)
    imported = {name for file in files for name in named.findall(file.read_text())}
    assert imported & optional <= gpu_checks.OF_GPU_TESTS | {"lumbar"}
    assert gpu_checks.OF_GPU_TESTS - imported == {"beartype"}  # pytest's own option names it


def test_what_has_to_be_packed_is_the_tested_set():
    import gpu_run  # noqa: PLC0415

    page = (gpu_run.ROOT / "docs/benchmarks/README.md").read_text()
    named = [re.findall(r"[\w-]+==[\d.]+", text) for text in (gpu_run.__doc__, page)]
    assert named[0] == named[1] != []
    assert set(named[0]) <= set((gpu_run.ROOT / "constraints.txt").read_text().splitlines())
