"""The pipeline on both ways: the compiled function as it is, and DALI's operators beside it."""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nvidia.dali import backend
from nvidia.dali.pipeline import Pipeline

from lumbar.train.plan import pixel_params
from lumbar.train.plan.augment import AugmentConfig, for_stored, sample_intensity
from lumbar.train.plan.crop import CropConfig, coarsened, sample_matrices
from lumbar.train.plan.random_numbers import UniformNumbers
from lumbar.train.plan.slices import NO_SLICE, padded
from lumbar.train.plan.view import N_UNIFORM
from lumbar.train.reader.dali_numba import renderer_of
from lumbar.train.reader.dali_pipeline import ABSENT_LIBRARIES, GraphConfig, build_pipeline

CROP = CropConfig(slices=5, height=48, width=40, pixel_mm=1.0)
SIZE_HW = (48, 40)
SAMPLES = 8
GEOMETRY = AugmentConfig(rotation_degrees=25, scale=0.3, shear_degrees=10, shift_mm=12, noise=0)
STEPS = {
    "noise": {"noise": 0.5},
    "gamma": {"gamma": 0.5},
    "bias_field": {"bias_field": 0.6},
    "blur": {"blur_mm": 2.5},
    "low_resolution": {"low_resolution": 3.0},
    "cutout": {"cutout": 0.7},
}
EVERYTHING = {key: value for step in STEPS.values() for key, value in step.items()}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")


