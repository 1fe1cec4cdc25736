"""The benchmark of decoding on a GPU: without one it measures the CPU, and says why."""

import json

import numpy as np
import pytest

SMALL = ("--sides", "64", "--series", "2", "--workers", "0", "--repeats", "2")
KINDS = ("frame/jpeg_lossless_64", "frame/jpeg2000_64", "frame/htj2k_64", "series/jpeg2000_64")


@pytest.fixture
def benchmark(monkeypatch):
    import gpu_decode  # noqa: PLC0415

    monkeypatch.setattr(gpu_decode, "SECONDS_A_ROUND", 0.0)
    return gpu_decode


def names_of(path):
    return [row["name"] for row in json.loads(path.read_text())["results"]]


def test_without_a_gpu_the_cpu_is_measured_and_the_reason_told(
    benchmark, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(benchmark, "find_gpu_problem", lambda: "no driver")
    paths = tmp_path / "d.json", tmp_path / "d.md"
    files = ("--json", str(paths[0]), "--markdown", str(paths[1]))
    assert benchmark.main([*SMALL, *files, "--device", "cuda"]) == 1
    assert names_of(paths[0]) == [f"{kind}/cpu" for kind in KINDS]
    context = json.loads(paths[0].read_text())["context"]
    assert context["gpu"] == "not used: no driver"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("ms: frame/jpeg_lossless_64 cpu ")
    assert last.endswith("; no GPU: no driver")
    assert "frame/htj2k_64/cpu" in paths[1].read_text()


def test_gpu_stands_beside_the_cpu_and_its_values_are_compared(benchmark, monkeypatch):
    """A decoder that stands in for the card; then one that gives other values, or none."""
    monkeypatch.setattr(benchmark, "find_gpu_problem", lambda: "")
    monkeypatch.setattr(benchmark, "decode_on_gpu", lambda *_: np.zeros(1))
    options = benchmark.parse_arguments(SMALL)
    rows = list(benchmark.frame_rows(options, ["cpu", "gpu"]))
    assert [row["name"] for row in rows[:3]] == [
        f"frame/jpeg_lossless_64/{last}" for last in ("cpu", "gpu", "cpu_over_gpu")
    ]
    genuine = benchmark.decode

    def wrong(dataset, index, *, on_gpu):
        picture = genuine(dataset, index)
        return type(picture)(picture.values + np.uint16(on_gpu), None)

    monkeypatch.setattr(benchmark, "decode", wrong)
    with pytest.raises(SystemExit, match="other values of JPEG"):
        list(benchmark.frame_rows(options, ["cpu", "gpu"]))
    monkeypatch.setattr(benchmark, "decode_on_gpu", lambda *_: None)
    with pytest.raises(SystemExit, match="the GPU does not decode JPEG"):
        list(benchmark.frame_rows(options, ["cpu", "gpu"]))
