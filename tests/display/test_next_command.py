"""Each command ends by naming the one that usually comes next, and that one can be run."""

import ast
import inspect
import shlex
import sys
from types import SimpleNamespace

import pytest

from lumbar import cli
from lumbar.commands.evaluate import _models
from lumbar.commands.options import series_to_train

COMMANDS = {command.__name__: command for command in cli.COMMANDS}
NAMES_IT_OTHERWISE = {"bench": "the verdict's advice", "sweep": "train it again: lumbar train"}
LAST = {"export"}
"""A network that was exported is for other programs."""


def next_commands():
    """Yield (command, words) of each `say_next`; a word that is computed is None."""
    for module in {sys.modules[command.__module__] for command in COMMANDS.values()}:
        for function in ast.parse(inspect.getsource(module)).body:
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "say_next":
                    words = [w.value if isinstance(w, ast.Constant) else None for w in node.args]
                    yield function.name, words


NEXT = sorted(next_commands(), key=str)


def test_every_command_names_the_next_one():
    assert {name for name, _ in NEXT} | NAMES_IT_OTHERWISE.keys() | LAST == set(COMMANDS)


@pytest.mark.parametrize(("command", "words"), NEXT)
def test_the_next_command_has_these_options(command, words):
    known = inspect.signature(COMMANDS[words[0]]).parameters
    options = {word[2:] for word in words if word and word.startswith("--")}
    assert options <= set(known), command


def test_each_command_leads_to_the_next_one(command_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["synth", "--out", "generated", "--studies", "2", "--max-matrix", "64"]
    way = []
    while line[0] != "train":
        way.append(line[0])
        result = command_line(*line)
        assert result.status == 0, result
        last = result.out.splitlines()[-1]
        assert last.startswith("next: lumbar ")
        line = shlex.split(last)[2:]
    assert way == ["synth", "preprocess", "verify", "inspect"]
    assert command_line(*line, "--dry-run", "--set", "split.folds=2").status == 0


def test_a_blend_names_its_file_for_prediction_and_a_table_names_nothing(tmp_path):
    (tmp_path / "blend").mkdir()
    (tmp_path / "blend" / "blend.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("")
    runs = [tmp_path / "run", tmp_path / "run"]
    assert _models(runs) == runs
    assert _models([tmp_path / "blend"]) == ["--blend", tmp_path / "blend" / "blend.json"]
    assert _models([tmp_path / "blend", tmp_path / "run"]) == []
    assert _models([tmp_path / "oof.parquet"]) == []


@pytest.mark.parametrize(
    ("there", "named"),
    [
        (("axial_t2", "sagittal_t2"), "sagittal_t2"),
        (("other", "axial_t2"), "axial_t2"),
        (("other",), None),
        ((), None),
    ],
)
def test_the_next_training_is_of_a_type_that_the_cache_has(there, named):
    cache = SimpleNamespace(series={"series_type": list(there)})
    assert series_to_train(cache) == named
