"""Commands that lumbar prints can be run as they stand."""

import shlex
import shutil

import pytest

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.commands.export import export
from lumbar.commands.predict import _require_room
from lumbar.train.run.config import resolve_config
from lumbar.train.run.data import RunData
from lumbar.train.run.folder import claim, is_of_folds


def advice(message, start):
    """Return the words of the printed command that starts so."""
    return shlex.split(message[message.index(start) :].partition("`")[0])


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "my runs; $HOME"
    config = resolve_config(SeriesType.SAGITTAL_T2)
    claim(folder, config, RunData(tmp_path, "fast", {}), of_folds=True)
    assert is_of_folds(folder)
    return folder


def test_the_folder_to_resume_is_quoted(run):
    with pytest.raises(InputError) as caught:
        claim(run, resolve_config(SeriesType.SAGITTAL_T2), RunData(run, "fast", {}))
    assert advice(str(caught.value), "lumbar train --resume")[3] == str(run)


def test_the_export_of_folds_names_a_fold(run, tmp_path):
    with pytest.raises(InputError, match=r"holds a network a fold") as caught:
        export(run, tmp_path / "a b.onnx")
    words = advice(str(caught.value), "lumbar export")
    assert words == ["lumbar", "export", str(run / "fold-0"), "--out", str(tmp_path / "a b.onnx")]


@pytest.mark.parametrize("given", ["[123, 45]", '["123", "45"]', '[123, "45"]'])
def test_a_number_among_excluded_studies_is_its_text(given):
    setting = f"split.exclude_studies={given}"
    config = resolve_config(SeriesType.SAGITTAL_T2, overrides=[setting])
    assert config.split.exclude_studies == ("123", "45")
    with pytest.raises(InputError):
        resolve_config(SeriesType.SAGITTAL_T2, overrides=["split.exclude_studies=[true]"])


def test_a_full_temporary_folder_is_found_before_the_prediction(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=10**8))
    with pytest.raises(InputError, match=r"100 MB free; expected 208 MB.*TMPDIR"):
        _require_room()
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=10**9))
    _require_room()
