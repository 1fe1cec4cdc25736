"""Caches on the command line: shards merged, profiles changed, damage repaired, a full disk."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import lumbar
from lumbar.display import progress_lines
from lumbar.display.progress_lines import ProgressLines, duration_text


def tree(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".sources"
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory, command_line):
    """Three generated studies and their cache."""
    folder = tmp_path_factory.mktemp("caches")
    src = folder / "dicoms"
    made = command_line("synth", "--out", src, "--studies", 3, "--max-matrix", 64, "--workers", 0)
    assert made.status == 0, made.err
    done = command_line("preprocess", "--src", src, "--out", folder / "cache", "--workers", 0)
    assert done.status == 0, done.err
    return folder


def test_shards_are_merged(source, tmp_path, command_line):
    for n in (1, 2):
        done = command_line(
            *("preprocess", "--src", source / "dicoms", "--out", tmp_path / str(n)),
            *("--workers", 0, "--shard", f"{n}/2"),
        )
        assert done.status == 0, done.err
    merged = command_line("merge", tmp_path / "2", tmp_path / "1", "--out", tmp_path / "cache")
    assert merged.status == 0, merged.err
    assert tree(tmp_path / "cache") == tree(source / "cache")
    wrong = command_line("merge", tmp_path / "2", "--out", tmp_path / "other")
    assert wrong.status == 2
    assert "got 2/2; expected 1/2, 2/2" in wrong.err


def test_a_cache_is_converted_there_and_back(source, tmp_path, command_line):
    for old, new, profile in (
        (source / "cache", tmp_path / "archive", "archive"),
        (tmp_path / "archive", tmp_path / "fast", "fast"),
    ):
        done = command_line("convert", old, "--out", new, "--profile", profile, "--workers", 0)
        assert done.status == 0, done.err
    assert tree(tmp_path / "fast") == tree(source / "cache")


def test_a_damaged_cache_is_repaired(source, command_line):
    chunk = next((source / "cache").rglob("c/0/0/0"))
    before = chunk.read_bytes()
    chunk.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert command_line("verify", source / "cache").status == 1
    done = command_line(
        *("verify", source / "cache", "--repair", "--src", source / "dicoms", "--workers", 0)
    )
    assert done.status == 0, done.err
    assert "a chunk is damaged" in done.out
    assert chunk.read_bytes() == before
    unclear = command_line("verify", source / "cache", "--repair")
    assert unclear.status == 2
    assert "--repair without --src" in unclear.err


def test_progress_of_a_log_file_is_lines(source, tmp_path, command_line, monkeypatch):
    monkeypatch.setattr(progress_lines, "EVERY_S", 0.0)
    arguments = ("preprocess", "--src", source / "dicoms", "--out", tmp_path / "out")
    lines = command_line(*arguments, "--workers", 0).out.splitlines()
    told = [line for line in lines if line.startswith("preprocess: ")]
    assert re.fullmatch(
        r"preprocess: [\d,]+ files found, [\d,]+ of them in \d+ series, 0 known", told[0]
    )
    pattern = (
        r"preprocess: [\d,]+ of [\d,]+ files \(\d+ %\), [\d,]+ files/s, \d+(\.\d)? .B/s, "
        r"\d+:\d\d:\d\d left"
    )
    assert re.fullmatch(pattern, told[-1])
    assert "(100 %)" in told[-1]
    assert told[-1].endswith("0:00:00 left")
    again = command_line(*arguments, "--workers", 0, "--check", "contents").out
    assert "unchanged from before" in again


def test_a_bare_tree_tells_how_many_headers_are_read(source, tmp_path, command_line, monkeypatch):
    monkeypatch.setattr(progress_lines, "EVERY_S", 0.0)
    study = next((source / "dicoms" / "train_images").iterdir())
    arguments = ("preprocess", "--src", study, "--out", tmp_path / "out", "--workers", 0)
    files = f"{sum(path.is_file() for path in study.rglob('*'))}"
    lines = command_line(*arguments).out.splitlines()
    assert re.fullmatch(rf"scan: {files} files found, [\d,]+ files/s", lines[0])
    assert re.fullmatch(
        rf"headers: {files} of {files} files \(100 %\), [\d,]+ files/s, 0:00:00 left", lines[1]
    )
    assert lines[2].startswith(f"preprocess: {files} files found, {files} of them in ")


def test_lines_are_as_far_apart_as_they_have_to_be(capsys):
    now_s = 0.0
    lines = ProgressLines(1000, every_s=10.0, clock=lambda: now_s)
    for n in range(1, 41):
        now_s = float(n)
        lines.add(10, 1_000_000, was_read=True)
    lines.add(600, 5, was_read=False)
    assert capsys.readouterr().out.splitlines() == [
        "preprocess: 100 of 1,000 files (10 %), 10 files/s, 1 MB/s, 0:01:30 left",
        "preprocess: 200 of 1,000 files (20 %), 10 files/s, 1 MB/s, 0:01:20 left",
        "preprocess: 300 of 1,000 files (30 %), 10 files/s, 1 MB/s, 0:01:10 left",
        "preprocess: 400 of 1,000 files (40 %), 10 files/s, 1 MB/s, 0:01:00 left",
        "preprocess: 1,000 of 1,000 files (100 %), 10 files/s, 1 MB/s, 0:00:00 left",
    ]
    assert duration_text(4000.4) == "1:06:40"


def test_a_full_disk_is_said_and_the_run_goes_on_where_it_was(source, tmp_path):
    """The system refuses a child files over 100 kB, which no volume of this size is under."""
    limit = 100_000
    arguments = [sys.executable, "-m", "lumbar.cli", "preprocess", "--workers", "0"]
    arguments += ["--src", source / "dicoms", "--out", tmp_path / "out"]
    environment = os.environ | {"PYTHONPATH": str(Path(lumbar.__file__).parents[1])}
    full = subprocess.run(
        arguments,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert full.returncode == 1
    assert f"no room for the cache: {tmp_path / 'out'}" in full.stderr
    assert "File too large" in full.stderr
    assert "Traceback" not in full.stderr
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == tree(source / "cache")


def test_a_folder_that_cannot_be_written_is_the_callers_mistake(source, command_line):
    done = command_line("preprocess", "--src", source / "dicoms", "--out", "/proc/cache")
    assert done.status == 2
    assert "/proc/cache" in done.err


@pytest.mark.parametrize(
    ("content", "size", "said"),
    [
        (b"", 2**31, "2147483648 bytes; expected at most 67108864"),
        (b"study_id\n" + b"\n" * 2**20, None, "1048577 lines"),
        (b"study_id" + b"," * 2**24, None, "16777224 bytes in the first line"),
        # Parsed whole, these would be 20 GB.
        (b"study_id" + b"," * 60_000 + b"\n" + b",\n" * 2**19, None, "missing ["),
    ],
    ids=["larger than memory", "empty lines", "columns without end", "columns times rows"],
)
@pytest.mark.parametrize("name", ["train", "train_series_descriptions", "train_label_coordinates"])
def test_a_table_that_would_fill_the_memory_is_refused(
    tmp_path, command_line, name, content, size, said
):
    src = tmp_path / "src"
    (src / "train_images").mkdir(parents=True)
    with (src / f"{name}.csv").open("wb") as file:
        file.write(content)
        file.truncate(size)
    done = command_line("preprocess", "--src", src, "--out", tmp_path / "out", "--workers", 0)
    assert done.status == 2
    assert f"{name}.csv; got {said}" in done.err
    assert not (tmp_path / "out").exists()
