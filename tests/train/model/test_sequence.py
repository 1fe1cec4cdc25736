import pytest
import torch

from lumbar.train.model.config import ModelConfig
from lumbar.train.model.masked import MaskedSequence
from lumbar.train.model.sequence import SliceSequence


def make_sequence(inputs, **options):
    torch.manual_seed(0)
    return SliceSequence(inputs, ModelConfig(**{"hidden": 5, "dropout": 0.0, **options}))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_padded_sequence_gives_what_it_gives_alone(kind, bidirectional, layers):
    sequence = make_sequence(6, sequence=kind, layers=layers, bidirectional=bidirectional)
    features = torch.randn(5, 9, 6)
    lengths = torch.tensor([3, 9, 0, 1, 6])
    with torch.no_grad():
        got = sequence(features, lengths)
        assert got.shape == (5, 9, sequence.channels)
        assert sequence.channels == (10 if bidirectional else 5)
        for one, length, own in zip(features, lengths, got, strict=True):
            if length:
                alone, _ = sequence.recurrent(one[None, :length])
                assert torch.allclose(own[:length], alone[0], atol=1e-6)
            assert not own[length:].any()
        masked = MaskedSequence(sequence)(features, lengths)
        assert torch.allclose(masked, got, atol=1e-6)


def test_without_a_sequence_slices_stay_as_they_are():
    sequence = make_sequence(6, sequence="none")
    features = torch.randn(2, 4, 6)
    assert sequence.channels == 6
    assert torch.equal(sequence(features, torch.tensor([4, 4])), features)


def test_only_a_bidirectional_one_sees_later_slices():
    features = torch.randn(1, 5, 3)
    changed = features.clone()
    changed[0, 4] += 1
    for bidirectional in (True, False):
        sequence = make_sequence(3, bidirectional=bidirectional)
        lengths = torch.tensor([5])
        same = torch.equal(sequence(features, lengths)[:, 0], sequence(changed, lengths)[:, 0])
        assert same == (not bidirectional)


def test_it_computes_in_float32_whatever_it_is_given():
    sequence = make_sequence(3)
    features = torch.randn(2, 5, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        got = sequence(features, torch.tensor([5, 2]))
    assert got.dtype == torch.float32
    assert torch.equal(got, sequence(features.float(), torch.tensor([5, 2])))


def test_layers_have_dropout_between_them():
    assert make_sequence(3, layers=2, dropout=0.4).recurrent.dropout == 0.4
    assert make_sequence(3, layers=1, dropout=0.4).recurrent.dropout == 0.0
