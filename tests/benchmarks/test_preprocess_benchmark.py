"""The preprocessing benchmark: everyone reads every file, and its rows are what they should be."""

import json
from importlib.util import find_spec

import numpy as np
import pytest


@pytest.fixture(scope="module")
def rle(tmp_path_factory):
    """Two small series, RLE."""
    from ingest.files import SeriesKind, write_kind  # noqa: PLC0415

    root = tmp_path_factory.mktemp("rle")
    return write_kind(root, SeriesKind("rle", 64, 1.25), n_series=2, seed=3)


@pytest.mark.parametrize("syntax", ["rle", "raw", "jpeg2000"])
def test_every_decoder_gives_the_pixels_of_the_file(tmp_path, syntax):
    import pydicom  # noqa: PLC0415
    from ingest.files import SeriesKind, write_kind  # noqa: PLC0415
    from ingest.floor import DECODERS, fastest_decoder  # noqa: PLC0415

    (series,) = write_kind(tmp_path, SeriesKind(syntax, 64, 1.25), n_series=1, seed=3)
    file = series.files[0]
    pixels = file.path.read_bytes()[file.start : file.stop]
    expected = pydicom.dcmread(file.path).pixel_array
    for decode in DECODERS[syntax].values():
        # Some give bytes, some numbers.
        decoded = np.frombuffer(np.ascontiguousarray(decode(pixels, 64)).tobytes(), "<u2")
        assert np.array_equal(decoded.reshape(64, 64), expected)
    fastest, times = fastest_decoder(series)
    assert times[fastest] == min(times.values())


@pytest.mark.parametrize("name", ["dcm2niix", "SimpleITK", "notebook"])
def test_peers_read_every_file(rle, tmp_path, name):
    from ingest.peers import PEERS, PeerTask  # noqa: PLC0415

    if name != "notebook" and find_spec(name) is None:
        pytest.skip(f"{name} is not here: install lumbar[bench]")
    for number, series in enumerate(rle):
        assert PEERS[name](PeerTask(series.folder, tmp_path / f"{number}")) == len(series.files)


def test_rows_of_a_short_run(tmp_path, monkeypatch):
    from ingest import run  # noqa: PLC0415
    from ingest.files import SeriesKind  # noqa: PLC0415

    kind = SeriesKind("rle", 64, 1.25)
    monkeypatch.setattr(run, "KINDS", (kind,))
    monkeypatch.setattr(run, "PEERS", {"notebook": run.PEERS["notebook"]})
    paths = tmp_path / "r.json", tmp_path / "r.md"
    options = ["--series", "2", "--peer-series", "2", "--repeats", "2", "--workers", "0"]
    options += ["--kinds", "rle_64", "--only", "floor", "peers"]
    run.main([*options, "--json", str(paths[0]), "--markdown", str(paths[1])])
    document = json.loads(paths[0].read_text())
    rows = {row["name"]: row for row in document["results"]}
    assert document["context"]["repeats"] == 2
    over = rows["rle_64/wall_over_floor"]
    assert (over["target"], over["wanted"]) == (1.25, "at most")
    assert over["met"] == (over["value"] <= 1.25)
    assert rows["peers/rle_64/notebook_over_lumbar"]["target"] is None
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows.values())
    assert "| rle_64/wall_over_floor |" in paths[1].read_text()
