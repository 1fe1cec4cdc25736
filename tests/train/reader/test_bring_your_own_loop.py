"""The page for people with a loop of their own: every block runs, in order."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "bring-your-own-loop.md").read_text()
BLOCKS = re.findall(r"^```python ?(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ours(spine_root):
    """What stands after our own blocks: plans, readers, network, data set."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(spine_root.parent)
        for package, block in BLOCKS:
            if not package:
                exec(block, names)
    yield names
    names.clear()  # the workers of its loader end here


@pytest.fixture
def after(ours, spine_root, monkeypatch):
    """Return a function that runs the block of a package after ours, and gives its names."""
    monkeypatch.chdir(spine_root.parent)

    def run(package):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: it is no dependency of lumbar")
        names = dict(ours)
        for its_package, block in BLOCKS:
            if its_package == package:
                exec(block, names)
        assert list(spine_root.parent.iterdir()) == [spine_root]
        return names

    return run


def test_the_page_shows_four_ways():
    assert [package for package, _ in BLOCKS] == ["", "", "", "lightning", "monai"]


def test_our_loops_run_through_two_epochs(ours):
    assert ours["reader"].next_step == ours["other"].next_step == (2, 0)
    assert ours["held_out_loss"].isfinite()
    assert ours["loss"].isfinite()
    assert ours["image"].shape[1:] == (8, 1, 64, 64)
    assert ours["target"].shape[1:] == (25, 3)


# What Lightning does with parts of torch that are on their way out is not ours.
@pytest.mark.filterwarnings("ignore:::lightning")
def test_lightning_takes_every_step_of_two_epochs(after):
    names = after("lightning")
    assert names["trainer"].global_step == 2 * names["plan"].steps
    assert names["reader"].next_step == names["other"].next_step == (2, 0)
    assert names["trainer"].callback_metrics["held_out_loss"].isfinite()


@pytest.mark.filterwarnings("ignore:::monai")
def test_monai_transforms_and_networks_take_the_samples(after):
    names = after("monai")
    assert names["loss"].isfinite()
    assert names["batch"]["image"].shape[1:] == (1, 8, 64, 64)
