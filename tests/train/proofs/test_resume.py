"""Every kind of sample: a killed run resumes to the same bits."""

import pytest
import torch

from lumbar.cache.names import SeriesType
from lumbar.train.run.checkpoint import load_checkpoint
from lumbar.train.run.config import resolve_config
from lumbar.train.trainer.events import StepFinished
from lumbar.train.trainer.loop import train

pytestmark = pytest.mark.slow

TINY = (
    "bfloat16=false",
    "crop.slices=4",
    "crop.height=32",
    "crop.width=32",
    "crop.pixel_mm=4.0",
    "model.backbone=test_resnet",
    "model.stride=8",
    "model.hidden=8",
    "model.dropout=0.5",
    "optim.epochs=2",
    "optim.batch=8",
    "optim.ema=0.9",
    "split.folds=4",
)
DISCS = (
    "discs=true",
    "locator.epochs=1",
    "locator.slices=8",
    "locator.height=64",
    "locator.width=48",
    "locator.pixel_mm=4.0",
)
STUDIES = ("model.series_dropout=0.5", 'study_types=["sagittal_t2", "axial_t2"]')


@pytest.mark.usefixtures("uncompiled_reader")
@pytest.mark.parametrize("kind", ["discs", "studies"])
def test_a_killed_run_resumes_to_the_same_bits(small_lesions, spread, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("lumbar.train.trainer.run_log.draw_curves", lambda *_: None)
    # The phantoms have grades of canals alone.
    monkeypatch.setattr("lumbar.train.trainer.loop.check_labels", lambda config, split: None)
    cache, series, more = (
        (small_lesions, SeriesType.SAGITTAL_T2, DISCS)
        if kind == "discs"
        else (spread, "study", STUDIES)
    )
    config = resolve_config(series, overrides=(*TINY, *more))

    def start(name, **options):
        cpu = torch.device("cpu")
        return train(cache, config, tmp_path / name, device=cpu, threads=1, **options)

    list(start("whole"))
    killed = start("killed")
    for event in killed:
        if isinstance(event, StepFinished) and (event.epoch, event.step) == (1, 1):
            break
    killed.close()
    list(start("killed", resume=True))
    for name in ("best.pt", "last.pt"):
        (whole, _), (resumed, _) = (
            load_checkpoint(tmp_path / run / name) for run in ("whole", "killed")
        )
        for key, value in whole.model.state_dict().items():
            assert torch.equal(resumed.model.state_dict()[key], value), (name, key)
    oof = [(tmp_path / run / "oof.parquet").read_bytes() for run in ("whole", "killed")]
    assert oof[0] == oof[1]
