"""A training step keeps the host free: it queues its work, and nothing in it waits for the device.

Without a GPU the device is `Apart`: its tensors lie in the host's memory, but say that they do not.
It computes what a CPU computes, and notes what a GPU would have to end its work for.
"""

from contextlib import contextmanager
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lumbar.cache.names import SeriesType
from lumbar.train.device_tensors import to_device
from lumbar.train.inference.forward import predict_batches
from lumbar.train.locator.config import LocatorConfig
from lumbar.train.locator.heatmap import place_loss
from lumbar.train.locator.network import LocatorNetwork
from lumbar.train.locator.train import _Truth
from lumbar.train.loss import CellLoss, LossConfig
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.mixup import sample_mix
from lumbar.train.plan.plan import Plan
from lumbar.train.reader.batch import make_batch, one_hot
from lumbar.train.run.config import RunConfig
from lumbar.train.run.network import build_model
from lumbar.train.trainer.trainer import Trainer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")

CPU, APART = torch.device("cpu"), torch.device("lazy")
"""The device's type is one whose gradients torch computes in the thread that asks for them."""

aten = torch.ops.aten
ENDS_ITS_WORK = {
    aten._local_scalar_dense.default: "a number",
    aten.equal.default: "a comparison",
    aten.nonzero.default: "places",
    aten.masked_select.default: "a choice",
    aten.repeat_interleave.Tensor: "counts",
    aten._unique2.default: "values",
}
INDEXES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
COPIES = {aten._to_copy.default, aten.copy_.default}
HOST_NUMBERS = {aten._pack_padded_sequence.default, *INDEXES, *COPIES}
"""What takes tensors of the host beside those of a device."""


class OnDevice(torch.Tensor):
    """A tensor that says it lies on the device; ``held`` is its values."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype, device=APART
        )

    def __init__(self, held):
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __deepcopy__(self, memo):
        copy = OnDevice(self.held.clone())
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, requires_grad=self.requires_grad)
        return memo.setdefault(id(self), copy)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        del types
        return Apart().run(func, args, kwargs or {})


class Apart(TorchDispatchMode):
    """Runs operations of both sides and notes in ``waits`` those that a GPU's host waits for."""

    def __init__(self):
        super().__init__()
        self.waits = []
        self.pinned = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        del types
        return self.run(func, args, kwargs or {})

    def run(self, func, args, kwargs):
        if func is aten.is_pinned.default:
            return any(args[0] is one for one in self.pinned)
        if func is aten._pin_memory.default:
            self.pinned.append(args[0].clone())
            return self.pinned[-1]
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        apart = [isinstance(t, OnDevice) for t in tensors]
        to = kwargs.get("device")
        if any(apart):
            self.note(func, args, kwargs)
            strays = [
                t for t, is_apart in zip(tensors, apart, strict=True) if t.dim() and not is_apart
            ]
            assert func in HOST_NUMBERS or not strays, f"{func} of both sides"
        if func is aten._to_copy.default and to is not None and (to.type != "cpu") != apart[0]:
            self.note_copy(tensors[0], kwargs.get("non_blocking", False))
        stays = any(apart) if to is None else to.type == APART.type
        if to is not None and stays:
            kwargs = {**kwargs, "device": CPU}
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if torch.Tag.inplace_view in func.tags and any(apart):
            # The tensor that says it is on the device has another shape from now on, too.
            with torch._C._DisableTorchDispatch(), _on_meta():
                func(*args, **kwargs)
        if func._schema.is_mutable and func._schema.returns:
            return args[0]
        if func is aten._pack_padded_sequence.default:
            return (OnDevice(result[0]), result[1]) if stays else result
        return (
            tree_map(lambda t: OnDevice(t) if isinstance(t, torch.Tensor) else t, result)
            if stays
            else result
        )

    def note(self, func, args, kwargs):
        if func in ENDS_ITS_WORK:
            self.waits.append(f"{ENDS_ITS_WORK[func]} of a tensor on the device")
        if func in INDEXES:
            for index in args[1]:
                if index is not None and index.dtype == torch.bool:
                    self.waits.append("a mask as an index")
                elif index is not None and not isinstance(index, OnDevice):
                    self.waits.append("an index of the host")
        if func is aten.copy_.default and isinstance(args[0], OnDevice) != isinstance(
            args[1], OnDevice
        ):
            self.note_copy(args[1], args[2] if len(args) > 2 else kwargs.get("non_blocking", False))

    def note_copy(self, source, non_blocking):
        if isinstance(source, OnDevice):
            self.waits.append("a copy to the host")
        elif not non_blocking:
            self.waits.append("a copy to the device that waits")
        elif not any(source is one for one in self.pinned):
            self.waits.append("a copy of memory that is not pinned")


