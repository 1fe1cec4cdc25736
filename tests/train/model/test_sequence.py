import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lumbar.train.model.config import ModelConfig
from lumbar.train.model.encoder import SliceEncoder
from lumbar.train.model.exportable import MaskedSequence
from lumbar.train.model.sequence import SliceSequence, _encodes_each_by_itself, places_to_encode


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


LENGTHS = st.one_of(
    st.lists(st.integers(0, 7), min_size=1, max_size=6),
    st.integers(0, 7).flatmap(lambda same: st.integers(1, 5).map(lambda n: [same] * n)),
)


def by_torch(sequence, features, lengths):
    """Run over sequences as torch packs and pads them."""
    packed = pack_padded_sequence(
        features, lengths.clamp(min=1), batch_first=True, enforce_sorted=False
    )
    output, _ = sequence.recurrent(packed)
    padded, _ = pad_packed_sequence(output, batch_first=True, total_length=features.shape[1])
    return padded * (lengths > 0)[:, None, None]


@given(
    LENGTHS,
    st.sampled_from(["lstm", "gru"]),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([1, 5, 33]),
)
@settings(max_examples=60, deadline=None)
def test_values_and_gradients_are_those_of_torchs_own_packing(
    lengths, kind, bidirectional, layers, hidden
):
    sequence = make_sequence(
        4, sequence=kind, bidirectional=bidirectional, layers=layers, hidden=hidden
    )
    lengths = torch.tensor(lengths)
    values = torch.randn(len(lengths), 7, 4)
    results = []
    for run in (sequence, lambda *given: by_torch(sequence, *given)):
        features = values.clone().requires_grad_()
        sequence.zero_grad()
        output = run(features, lengths)
        (output * torch.arange(output.numel()).view_as(output).cos()).sum().backward()
        gradients = [weight.grad for weight in sequence.parameters()]
        results.append([output.detach(), features.grad, *gradients])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(1, 40))
def test_the_number_encoded_is_a_multiple_or_all(lengths, multiple):
    places, count = places_to_encode(torch.tensor(lengths), 5, multiple=multiple)
    there = [5 * series + place for series, length in enumerate(lengths) for place in range(length)]
    assert places[:count].tolist() == there
    assert set(places[count:].tolist()) <= set(there[:1])
    assert len(places) % multiple == 0 or len(places) == 5 * len(lengths)
    assert len(places) - count < multiple


def encoder_of(backbone, **options):
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, stride=8, **options)
    return SliceEncoder(config, size=(32, 32))


@pytest.mark.parametrize(
    ("backbone", "options", "by_itself"),
    [
        ("test_resnet", {}, False),
        ("test_resnet", {"frozen_stages": 2}, False),
        # All that there are: the stem and the stages up to the stride.
        ("test_resnet", {"frozen_stages": 3}, True),
        ("test_convnext", {}, True),
    ],
)
def test_only_a_batch_norm_that_counts_makes_slices_depend_on_each_other(
    backbone, options, by_itself
):
    encoder = encoder_of(backbone, **options).train()
    assert _encodes_each_by_itself(encoder) == by_itself
    assert _encodes_each_by_itself(encoder.eval())
    # As is seen: in training the features of a slice change with the others, or they do not.
    encoder.train()
    slices = torch.rand(6, 1, 32, 32)
    with torch.no_grad():
        near = torch.allclose(encoder(slices)[:3], encoder(slices[:3]), atol=1e-5)
    assert near == by_itself


def test_rounding_changes_no_vector_and_no_gradient():
    encoder = encoder_of("test_convnext").train()
    image = torch.rand(3, 5, 1, 32, 32)
    lengths = torch.tensor([2, 0, 4])
    # What lies in absent slices is neither pooled nor multiplied by 0.
    image[torch.arange(5) >= lengths[:, None]] = torch.nan
    results = []
    for multiple in (1, 8):
        encoder.zero_grad()
        places, count = places_to_encode(lengths, 5, multiple=multiple)
        features = encoder(image.flatten(0, 1)[places])[:count]
        (features * torch.arange(features.numel()).view_as(features).cos()).sum().backward()
        results.append([features.detach(), *(weight.grad for weight in encoder.parameters())])
    for exact, rounded in zip(*results, strict=True):
        torch.testing.assert_close(rounded, exact, rtol=1e-4, atol=1e-4)
