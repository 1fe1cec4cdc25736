"""Who is measured, and who is left out for want of room."""

from dataclasses import replace

import pytest
import torch

from lumbar.bench.loaders import contenders
from lumbar.bench.loaders.contenders import choose_contenders
from lumbar.bench.loaders.loaders import LoaderSpec
from lumbar.bench.session import make_source


@pytest.mark.parametrize(("asked", "other"), [("disk", "device"), ("device", "disk")])
def test_the_reader_that_is_asked_for_is_never_left_out(
    smooth_cache, run_config, monkeypatch, asked, other
):
    source = make_source(smooth_cache, run_config, torch.device("cpu"), None)
    for free, there in ((10**9, True), (1, other == "disk")):
        monkeypatch.setattr(contenders, "free_bytes", lambda _, free=free: free)
        chosen = choose_contenders(source, LoaderSpec("lumbar_reader", 2, asked), (0,))
        assert chosen.specs[0].tier == asked
        assert (LoaderSpec("lumbar_reader", 2, other) in chosen.specs) == there
        assert any("tier device was not measured" in why for why in chosen.left_out) != there


@pytest.mark.parametrize("asked", [("disk", "cpu"), ("disk", "gpu"), ("device", "gpu")])
def test_on_a_gpu_every_tier_and_draw_is_measured(smooth_cache, run_config, monkeypatch, asked):
    source = make_source(smooth_cache, run_config, torch.device("cpu"), None)
    monkeypatch.setattr(contenders, "free_bytes", lambda _: 10**9)
    on_gpu = replace(source, device=torch.device("cuda:0"))
    reader = LoaderSpec("lumbar_reader", 2, *asked)
    chosen = choose_contenders(on_gpu, reader, (0,)).specs
    ours = [(spec.tier, spec.draw) for spec in chosen if spec.kind == "lumbar_reader"]
    assert ours[0] == asked
    assert sorted(ours) == [("device", "gpu"), ("disk", "cpu"), ("disk", "gpu")]
    assert len({spec.name for spec in chosen}) == len(chosen)
    assert len({spec.label for spec in chosen}) == len(chosen)
    told = {spec.options_beside(reader) for spec in chosen[1:3]}
    assert (
        told
        == {
            ("disk", "cpu"): {"--draw gpu", "--tier device --draw gpu"},
            ("disk", "gpu"): {"--draw cpu", "--tier device"},
            ("device", "gpu"): {"--tier disk --draw cpu", "--tier disk"},
        }[asked]
    )
