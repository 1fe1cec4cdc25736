import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumbar.train.model import sequence
from lumbar.train.model.config import ModelConfig
from lumbar.train.model.encoder import SliceEncoder


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(1, 40))
def test_the_number_encoded_is_a_multiple_or_all(lengths, multiple):
    places, count = sequence.places_to_encode(torch.tensor(lengths), 5, multiple=multiple)
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
    assert sequence._encodes_each_by_itself(encoder) == by_itself
    assert sequence._encodes_each_by_itself(encoder.eval())
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
    # What lies in absent slices is not looked at, and not multiplied by 0 either.
    image[torch.arange(5) >= lengths[:, None]] = torch.nan
    results = []
    for multiple in (1, 8):
        encoder.zero_grad()
        places, count = sequence.places_to_encode(lengths, 5, multiple=multiple)
        features = encoder(image.flatten(0, 1)[places])[:count]
        (features * torch.arange(features.numel()).view_as(features).cos()).sum().backward()
        results.append([features.detach(), *(weight.grad for weight in encoder.parameters())])
    for exact, rounded in zip(*results, strict=True):
        torch.testing.assert_close(rounded, exact, rtol=1e-4, atol=1e-4)
