"""Each command ends by naming the one that usually comes next, and that one can be run."""

import ast
import inspect
import shlex
import sys

import pytest

from lumbar import cli

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
