"""The whole benchmark on a small cache, and what it reports."""

import json
import multiprocessing
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from bench.schema import BenchFile
from pydantic import ValidationError

from lumbar.bench.report.files import write_report
from lumbar.bench.report.notes import FAR_AHEAD
from lumbar.bench.report.page import to_markdown
from lumbar.bench.report.plot import draw_bench
from lumbar.bench.report.report import BenchReport
from lumbar.bench.report.rows import to_json
from lumbar.bench.run import run_bench
from lumbar.bench.session import BenchConfig, BenchProgress
from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType

QUICK = BenchConfig(seconds=0.02, repeats=2, workers=(0,), step_ms=5, cold=True, minutes=30)


def decode(study_id, series_id, size):
    return np.zeros((4, *size), np.float32)


def bench(cache, config, decode=None, started=None, **settings):
    return run_bench(
        cache,
        config,
        QUICK.model_copy(update=settings),
        device=torch.device("cpu"),
        threads=2,
        dicom_decode=decode,
        started=started,
    )


@pytest.fixture(scope="module")
def events(smooth_cache, run_config):
    return list(bench(smooth_cache, run_config, decode))


@pytest.fixture(scope="module")
def report(events):
    return events[-1]


@pytest.fixture(scope="module")
def document(report):
    return json.loads(json.dumps(to_json(report), allow_nan=False))


def test_progress_comes_before_each_measurement_and_the_report_last(events):
    progress = events[:-1]
    assert all(isinstance(event, BenchProgress) for event in progress)
    assert [event.done for event in progress] == list(range(len(progress)))
    assert all(event.done < event.total for event in progress)
    assert isinstance(events[-1], BenchReport)
    assert multiprocessing.active_children() == []


def test_every_loader_is_measured_with_every_step(report):
    own = [
        "lumbar_disk_2_threads",
        "lumbar_device_2_threads",
        "cache_dataloader_0_workers",
        "dicom_dataloader_0_workers",
    ]
    assert [loader.spec.name for loader in report.loaders] == own
    steps = sorted(report.ceilings, key=lambda ceiling: ceiling.step_ms.value)
    for loader in report.loaders:
        assert [e.ceiling for e in loader.end_to_end] == steps
        assert loader.alone.volumes_per_second.value > 0
        assert loader.memory_bytes > 50e6
        assert loader.best == (loader.spec.kind == "cache_dataloader")
        assert loader.device_bytes_per_volume is None


def test_only_full_batches_are_planned(report):
    assert (report.context["series"], report.context["batch"]) == (4, 2)


def test_what_reads_files_is_measured_cold(report):
    cold = [loader.spec.name for loader in report.loaders if loader.cold is not None]
    assert cold == ["lumbar_disk_2_threads", "cache_dataloader_0_workers"]


def test_json_follows_the_schema(document):
    BenchFile.model_validate(document)
    context = document["context"]
    assert {"cpu", "cores", "ram_gib", "gpu", "gpu_driver", "date", "seed", "notes"} <= set(context)
    assert context["gpu"] is None
    assert {"lumbar", "torch", "dali", "python", "numpy"} <= set(context["versions"])
    assert context["run_config"]["series"] == "sagittal_t2"
    names = [result["name"] for result in document["results"]]
    assert {
        "lumbar_disk_2_threads/end_to_end/volumes_per_second",
        "lumbar_disk_2_threads/end_to_end/mvoxels_per_second",
        "lumbar_disk_2_threads/end_to_end_simulated_5_ms/wait_p99",
        "lumbar_disk_2_threads/alone/cpu_seconds_per_volume",
        "lumbar_disk_2_threads/cold/from_disk",
        "lumbar_disk_2_threads/memory",
        "cache_dataloader_best/alone/volumes_per_second",
        "replayed_batch/end_to_end/volumes_per_second",
        "sampler/cost",
        "whole_benchmark",
    } <= set(names)


def test_numbers_agree_with_one_another(document, report):
    value = {result["name"]: result["value"] for result in document["results"]}
    path = "lumbar_disk_2_threads/alone"
    voxels = 4 * 48 * 40
    assert value[f"{path}/mvoxels_per_second"] == pytest.approx(
        value[f"{path}/volumes_per_second"] * voxels / 1e6
    )
    for loader in report.loaders:
        for measured in loader.end_to_end:
            share = value[f"{loader.spec.name}/{measured.ceiling.name}/share_of_ceiling"]
            assert share == pytest.approx(measured.share_of_ceiling)


def test_what_needs_a_gpu_is_not_measured_and_never_zero(document, report):
    of_gpu = ("gpu_utilisation", "sm_activity", "tensor_activity", "dram_activity",
              "pcie_to_device", "device_memory", "energy_per_volume", "to_device")  # fmt: skip
    rows = [r for r in document["results"] if r["name"].rpartition("/")[2] in of_gpu]
    assert len(rows) > len(of_gpu)
    assert all(row["value"] is None and row["met"] is None for row in rows)
    page = [line for line in to_markdown(report).splitlines() if line.startswith("| lumbar")]
    assert sum("not measured" in row for row in page) >= 4


def test_targets_are_asked_where_they_can_be_met(report):
    def asked(minutes):
        context = report.context | {"bench_config": {"minutes": minutes}}
        rows = to_json(replace(report, context=context))["results"]
        return {row["name"]: row["met"] for row in rows if row["target"] is not None}

    # Without a GPU the step and the reader share the cores.
    assert asked(2.0).keys() == {"sampler/cost", "whole_benchmark"}
    # Two minutes are the target of the usual settings alone.
    assert asked(5.0).keys() == {"sampler/cost"}


