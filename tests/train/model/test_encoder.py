import copy

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import convert_sync_batchnorm

from lumbar.cache.errors import InputError, MissingError
from lumbar.train.model.config import ModelConfig
from lumbar.train.model.encoder import SliceEncoder

SIZE = (64, 96)
SMALL = (
    "test_resnet",
    "test_convnext",
    "test_efficientnet",
    "test_maxvit",
    "test_mambaout",
    "test_vit",
)


def make_encoder(backbone="test_resnet", *, stride=16, size=SIZE, **options):
    torch.manual_seed(0)
    return SliceEncoder(ModelConfig(backbone=backbone, stride=stride, **options), size=size)


def batch_norms(module):
    return [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("channels_last", [True, False])
def test_maps_have_the_stride_and_every_weight_has_a_part_in_them(backbone, channels_last):
    encoder = make_encoder(backbone, channels_last=channels_last)
    features = encoder(torch.rand(2, 1, *SIZE))
    assert features.shape == (2, encoder.channels, 4, 6)
    features.square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_stride_is_input_pixels_a_feature(stride):
    encoder = make_encoder(stride=stride)
    features = encoder(torch.rand(2, 1, *SIZE))
    assert features.shape == (2, encoder.channels, 64 // stride, 96 // stride)


def test_a_backbone_is_built_once(monkeypatch):
    built = []
    create = timm.create_model
    monkeypatch.setattr(
        "timm.create_model", lambda name, **options: built.append(name) or create(name, **options)
    )
    for stride in (8, 16, 32):
        make_encoder(stride=stride)
    make_encoder("test_convnext")
    assert built == ["test_resnet"] * 3 + ["test_convnext"]


def test_images_of_sizes_that_do_not_divide_are_read_where_the_backbone_can():
    assert make_encoder(size=(50, 70))(torch.rand(1, 1, 50, 70)).shape[2:] == (4, 5)
    assert make_encoder("test_convnext", size=(50, 70))(torch.rand(1, 1, 50, 70)).shape[2:] == (
        3,
        4,
    )
    with pytest.raises(InputError, match=r"images of this size.*test_vit.*crop.height"):
        make_encoder("test_vit", size=(50, 70))


def test_an_unknown_backbone_is_refused_with_near_names():
    with pytest.raises(InputError) as caught:
        make_encoder("resnet19")
    message = str(caught.value)
    assert "'resnet19'" in message
    assert "model.backbone" in message
    assert "resnet18" in message.partition("near names")[2]
    with pytest.raises(InputError, match="''"):
        make_encoder("")


def test_a_stride_that_the_backbone_lacks_is_refused_with_those_it_has():
    with pytest.raises(InputError, match=r"model.stride; got 8; expected one of \[16"):
        make_encoder("test_vit", stride=8)


def test_weights_that_the_hub_does_not_have_are_refused(monkeypatch):
    def fail(*_, **options):
        assert options["pretrained"]
        msg = "No pretrained weights exist"
        raise RuntimeError(msg)

    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(
        InputError, match=r"No pretrained weights exist.*model.weights takes a file"
    ):
        make_encoder(pretrained=True)


@pytest.mark.parametrize("backbone", SMALL)
def test_stages_are_all_weights_from_the_image_to_the_features(backbone):
    encoder = make_encoder(backbone)
    stages = encoder.stages()
    flat = [weight for stage in stages for weight in stage]
    assert len(flat) == len({id(weight) for weight in flat}) == len(list(encoder.parameters()))
    assert len(stages) >= 4
    assert next(p for p in encoder.parameters() if p.ndim == 4) in set(stages[0])


def test_frozen_stages_neither_learn_nor_count():
    encoder = make_encoder(stride=32, frozen_stages=2).train()
    before = copy.deepcopy(encoder.state_dict())
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    encoder(torch.rand(2, 1, *SIZE)).square().sum().backward()
    optimizer.step()
    changed = {
        name for name, value in encoder.state_dict().items() if (value != before[name]).any()
    }
    names = set(before)
    frozen = {name for name in names if name.startswith(("features.conv1", "features.bn1"))}
    frozen |= {name for name in names if name.startswith("features.layer1")}
    assert frozen
    assert changed.isdisjoint(frozen)
    # The others' averages all move; of the weights, those that a last norm of 0 does not hide.
    assert {name for name in names - frozen if "running" in name} <= changed
    assert "features.layer2.0.bn2.bias" in changed
    grads = [p.grad is None for p in encoder.parameters()]
    assert grads == [not p.requires_grad for p in encoder.parameters()]


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_frozen_batch_norms_stay_in_evaluation_whatever_takes_their_place(backbone):
    encoder = make_encoder(backbone, frozen_stages=1)
    ours = batch_norms(encoder.train())
    assert [ours[0].training, ours[-1].training] == [False, True]
    for convert in (convert_sync_batchnorm, torch.nn.SyncBatchNorm.convert_sync_batchnorm):
        exchanged = convert(copy.deepcopy(encoder)).train()
        norms = [m for m in exchanged.modules() if isinstance(m, torch.nn.SyncBatchNorm)]
        assert [norms[0].training, norms[-1].training] == [False, True]
        stages = [[weight.shape for weight in stage] for stage in exchanged.stages()]
        assert stages == [[weight.shape for weight in stage] for stage in encoder.stages()]
    assert not any(norm.training for norm in batch_norms(encoder.eval()))


def test_more_frozen_stages_than_there_are_are_refused():
    stages = len(make_encoder().stages())
    assert not any(p.requires_grad for p in make_encoder(frozen_stages=stages).parameters())
    with pytest.raises(InputError, match=rf"got {stages + 1}; expected at most {stages}"):
        make_encoder(frozen_stages=stages + 1)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_vit"])
def test_checkpointing_gives_the_same_gradients_and_computes_twice(backbone):
    image = torch.rand(2, 1, *SIZE)
    gradients, calls = [], []
    for checkpointing in (False, True):
        encoder = make_encoder(backbone, checkpointing=checkpointing)
        count = []
        for module in encoder.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.register_forward_hook(lambda *_, count=count: count.append(1))
        encoder(image).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
        calls.append(len(count))
    assert calls[1] > calls[0]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_checkpointing_is_refused_where_timm_has_none(monkeypatch):
    def refuse(*_, **__):
        msg = "gradient checkpointing not supported"
        raise AssertionError(msg)

    monkeypatch.setattr("timm.models._features.FeatureListNet.set_grad_checkpointing", refuse)
    with pytest.raises(InputError, match=r"model.checkpointing; got test_resnet: gradient check"):
        make_encoder(checkpointing=True)


@pytest.mark.parametrize("kind", ["safetensors", "pt", "wrapped", "features"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_weights_of_a_file_are_those_of_the_backbone(tmp_path, backbone, kind):
    torch.manual_seed(7)
    whole = timm.create_model(backbone, features_only=kind == "features").eval()
    file = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        save_file(whole.state_dict(), file)
    elif kind == "wrapped":
        named = {f"module.{name}": value for name, value in whole.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": named}, file)
    else:
        torch.save(whole.state_dict(), file)
    encoder = make_encoder(backbone, weights=str(file)).eval()
    grey = torch.rand(1, 1, *SIZE)
    reference = timm.create_model(backbone, features_only=True).eval()
    weights = whole.state_dict().values()
    reference.load_state_dict(dict(zip(reference.state_dict(), weights, strict=False)))
    with torch.no_grad():
        maps = reference(grey.expand(-1, 3, -1, -1))
        got = encoder(grey)
    (expected,) = [m for m in maps if m.shape == got.shape]
    assert torch.allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_files_without_the_weights_are_refused(tmp_path):
    file = tmp_path / "other.pt"
    torch.save(timm.create_model("test_convnext").state_dict(), file)
    with pytest.raises(InputError, match=r"another backbone.*other.pt; got conv1.0.weight absent"):
        make_encoder(weights=str(file))
    weights = timm.create_model("test_resnet").state_dict()
    torch.save(weights | {"conv1.0.weight": torch.zeros(16, 2, 7, 7)}, file)
    with pytest.raises(
        InputError, match=r"got conv1.0.weight \(16, 2, 7, 7\); expected \(16, 1, 3"
    ):
        make_encoder(weights=str(file))
    for content in (b"", b"no weights"):
        for name in ("other.pt", "other.safetensors"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match="a file without weights"):
                make_encoder(weights=str(tmp_path / name))
    torch.save([1, 2], file)
    with pytest.raises(InputError, match="got list"):
        make_encoder(weights=str(file))
    with pytest.raises(MissingError, match=r"absent\.pt"):
        make_encoder(weights=str(tmp_path / "absent.pt"))


def test_weights_come_from_one_place():
    with pytest.raises(ValueError, match="not both"):
        ModelConfig(pretrained=True, weights="x.pt")
    config = ModelConfig(weights="x.pt", hidden=7, frozen_stages=1).without_weights()
    assert config == ModelConfig(hidden=7, frozen_stages=1)
