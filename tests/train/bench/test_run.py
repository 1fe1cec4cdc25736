"""The whole benchmark on a small cache, and what it reports."""

import json
import multiprocessing

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.train.bench.picture import draw_bench
from lumbar.train.bench.report import BenchReport
from lumbar.train.bench.run import BenchConfig, BenchProgress, run_bench

QUICK = BenchConfig(seconds=0.02, repeats=2, workers=(0,), step_ms=5)


def decode(study_id, series_id, size):
    return np.zeros((4, *size), np.float32)


def bench(cache, config, decode=None):
    return run_bench(
        cache, config, QUICK, device=torch.device("cpu"), threads=2, dicom_decode=decode
    )


@pytest.fixture(scope="module")
def events(smooth_cache, run_config):
    return list(bench(smooth_cache, run_config, decode))


@pytest.fixture(scope="module")
def report(events):
    return events[-1]


def test_progress_comes_before_each_measurement_and_the_report_last(events):
    progress = events[:-1]
    assert all(isinstance(event, BenchProgress) for event in progress)
    assert [event.done for event in progress] == list(range(5))
    assert {event.total for event in progress} == {5}
    assert isinstance(events[-1], BenchReport)
    assert multiprocessing.active_children() == []


def test_every_loader_is_measured_with_every_step(report):
    assert [loader.name for loader in report.loaders] == [
        "dicom_dataloader_0_workers",
        "cache_dataloader_0_workers",
        "dali_reader",
    ]
    for loader in report.loaders:
        assert [(e.ceiling.name, e.ceiling.simulated) for e in loader.end_to_end] == [
            *sorted(
                [("end_to_end", False), ("end_to_end_simulated_5_ms", True)],
                key=lambda pair: next(
                    c.step_ms.value for c in report.ceilings if c.name == pair[0]
                ),
            )
        ]
        assert loader.volumes_per_second.value > 0
        assert loader.best == (loader.kind == "cache_dataloader")


def test_only_full_batches_are_planned(report):
    assert (report.context["series"], report.context["batch"]) == (4, 2)


def test_json_follows_the_schema(report):
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert set(document) == {"context", "results"}
    context = document["context"]
    assert {"cpu", "cores", "ram_gib", "gpu", "gpu_driver", "date", "seed", "notes"} <= set(context)
    assert context["gpu"] is None
    assert {"lumbar", "torch", "dali", "python", "numpy"} <= set(context["versions"])
    assert context["run_config"]["series"] == "sagittal_t2"
    for result in document["results"]:
        assert set(result) == {"name", "value", "unit", "target", "met", "low", "high"}
        assert (result["target"], result["met"]) == (None, None)
        if result["value"] is None:
            assert result["name"].endswith("gpu_utilisation")
        else:
            assert result["low"] <= result["high"]
    names = [result["name"] for result in document["results"]]
    assert len(set(names)) == len(names)
    assert {
        "dali_reader/end_to_end/volumes_per_second",
        "dali_reader/end_to_end_simulated_5_ms/wait_p99",
        "dali_reader/alone/cpu_seconds_per_volume",
        "cache_dataloader_best/alone/volumes_per_second",
        "replayed_batch/end_to_end/volumes_per_second",
    } <= set(names)


def test_what_was_not_measured_is_never_zero(report):
    gpu = [r for r in report.to_json()["results"] if r["name"].endswith("gpu_utilisation")]
    assert gpu
    assert all(result["value"] is None for result in gpu)
    rows = [line for line in report.to_markdown().splitlines() if line.startswith("| lumbar")]
    assert len(rows) == 2
    assert all(row.split("|")[7].strip() == "not measured" for row in rows)


def test_simulated_rows_are_named_so(report):
    tables = report.to_markdown().split("**")
    assert sum("imulated step: sleeps 5 ms" in part for part in tables[1::2]) == 1
    assert any("simulated" in note for note in report.notes)
    assert any("same cores" in note for note in report.notes)


def test_picture_is_drawn_whole(report, tmp_path):
    draw_bench(report, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["bench.png"]


def test_a_long_step_is_replayed_only(smooth_cache, run_config, monkeypatch):
    monkeypatch.setattr("lumbar.train.bench.run.MAX_STEP_SECONDS", 0.0)
    report = list(bench(smooth_cache, run_config))[-1]
    assert [loader.end_to_end for loader in report.loaders] == [(), ()]
    assert len(report.ceilings) == 2
    rows = [line for line in report.to_markdown().splitlines() if line.startswith("| lumbar")]
    assert [row.count("not measured") for row in rows] == [5, 5]
    assert sum("replayed once" in note for note in report.notes) == 2
    assert any("DICOM on the fly was not measured" in note for note in report.notes)


def test_series_type_that_is_not_there_is_refused(smooth_cache, run_config):
    other = run_config.model_copy(update={"series": SeriesType.AXIAL_T2})
    with pytest.raises(InputError, match="no series of type axial_t2"):
        next(bench(smooth_cache, other))


@pytest.mark.parametrize(
    "values", [{"seconds": 0}, {"repeats": 0}, {"workers": ()}, {"workers": (-1,)}, {"x": 1}]
)
def test_configuration_is_checked(values):
    with pytest.raises(ValidationError):
        BenchConfig(**values)
