"""The page for people with a loop of their own: every block runs, in order."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "bring-your-own-loop.md").read_text()
BLOCKS = re.findall(r"^```python ?(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
OURS = [block for package, block in BLOCKS if not package]


@pytest.fixture
def names(spine):
    """What stands after our own blocks: the plan, the model, the data set."""
    names = {"cache": spine}
    for block in OURS:
        exec(block, names)
    return names


def test_the_page_has_its_four_ways():
    assert [package for package, _ in BLOCKS] == ["", "", "", "lightning", "monai"]


def test_our_own_loops_run(names):
    assert names["loss"].isfinite()
    assert names["image"].shape[1:] == (8, 1, 64, 64)
    assert names["target"].shape[1:] == (25, 3)


# What the libraries warn of in their own code and of this small machine is not ours.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("package", "block"), [block for block in BLOCKS if block[0]])
def test_the_blocks_of_other_libraries_run(names, package, block):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    exec(block, names)
    if package == "lightning":
        assert names["trainer"].global_step == 2 * names["plan"].steps
    else:
        assert names["logits"].shape == (4, 25, 3)
