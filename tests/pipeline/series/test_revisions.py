"""A cache of revision 2 is kept, and what a new rule concerns is decoded again, nothing else."""

import shutil
from dataclasses import replace

import pytest
from scipy.spatial.transform import Rotation

from lumbar.cache.volumes import CHUNK, METADATA, volume_folder
from lumbar.pipeline.output import unchanged
from lumbar.pipeline.series import convert as series_module
from lumbar.pipeline.series.revisions import revised_hash


def padded(dataset, _):
    dataset.PixelRepresentation = 1
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.PixelPaddingValue = 63536
    dataset["PixelPaddingValue"].VR = "US"


def padded_as_its_pixels(dataset, _):
    dataset.PixelPaddingValue = 5


def tilted(dataset, index):
    if index % 2:
        turn = Rotation.from_euler("y", 0.24, degrees=True)
        cosines = dataset.ImageOrientationPatient
        both = [*turn.apply(cosines[:3]), *turn.apply(cosines[3:])]
        dataset.ImageOrientationPatient = [f"{v:.8g}" for v in both]


def half_rescaled(dataset, _):
    dataset.RescaleSlope = "2"


def rescaled(dataset, _):
    dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-7"


def diffusing(dataset, _):
    dataset.SeriesDescription, dataset.DiffusionBValue = "T2", 800.0


def described(dataset, _):
    dataset.SeriesDescription, dataset.DiffusionBValue = "T2", 0.0


CONCERNED = (padded, tilted, half_rescaled, diffusing)
OTHERS = (padded_as_its_pixels, rescaled, described, None)


@pytest.fixture
def old_cache(tools, tmp_path, monkeypatch, settled):
    """A source of eight series, and its cache as if no rule had been new."""
    for number, edit in enumerate((*CONCERNED, *OTHERS)):
        uids = {"StudyInstanceUID": "1", "SeriesInstanceUID": f"1.{number}"}
        small = replace(tools.phantom, rows=16, columns=16, tags=uids)
        small.write(tmp_path / "src" / f"{number}", edit=edit)
    with monkeypatch.context() as before:
        before.setattr(series_module, "find_rules", lambda *_: [])
        before.setattr(unchanged, "RULES", 2)
        tools.run(tmp_path / "src", tmp_path / "out")
    return tmp_path / "src", tmp_path / "out"


def stored(out):
    return {
        number: [
            (volume_folder(out, "1", f"1.{number}") / name).read_bytes()
            for name in (CHUNK, METADATA)
        ]
        for number in range(len(CONCERNED) + len(OTHERS))
    }


@pytest.mark.parametrize("check", ["stat", "contents"])
def test_what_a_rule_changes_is_decoded_once_more(tools, tmp_path, old_cache, decoded, check):
    src, out = old_cache
    before = stored(out)
    finished = tools.run(src, out, check=check)[-1]
    assert sorted(decoded) == [f"1.{number}" for number in range(len(CONCERNED))]
    assert finished.n_reused == len(OTHERS)
    after = stored(out)
    for number in range(len(CONCERNED), len(CONCERNED) + len(OTHERS)):
        assert after[number] == before[number]
    decoded.clear()
    for repeated in ("stat", "contents"):
        assert tools.run(src, out, check=repeated)[-1].n_changed == 0
    assert decoded == []
    shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
    tools.run(src, tmp_path / "fresh")
    assert stored(tmp_path / "fresh") == after


def test_rows_of_files_that_were_left_out_are_not_written_twice(tools, old_cache):
    src, out = old_cache
    (src / "7" / "broken.dcm").write_bytes((src / "7" / "3.dcm").read_bytes()[:-300])
    first = tools.cached(src, out).rejected
    assert first.height == 1
    assert tools.cached(src, out, check="contents").rejected.equals(first)


def test_a_series_that_no_rule_concerns_has_its_old_hash():
    assert revised_hash("abc", []) == "abc"
    assert revised_hash("abc", ["order"]) != revised_hash("abc", ["values"])
