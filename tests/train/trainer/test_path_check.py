"""A run on a GPU whose first batch is wrong stops, or goes on with the CPU's pixels."""

from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch

from lumbar.train.reader.placement import Placement
from lumbar.train.reader.verify_pixels import WrongPixelsError
from lumbar.train.reader.volumes import MappedVolumes
from lumbar.train.run.distributed import Ranks
from lumbar.train.run.split import split_samples
from lumbar.train.trainer import path_check
from lumbar.train.trainer.path_check import checked
from lumbar.train.trainer.setup import Setup, new_model, place, training_plan

ON_GPU = Placement((0, 1), "device", "gpu", "volumes on the GPU")


@pytest.fixture
def setup(spine, small_config, tmp_path, monkeypatch):
    """The setup of a run that takes the CPU for a GPU."""
    config = small_config()
    split = split_samples(spine, config)
    cpu = torch.device("cpu")
    monkeypatch.setattr(path_check.torch.cuda, "_sleep", lambda cycles: None)
    monkeypatch.setattr(path_check.torch.cuda, "device", lambda device: nullcontext())
    return Setup(
        cache=spine,
        run=tmp_path,
        split=split,
        bundle=new_model(spine, config, split, device=cpu, ranks=Ranks()),
        plan=training_plan(config, split, Ranks()),
        device=torch.device("cuda:0"),
        ranks=Ranks(),
        threads=2,
        placement=ON_GPU,
        profiled_steps=0,
    )


@pytest.fixture
def volumes(spine):
    return MappedVolumes(spine)


@pytest.fixture
def read_by(monkeypatch):
    """Return a function that gives setups a reader whose batch is right, or raises an error."""

    def read(error=None):
        class OneBatch:
            def epoch(self):
                if error:
                    raise error
                yield object()

        @contextmanager
        def reader(self, plan, volumes, *, epoch=0):
            yield OneBatch()

        monkeypatch.setattr(Setup, "reader", reader)

    return read


WRONG = WrongPixelsError(
    what="other pixels", where="view 0", got="a pixel off", expected="none", cure="report it"
)


def test_a_run_whose_first_batch_is_right_goes_on_as_it_is(setup, volumes, read_by):
    read_by()
    assert checked(setup, volumes, tier="auto", draw="auto") is setup


def test_nothing_is_read_on_the_cpu(setup, volumes, read_by):
    read_by(error=WRONG)
    on_cpu = replace(setup, device=torch.device("cpu"))
    assert checked(on_cpu, volumes, tier="auto", draw="auto") is on_cpu


def test_where_the_choice_is_lumbars_the_cpu_draws_and_a_warning_says_so(
    setup, volumes, read_by, caplog
):
    read_by(error=WRONG)
    placement = checked(setup, volumes, tier="auto", draw="auto").placement
    assert (placement.tier, placement.draw, placement.rows) == ("disk", "cpu", ON_GPU.rows)
    assert "other pixels: view 0" in caplog.text
    assert "goes on with --tier disk --draw cpu" in caplog.text


@pytest.mark.parametrize(
    ("placement", "asked"),
    [
        (ON_GPU, {"tier": "device", "draw": "auto"}),
        (ON_GPU, {"tier": "auto", "draw": "gpu"}),
        (replace(ON_GPU, tier="disk", draw="cpu"), {"tier": "auto", "draw": "auto"}),
    ],
)
def test_where_nothing_else_may_be_chosen_the_run_stops(setup, volumes, read_by, placement, asked):
    read_by(error=WRONG)
    with pytest.raises(WrongPixelsError):
        checked(replace(setup, placement=placement), volumes, **asked)


class TwoRanks(Ranks):
    """One of two ranks; the other one says ``told``."""

    told = None

    def gather(self, value):
        return [value, self.told] if self.is_first else [self.told, value]


@pytest.mark.parametrize("rank", [0, 1])
def test_all_ranks_go_on_with_the_cpu_where_one_has_to(
    setup, volumes, read_by, monkeypatch, caplog, rank
):
    read_by()
    monkeypatch.setattr(TwoRanks, "told", str(WRONG))
    setup = replace(setup, ranks=TwoRanks(rank, 2))
    placement = checked(setup, volumes, tier="auto", draw="auto").placement
    assert (placement.tier, placement.draw) == ("disk", "cpu")
    # The first rank alone says it.
    assert [f"rank {1 - rank}: other pixels" in record.message for record in caplog.records] == (
        [True] if rank == 0 else []
    )
    with pytest.raises(WrongPixelsError, match=f"another process .* rank {1 - rank}: other pixels"):
        checked(setup, volumes, tier="auto", draw="gpu")


def test_all_ranks_have_their_volumes_where_the_first_one_has_them(setup, spine, monkeypatch):
    def of_rank(rank):
        monkeypatch.setattr(TwoRanks, "told", ON_GPU)
        return place(
            spine,
            setup.config,
            setup.split,
            torch.device("cpu"),
            tier="disk",
            draw="auto",
            threads=1,
            ranks=TwoRanks(rank, 2),
        )

    assert (of_rank(0).tier, of_rank(1)) == ("disk", ON_GPU)


def test_the_kernel_runs_on_the_gpu_of_the_run(setup, volumes, read_by, monkeypatch):
    current = []

    @contextmanager
    def device(of):
        current.append(of)
        yield
        current.pop()

    slept_on = []
    monkeypatch.setattr(path_check.torch.cuda, "device", device)
    monkeypatch.setattr(path_check.torch.cuda, "_sleep", lambda _: slept_on.append(current[-1]))
    read_by()
    checked(replace(setup, device=torch.device("cuda:1")), volumes, tier="auto", draw="auto")
    assert slept_on == [torch.device("cuda:1")]