def make_samples(dtype, augment, seed=8):
    """Return volumes, slices, matrices, numbers and keys: shallow, magnified, over edges."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    volumes, slices = [], []
    for _ in range(SAMPLES):
        depth, height, width = rng.integers(2, 9), *rng.integers(30, 96, 2)
        shape = (int(depth), int(height), int(width))
        volumes.append(rng.integers(limits.min, limits.max, shape, dtype, endpoint=True))
        slices.append(padded(np.sort(rng.permutation(depth)[:5]), 5))
    uniform, pixel_mm = UniformNumbers(rng.random((N_UNIFORM, SAMPLES))), np.ones(SAMPLES)
    matrices = sample_matrices(
        CROP,
        augment,
        source_hw=np.array([volume.shape[1:] for volume in volumes]),
        spacing_mm=rng.uniform(0.5, 1.5, (SAMPLES, 2)),
        centre_hw=np.full((SAMPLES, 2), np.nan),
        pixel_mm=pixel_mm,
        uniform=uniform,
    )
    numbers, keys = sample_intensity(augment, np.full(SAMPLES, 5), SIZE_HW, pixel_mm, uniform)
    matrices = coarsened(
        matrices, SIZE_HW, numbers[:, pixel_params.GRID_H : pixel_params.GRID_W + 1]
    )
    stored = for_stored(numbers, 1 / limits.max, 0.1 * np.arange(SAMPLES))
    return volumes, np.stack(slices), matrices.astype(np.float32), stored, keys


def config_of(samples, augment, *, device="cpu", draw="cpu", dtype=torch.float32, crop=CROP):
    return GraphConfig(
        crop=crop,
        augment=augment,
        stored_dtype=samples[0][0].dtype.name,
        dtype=dtype,
        device=device,
        device_id=0,
        views=len(samples[0]),
        threads=2,
        prefetch=1,
        draw=draw,
    )


def run(samples, augment=GEOMETRY, **options):
    config = config_of(samples, augment, **options)
    (images,) = build_pipeline(lambda info: samples, config).run()
    return images.as_cpu().as_array()


def compiled(samples, dtype=torch.float32):
    shape = (len(samples[0]), samples[1].shape[1], *SIZE_HW)
    images = np.empty(shape, np.float32 if dtype == torch.float32 else np.int16)
    for image, *sample in zip(images, *samples, strict=True):
        renderer_of(dtype, light=False)[0](image, *sample)
    return images


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dali_runs_the_compiled_function_as_it_is(dtype):
    augment = AugmentConfig(**EVERYTHING)
    samples = make_samples("uint8", augment)
    assert np.array_equal(run(samples, augment, dtype=dtype), compiled(samples, dtype))


def assert_operators_agree(samples, augment, **options):
    """Whose noise is left out: DALI has its own."""
    volumes, slices, matrices, sampled, keys = samples
    silent = sampled.copy()
    silent[:, pixel_params.NOISE] = 0
    samples = volumes, slices, matrices, silent, keys
    images = run(samples, augment, draw="gpu", **options)
    expected = compiled(samples)
    assert images.shape == expected.shape
    assert not images[samples[1] == NO_SLICE].any()
    # Both interpolate linearly in float32; a place differs by 1e-4 pixels at most, and from one
    # pixel of these volumes to the next it is 2 at most.
    assert images == pytest.approx(expected, abs=1e-3)
    assert images.std() > 0.1


@pytest.mark.parametrize("step", sorted(STEPS.keys() - {"noise"}))
def test_each_operator_on_the_cpu_does_what_the_compiled_step_does(step):
    augment = GEOMETRY.model_copy(update=STEPS[step] | {"probability": 0.7})
    samples = make_samples("uint8", augment)
    plain = GEOMETRY.model_copy(update={"probability": 0.7})
    assert not np.array_equal(compiled(samples), compiled(make_samples("uint8", plain)))
    assert_operators_agree(samples, augment)


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_all_operators_in_their_order_do_what_the_compiled_function_does(dtype):
    augment = GEOMETRY.model_copy(update=EVERYTHING | {"probability": 0.8})
    assert_operators_agree(make_samples(dtype, augment, seed=5), augment)


def test_noise_of_the_operators_is_normal_and_a_function_of_the_keys():
    augment = GEOMETRY.model_copy(update=STEPS["noise"])
    samples = make_samples("uint8", augment)
    *others, keys = samples
    config = config_of(samples, augment, draw="gpu")
    pipeline = build_pipeline(lambda info: samples, config)
    # Steps of the same keys, one after the other, and a pipeline that starts anew.
    first, second = (pipeline.run()[0].as_array().copy() for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(first, run(samples, augment, draw="gpu"))
    assert not np.array_equal(first, run((*others, keys + 1), augment, draw="gpu"))
    silent = others[3].copy()
    silent[:, pixel_params.NOISE] = 0
    noise = first - compiled((*others[:3], silent, keys))
    for of_view, slices, sigma in zip(
        noise, samples[1], others[3][:, pixel_params.NOISE].tolist(), strict=True
    ):
        there = of_view[slices != NO_SLICE]
        assert there.mean() == pytest.approx(0, abs=5 * sigma / there.size**0.5 + 1e-3)
        assert there.std() == pytest.approx(sigma, rel=0.1)
        assert not of_view[slices == NO_SLICE].any()
    # No view has the noise of another.
    views = noise[samples[1].min(axis=1) >= 0].reshape(-1, 5 * CROP.height * CROP.width)
    alike = np.corrcoef(views) - np.eye(len(views))
    assert len(views) > 2
    assert np.abs(alike).max() < 0.06


@pytest.fixture
def defined(monkeypatch):
    """Return a function that returns the operators of a pipeline for a GPU; it needs none."""

    def define(augment, *, picked=False):
        graphs = []

        def build(pipe):
            pipe._build_graph()
            graphs.append(pipe)

        monkeypatch.setattr(Pipeline, "build", build)
        samples = make_samples("uint8", augment)
        config = config_of(samples, augment, device="gpu", draw="gpu")
        build_pipeline(lambda info: samples, replace(config, picked=picked))
        return [op for op in graphs[0]._ops if op.outputs[0].device == "gpu"]

    return define


def kind(operator):
    return operator.name.strip("_").split("_")[0]


def test_the_default_augmentation_goes_over_the_pixels_of_a_gpu_eight_times_at_most(defined):
    """Each operator is a pass; a squeeze changes the shape alone. Torch copies and converts."""
    passes = [name for name in map(kind, defined(AugmentConfig())) if name != "Squeeze"]
    assert sorted(passes) == ["ArithmeticGenericOp", "BrightnessContrast", "Gaussian", "WarpAffine"]
    assert len(passes) + 2 <= 8


def test_no_operator_of_a_gpu_reads_what_the_host_may_have_changed(defined):
    assert "Erase" not in map(kind, defined(AugmentConfig(cutout=0.5)))


def test_dali_copies_slices_that_lie_on_a_gpu_behind_the_kernels_that_gather_them(defined):
    """Without the copy it records no event, and reads memory that is not written yet."""
    (source,) = [op for op in defined(AugmentConfig(), picked=True) if kind(op) == "ExternalSource"]
    assert "no_copy: False" in str(source.spec)
    assert source._group.use_copy_kernel is True


CUFFT, NPP = (
    "nvidia-dali-cuda120 is no longer shipped with CUDA runtime. "
    f"You need to install it separately. {library} is typically provided with CUDA Toolkit "
    "installation or an appropriate wheel."
    for library in ("cuFFT", "NPP")
)


def test_of_dalis_warnings_only_those_of_absent_libraries_are_silent(monkeypatch, recwarn):
    def build(pipe):
        for message in (CUFFT, NPP, "GPU is not available. Only CPU operators are available."):
            warnings.warn(message, Warning, stacklevel=1)

    monkeypatch.setattr(Pipeline, "build", build)
    warnings.simplefilter("always")
    samples = make_samples("uint8", GEOMETRY)
    build_pipeline(lambda info: samples, config_of(samples, GEOMETRY))
    assert [str(w.message) for w in recwarn] == [
        "GPU is not available. Only CPU operators are available."
    ]
    assert all(re.match(ABSENT_LIBRARIES[n], text) for n, text in enumerate((CUFFT, NPP)))
    # The texts of the installed DALI.
    source = Path(backend.__file__).read_text()
    texts = "".join(re.findall(r'"([^"\n]*)"\n', source))
    assert texts.count("is no longer shipped with CUDA runtime.") == 2
    assert (
        texts.count("cuFFT is typically provided") == texts.count("NPP is typically provided") == 1
    )


def test_a_step_may_have_any_number_of_slices():
    volumes, slices, *rest = make_samples("uint8", GEOMETRY)
    deeper = np.pad(slices, ((0, 0), (0, 4)), constant_values=NO_SLICE)
    for draw in ("cpu", "gpu"):
        images = run((volumes, deeper, *rest), draw=draw)
        assert images.shape == (SAMPLES, 9, *SIZE_HW)
        assert not images[:, 5:].any()
        assert images[:, :5] == pytest.approx(compiled((volumes, slices, *rest)), abs=1e-3)


def test_slices_that_were_picked_before_are_rendered_alike():
    volumes, slices, *rest = make_samples("uint8", GEOMETRY)
    picked = [
        volume[np.maximum(of_view, 0)][..., None]
        for volume, of_view in zip(volumes, slices, strict=True)
    ]
    config = config_of((volumes, slices, *rest), GEOMETRY, draw="gpu")
    pipeline = build_pipeline(lambda info: (picked, slices, *rest), replace(config, picked=True))
    images = pipeline.run()[0].as_array()
    assert images == pytest.approx(compiled((volumes, slices, *rest)), abs=1e-3)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_operators_on_a_gpu_do_what_the_compiled_function_does(dtype):
    augment = GEOMETRY.model_copy(update=EVERYTHING | {"probability": 0.8})
    assert_operators_agree(make_samples(dtype, augment), augment, device="gpu")
