"""``lumbar doctor`` as a person runs it, and the warning of a GPU that is left idle."""

import errno
import json
import resource
import tempfile

import pytest

from lumbar.display import doctor as display
from lumbar.display.doctor import show_doctor
from lumbar.doctor.checks import CHECKS, run_check
from lumbar.doctor.result import CheckResult, Fact, Row, failed, not_measured, passed, told
from lumbar.pipeline.dicom import codecs
from lumbar.pipeline.dicom.codestream import JPEG_LS
from lumbar.train.telemetry import unusable_gpu
from lumbar.train.telemetry.installed_gpus import Driver, InstalledGpu
from lumbar.train.telemetry.unusable_gpu import UnusableGpu

GPU = InstalledGpu("GPU-1", "NVIDIA RTX A4000", 16 * 10**9, (8, 6))


@pytest.mark.slow
def test_machine_that_works(command_line, tmp_path):
    ran = command_line("doctor", "--json", tmp_path / "new" / "doctor.json")
    assert ran.status == 0, ran.out
    document = json.loads((tmp_path / "new" / "doctor.json").read_text())
    assert document["format"] == 1
    assert {"lumbar", "torch", "CUDA of torch", "open files"} <= {
        fact["name"] for fact in document["facts"]
    }
    states = {row["name"]: row["state"] for row in document["checks"]}
    assert list(states) == [check.name for check in CHECKS]
    assert all(name in ran.out for name in states)
    on_any_machine = [check.name for check in CHECKS if check.needs == "nothing"]
    assert {states[name] for name in on_any_machine[:-1]} == {"pass"}
    if not unusable_gpu.sees_gpus():
        of_gpus = [check.name for check in CHECKS if check.needs != "nothing"]
        assert {states[name] for name in of_gpus} == {"not measured"}
        assert states["GPU that torch can use"] == "not measured"


@pytest.fixture
def quick(monkeypatch):
    """The checks that take no time, in this process, so that a test can break what they look at."""
    wanted = {"open files", "temporary folder", "decoder, JPEG-LS", "GPU that torch can use"}

    def run(checks):
        return [run_check(check) for check in checks if check.name in wanted]

    monkeypatch.setattr("lumbar.doctor.run.run_checks", run)


def break_decoder(monkeypatch):
    wrong = dict.fromkeys(JPEG_LS, lambda _: None)
    monkeypatch.setattr(codecs, "_FAST", codecs._FAST | wrong)


def fill_folder(monkeypatch):
    def fail(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", fail)


def limit_files(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))


def age_driver(monkeypatch):
    driver = Driver("550.54.15", (12, 4), (GPU,))
    monkeypatch.setattr(unusable_gpu, "find_driver", lambda: driver)
    monkeypatch.setattr(unusable_gpu.torch.version, "cuda", "13.2")
    monkeypatch.setattr(unusable_gpu.torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("break_it", "name", "found", "cure"),
    [
        (break_decoder, "decoder, JPEG-LS", "imagecodecs does not decode", "--reinstall"),
        (fill_folder, "temporary folder", "No space left on device", "TMPDIR"),
        (limit_files, "open files", "at most 256", "--ulimit nofile=65536"),
        (age_driver, "GPU that torch can use", "driver 550.54.15", "--torch-backend=cu126"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_what_is_broken_is_named_with_its_cure(
    command_line, monkeypatch, tmp_path, break_it, name, found, cure
):
    break_it(monkeypatch)
    ran = command_line("doctor", "--json", tmp_path / "doctor.json")
    assert ran.status == 1
    # Lines are wrapped between words.
    out = " ".join(ran.out.split())
    assert f"fail: {name} found: " in out
    assert found in out
    assert cure in out
    assert "1 fail" in out
    document = json.loads((tmp_path / "doctor.json").read_text())
    (row,) = [row for row in document["checks"] if row["state"] == "fail"]
    assert row["name"] == name
    assert found in row["found"]
    assert cure in row["cure"]


def test_nothing_is_broken_off_at_80_columns(monkeypatch, capsys):
    long = "/a/folder/whose/name/is/longer/than/what/a/terminal/of/eighty/columns/has/room/for/ever"
    command = unusable_gpu.install_line(12)
    uuid = "GPU-0c0b2bc2-9b6d-4b0e-9d0a-3a7f5c1e2d4b"
    rows = [
        Row("facts", told((Fact("GPU 0", f"NVIDIA H200, 150.8 GB, {uuid}"),)), 0.1),
        *(Row(check.name, not_measured("no GPU"), 0.0) for check in CHECKS),
        Row("one that passes", passed("utilisation 7.0 %, memory 1.0 GB, power 84.3 W"), 0.1),
        Row("one that fails", failed(f"{long}: no such file", f"install it: {command}"), 0.1),
    ]
    monkeypatch.setattr(display.console, "_width", 80)
    assert show_doctor(rows) == rows
    out = capsys.readouterr().out
    words = set(out.split())
    for row in rows:
        told_texts = (row.name, row.result.state, row.result.found, row.result.cure)
        if row.result.state == "fail":
            assert long in out
        assert not set(" ".join(told_texts).split()) - words
    assert uuid in words
    assert all(len(line) <= 80 for line in out.splitlines() if long not in line)
    assert "1 pass, 1 fail, 30 not measured" in out.replace("\n", " ")


def test_one_fault_of_several_rows_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(display.console, "_width", 80)
    fault = failed("ImportError: no lib", "reinstall it")
    show_doctor([Row("a", fault, 0.0), Row("b", passed("x"), 0.0), Row("c", fault, 0.0)])
    out = capsys.readouterr().out
    assert "fail: a; c\n" in out
    assert out.count("reinstall it") == 1


def test_check_of_facts_that_fails_is_a_row(monkeypatch, capsys):
    monkeypatch.setattr(display.console, "_width", 80)
    show_doctor([Row("versions", CheckResult("fail", "no metadata", "reinstall"), 0.0)])
    assert "fail: versions" in capsys.readouterr().out


IDLE = UnusableGpu("the driver is older than it should be", "550", "580", "install another torch")


@pytest.mark.parametrize(
    "line",
    [
        ("train", "--series", "sagittal_t2", "--cache", "nowhere"),
        ("bench", "--cache", "nowhere"),
        ("predict", "run", "--cache", "nowhere"),
    ],
)
def test_gpu_that_is_left_idle_is_said_loudly(command_line, monkeypatch, tmp_path, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lumbar.train.run.device.find_unusable_gpu", lambda: IDLE)
    monkeypatch.setattr("lumbar.train.run.device.sees_gpus", lambda: False)
    monkeypatch.setattr("lumbar.train.inference.predict.load_models", lambda _: [])
    monkeypatch.setattr("lumbar.train.inference.predict.Ensemble", lambda models: models)
    ran = command_line(*line)
    assert ran.err.count("WARNING: the CPU is used: the driver is older") == 1
    assert "install another torch; `lumbar doctor` checks the machine" in ran.err
    assert "WARNING" not in command_line(*line, "--device", "cpu").err
