import pytest
import torch

from lumbar.train.model.sequence import SliceSequence


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_padded_sequence_gives_what_it_gives_alone(bidirectional, layers):
    torch.manual_seed(0)
    sequence = SliceSequence(6, hidden=5, layers=layers, bidirectional=bidirectional, dropout=0.0)
    features = torch.randn(4, 9, 6)
    lengths = torch.tensor([3, 9, 1, 6])
    with torch.no_grad():
        got = sequence(features, lengths)
        assert got.shape == (4, 9, sequence.channels)
        assert sequence.channels == (10 if bidirectional else 5)
        for one, length, own in zip(features, lengths, got, strict=True):
            alone, _ = sequence.lstm(one[None, :length])
            assert torch.allclose(own[:length], alone[0], atol=1e-6)
            assert not own[length:].any()


def test_only_a_bidirectional_one_sees_later_slices():
    torch.manual_seed(0)
    features = torch.randn(1, 5, 3)
    changed = features.clone()
    changed[0, 4] += 1
    for bidirectional in (True, False):
        sequence = SliceSequence(3, hidden=4, layers=1, bidirectional=bidirectional, dropout=0.0)
        lengths = torch.tensor([5])
        same = torch.equal(sequence(features, lengths)[:, 0], sequence(changed, lengths)[:, 0])
        assert same == (not bidirectional)


def test_it_computes_in_float32_whatever_it_is_given():
    sequence = SliceSequence(3, hidden=4, layers=1, bidirectional=True, dropout=0.0)
    features = torch.randn(2, 5, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        got = sequence(features, torch.tensor([5, 2]))
    assert got.dtype == torch.float32
    assert torch.equal(got, sequence(features.float(), torch.tensor([5, 2])))
