import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.train.optim import make_optimiser
from lumbar.train.run.distributed import Ranks
from lumbar.train.run.network import build_model, stages
from lumbar.train.run.split import split_samples
from lumbar.train.trainer.dry_run import dry_run, example_inputs, kept_bytes, weight_bytes
from lumbar.train.trainer.setup import training_plan

CPU = torch.device("cpu")


def test_it_counts_what_a_run_would_do(spine, small_config):
    config = small_config("optim.epochs=3", "optim.batch=8", "optim.accumulate=2")
    found = dry_run(spine, config, device=CPU, threads=1)
    split = split_samples(spine, config)
    plan = training_plan(config, split, Ranks())
    assert (found.train_samples, found.held_out_samples) == (len(split.train), len(split.held_out))
    assert (found.steps, found.at_once) == (plan.steps, 4)
    network = build_model(config)
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.total_bytes > found.weight_bytes + 4 * found.sample_bytes > 0
    assert found.volume_bytes == 0
    on_device = dry_run(spine, config, device=CPU, threads=1, tier="device")
    sagittal = spine.series.filter(spine.series["series_type"] == "sagittal_t2")
    assert 0 < on_device.volume_bytes <= int(sagittal["nbytes"].sum())


@pytest.mark.parametrize("frozen", [0, 2])
def test_the_bytes_of_weights_are_those_of_a_step(small_config, frozen):
    config = small_config("optim.ema=0.9", f"model.frozen_stages={frozen}")
    network = build_model(config)
    optimizer = make_optimiser(stages(network), config.optim)
    network.eval()
    network(*example_inputs(config)).sum().backward()
    for p in network.parameters():
        if p.requires_grad and p.grad is None:
            p.grad = torch.zeros_like(p)
    optimizer.step()
    every = [*network.parameters(), *network.parameters()]  # and their moving average
    every += [p.grad for p in network.parameters() if p.grad is not None]
    for state in optimizer.state.values():
        every += [state["exp_avg"], state["exp_avg_sq"]]
    assert weight_bytes(network, config) == sum(4 * tensor.numel() for tensor in every)


def test_what_is_kept_grows_with_the_sample(small_config):
    sizes = [
        kept_bytes(build_model(config), config)
        for config in (
            small_config(),
            small_config("crop.slices=16"),
            small_config("model.checkpointing=true", "model.backbone=resnet18"),
            small_config("model.backbone=resnet18"),
        )
    ]
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=0.1)
    assert sizes[2] < sizes[3]


@pytest.mark.parametrize("series", ["study", SeriesType.AXIAL_T2])
def test_it_is_of_every_kind_of_sample(spine, small_config, series):
    assert (
        dry_run(
            spine, small_config("split.folds=2", series=series), device=CPU, threads=1
        ).sample_bytes
        > 0
    )


def test_what_a_run_would_refuse_it_refuses(spine, small_config):
    config = small_config("split.folds=2").model_copy()
    split = split_samples(spine, config)
    every_study = [f'"{study_id}"' for study_id in split.train_studies]
    out = small_config("split.folds=2", f"split.exclude_studies=[{', '.join(every_study)}]")
    with pytest.raises(InputError, match=r"one side of the split has no series"):
        dry_run(spine, out, device=CPU, threads=1)


def test_the_command_writes_nothing(
    spine_root, small_overrides, tmp_path, command_line, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = [part for setting in small_overrides for part in ("--set", setting)]
    line = ("train", "--series", "sagittal_t2", "--cache", spine_root, "--device", "cpu", *settings)
    result = command_line(*line, "--dry-run")
    assert result.status == 0, result.err
    assert 'backbone = "test_resnet"' in result.out
    assert "steps an epoch" in result.out
    assert "memory, about: " in result.out
    assert not list(tmp_path.iterdir())
    refused = command_line("train", "--resume", tmp_path, "--dry-run")
    assert refused.status == 2