def test_simulated_rows_are_named_so(report):
    tables = to_markdown(report).split("**")
    assert sum(part == "Simulated step: sleeps 5 ms" for part in tables[1::2]) == 1
    assert any("simulated" in note for note in report.notes)
    assert any("same cores" in note for note in report.notes)


def test_each_step_has_a_verdict_and_what_was_tried_stands_in_the_tables(report):
    assert [v.step for v in report.verdicts] == [
        e.ceiling.name for e in report.loaders[0].end_to_end
    ]
    page = to_markdown(report)
    for verdict in report.verdicts:
        assert verdict.finding in page
        assert verdict.advice in page
        settings = {one.setting for one in report.alternatives if one.step == verdict.step}
        assert settings == {one.setting for one in verdict.tried}
        assert "--tier device" in settings
    assert "| --tier device |" in page


def test_time_line_has_marks_and_cores(report):
    assert report.timeline
    assert any(sample.cpu_percent is not None for sample in report.timeline)
    assert all(sample.gpu_percent is None for sample in report.timeline)
    assert any("lumbar, disk tier" in mark.label for mark in report.marks)


def test_picture_is_drawn_whole(report, tmp_path):
    draw_bench(report, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["bench.png"]


def test_a_long_step_is_replayed_only(smooth_cache, run_config, monkeypatch):
    monkeypatch.setattr("lumbar.bench.run.MAX_STEP_SECONDS", 0.0)
    report = list(bench(smooth_cache, run_config, cold=False))[-1]
    assert {loader.end_to_end for loader in report.loaders} == {()}
    assert len(report.ceilings) == 2
    assert report.verdicts == ()
    assert sum("was replayed" in note for note in report.notes) == 2
    said = [note for note in report.notes if "times what that step takes" in note]
    for ceiling, note in zip(report.ceilings, said, strict=True):
        speed = report.loaders[0].alone.volumes_per_second.value
        far = speed / ceiling.volumes_per_second.value >= FAR_AHEAD
        assert note.startswith("Compute-bound without" if far else "No verdict on that step")
    assert any(" s each, so" in note for note in report.notes)
    assert any("DICOM on the fly was not measured" in note for note in report.notes)
    draw = to_markdown(report)
    assert "The loaders alone" in draw


def test_when_the_time_is_over_the_rest_is_named(smooth_cache, run_config, tmp_path):
    report = list(bench(smooth_cache, run_config, minutes=1e-6))[-1]
    assert report.loaders == ()
    assert len(report.ceilings) == 2
    late = [note for note in report.notes if "the time was over" in note]
    assert any("lumbar, disk tier, 2 threads" in note for note in late)
    # A short step was not left out for its length.
    assert not any("was replayed" in note for note in report.notes)
    assert any("No verdict" in note for note in report.notes)
    write_report(report, tmp_path)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_the_minutes_count_from_when_the_caller_began(smooth_cache, run_config):
    began = time.perf_counter() - 600
    report = list(bench(smooth_cache, run_config, minutes=10, started=began))[-1]
    assert report.loaders == ()
    assert any("the time was over" in note for note in report.notes)
    assert report.context["seconds_taken"] > 600


def test_what_fails_is_named_and_takes_nothing_else_with_it(smooth_cache, run_config, monkeypatch):
    def fail(*_, **__):
        message = "no compiler in /home/somebody"
        raise RuntimeError(message)

    monkeypatch.setattr("lumbar.bench.judge.model_step", fail)
    report = list(bench(smooth_cache, run_config, cold=False))[-1]
    failed = [note for note in report.notes if "failed with RuntimeError" in note]
    assert any("--set bfloat16=true" in note for note in failed)
    assert not any("somebody" in note for note in failed)
    assert not any("bfloat16" in one.setting for one in report.alternatives)
    assert len(report.verdicts) == 2


def test_a_reader_that_fails_is_no_note(smooth_cache, run_config, monkeypatch):
    def fail(*_):
        message = "damaged"
        raise OSError(message)

    monkeypatch.setattr("lumbar.bench.loaders.loaders._reader_batches", fail)
    with pytest.raises(OSError, match="damaged"):
        list(bench(smooth_cache, run_config, cold=False))


def test_samples_that_are_no_series_are_refused(smooth_cache, run_config):
    with pytest.raises(InputError, match=r"got disc; expected whole series"):
        next(bench(smooth_cache, run_config.model_copy(update={"discs": True})))


def test_series_type_that_is_not_there_is_refused(smooth_cache, run_config):
    other = run_config.model_copy(update={"series": SeriesType.AXIAL_T2})
    with pytest.raises(InputError, match="no series of type axial_t2"):
        next(bench(smooth_cache, other))


@pytest.mark.parametrize(
    "values", [{"seconds": 0}, {"repeats": 0}, {"workers": ()}, {"workers": (-1,)}, {"x": 1},
               {"minutes": 0}, {"minutes": float("inf")}]
)  # fmt: skip
def test_configuration_is_checked(values):
    with pytest.raises(ValidationError):
        BenchConfig(**values)


def test_memory_and_threads_are_as_in_a_run(smooth_cache, run_config, monkeypatch):
    told = []
    monkeypatch.setattr("lumbar.bench.run.let_segments_grow", told.append)
    before = sys.getswitchinterval()
    events = bench(smooth_cache, run_config)
    next(events)
    assert told == [torch.device("cpu")]
    assert sys.getswitchinterval() < before
    events.close()
    assert sys.getswitchinterval() == pytest.approx(before)