@contextmanager
def _on_meta():
    before = torch._C._meta_in_tls_dispatch_include()
    torch._C._set_meta_in_tls_dispatch_include(True)  # noqa: FBT003
    try:
        yield
    finally:
        torch._C._set_meta_in_tls_dispatch_include(before)


def _held(value):
    return value.held if isinstance(value, OnDevice) else value


def moved(module):
    """Put a module's weights and buffers on the device."""
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            kept = torch.nn.Parameter(OnDevice(weight.detach()), requires_grad=weight.requires_grad)
            setattr(part, name, kept)
        for name, buffer in list(part.named_buffers(recurse=False)):
            part._buffers[name] = OnDevice(buffer)
    return module


@pytest.fixture
def apart(monkeypatch):
    """The device that is apart. Autocast does not know it, and is off."""
    known = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda _, *a, **k: known("cpu", *a, **k))
    return Apart()


# What a step is taken on.

CROP = CropConfig(slices=4, height=32, width=32, pixel_mm=8.0)
N = 4
DEPTHS = {"unequal": (1, 7), "equal": (7, 14)}
"""Of the volumes, of which a sample has four slices, or as many as there are."""
MIXES = {
    "": AugmentConfig(),
    "mixup": AugmentConfig(mixup=0.8),
    "cutmix": AugmentConfig(cutmix=0.8),
}


@pytest.fixture
def read(make_samples):
    """Return a function that makes the batch of a step, with its pixels on the device already."""

    def read(family, depths, mix, device, put, step):
        slots = 3 if family == "study" else 1
        absent = 0.3 if depths == "unequal" else 0.0
        samples = make_samples(N, slots, absent=absent, depths=DEPTHS[depths])
        if family == "disc":
            samples = replace(samples, level=(np.arange(N) % 5).astype(np.int8))
        plan = Plan(samples, CROP, MIXES[mix], batch=N, shuffle=True)
        requests = plan.requests(step, 0)
        slices = np.stack([view.slices for request in requests for view in request.views])
        pixels = np.random.default_rng(step).random((*slices.shape, CROP.height, CROP.width))
        image = torch.from_numpy((pixels * (slices >= 0)[..., None, None]).astype(np.float32))
        drawn = sample_mix(MIXES[mix], N, (CROP.height, CROP.width), np.random.default_rng(step))
        return make_batch(put(image), requests, samples, device=device, mix=drawn)

    return read


def start(family, *, put=None, bfloat16=False, **options):
    """Return a training of a small network with a moving average, on the host or elsewhere."""
    optim = {"ema": 0.9, "epochs": 1, "accumulate": options.pop("accumulate", 1)}
    loss = {"conditions": "all"} if family == "study" else {}
    config = RunConfig(
        series="study" if family == "study" else "sagittal_t2",
        discs=family == "disc",
        crop=CROP.model_dump(),
        loss={**loss, **options.pop("loss", {})},
        model={"backbone": "test_resnet", "stride": 8, "hidden": 12, "dropout": 0.0, **options},
        optim=optim,
        bfloat16=bfloat16,
    )
    torch.manual_seed(0)
    network = build_model(config)
    trainer = Trainer.start(network if put is None else put(network), config, steps=9)
    trainer.start_epoch(0)
    torch.manual_seed(1)
    return trainer


CASES = [
    *(
        (family, {"head": head})
        for family in ("series", "disc", "study")
        for head in ("rsna2022", "levels")
        if (family, head) != ("disc", "levels")
    ),
    ("series", {"pooling": "max", "sequence": "gru", "layers": 2, "bidirectional": False}),
    ("series", {"pooling": "mean", "sequence": "none", "frozen_stages": 2}),
    ("study", {"pooling": "max", "sequence": "gru", "shared_encoder": True}),
    ("series", {"accumulate": 2}),
    ("series", {"backbone": "test_convnext"}),
]
NAMES = [f"{family}-{'-'.join(map(str, options.values()))}" for family, options in CASES]


@pytest.mark.parametrize(
    ("depths", "mix"), [("unequal", "mixup"), ("unequal", ""), ("equal", "cutmix")]
)
@pytest.mark.parametrize("family", ["series", "disc", "study"])
def test_no_step_waits_for_the_device(apart, read, family, depths, mix):
    check_a_step(apart, read, family, depths, mix, {})


@pytest.mark.parametrize(("family", "options"), CASES, ids=NAMES)
def test_no_network_waits_for_the_device(apart, read, family, options):
    check_a_step(apart, read, family, "unequal", "", options)


