"""What holds for every network: series, discs and studies, all heads, sequences and poolings."""

import itertools

import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.train.model.exportable import masked

FAMILIES = ("series", "disc", "study")
HEADS = ("cells", "rsna2022", "levels")
OF_FAMILY = [pair for pair in itertools.product(FAMILIES, HEADS) if pair != ("disc", "levels")]
VARIANTS = [
    *((family, {"head": head}) for family, head in OF_FAMILY),
    *(
        (family, {"head": "cells", "sequence": sequence, "pooling": pooling})
        for family in FAMILIES
        for sequence, pooling in [("gru", "mean"), ("none", "max"), ("lstm", "max")]
    ),
    *(
        (family, {"head": "rsna2022", "sequence": sequence, "pooling": pooling, "norm": norm})
        for family in FAMILIES
        for sequence, pooling, norm in [("gru", "max", "batch"), ("none", "attention", "layer")]
    ),
    ("series", {"head": "levels", "layers": 2, "pooling": "mean"}),
    ("study", {"head": "levels", "layers": 2, "pooling": "max", "bidirectional": False}),
    ("study", {"head": "cells", "shared_encoder": True, "layers": 2}),
]
NAMES = [f"{family}-{'-'.join(map(str, options.values()))}" for family, options in VARIANTS]
every_network = pytest.mark.parametrize(("family", "options"), VARIANTS, ids=NAMES)


def largest(difference):
    return difference.abs().max().item()


@every_network
def test_logits_are_float32_and_tell_samples_apart(make_network, make_inputs, family, options):
    network = make_network(family, **options)
    for bfloat16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = network(*make_inputs(family))
        assert logits.shape == (3, 25, 3)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()
        assert logits.flatten(1).std(dim=0).min() > 0, "the samples make no difference"


@every_network
def test_more_padding_gives_the_same_logits(make_network, make_inputs, family, options):
    network = make_network(family, **options).eval()
    inputs = make_inputs(family)
    with torch.no_grad():
        expected = network(*inputs)
        assert largest(network(*inputs.padded(5, junk=0.0)) - expected) < 1e-6
        assert largest(network(*inputs.padded(5, junk=torch.nan)) - expected) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_more_padding_trains_the_same(make_network, make_inputs, family):
    # Batch norm of the backbone would see absent slices, were they encoded.
    first, second = (make_network(family, dropout=0.0, series_dropout=0.0) for _ in range(2))
    inputs = make_inputs(family)
    for network, given in ((first, inputs), (second, inputs.padded(5, junk=torch.nan))):
        network(*given).square().sum().backward()
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(first.buffers(), second.buffers(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@every_network
def test_the_order_and_company_of_a_batch_do_not_matter(make_network, make_inputs, family, options):
    network = make_network(family, **options).eval()
    inputs, order = make_inputs(family), torch.tensor([2, 0, 1])
    with torch.no_grad():
        expected = network(*inputs)
        assert largest(network(*inputs.chosen(order)) - expected[order]) < 1e-6
        for sample in range(3):
            alone = network(*inputs.chosen([sample]))
            assert largest(alone - expected[[sample]]) < 1e-6


@every_network
def test_the_masked_form_gives_the_same_without_lengths(make_network, make_inputs, family, options):
    network = make_network(family, **options).eval()
    lengths = [[3, 4, 6], [0, 2, 0], [6, 6, 0]] if family == "study" else None
    inputs = make_inputs(family, lengths)
    image, present, position, _, _, level = inputs.padded(2, junk=torch.nan)
    with torch.no_grad():
        got = masked(network)(image, present, position, None, None, level)
        assert largest(got - network(*inputs)) < 1e-6


@every_network
def test_gradients_reach_every_weight(make_network, make_inputs, family, options):
    network = make_network(family, series_dropout=0.0, **options)
    network(*make_inputs(family)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    for encoder in network.encoders:
        assert next(encoder.parameters()).grad.abs().max() > 0
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_with_nothing_gives_numbers(make_network, make_inputs, family):
    for options in ({}, {"pooling": "max"}, {"head": "rsna2022"}, {"sequence": "none"}):
        network = make_network(family, series_dropout=0.0, **options)
        lengths = [[0, 0, 0], [1, 0, 0]] if family == "study" else [0, 2]
        inputs = make_inputs(family, lengths)
        logits = network(*inputs)
        assert torch.isfinite(logits).all()
        logits.square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())
        alone = network.eval()(*inputs.chosen([1]))
        assert largest(alone - network(*inputs)[[1]]) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_norm_of_the_head_wants_two_samples(make_network, make_inputs, family):
    network = make_network(family, head="rsna2022", norm="batch")
    inputs = make_inputs(family).chosen([0])
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(*inputs)
    assert network.eval()(*inputs).shape == (1, 25, 3)


def test_levels_are_no_head_of_discs(make_network):
    with pytest.raises(InputError, match=r"model.head; got levels, with discs"):
        make_network("disc", head="levels")
