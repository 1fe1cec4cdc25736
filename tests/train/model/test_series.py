import itertools

import pytest
import torch

TRAINABLE = ("sagittal_t1", "sagittal_t2", "axial_t2")
HEADS = ("cells", "rsna2022", "levels")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("series", TRAINABLE)
def test_every_head_grades_every_series_type(make_network, make_inputs, head, series):
    logits = make_network("series", head=head, series=series)(*make_inputs("series"))
    assert logits.shape == (3, 25, 3)
    assert torch.isfinite(logits).all()
    assert logits.flatten(1).std(dim=0).min() > 0, "the series make no difference"


def test_the_cells_head_grades_left_and_right_with_the_same_weights(make_network, make_inputs):
    network = make_network("series").eval()
    heads = [p for name, p in network.named_parameters() if name.startswith("head.grade")]
    assert len(heads) == 3 * 4
    bias = network.head.grade[1][-1].bias
    inputs = make_inputs("series")
    with torch.no_grad():
        before = network(*inputs)
        bias += torch.tensor([1.0, 2, 3])
        change = network(*inputs) - before
    assert torch.allclose(change[:, 5:15], torch.tensor([1.0, 2, 3]).expand(3, 10, 3), atol=1e-5)
    assert torch.allclose(change[:, :5], torch.zeros(3, 5, 3), atol=1e-6)
    assert torch.allclose(change[:, 15:], torch.zeros(3, 10, 3), atol=1e-6)


def test_level_heads_grade_a_level_each(make_network, make_inputs):
    network = make_network("series", head="levels").eval()
    assert len(network.head.heads) == 5
    inputs = make_inputs("series")
    with torch.no_grad():
        before = network(*inputs)
        network.head.heads[3][-1].bias += 1
        change = (network(*inputs) - before).view(3, 5, 5, 3)
    assert torch.allclose(change[:, :, 3], torch.ones(3, 5, 3), atol=1e-5)
    change[:, :, 3] = 0
    assert not change.any()


def test_the_head_of_2022_is_as_published(make_network):
    head = make_network("study", head="rsna2022", norm="batch", hidden=256, layers=2).head
    linear, norm, dropout, activation, last = head.layers
    assert (linear.in_features, linear.out_features) == (512, 256)
    assert isinstance(norm, torch.nn.BatchNorm1d)
    assert dropout.p == 0.3
    assert activation.negative_slope == 0.1
    assert (last.in_features, last.out_features) == (256, 75)


def test_the_sequence_is_that_of_the_configuration(make_network):
    for bidirectional, layers in itertools.product([True, False], [1, 2]):
        network = make_network("series", bidirectional=bidirectional, layers=layers, dropout=0.4)
        assert network.sequence.recurrent.bidirectional == bidirectional
        assert network.sequence.recurrent.num_layers == layers
        assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == {0.4}
    gru = make_network("series", sequence="gru").sequence.recurrent
    assert isinstance(gru, torch.nn.GRU)
    assert make_network("series", sequence="none").sequence.recurrent is None


DISC_HEADS = ("cells", "rsna2022")
every_head = pytest.mark.parametrize("head", DISC_HEADS)


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
