"""docs/configuration.md names every key with its default, and no other."""

import re
import tomllib
from pathlib import Path

import pytest

from lumbar.cache.names import SeriesType
from lumbar.train.run.config import RunConfig, resolve_config

PAGE = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text()
ROWS = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", PAGE, flags=re.MULTILINE))


def flat(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_page_has_every_key_and_its_default():
    defaults = dict(flat(RunConfig(series=SeriesType.SAGITTAL_T2).model_dump(mode="json")))
    assert list(ROWS) == list(defaults)
    del defaults["series"]
    documented = {
        key: tomllib.loads(f"value = {ROWS[key].strip('`')}")["value"] for key in defaults
    }
    assert documented == defaults


def test_example_of_the_page_is_a_configuration(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    file = tmp_path / "run.toml"
    file.write_text(example)
    config = resolve_config(SeriesType.SAGITTAL_T1, file=file)
    assert config.optim.lr == pytest.approx(3e-4)
    assert config.model.backbone == "resnet50"