def check_a_step(apart, read, family, depths, mix, options):
    """Take steps on both sides: that of the device waits for nothing, and gives the same."""
    with apart:
        trainer = start(family, put=moved, **options)
        losses = []
        for step in range(2):
            apart.waits.clear()
            batch = read(family, depths, mix, APART, OnDevice, step)
            losses.append(trainer.optimise(batch)[0])
            assert apart.waits == []
    reference = start(family, **options)
    for step, loss in enumerate(losses):
        wanted, _ = reference.optimise(read(family, depths, mix, CPU, _same, step))
        assert isinstance(loss, OnDevice)
        torch.testing.assert_close(loss.held, wanted, rtol=1e-3, atol=1e-4)


def _same(tensor):
    return tensor


@pytest.mark.parametrize("kind", get_args(LossConfig.model_fields["kind"].annotation))
@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_no_loss_waits_for_the_device(apart, kind, temperature):
    config = LossConfig(
        kind=kind,
        conditions="all",
        average="parts",
        label_smoothing=0.1,
        any_severe=1.0,
        any_severe_temperature=temperature,
    )
    severity = np.random.default_rng(0).integers(-1, 3, (N, 25))
    target = torch.from_numpy(one_hot(list(severity)))
    values = torch.randn(target.shape)
    results = []
    for put in (_same, OnDevice):
        logits = put(values.clone()).requires_grad_()
        loss = CellLoss(config, [SeriesType.SAGITTAL_T2])
        with apart:
            own = loss if put is _same else moved(loss)
            aim = put(target)
            apart.waits.clear()
            total = own.total(own.sums(logits, aim), own.weights(aim))
            total.backward()
            assert apart.waits == []
        results.append((_held(total.detach()), _held(logits.grad)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("n", [1, 3])
def test_predictions_are_fetched_at_the_end(apart, read, n):
    with apart:
        trainer = start("series", put=moved)
        batches = [read("series", "unequal", "", APART, OnDevice, step) for step in range(n)]
        apart.waits.clear()
        # Inference mode leaves operations whole that the device takes apart.
        with torch.no_grad():
            predict_batches.__wrapped__(trainer.model, trainer.loss, batches, bfloat16=False)
    assert apart.waits == ["a copy to the host", "a number of a tensor on the device"]


def test_no_step_of_the_locator_waits_for_the_device(apart, read):
    config = LocatorConfig(slices=CROP.slices, height=CROP.height, width=CROP.width, pixel_mm=4.0)
    places = np.random.default_rng(0).uniform(0, 6, (N, 5, 3))
    places[0, 2] = np.nan
    losses = []
    for put, device in ((_same, CPU), (OnDevice, APART)):
        torch.manual_seed(0)
        network = LocatorNetwork()
        with apart:
            if device == APART:
                moved(network)
            apart.waits.clear()
            batch = read("series", "unequal", "", device, put, 0)
            wanted = _Truth(places, np.ones(N), device).of(batch)
            log_chances = network(batch.image, batch.present, batch.position, batch.lengths)
            loss = place_loss(log_chances, batch.present, wanted, config)
            loss.backward()
            assert apart.waits == []
        losses.append(_held(loss.detach()))
    torch.testing.assert_close(*losses)


def test_what_waits_is_noted(apart):
    there = torch.arange(4.0)
    with apart:
        tensor, mask = OnDevice(there), OnDevice(there > 1)
        host = torch.tensor([0, 2])
        waiting = {
            "a number of a tensor on the device": lambda: bool(tensor.sum() > 0),
            "places of a tensor on the device": mask.nonzero,
            "a mask as an index": lambda: tensor[mask],
            "an index of the host": lambda: tensor[host],
            "a copy to the host": tensor.cpu,
            "a copy to the device that waits": lambda: host.to(APART),
            "a copy of memory that is not pinned": lambda: host.to(APART, non_blocking=True),
        }
        for name, act in waiting.items():
            apart.waits.clear()
            act()
            assert name in apart.waits
        # Of a list torch makes a tensor on the device, which a GPU waits for; here it cannot.
        with pytest.raises(NotImplementedError):
            tensor[[0, 2]]
        apart.waits.clear()
        assert to_device(host, APART).held.tolist() == [0, 2]
        assert tensor[to_device(host, APART)].held.tolist() == [0, 2]
        assert apart.waits == []


@pytest.mark.gpu
@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("depths", DEPTHS)
@pytest.mark.parametrize("family", ["series", "disc", "study"])
@pytest.mark.parametrize("bfloat16", [True, False])
def test_no_step_on_a_gpu_waits_for_it(read, family, depths, mix, bfloat16):
    device = torch.device("cuda", torch.cuda.current_device())
    trainer = start(family, put=lambda network: network.to(device), bfloat16=bfloat16)
    dtype = torch.bfloat16 if bfloat16 else torch.float32

    def put(image):
        return to_device(image.to(dtype), device)

    trainer.optimise(read(family, depths, mix, device, put, 0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.optimise(read(family, depths, mix, device, put, 1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
