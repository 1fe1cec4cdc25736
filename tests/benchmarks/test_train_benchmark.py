"""The benchmark of the training loop does in both loops the same work, and counts it right."""

import json
from dataclasses import replace

import pytest
import torch

from lumbar.cache.names import SeriesType
from lumbar.train.run.config import resolve_config
from lumbar.train.run.distributed import Ranks
from lumbar.train.run.network import build_model
from lumbar.train.trainer.trainer import Trainer

TINY = (
    "crop.slices=4", "crop.height=32", "crop.width=32", "crop.pixel_mm=8.0", "optim.batch=2",
    "model.backbone=test_resnet", "model.stride=8", "model.hidden=8", "bfloat16=false",
    "split.folds=2", "optim.warmup=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    from training.loops import LoopTask  # noqa: PLC0415
    from training.volumes import write_volumes  # noqa: PLC0415

    cache = write_volumes(tmp_path_factory.mktemp("volumes") / "cache", studies=6, seed=0)
    config = resolve_config(SeriesType.SAGITTAL_T2, overrides=TINY)
    return LoopTask(cache, config, torch.device("cpu"), 1)


@pytest.fixture(scope="module")
def bare(task):
    from training.loops import BareLoop  # noqa: PLC0415

    return BareLoop(task)


def test_the_bare_loop_takes_the_same_step(task, bare):
    config = task.config.model_copy(
        update={"model": task.config.model.model_copy(update={"dropout": 0.0})}
    )
    model = build_model(config)
    model.load_state_dict(bare.model.state_dict())
    bare.model.load_state_dict(model.state_dict())
    for module in bare.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    before = {name: value.clone() for name, value in bare.model.state_dict().items()}
    trainer = Trainer.start(model, config, steps=100, ranks=Ranks())
    trainer.start_epoch(0)
    for _ in range(2):
        trainer.optimise(bare.batch)
        bare.step()
        # The schedule goes down, which the bare loop has none of.
        for group in trainer.optimizer.param_groups:
            group["lr"] = config.optim.lr
    weights = bare.model.state_dict()
    assert any(not torch.equal(weights[name], before[name]) for name in before)
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], msg=name)


def test_operations_grow_with_the_batch(task, bare):
    from training.gpu import flops_a_step  # noqa: PLC0415

    optim = task.config.optim.model_copy(update={"batch": 1})
    half = replace(task, config=task.config.model_copy(update={"optim": optim}))
    assert flops_a_step(task) > 1e6
    assert flops_a_step(half) == pytest.approx(flops_a_step(task) / 2, rel=0.02)


def test_the_share_of_the_peak_is_work_over_time_and_peak():
    from training.gpu import Peak  # noqa: PLC0415
    from training.run import mfu_row  # noqa: PLC0415

    row = mfu_row(3 * 10**12, [0.01, 0.02, 0.03], Peak("X", 500.0, "a page"))
    assert row["value"] == pytest.approx(30.0)
    assert (row["low"], row["high"]) == (pytest.approx(20.0), pytest.approx(60.0))
    assert row["peak_source"] == "a page"


def test_time_that_no_kernel_covers():
    from training.gpu import share_uncovered  # noqa: PLC0415

    assert share_uncovered([(0, 10)]) == 0
    # Overlapping, one within another, out of order; 4 of 20 are free.
    assert share_uncovered([(16, 20), (0, 8), (2, 3), (6, 12)]) == pytest.approx(0.2)


def test_rows_and_files(tmp_path, monkeypatch, capsys):
    from training import run, volumes  # noqa: PLC0415

    monkeypatch.setattr(volumes, "SHAPE_DHW", (6, 48, 48))
    files = ["--json", str(tmp_path / "t.json"), "--markdown", str(tmp_path / "t.md")]
    settings = [part for value in TINY for part in ("--set", value)]
    run.main([*files, "--device", "cpu", "--repeats", "2", "--steps", "2", *settings])
    found = json.loads((tmp_path / "t.json").read_text())
    assert found["context"]["gpu"] == "not measured: no GPU"
    assert found["context"]["batch"] == "2 x 4 x 32 x 32"
    assert str(tmp_path) not in json.dumps(found)
    rows = {row["name"]: row for row in found["results"]}
    targets = {name: row["target"] for name, row in rows.items() if row["target"] is not None}
    assert targets == {"ratio_to_bare_loop": 0.97}
    for row in rows.values():
        assert 0 < row["low"] <= row["value"] <= row["high"]
    ratio = rows["ratio_to_bare_loop"]
    assert ratio["met"] == (ratio["value"] >= 0.97)
    speed, step = rows["lumbar/images_per_second"], rows["lumbar/step"]
    assert speed["high"] * step["low"] == pytest.approx(8 * 1000)
    assert "| ratio_to_bare_loop |" in (tmp_path / "t.md").read_text()
    assert "ratio_to_bare_loop" in capsys.readouterr().out


def test_an_epoch_that_ends_too_soon_is_said(task):
    from training.loops import time_lumbar  # noqa: PLC0415

    with pytest.raises(RuntimeError, match="fewer steps"):
        time_lumbar(task, steps=5)
