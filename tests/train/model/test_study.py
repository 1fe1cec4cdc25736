import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.cache.names import SeriesType
from lumbar.train.model.study import drop_series
from lumbar.train.run.config import RunConfig
from lumbar.train.run.network import build_model

HEADS = ("cells", "rsna2022")
every_head = pytest.mark.parametrize("head", HEADS)


def take_series(inputs, order):
    """Return the inputs with the series in another order, or fewer of them."""
    values = list(inputs)
    return [*(value[:, order] for value in values[:-1]), values[-1]]


@every_head
def test_an_absent_series_is_as_if_there_were_no_place_for_it(make_network, make_inputs, head):
    network = make_network("study", head=head).eval()
    inputs = make_inputs("study", [[3, 4, 0, 6], [6, 2, 0, 1]])
    with torch.no_grad():
        expected = network(*inputs)
        without = network(*take_series(inputs, [0, 1, 3]))
    assert torch.allclose(without, expected, atol=1e-6)


@every_head
def test_every_series_counts(make_network, make_inputs, head):
    network = make_network("study", head=head).eval()
    inputs = make_inputs("study", [[3, 4, 5, 6]])
    with torch.no_grad():
        whole = network(*inputs)
        for left_out in range(4):
            rest = [slot for slot in range(4) if slot != left_out]
            assert (network(*take_series(inputs, rest)) - whole).abs().max() > 1e-5


def test_the_order_of_the_series_does_not_matter_to_cells(make_network, make_inputs):
    network = make_network("study").eval()
    inputs = make_inputs("study", [[3, 4, 5, 6]])
    with torch.no_grad():
        expected = network(*inputs)
        assert torch.allclose(network(*take_series(inputs, [3, 0, 2, 1])), expected, atol=1e-6)


def test_the_same_series_twice_changes_no_cell(make_network, make_inputs):
    network = make_network("study").eval()
    inputs = take_series(make_inputs("study", [[0, 0, 5, 0]]), [2])
    with torch.no_grad():
        twice = network(*take_series(inputs, [0, 0]))
        assert torch.allclose(twice, network(*inputs), atol=1e-6)


def test_cells_start_by_looking_at_the_types_that_show_them(make_network, make_inputs):
    network = make_network("study", series_dropout=0.0).eval()
    inputs = make_inputs("study", [[6, 6, 6, 6]])
    image = inputs.image.requires_grad_()
    logits = network(*inputs)
    shown = {0: (1, 2), 1: (0,), 2: (3, 4)}
    felt = torch.zeros(5, 3)
    for condition in range(5):
        (gradient,) = torch.autograd.grad(
            logits[0, 5 * condition : 5 * condition + 5].square().sum(), image, retain_graph=True
        )
        strength = gradient[0].abs().flatten(1).sum(dim=1)
        felt[condition] = torch.stack([strength[0], strength[1], strength[2] + strength[3]])
    weights = {t: network.join.score[name] for t, name in enumerate(network.types)}
    for series_type, conditions in shown.items():
        for condition in range(5):
            expected = 2.0 if condition in conditions else 0.0
            assert weights[series_type][condition] == expected
            assert felt[condition, series_type] > 0


@pytest.mark.parametrize("shared", [True, False])
@every_head
def test_a_type_that_a_batch_lacks_has_gradients_of_nothing(
    make_network, make_inputs, head, shared
):
    network = make_network("study", head=head, shared_encoder=shared, series_dropout=0.0)
    network(*make_inputs("study", [[3, 0, 2, 0], [0, 0, 4, 1]])).square().sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    of_absent = [g for name, g in gradients.items() if "sagittal_t2" in name]
    assert of_absent
    assert not any(gradient.any() for gradient in of_absent)


def test_an_encoder_a_type_or_one_for_all(make_network):
    shared, own = (make_network("study", shared_encoder=shared) for shared in (True, False))
    assert len(shared.encoders) == 1
    assert len(own.encoders) == 3
    names = [name for name in shared.state_dict() if "features" in name]
    assert all(name.startswith("encoder.shared.") for name in names)
    assert len([name for name in own.state_dict() if "features" in name]) == 3 * len(names)


def test_series_are_left_out_at_random_but_never_the_last():
    torch.manual_seed(0)
    lengths = torch.tensor([[3, 0, 5, 2], [0, 0, 7, 0]]).repeat(2000, 1)
    left = drop_series(lengths, 0.4)
    assert ((left == 0) | (left == lengths)).all()
    assert (left.sum(dim=1) > 0).all()
    kept = (left[::2, [0, 2, 3]] > 0).float()
    # One stays even where all three were to be dropped: 0.6 + 0.4 ** 3 / 3.
    assert kept.mean(dim=0).tolist() == pytest.approx([0.6 + 0.064 / 3] * 3, abs=0.04)
    assert torch.equal(drop_series(lengths, 0.0), lengths)


@every_head
def test_series_dropout_is_of_training_and_of_torchs_seed(make_network, make_inputs, head):
    network = make_network(
        "study", head=head, series_dropout=0.5, dropout=0.0, norm="none", pooling="mean"
    )
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    inputs = make_inputs("study", [[3, 4, 5, 6], [2, 3, 4, 5]])
    logits = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        logits.append(network(*inputs).detach())
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    network.eval()
    assert torch.equal(network(*inputs), network(*inputs))


def test_left_out_series_are_not_encoded(make_network, make_inputs):
    network = make_network("study", series_dropout=0.9, shared_encoder=True)
    seen = []
    network.encoders[0].register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    torch.manual_seed(0)
    network(*make_inputs("study", [[6, 6, 6, 6]] * 2))
    assert sum(seen) < 48


def test_types_without_places_and_types_named_twice_are_refused():
    for types in ([SeriesType.OTHER], [SeriesType.AXIAL_T2] * 2):
        config = RunConfig(series="study", loss={"conditions": "all"})
        config = config.model_copy(update={"study_types": tuple(types)})
        with pytest.raises(InputError, match="study_types"):
            build_model(config)


def test_each_type_has_its_own_field():
    def centres(**crop):
        torch.manual_seed(0)
        model = {"backbone": "test_resnet", "stride": 8}
        crop = {"height": 64, "width": 64, **crop}
        network = build_model(RunConfig(series="study", crop=crop, model=model))
        return {name: pool.centre.detach() for name, pool in network.pool.items()}

    same, other = centres(), centres(pixel_mm_of={"axial_t2": 0.5})
    assert torch.equal(other["axial_t2"], 2 * same["axial_t2"])
    assert torch.equal(other["sagittal_t1"], same["sagittal_t1"])
