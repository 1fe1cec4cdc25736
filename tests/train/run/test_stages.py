import pytest

from lumbar.train.run.network import stages

CASES = [
    ("series", {}),
    ("series", {"head": "rsna2022", "sequence": "none", "pooling": "mean"}),
    ("series", {"backbone": "test_convnext", "stride": 16, "frozen_stages": 2}),
    ("disc", {}),
    ("disc", {"backbone": "test_vit", "stride": 16}),
    ("study", {}),
    ("study", {"shared_encoder": True}),
    ("study", {"head": "levels"}),
]


@pytest.mark.parametrize(("family", "options"), CASES)
def test_every_weight_is_in_one_stage_and_the_head_is_the_last(make_network, family, options):
    network = make_network(family, **options)
    found = stages(network)
    flat = [id(weight) for stage in found for weight in stage]
    assert len(flat) == len(set(flat))
    assert set(flat) == {id(weight) for weight in network.parameters()}
    assert all(found)
    head = {id(weight) for weight in network.head.parameters()}
    if family == "disc":
        head.add(id(network.level.weight))
    assert {id(weight) for weight in found[-1]} == head


def test_stages_run_from_the_image_to_the_head(make_network):
    network = make_network("series")
    names = {id(weight): name for name, weight in network.named_parameters()}
    firsts = [names[id(stage[0])] for stage in stages(network)]
    order = ["features.conv1", "features.layer1", "features.layer2", "pool", "sequence", "look"]
    assert len(firsts) == 7
    assert all(part in first for part, first in zip([*order, "head"], firsts, strict=True))


def test_encoders_of_a_study_share_their_stages(make_network):
    one, three = (make_network("study", shared_encoder=shared) for shared in (True, False))
    of_one, of_three = stages(one), stages(three)
    assert len(of_one) == len(of_three)
    sizes = [[sum(w.numel() for w in stage) for stage in found] for found in (of_one, of_three)]
    assert [3 * size for size in sizes[0][:3]] == sizes[1][:3]
    assert sizes[0][3:] == sizes[1][3:]
