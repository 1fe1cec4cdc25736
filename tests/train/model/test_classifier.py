import itertools

import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.train.model.classifier import ModelConfig, SeriesClassifier
from lumbar.train.model.encoder import SliceEncoder

TRAINABLE = (SeriesType.SAGITTAL_T1, SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2)
HEADS = [("cells", "none"), ("rsna2022", "none"), ("rsna2022", "layer"), ("rsna2022", "batch")]


def make_model(head="cells", norm="none", *, series=SeriesType.SAGITTAL_T2, **options):
    torch.manual_seed(1)
    config = ModelConfig(
        backbone="test_resnet", stride=8, lstm_hidden=12, head=head, norm=norm, **options
    )
    return SeriesClassifier(config, series, field_mm=(256.0, 192.0))


def make_inputs(lengths, depth, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    b = len(lengths)
    present = torch.arange(depth) < torch.tensor(lengths)[:, None]
    image = torch.rand((b, depth, 1, 64, 48), generator=generator)
    position = torch.rand((b, depth), generator=generator).sort(dim=1).values * present
    image *= present[:, :, None, None, None]
    return image, present, position, torch.tensor(lengths)


def pad(inputs, depth, *, junk):
    """Return the same series with more absent slices, which hold ``junk``."""
    image, present, position, lengths = inputs
    more = depth - image.shape[1]
    image = torch.nn.functional.pad(image, (0, 0, 0, 0, 0, 0, 0, more))
    present = torch.nn.functional.pad(present, (0, more))
    position = torch.nn.functional.pad(position, (0, more))
    image = torch.where(present[:, :, None, None, None], image, torch.tensor(junk))
    position = torch.where(present, position, torch.tensor(junk))
    return image, present, position, lengths


@pytest.mark.parametrize(("head", "norm"), HEADS)
@pytest.mark.parametrize("series", TRAINABLE)
def test_every_head_grades_every_series_type(head, norm, series):
    model = make_model(head, norm, series=series)
    for bfloat16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = model(*make_inputs([4, 1, 6], 6))
        assert logits.shape == (3, 25, 3)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()
        assert logits.flatten(1).std(dim=0).min() > 0, "the series make no difference"


@pytest.mark.parametrize(("head", "norm"), HEADS)
def test_absent_slices_change_nothing(head, norm):
    model = make_model(head, norm).eval()
    inputs = make_inputs([4, 1, 6], 6)
    with torch.no_grad():
        expected = model(*inputs)
        for junk in (0.0, torch.nan):
            assert torch.allclose(model(*pad(inputs, 11, junk=junk)), expected, atol=1e-5)


def test_absent_slices_change_nothing_in_training_either():
    # Batch norm of the backbone would see them, were they encoded.
    first, second = make_model(dropout=0.0), make_model(dropout=0.0)
    inputs = make_inputs([4, 1, 6], 6)
    expected, got = first(*inputs), second(*pad(inputs, 11, junk=torch.nan))
    assert torch.allclose(got, expected, atol=1e-5)
    for ours, theirs in zip(first.buffers(), second.buffers(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("head", "norm"), HEADS)
def test_the_order_of_a_batch_does_not_matter(head, norm):
    model = make_model(head, norm).eval()
    image, present, position, lengths = make_inputs([4, 1, 6, 5], 6)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        expected = model(image, present, position, lengths)[order]
        got = model(image[order], present[order], position[order], lengths[order])
        alone = model(image[:1, :4], present[:1, :4], position[:1, :4], lengths[:1])
    assert torch.allclose(got, expected, atol=1e-5)
    assert torch.allclose(alone[0], expected[1], atol=1e-5)


@pytest.mark.parametrize(("head", "norm"), HEADS)
def test_gradients_reach_every_weight(head, norm):
    model = make_model(head, norm)
    logits = model(*make_inputs([4, 3, 6], 6))
    logits.square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    stem = next(model.encoder.parameters())
    assert stem.grad.abs().max() > 0


@pytest.mark.parametrize(("head", "norm"), HEADS)
def test_one_study_trains_unless_the_head_has_batch_norm(head, norm):
    model = make_model(head, norm)
    inputs = make_inputs([5], 6)
    if norm == "batch":
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(*inputs)
        model.eval()
    assert model(*inputs).shape == (1, 25, 3)


def test_the_cells_head_grades_left_and_right_with_the_same_weights():
    model = make_model()
    heads = [p for name, p in model.named_parameters() if name.startswith("head.grade")]
    assert len(heads) == 3 * 4
    bias = model.head.grade[1][-1].bias
    image = make_inputs([3, 2], 4)
    before = model.eval()(*image).detach()
    with torch.no_grad():
        bias += torch.tensor([1.0, 2, 3])
        change = model(*image) - before
    assert torch.allclose(change[:, 5:15], torch.tensor([1.0, 2, 3]).expand(2, 10, 3), atol=1e-5)
    assert torch.allclose(change[:, :5], torch.zeros(2, 5, 3), atol=1e-6)
    assert torch.allclose(change[:, 15:], torch.zeros(2, 10, 3), atol=1e-6)


def test_an_unknown_backbone_is_refused_with_near_names():
    with pytest.raises(InputError) as caught:
        SliceEncoder("resnet19", stride=16)
    message = str(caught.value)
    assert "'resnet19'" in message
    assert "model.backbone" in message
    assert "resnet18" in message.partition("near names")[2]
    with pytest.raises(InputError, match="''"):
        SliceEncoder("", stride=16)


def test_a_stride_that_the_backbone_lacks_is_refused_with_those_it_has():
    with pytest.raises(InputError, match=r"model.stride; got 8; expected one of \[16"):
        SliceEncoder("test_vit", stride=8)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_stride_is_input_pixels_a_feature(stride):
    encoder = SliceEncoder("test_resnet", stride=stride)
    features = encoder(torch.rand(2, 1, 64, 96))
    assert features.shape == (2, encoder.channels, 64 // stride, 96 // stride)


def test_dropout_and_direction_are_those_of_the_configuration():
    for bidirectional, layers in itertools.product([True, False], [1, 2]):
        model = make_model(bidirectional=bidirectional, lstm_layers=layers, dropout=0.4)
        assert model.sequence.lstm.bidirectional == bidirectional
        assert model.sequence.lstm.num_layers == layers
        assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.4}
