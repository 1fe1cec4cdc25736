"""The contestants of the benchmark do the same work, and its rows are what they should be."""

import itertools
import json
import time
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lumbar.train.plan.augment import AugmentConfig

BATCHES = 4
SHAPE = (18, 1, 48, 64)
PACKAGES = ("monai", "torchio", "batchgeneratorsv2")
LIBRARIES = ("monai_cache", "monai_persistent", "torchio", "batchgeneratorsv2")


needs_peers = pytest.mark.skipif(
    not all(map(find_spec, PACKAGES)), reason="the peers are not here: install lumbar[bench]"
)


def draw(contest, name, n=BATCHES):
    """The first batches of a contestant without workers, (b, d, 1, h, w)."""
    from contest.contestants import CONTESTANTS  # noqa: PLC0415

    (contestant,) = (one for one in CONTESTANTS if one.name == name)
    with contestant.open(contest, 2 if name == "lumbar" else 0) as batches:
        return np.stack([batch.numpy().copy() for batch in itertools.islice(batches, n)])


@pytest.fixture(scope="module")
def of_lumbar(contest):
    return draw(contest, "lumbar")


@pytest.mark.parametrize("name", ["opencv", "opencv_reused", "opencv_fours"])
def test_opencv_draws_the_same_pixels(contest, of_lumbar, name):
    drawn = draw(contest, name)
    assert drawn.shape == of_lumbar.shape
    difference = np.abs(drawn - of_lumbar)
    # OpenCV weighs neighbours in steps of 1/32 pixel.
    assert difference.max() < 0.05
    assert difference.mean() < 1e-3


def test_pydicom_draws_the_same_crops(contest, of_lumbar):
    drawn = draw(contest, "pydicom")
    assert drawn.shape == of_lumbar.shape
    assert np.abs(drawn - of_lumbar).mean() < 0.02


@needs_peers
@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_draw_the_same_crops(contest, name):
    """Without augmentation each of their images is one of lumbar's, but interpolated twice.

    TorchIO crops an odd number of pixels half a pixel off.
    """
    still = replace(contest, augment=AugmentConfig.none())
    of_lumbar = draw(still, "lumbar").reshape(-1, *SHAPE)
    drawn = draw(still, name)
    assert drawn.shape == (BATCHES, still.batch, *SHAPE)
    assert drawn.dtype == np.float32
    for image in drawn.reshape(-1, *SHAPE):
        differences = np.abs(of_lumbar - image).mean(axis=(1, 2, 3, 4))
        # Two epochs of four series: two of the eight images are of the same one.
        same, others = np.split(np.sort(differences), [2])
        assert same.max() < 0.05
        assert others.min() > 2 * same.max()


@needs_peers
@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_augment_as_much(contest, of_lumbar, name):
    """They draw numbers of their own from the same ranges."""
    seeded = replace(contest, rows=[0, 0])
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    # A mean of 64 images is known to 0.01 on either side.
    drawn, own = draw(seeded, name, 32), draw(seeded, "lumbar", 32)
    assert np.isfinite(drawn).all()
    assert drawn.mean() == pytest.approx(own.mean(), abs=0.05)
    spreads = [images.reshape(-1, *SHAPE).std(axis=0).mean() for images in (drawn, own)]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.5)


@needs_peers
def test_rows_and_files(contest, tmp_path, monkeypatch):
    from contest import run  # noqa: PLC0415

    @contextmanager
    def opened(_):
        yield contest

    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(run, "opened_contest", opened)
    monkeypatch.setattr(run, "WORKERS", (0,))
    names = ["lumbar", "opencv", "torchio", "pydicom", "host", "waiting"]
    files = ["--json", str(tmp_path / "r.json"), "--markdown", str(tmp_path / "r.md")]
    run.main([*files, "--seconds", "0.1", "--repeats", "1", "--only", *names])
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["context"]["gpu"] == "not measured: no GPU"
    assert found["context"]["versions"]["torchio"]
    rows = {row["name"]: row for row in found["results"]}
    targets = {name: row["target"] for name, row in rows.items() if row["target"] is not None}
    assert targets == {
        "ratio_to_best_library": 4,
        "cpu_seconds_to_best_library": 1,
        "ratio_to_opencv_dataloader": 2,
        "ratio_to_pydicom_on_the_fly": 10,
        "plan_and_prepare/series": 0.08,
        "plan_and_prepare/discs": 0.08,
        "gather_slices": 8,
        "simulated_120_ms_step/wait_p50": 2,
        "simulated_120_ms_step/accelerator_utilisation": 98,
    }
    for row in rows.values():
        assert row["low"] <= row["value"] <= row["high"]
        assert row["met"] in ((True, False) if row["target"] is not None else (None,))
    own, other = rows["lumbar/volumes_per_second"], rows["torchio/volumes_per_second"]
    assert rows["ratio_to_best_library"]["value"] == pytest.approx(own["value"] / other["value"])
    assert "| ratio_to_best_library (against torchio) |" in (tmp_path / "r.md").read_text()


def test_the_host_is_measured_by_its_steps(contest, monkeypatch):
    """A view costs what a step's thread computes, shared out; the first epoch does not count."""
    from contest import host  # noqa: PLC0415

    prepared, now = [], [0.0]

    def prepare(plan, cache, volumes, epoch, step):
        requests = plan.requests(epoch, step)
        prepared.append((epoch, step, requests[0].views[0].row, volumes.fetch(requests[0].views)))
        now[0] += 9.0 if epoch == 0 else 0.064 * len(requests)
        return SimpleNamespace(slices=requests)

    monkeypatch.setattr(host, "SAMPLES", 4 * host.BATCH)
    monkeypatch.setattr(host, "STEPS", 10)
    monkeypatch.setattr(host, "prepare_step", prepare)
    monkeypatch.setattr(host.time, "thread_time", lambda: now[0])
    found = dict(host.measure_preparing(contest, repeats=2))
    assert list(found) == ["series", "discs"]
    for spread in found.values():
        assert (spread.value, spread.low, spread.high) == pytest.approx((64.0,) * 3)
    # An epoch has 4 steps of series, and 20 of discs.
    assert [entry[:2] for entry in prepared[:14]] == [(n // 4, n % 4) for n in range(14)]
    assert len(prepared) == 2 * (4 + host.STEPS) + 2 * (20 + host.STEPS)
    assert {row for *_, row, _ in prepared} == {0, 1, 2, 3}


def test_largest_batch():
    from contest.gpu import largest_batch  # noqa: PLC0415

    for most in (8, 15, 16, 40, 100):
        assert largest_batch(lambda batch, most=most: batch <= most) == most // 8 * 8
    with pytest.raises(RuntimeError, match="not even"):
        largest_batch(lambda _: False)


def test_what_a_fresh_process_answers(contest):
    from contest.fresh import first_batch, memory  # noqa: PLC0415

    found = memory(contest, 60)
    assert abs(found["slope"]) < found["peak"]
    started = time.monotonic() - 10
    found = first_batch(contest, started)
    assert 0 < found["from_reader"] < found["from_process_start"] - 9
