"""Two real ranks share an epoch: every series once, the same number of steps, equal sums."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

RANK = """
import json, sys
from pathlib import Path
import torch
import torch.distributed as dist
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.reader.reader import Reader
from lumbar.train.plan.samples import Samples

root, rendezvous, rank = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
cache = Cache(root)
samples = Samples.of_series(cache, cache.rows_of(SeriesType.SAGITTAL_T2))
crop = CropConfig(slices=4, height=16, width=16, pixel_mm=12.0)
plan = Plan(samples, crop, AugmentConfig(), batch=3, shuffle=True, seed=1, rank=rank, world=2)
seen, total, steps = [], torch.zeros(1, dtype=torch.float64), 0
with Reader(cache, plan, device=torch.device("cpu"), threads=1) as reader:
    for epoch in range(2):
        for batch in reader.epoch():
            # A rank that had fewer steps than the other would leave it waiting here for ever.
            mine = batch.image.double().mean(dim=(1, 2, 3, 4))
            real = torch.tensor([not request.filler for request in batch.requests])
            part = (mine * real).sum().reshape(1)
            dist.all_reduce(part)
            total += part
            steps += 1
            seen += [(epoch, r.index) for r in batch.requests if not r.filler]
print(json.dumps({"seen": seen, "total": total.item(), "steps": steps}))
dist.destroy_process_group()
"""


def test_two_gloo_ranks_read_every_series_once_an_epoch(spine_root, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(spine_root), str(tmp_path / "meeting"), str(rank)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    told = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert told[0]["steps"] == told[1]["steps"] == 2 * 7
    assert told[0]["total"] == told[1]["total"] != 0
    seen = [tuple(place) for rank in told for place in rank["seen"]]
    assert sorted(seen) == [(epoch, index) for epoch in range(2) for index in range(39)]
