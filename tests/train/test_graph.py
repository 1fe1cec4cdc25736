import numpy as np
import pytest
import torch

from lumbar.train.graph import build_pipeline
from lumbar.train.plan import NO_SLICE, AugmentConfig, CropConfig, draw_matrix
from lumbar.train.warp import warp_slices

CROP = CropConfig(slices=5, height=48, width=40, pixel_mm=1.0)
LOUD = 3
"""The sample that has noise."""

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")


def samples_of(dtype):
    """Return volumes, slices, matrices and numbers: shallow, magnified, over edges, with noise."""
    rng = np.random.default_rng(8)
    limits = np.iinfo(dtype)
    volumes, slices, matrices, numbers = [], [], [], []
    augment = AugmentConfig(rotation_degrees=25, scale=0.3, shift_mm=12)
    for sample, (depth, height, width) in enumerate(
        [(9, 64, 56), (3, 30, 33), (5, 96, 40), (7, 50, 50)]
    ):
        shape = (depth, height, width)
        volumes.append(rng.integers(limits.min, limits.max, shape, dtype, endpoint=True))
        picked = np.full(5, NO_SLICE, np.int32)
        picked[: min(depth, 5)] = np.sort(rng.permutation(depth)[:5])
        slices.append(picked)
        spacing_mm = rng.uniform(0.5, 1.5, 2)
        matrices.append(draw_matrix(CROP, augment, (height, width), spacing_mm, rng))
        noise = 0.5 if sample == LOUD else 0.0
        numbers.append(np.array([1 / limits.max, 0.1 * sample, noise, 1000 + sample], np.float32))
    return dtype, (volumes, slices, matrices, numbers)


def run(samples, *, device="cpu", fused=None):
    dtype, inputs = samples
    pipeline = build_pipeline(
        lambda info: inputs,
        stored_dtype=dtype,
        crop=CROP,
        device=device,
        device_id=0,
        batch=4,
        threads=2,
        prefetch=1,
        seed=0,
        fused=fused,
    )
    (images,) = pipeline.run()
    return images.as_cpu().as_array()


def passed(inputs, sample):
    image = np.empty((CROP.slices, CROP.height, CROP.width), np.float32)
    warp_slices(image, *(values[sample] for values in inputs))
    return image


def assert_operators_agree(images, inputs):
    assert images.shape == (4, CROP.slices, CROP.height, CROP.width)
    for sample, image in enumerate(images):
        expected = passed(inputs, sample)
        absent = inputs[1][sample] == NO_SLICE
        assert not image[absent].any()
        if sample == LOUD:
            # The generators differ, so only the amount of noise can agree: 9,600 values.
            difference = (image - expected)[~absent]
            assert difference.std() == pytest.approx(0.5 * np.sqrt(2), rel=0.05)
            assert abs(difference.mean()) < 0.03
        else:
            # Both interpolate linearly in float32; a place differs by 1e-4 pixels at most.
            assert image == pytest.approx(expected, abs=5e-4)


def test_dali_runs_the_compiled_pass_as_it_is():
    samples = samples_of("uint8")
    images = run(samples)
    for sample, image in enumerate(images):
        assert image == pytest.approx(passed(samples[1], sample), abs=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_operators_on_the_cpu_do_what_the_pass_does(dtype):
    samples = samples_of(dtype)
    assert_operators_agree(run(samples, fused=False), samples[1])


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_operators_on_a_gpu_do_what_the_pass_does(dtype):
    samples = samples_of(dtype)
    assert_operators_agree(run(samples, device="gpu"), samples[1])
