import pytest
import torch

HEADS = ("cells", "rsna2022")
every_head = pytest.mark.parametrize("head", HEADS)


@every_head
@pytest.mark.parametrize("series", ["sagittal_t1", "sagittal_t2", "axial_t2"])
def test_a_disc_has_the_same_logits_at_all_levels(make_network, make_inputs, head, series):
    logits = make_network("disc", head=head, series=series)(*make_inputs("disc")).view(3, 5, 5, 3)
    assert torch.equal(logits, logits[:, :, :1].expand_as(logits))
    assert logits[:, :, 0].std(dim=1).min() > 0


@every_head
def test_the_level_conditions_what_is_graded(make_network, make_inputs, head):
    network = make_network("disc", head=head).eval()
    image, present, position, lengths, types, level = make_inputs("disc")
    with torch.no_grad():
        before = network(image, present, position, lengths, types, level)
        network.level.weight[2] += 1
        after = network(image, present, position, lengths, types, level)
    changed = (after != before).flatten(1).any(dim=1)
    assert changed.tolist() == (level == 2).tolist()


@every_head
def test_only_the_weights_of_a_level_are_its_own(make_network, make_inputs, head):
    network = make_network("disc", head=head)
    network(*make_inputs("disc")).square().sum().backward()
    own = network.level.weight.grad.abs().sum(dim=1)
    assert (own > 0).tolist() == [True, True, True, False, False]


def test_places_in_the_stack_count_from_the_middle_of_the_slices(make_network, make_inputs):
    network = make_network("disc").eval()
    image, present, position, lengths, types, level = make_inputs("disc")
    moved = torch.where(present, position * 0.5 + 0.3, position)
    shifted = torch.where(present, position + 0.2, position)
    with torch.no_grad():
        expected = network(image, present, position, lengths, types, level)
        same = network(image, present, shifted, lengths, types, level)
        other = network(image, present, moved, lengths, types, level)
    assert torch.allclose(same, expected, atol=1e-6)
    assert (other - expected).abs().max() > 1e-6
