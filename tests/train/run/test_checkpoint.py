import contextlib
import pickle

import numpy as np
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbar.cache.errors import FormatError, InputError, LumbarError, MissingError
from lumbar.train.evaluation.baselines import uniform
from lumbar.train.run.checkpoint import ModelBundle, build_model, load_checkpoint, save_checkpoint


@pytest.fixture
def bundle(small_config):
    torch.manual_seed(3)
    config = small_config()
    prior = uniform() * np.linspace(0.5, 1.5, 3)
    return ModelBundle(config, build_model(config), prior, {"size": 384, "dtype": "int16"})


@pytest.fixture
def saved(bundle, tmp_path):
    path = tmp_path / "best.pt"
    save_checkpoint(path, bundle, trainer_state={"next_epoch": 2, "rng": torch.arange(5.0)})
    return path


def refusal(kind, path):
    with pytest.raises(kind) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def edit(path, **changes):
    document = torch.load(path, weights_only=True)
    torch.save(document | changes, path)


def test_a_checkpoint_comes_back_as_it_was(bundle, saved):
    got, state = load_checkpoint(saved)
    assert got.config == bundle.config
    assert got.preprocess == bundle.preprocess
    assert np.array_equal(got.prior, bundle.prior)
    assert got.prior.dtype == np.float64
    weights = bundle.model.state_dict()
    assert got.model.state_dict().keys() == weights.keys()
    for name, value in got.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert state["next_epoch"] == 2
    assert torch.equal(state["rng"], torch.arange(5.0))


def test_a_model_looks_in_the_field_of_its_series_type(small_config):
    def centres(*overrides):
        model = build_model(small_config(*overrides))
        return model.pool.centre.detach()

    wide = centres("crop.pixel_mm=2.5")
    of_type = centres("crop.pixel_mm=1.0", "crop.pixel_mm_of={sagittal_t2 = 2.5, axial_t2 = 9}")
    assert torch.equal(of_type, wide)
    assert not torch.equal(of_type, centres("crop.pixel_mm=1.0"))


def test_a_best_checkpoint_holds_no_optimiser(bundle, tmp_path):
    save_checkpoint(tmp_path / "best.pt", bundle, trainer_state=None)
    assert load_checkpoint(tmp_path / "best.pt")[1] is None


def test_pretrained_weights_are_not_asked_for_again(bundle, tmp_path, monkeypatch):
    model = bundle.config.model.model_copy(update={"pretrained": True})
    config = bundle.config.model_copy(update={"model": model})
    path = tmp_path / "best.pt"
    save_checkpoint(path, ModelBundle(config, bundle.model, bundle.prior, {}), trainer_state=None)
    asked = []
    make = timm.create_model

    def create_model(name, **options):
        asked.append(options.get("pretrained", False))
        return make(name, **options)

    monkeypatch.setattr("timm.create_model", create_model)
    assert load_checkpoint(path)[0].config.model.pretrained
    assert asked
    assert not any(asked)


def test_weights_of_another_shape_are_refused_by_name(saved, small_config):
    other = small_config("model.hidden=8").model_dump_json()
    edit(saved, config=other)
    message = refusal(InputError, saved)
    assert "another shape" in message
    assert "head." in message
    assert "expected (" in message


def test_a_weight_that_is_missing_or_too_many_is_refused(saved):
    weights = torch.load(saved, weights_only=True)["model"]
    edit(saved, model=weights | {"extra": torch.zeros(2)})
    assert "extra (2,); expected no such weight" in refusal(InputError, saved)
    edit(saved, model={k: v for k, v in weights.items() if k != "head.level"})
    assert "head.level absent; expected (5, 32)" in refusal(InputError, saved)


def test_another_version_is_refused_with_both(saved):
    edit(saved, checkpoint_version=2)
    message = refusal(FormatError, saved)
    assert "got 2; expected 1" in message


def test_a_prior_of_another_shape_is_refused(saved):
    edit(saved, prior=torch.zeros(25, 2, dtype=torch.float64))
    assert "(25, 3)" in refusal(FormatError, saved)


def test_a_configuration_of_another_lumbar_is_refused_with_the_key(saved, bundle):
    config = bundle.config.model_dump_json().replace('"bfloat16"', '"float8"')
    edit(saved, config=config)
    assert "float8" in refusal(InputError, saved)


def test_an_absent_checkpoint_is_missing(tmp_path):
    assert "lumbar train" in refusal(MissingError, tmp_path / "best.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        bytes(range(256)) * 20,
        pickle.dumps({"a": 1}, protocol=2),
        b"\x80\x02.",
        b"PK\x03\x04" * 9,
    ],
    ids=["empty", "text", "bytes", "pickle", "empty stack", "zip"],
)
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    refusal(FormatError, path)


def test_a_folder_and_a_lone_tensor_are_refused(tmp_path):
    refusal(FormatError, tmp_path)
    torch.save(torch.zeros(3), tmp_path / "x.pt")
    assert "got Tensor" in refusal(FormatError, tmp_path / "x.pt")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "x.pt")
    assert "version of a checkpoint" in refusal(FormatError, tmp_path / "x.pt")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), seed=st.integers(0, 2**16))
def test_a_damaged_file_gives_an_error_of_ours(saved, share, seed):
    whole = saved.read_bytes()
    path = saved.with_name("damaged.pt")
    path.write_bytes(whole[: int(len(whole) * share)])
    refusal(FormatError, path)
    garbled = bytearray(whole)
    rng = np.random.default_rng(seed)
    # Where the pickle and the directory of the archive lie.
    for place in (*rng.integers(0, 3000, 4), *-rng.integers(1, 3000, 4)):
        garbled[place] = rng.integers(256)
    path.write_bytes(garbled)
    with contextlib.suppress(LumbarError):
        load_checkpoint(path)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_checkpoint_is_not_run(tmp_path, bundle):
    sprung = tmp_path / "sprung"
    torch.save({"checkpoint_version": 1, "model": Trap(sprung)}, tmp_path / "best.pt")
    refusal(FormatError, tmp_path / "best.pt")
    assert not sprung.exists()
