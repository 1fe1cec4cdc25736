"""What a ``sweep.toml`` may say, and the run that a trial of it is."""

import re
import tomllib
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lumbar.cache.errors import InputError, MissingError
from lumbar.cache.names import SeriesType
from lumbar.train.run.config import resolve_config
from lumbar.train.sweep.config import SweepConfig, read_sweep
from lumbar.train.sweep.storage import distributions, shown_url

WHOLE = """
series = "axial_t2"
trials = 12

[run.optim]
epochs = 6
batch = 4

[search]
"optim.lr" = { float = [1e-5, 1e-2], log = true }
optim.batch = { int = [2, 8], step = 2 }
"augment.mixup" = { choices = [0.0, 0.4] }
loss.weights = { choices = [[1, 2, 4], [1, 1, 1]] }
"""
ONE = 'series = "sagittal_t2"\n[search]\n"optim.lr" = { float = [1e-5, 1e-2] }\n'


@pytest.fixture
def read(tmp_path):
    def read(text):
        file = tmp_path / "sweep.toml"
        file.write_text(text)
        return read_sweep(file)

    return read


def test_keys_are_searched_by_their_dotted_names_quoted_or_not(read):
    config = read(WHOLE)
    assert distributions(config) == {
        "optim.lr": FloatDistribution(1e-5, 1e-2, log=True),
        "optim.batch": IntDistribution(2, 8, step=2),
        "augment.mixup": CategoricalDistribution((0.0, 0.4)),
        "loss.weights": CategoricalDistribution(("[1, 2, 4]", "[1, 1, 1]")),
    }


def test_a_trial_is_the_series_defaults_then_run_then_its_values(read):
    config = read(WHOLE)
    values = config.values_of({"optim.batch": 8, "loss.weights": "[1, 1, 1]", "optim.lr": 1e-3})
    expected = resolve_config(
        SeriesType.AXIAL_T2,
        overrides=["optim.epochs=6", "optim.batch=8", "optim.lr=1e-3", "loss.weights=[1, 1, 1]"],
    )
    assert config.run_config(values) == expected
    assert config.base == resolve_config(
        SeriesType.AXIAL_T2, overrides=["optim.epochs=6", "optim.batch=4"]
    )


def test_the_epochs_of_the_longest_trial_are_known(read):
    assert read(WHOLE).most_epochs == 6
    assert read(WHOLE + "optim.epochs = { int = [3, 20] }").most_epochs == 20
    assert read(WHOLE + "finish.epochs = { choices = [0, 4] }").most_epochs == 10


def test_a_table_may_be_a_choice(read):
    config = read(ONE + "crop = { choices = [{ slices = 8, pixel_mm = 2.0 }, { slices = 16 }] }")
    (first, second) = distributions(config)["crop"].choices
    assert config.run_config(config.values_of({"crop": first})).crop.slices == 8
    assert config.run_config(config.values_of({"crop": second})).crop.slices == 16


def test_a_key_of_an_open_table_may_be_searched(read):
    config = read(ONE + '"crop.pixel_mm_of.axial_t2" = { float = [0.4, 1.0] }')
    run = config.run_config({"crop.pixel_mm_of.axial_t2": 0.5})
    assert dict(run.crop.pixel_mm_of) == {"axial_t2": 0.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONE.replace("sagittal_t2", "ct"), ["series", "'ct'", "one of sagittal_t1"]),
        (ONE.replace("optim.lr", "optim.rate"), ["optim.rate", "'rate'", "weight_decay"]),
        (ONE.replace("optim.lr", "optim.lr.x"), ["optim.lr.x", "'x'", "no more"]),
        (ONE.replace("[1e-5, 1e-2]", "[1e-2, 1e-5]"), ["search.optim.lr", "low below high"]),
        (ONE.replace("[1e-5, 1e-2]", "[0.0, 1.0], log = true"), ["search.optim.lr", "above 0"]),
        (ONE.replace("[1e-5, 1e-2]", "[1.0, inf]"), ["search.optim.lr", "finite"]),
        (ONE.replace("[1e-5, 1e-2]", "[1, 2], lgo = true"), ["unknown key", "search.optim.lr.lgo"]),
        (ONE.replace("{ float = [1e-5, 1e-2] }", "3"), ["search.optim.lr", "got 3", "choices"]),
        (ONE.replace("float =", "int = [1, 2], float ="), ["search.optim.lr", "one of float"]),
        (ONE.replace("float = [1e-5, 1e-2]", "int = [1, 4.5]"), ["search.optim.lr", "4.5"]),
        (
            ONE.replace("float = [1e-5, 1e-2]", "int = [1, 8], log = true, step = 2"),
            ["search.optim.lr", "no step"],
        ),
        (ONE.replace("float = [1e-5, 1e-2]", "choices = []"), ["search.optim.lr", "at least 1"]),
        (ONE.replace("float = [1e-5, 1e-2]", "choices = [1, 1]"), ["search.optim.lr", "differ"]),
        (ONE.replace("optim.lr", "split.fold"), ["split.fold", "cannot be compared"]),
        (ONE.replace("optim.lr", "series"), ["series", "cannot be compared"]),
        (ONE.replace("[search]", "[run]\nbatch = 3\n[search]"), ["unknown key", "batch", "optim"]),
        (ONE.replace("[search]", "[run.optim]\nlr = 0\n[search]"), ["optim.lr", "got 0"]),
        (ONE.replace("[search]", '[run]\nseries = "study"\n[search]'), ["run", "at the top"]),
        ("trials = 3\n" + ONE.replace("[search]", "hours = -1\n[search]"), ["hours", "-1"]),
        ("trails = 3\n" + ONE, ["unknown key", "trails"]),
        ('series = "sagittal_t2"', ["missing key", "search"]),
        ('series = "sagittal_t2"\n[search]', ["search", "at least 1"]),
        ("series = [", ["TOML"]),
    ],
)
def test_what_cannot_be_swept_is_refused_with_the_key(read, text, said):
    with pytest.raises(InputError) as raised:
        read(text)
    for words in said:
        assert words in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingError, match=r"none\.toml"):
        read_sweep(tmp_path / "none.toml")


def test_a_storage_is_shown_without_its_password():
    shown = shown_url("postgresql://me:secret@db.example/sweeps")
    assert "secret" not in shown
    assert "db.example/sweeps" in shown


PAGE = (Path(__file__).parents[3] / "docs" / "sweeps.md").read_text()


def test_the_page_names_every_key_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
    fields = {name: field for name, field in SweepConfig.model_fields.items() if name != "search"}
    assert list(rows) == list(SweepConfig.model_fields)
    for name, field in fields.items():
        if field.is_required() or field.default in (None, {}):
            assert rows[name] == ""
        else:
            assert tomllib.loads(f"value = {rows[name].strip('`')}")["value"] == field.default


def test_the_examples_of_the_page_are_sweeps(read):
    first, *lines = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert read(first).trials == 40
    for line in lines:
        assert read(f'series = "sagittal_t2"\n[search]\n{line}').search
