"""Wrong pixels of a reader are found, right ones pass: on the CPU, by both ways of rendering."""

import numpy as np
import pytest
import torch

from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.pixel_params import GAMMA, OFFSET
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.reader.reader import Reader
from lumbar.train.reader.verify_pixels import PIXEL, WrongPixelsError, _render, check_pixels

CPU = torch.device("cpu")
CROP = CropConfig(slices=6, height=48, width=40, pixel_mm=3.0)


@pytest.fixture
def read(spine, uncompiled_reader):
    """Return a function that gives a step's images and numbers, rendered by the compiled pass."""

    def images(augment, dtype=torch.float32):
        plan = Plan(Samples.of_series(spine, range(9)), CROP, augment, batch=9, shuffle=True)
        seen = []
        with (
            pytest.MonkeyPatch.context() as patch,
            Reader(spine, plan, device=CPU, dtype=dtype, verified_steps=1) as reader,
        ):
            patch.setattr(
                "lumbar.train.reader.reader.check_pixels",
                lambda images, step, **_: seen.append((images.clone(), step)),
            )
            next(reader.epoch())
        return seen[0]

    return images


NOISY = AugmentConfig(noise=0.05, cutout=0.5)
SILENT = AugmentConfig(noise=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_the_compiled_pass_drew_passes_to_the_bit(read, dtype):
    images, step = read(NOISY, dtype)
    check_pixels(images, step, augment=NOISY, draw="cpu")
    images[0, 2, 3, 4] *= 1 + 2.0**-8 if dtype == torch.float32 else 1.25
    with pytest.raises(WrongPixelsError, match=r"view 0 .*other bits"):
        check_pixels(images, step, augment=NOISY, draw="cpu")


def test_views_that_changed_places_are_found(read):
    images, step = read(SILENT)
    swapped = images[[1, 0, *range(2, 9)]]
    for draw in ("cpu", "gpu"):
        with pytest.raises(WrongPixelsError, match="view 0"):
            check_pixels(swapped, step, augment=SILENT, draw=draw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_differs_by_rounding_passes_for_operators(read, dtype):
    images, step = read(SILENT)
    rng = torch.Generator().manual_seed(1)
    near = images + 1e-3 * (torch.rand(images.shape, generator=rng) - 0.5)
    check_pixels(near.to(dtype), step, augment=SILENT, draw="gpu")


@pytest.mark.parametrize("step_on", ["gamma", "bias_field"])
def test_rounding_that_gamma_or_a_bias_field_enlarges_passes(read, step_on):
    strong = AugmentConfig(noise=0.0, probability=1.0, **{step_on: 4.0})
    _, step = read(strong)
    if step_on == "gamma":
        # A power below 1 is steepest at 0, to which the middle of the values is brought.
        step.numbers[:, [GAMMA, OFFSET]] = [0.2, -0.5]
    like = torch.empty(CROP.slices, CROP.height, CROP.width)

    def draw_at(shift):
        matrices = step.matrices + np.float32([[0, 0, shift], [0, 0, -shift]])
        pairs = enumerate(zip(matrices, step.numbers, strict=True))
        return torch.stack([_render(step, view, like, strong, pair) for view, pair in pairs])

    near = draw_at(5e-5)
    assert (near - draw_at(0.0)).abs().max() > 2 * PIXEL
    check_pixels(near, step, augment=strong, draw="gpu")
    with pytest.raises(WrongPixelsError, match="view 0"):
        check_pixels(near[[1, 0, *range(2, 9)]], step, augment=strong, draw="gpu")


def test_a_single_stale_pixel_is_found(read):
    images, step = read(SILENT)
    images[-1, 0, 5, 6] += 0.02
    with pytest.raises(WrongPixelsError, match=r"view 8 .*a pixel off by 0\.02"):
        check_pixels(images, step, augment=SILENT, draw="gpu")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda noise: noise * 1.5, "noise of"),
        (lambda noise: noise + 0.2, "noise of"),
        (lambda noise: noise * 0, "noise of"),
        (lambda noise: noise.where(noise < noise.amax(), 20.0), "a pixel off"),
    ],
)
def test_noise_of_another_mean_or_spread_is_found_and_the_plans_own_is_not(read, spoil, found):
    _, step = read(NOISY)
    silent, _ = read(NOISY.model_copy(update={"noise": 0.0}))
    sigma = torch.from_numpy(step.numbers[:, 11]).view(-1, 1, 1, 1)
    rng = torch.Generator().manual_seed(2)
    there = torch.from_numpy(step.slices >= 0)[:, :, None, None] * (silent != 0)
    noise = torch.randn(silent.shape, generator=rng) * there
    check_pixels(silent + noise * sigma, step, augment=NOISY, draw="gpu")
    with pytest.raises(WrongPixelsError, match=found):
        check_pixels(silent + spoil(noise) * sigma * there, step, augment=NOISY, draw="gpu")


def test_a_nan_is_found(read):
    images, step = read(SILENT)
    images[0, 0, 0, 0] = np.nan
    for draw in ("cpu", "gpu"):
        with pytest.raises(WrongPixelsError, match="view 0"):
            check_pixels(images, step, augment=SILENT, draw=draw)
