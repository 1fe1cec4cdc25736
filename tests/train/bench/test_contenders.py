"""Who is measured, and who is left out for want of room."""

import pytest
import torch

from lumbar.train.bench import contenders
from lumbar.train.bench.contenders import choose_contenders
from lumbar.train.bench.loaders import LoaderSpec
from lumbar.train.bench.state import make_source


@pytest.mark.parametrize(("asked", "other"), [("disk", "device"), ("device", "disk")])
def test_the_reader_that_is_asked_for_is_never_left_out(
    smooth_cache, run_config, monkeypatch, asked, other
):
    source = make_source(smooth_cache, run_config, torch.device("cpu"), None)
    for free, there in ((10**9, True), (1, other == "disk")):
        monkeypatch.setattr(contenders, "free_bytes", lambda _, free=free: free)
        chosen = choose_contenders(source, LoaderSpec("lumbar_reader", 2, asked), (0,))
        assert chosen.own[0].tier == asked
        assert (LoaderSpec("lumbar_reader", 2, other) in chosen.own) == there
        assert any("tier device was not measured" in why for why in chosen.left_out) != there
