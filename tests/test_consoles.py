"""Consoles that are not UTF-8: every command says what it has to say, and ends as it should."""

import io
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from lumbar import cli
from lumbar.cache.labels import severities_of
from lumbar.cache.store import Cache
from lumbar.display.plain_text import PLAIN
from lumbar.display.terminal import progress, say, say_json, show_table
from lumbar.train.evaluation.predictions import Predictions, write_oof


class Console:
    """Standard output of an encoding, as Python opens it: strict."""

    def __init__(self, encoding):
        self.bytes = io.BytesIO()
        self.stream = io.TextIOWrapper(self.bytes, encoding=encoding, errors="strict")

    def run(self, *arguments):
        status = 0
        with (
            mock.patch.object(sys, "stdout", self.stream),
            mock.patch.object(sys, "stderr", self.stream),
            mock.patch.object(sys, "argv", ["lumbar", *map(str, arguments)]),
        ):
            try:
                cli.main()
            except SystemExit as end:
                status = end.code or 0
        return status, self.text()

    def text(self):
        self.stream.flush()
        return self.bytes.getvalue().decode(self.stream.encoding)


@pytest.fixture(params=["ascii", "latin-1"])
def console(request):
    return Console(request.param)


@pytest.fixture
def predictions(tiny_cache, tmp_path):
    study_ids = Cache(tiny_cache).labels["study_id"].to_list()
    path = tmp_path / "pr\xe9dictions \N{GREEK SMALL LETTER MU}.parquet"
    write_oof(path, Predictions(tuple(study_ids), np.full((len(study_ids), 25, 3), 1 / 3)))
    assert (severities_of(Cache(tiny_cache).labels) >= 0).any()
    return path


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("inspect {cache}", "labels of 1 studies"),
        ("inspect {cache} --type sagittal_t2", "1 series"),
        ("verify {cache}", "no problem"),
        ("evaluate {predictions} --cache {cache}", "dictions"),
        ("--help", "inspect"),
    ],
)
def test_a_command_ends_as_on_any_console(console, tiny_cache, predictions, command, said):
    paths = {"cache": tiny_cache, "predictions": predictions}
    arguments = [Path(part.format(**paths)) for part in command.split()]
    status, text = console.run(*arguments)
    assert status == 0
    assert said in text
    assert "Traceback" not in text


def test_an_error_names_its_file_in_other_letters(console):
    status, text = console.run("inspect", "dossier \N{HIRAGANA LETTER A}\xe9")
    assert status == 2
    escaped = b"\\xe9".decode() if console.stream.encoding == "ascii" else "\xe9"
    assert f"no such cache folder: dossier \\u3042{escaped}" in text


def test_all_signs_are_written_in_other_letters():
    console = Console("ascii")

    def show(*_, **__):
        with progress() as bar:
            bar.add_task("task", total=3, rate="", note="".join(PLAIN))
            say("".join(PLAIN))
        show_table("\xe9", ("\N{RIGHTWARDS ARROW}",), [("\udcff",)])
        say_json({"a": "\xe9"})

    with mock.patch("lumbar.cli.app", show):
        assert console.run()[0] == 0
    assert "".join(PLAIN.values()) in console.text()


def test_a_name_that_is_no_text_can_be_said_on_utf_8():
    console = Console("utf-8")
    with mock.patch("lumbar.cli.app", side_effect=lambda **_: say("a\udcffb \xe9")):
        assert console.run() == (0, "a\\udcffb \xe9\n")
