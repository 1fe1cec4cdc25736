"""An exported network gives the logits of the trained one, whatever the batch and the lengths."""

import json

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch

from lumbar.cache.errors import InputError
from lumbar.cache.names import CELLS, SEVERITIES
from lumbar.train.evaluation.baselines import uniform
from lumbar.train.inference import export as exporting
from lumbar.train.inference.export import ParityError, export, random_inputs
from lumbar.train.loss import CellLoss
from lumbar.train.run.checkpoint import ModelBundle, save_checkpoint
from lumbar.train.run.config import RunConfig
from lumbar.train.run.network import build_model


@pytest.fixture(autouse=True)
def _no_type_checks():
    # They compare shapes, which an exporter takes for a promise that these stay as they are.
    jaxtyping.config.update("jaxtyping_disable", value=True)
    yield
    jaxtyping.config.update("jaxtyping_disable", value=False)


def make_bundle(family, **options):
    torch.manual_seed(0)
    config = RunConfig(
        series="study" if family == "study" else "axial_t2",
        study_types=("axial_t2", "sagittal_t1"),
        discs=family == "disc",
        crop={"height": 48, "width": 32, "slices": 3},
        model={"backbone": "test_resnet", "stride": 8, "hidden": 6, **options},
    )
    return ModelBundle(config, build_model(config), uniform(), {"size": 384})


def of_network(bundle, inputs):
    """Return the logits and probabilities of the network as it was trained."""
    numbers = torch.tensor([2, 0] if bundle.config.sample == "study" else 2)
    lengths = inputs["present"].sum(dim=-1)
    with torch.no_grad():
        logits = bundle.model.eval()(
            inputs["image"],
            inputs["present"],
            inputs["position"],
            lengths,
            numbers.expand(lengths.shape),
            inputs.get("level"),
        )
        loss = CellLoss(bundle.config.loss, bundle.config.series_types)
        return logits, loss.probabilities(logits)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "ending", "options"),
    [
        ("series", ".onnx", {"layers": 2, "pooling": "max", "checkpointing": True}),
        ("disc", ".pt2", {"sequence": "gru"}),
        ("study", ".onnx", {"shared_encoder": True}),
        ("study", ".pt2", {"head": "rsna2022", "norm": "batch", "sequence": "none"}),
    ],
)
def test_other_programs_get_the_same_logits(tmp_path, family, ending, options):
    bundle = make_bundle(family, **options)
    out = tmp_path / f"model{ending}"
    exported = export(bundle, out)
    assert exported.largest_difference < 1e-5
    assert {path.name for path in tmp_path.iterdir()} == {out.name, "model.json"}
    page = json.loads((tmp_path / "model.json").read_text())
    inputs = random_inputs(bundle.config, batch=4, slices=3, seed=9)
    assert [i["name"] for i in page["inputs"]] == list(inputs)
    for described, given in zip(page["inputs"], inputs.values(), strict=True):
        assert described["shape"] == ["batch", *given.shape[1:]]
        assert described["dtype"] == str(given.dtype).removeprefix("torch.")
    if ending == ".onnx":
        session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
        named = {name: value.numpy() for name, value in inputs.items()}
        got = session.run([o["name"] for o in page["outputs"]], named)
    else:
        got = [value.numpy() for value in torch.export.load(out).module()(*inputs.values())]
    for ours, theirs in zip(got, of_network(bundle, inputs), strict=True):
        assert ours.shape == (4, *page["outputs"][0]["shape"][1:])
        assert np.abs(ours - theirs.numpy()).max() < 1e-5


def test_a_network_that_gives_something_else_is_not_kept(tmp_path, monkeypatch):
    bundle = make_bundle("series", sequence="none")
    other = make_bundle("series", sequence="none")
    with torch.no_grad():
        other.model.head.grade[0][-1].bias += 1e-3
    masked = exporting.masked
    monkeypatch.setattr(exporting, "masked", lambda _: masked(other.model))
    with pytest.raises(ParityError, match=r"got a difference of 0.001; expected at most 0.0001"):
        export(bundle, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_random_inputs_have_stacks_of_varied_length_and_never_an_empty_sample():
    config = make_bundle("study").config
    inputs = random_inputs(config, batch=60, slices=5, seed=1)
    lengths = inputs["present"].sum(dim=-1)
    assert lengths.shape == (60, 2)
    assert set(lengths.flatten().tolist()) == set(range(6))
    assert (lengths.sum(dim=1) > 0).all()
    assert set(random_inputs(make_bundle("disc").config, batch=60, slices=5, seed=1)) == {
        "image",
        "present",
        "position",
        "level",
    }


def test_the_page_tells_what_was_trained_and_how_images_are_made(tmp_path):
    bundle = make_bundle("series", sequence="none")
    page = json.loads(export(bundle, tmp_path / "model.pt2", slices=2).page.read_text())
    assert page["sample"] == "series"
    assert page["series_types"] == ["axial_t2"]
    assert page["cells"] == list(CELLS)
    assert page["severities"] == list(SEVERITIES)
    assert page["trained_cells"] == [cell for cell in CELLS if "subarticular" in cell]
    assert page["preprocess"] == {"size": 384}
    assert page["crop"]["pixel_mm"] == bundle.config.crop.pixel_mm
    assert page["inputs"][0]["shape"] == ["batch", 2, 1, 48, 32]
    assert page["parity"]["largest_difference_of_logits"] <= page["parity"]["tolerance"]


def test_a_name_without_a_format_and_a_missing_extra_are_refused(tmp_path, monkeypatch):
    bundle = make_bundle("series")
    with pytest.raises(InputError, match=r"got .pth; expected .onnx or .pt2"):
        export(bundle, tmp_path / "model.pth")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"got no onnxscript.*pip install 'lumbar\[export\]'"):
        export(bundle, tmp_path / "model.onnx")


def test_the_command_exports_a_runs_best_model(tmp_path, command_line):
    bundle = make_bundle("series", sequence="none")
    run = tmp_path / "run"
    run.mkdir()
    save_checkpoint(run / "best.pt", bundle, trainer_state=None)
    told = command_line("export", run, "--out", tmp_path / "m.pt2")
    assert told.status == 0
    assert "m.json" in told.out
    assert (tmp_path / "m.pt2").stat().st_size > 0
