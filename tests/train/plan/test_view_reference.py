"""The views that are computed as arrays are those of a plain computation, one number at a time.

It is written from the pages "The reader" and "Augmentation", with 3 x 3 matrices and Python's own
numbers, and shares nothing with the package but the order in which uniform numbers are taken.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.cache.names import SERIES_TYPES
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.random_numbers import UniformNumbers
from lumbar.train.plan.view import N_UNIFORM, sample_views

N, SLOTS = 7, 3
TAKEN = (
    "within",
    *("angle", "shear", "zoom", "shift_w", "shift_h", "place_w", "place_h"),
    *("contrast", "brightness", "noise", "key_0", "key_1", "gamma"),
    *("bias_0", "bias_1", "bias_2", "bias_3", "bias_4", "blur", "coarser"),
    *("length_d", "start_d", "length_h", "start_h", "length_w", "start_w"),
    *("bends", "fades", "blurs", "coarsens", "cuts"),
)
"""The uniform numbers of a view in the order in which they are taken."""


def signed(u):
    return 2 * u - 1


def slices_of(samples, place, crop, u, *, shuffle):
    """The slices that are there, before any is left out."""
    if samples.row[place] == -1:
        return []
    depth = int(samples.shape[place][0])
    if crop.pick == "all":
        return list(range(depth))
    wanted = crop.slices
    within = u["within"] if shuffle else 0.5
    start, stop = map(int, samples.stack[place])
    centre = float(samples.centre_dhw[place][0])
    if not math.isnan(centre):
        first = round(centre - start - (wanted - 1) / 2)
    elif crop.pick == "window":
        start, stop = 0, depth
        first = round(within * (max(depth - wanted, 0) + 1) - 0.5)
    else:
        if depth <= wanted:
            return list(range(depth))
        return [min(math.floor((i + within) * depth / wanted), depth - 1) for i in range(wanted)]
    first = start + min(max(first, 0), max(stop - start - wanted, 0))
    return list(range(first, min(first + wanted, stop)))


def thinned_out(slices, chances, probability):
    if not slices or probability == 0:
        return slices
    best = max(chances[: len(slices)])
    pairs = zip(slices, chances, strict=False)
    return [d for d, chance in pairs if chance >= probability or chance == best]


def moved(w, h):
    return np.array([[1, 0, w], [0, 1, h], [0, 0, 1]])


def stretched(w, h):
    return np.diag([w, h, 1.0])


def matrix_of(samples, place, crop, augment, u, pixel_mm):
    """Output to source: to the middle, to millimetres, slanted, turned, to pixels, to the place."""
    _, height, width = map(int, samples.shape[place])
    spacing_h, spacing_w = map(float, samples.spacing_mm[place])
    _, h, w = map(float, samples.centre_dhw[place])
    if math.isnan(h):
        h, w = (height - 1) / 2, (width - 1) / 2
        if crop.centre == "random":
            h += max(height - crop.height * pixel_mm / spacing_h, 0) * (u["place_h"] - 0.5)
            w += max(width - crop.width * pixel_mm / spacing_w, 0) * (u["place_w"] - 0.5)
    angle = math.radians(signed(u["angle"]) * augment.rotation_degrees)
    slant = math.tan(math.radians(signed(u["shear"]) * augment.shear_degrees))
    zoom = (1 + augment.scale) ** signed(u["zoom"]) * pixel_mm
    turn = np.array(
        [
            [math.cos(angle), -math.sin(angle), 0],
            [math.sin(angle), math.cos(angle), 0],
            [0, 0, 1],
        ]
    )
    shift = moved(signed(u["shift_w"]) * augment.shift_mm, signed(u["shift_h"]) * augment.shift_mm)
    return (
        moved(w, h)
        @ stretched(1 / spacing_w, 1 / spacing_h)
        @ shift
        @ turn
        @ np.array([[1, slant, 0], [0, 1, 0], [0, 0, 1]])
        @ stretched(zoom, zoom)
        @ moved(-(crop.width - 1) / 2, -(crop.height - 1) / 2)
    )


def numbers_of(samples, place, crop, augment, u, pixel_mm):
    """The 18 numbers of a view by itself, whatever batch it comes in."""
    grid = [crop.height, crop.width]
    if u["coarsens"] < augment.probability:
        coarser = 1 + u["coarser"] * augment.low_resolution
        grid = [max(round(size / coarser), 1) for size in grid]
    depth = crop.slices
    if crop.pick == "all" and samples.row[place] != -1:
        depth = math.ceil(int(samples.shape[place][0]) / crop.slices) * crop.slices
    box = [0] * 6
    if u["cuts"] < augment.probability:
        for axis, (name, size) in enumerate(zip("dhw", (depth, *crop_hw(crop)), strict=True)):
            length = round(u[f"length_{name}"] * augment.cutout * size)
            box[axis] = math.floor(u[f"start_{name}"] * (size - length + 1))
            box[axis + 3] = box[axis] + length
    fades = u["fades"] < augment.probability
    return [
        1 + signed(u["contrast"]) * augment.contrast,
        signed(u["brightness"]) * augment.brightness,
        *grid,
        u["blur"] * augment.blur_mm / pixel_mm if u["blurs"] < augment.probability else 0,
        *(signed(u[f"bias_{k}"]) * augment.bias_field if fades else 0 for k in range(5)),
        (1 + augment.gamma) ** signed(u["gamma"]) if u["bends"] < augment.probability else 1,
        u["noise"] * augment.noise,
        *box,
    ]


def crop_hw(crop):
    return crop.height, crop.width


def expected_view(samples, place, crop, augment, u, chances, mirrors, *, shuffle):
    """Return (row, slices, positions, matrix, numbers, key) of one series of one sample."""
    index, _ = place
    pixel_mm = crop.pixel_mm_for(SERIES_TYPES[samples.series_type[place]])
    slices = slices_of(samples, place, crop, u, shuffle=shuffle)
    slices = thinned_out(slices, chances, augment.slice_dropout)
    positions = [(d + 0.5) / int(samples.shape[place][0]) for d in slices]
    matrix = matrix_of(samples, place, crop, augment, u, pixel_mm)
    numbers = numbers_of(samples, place, crop, augment, u, pixel_mm)
    height, width = crop_hw(crop)
    for patient in mirrors:
        axis = int(samples.patient_axes[place][patient])
        if axis == 0:
            slices, positions = slices[::-1], [1 - p for p in positions[::-1]]
        elif axis == 1:
            matrix = matrix @ moved(0, height - 1) @ stretched(1, -1)
        else:
            matrix = matrix @ moved(width - 1, 0) @ stretched(-1, 1)
    rows, columns = numbers[2:4]
    # Pixel i of the grid lies at (i + 0.5) * size / grid - 0.5 of the output.
    matrix = matrix @ moved(-0.5, -0.5) @ stretched(width / columns, height / rows)
    matrix = matrix @ moved(0.5, 0.5)
    row = int(samples.row[place])
    row = row if row != -1 else max(map(int, samples.row[index]))
    key = [int(u["key_0"] * 2**32), int(u["key_1"] * 2**32)]
    return row, slices, positions, matrix[:2], numbers, key


@pytest.fixture(scope="module")
def studies(make_samples):
    """Studies with series that are absent, shallow or deep; some lie around a place of a stack."""
    rng = np.random.default_rng(9)
    samples = make_samples(N, SLOTS, absent=0.3, depths=(2, 40))
    placed = rng.random((N, SLOTS, 1)) < 0.4
    depth = samples.shape[..., 0]
    start = rng.integers(0, np.maximum(depth - 1, 1))
    stop = rng.integers(start + 1, depth + 1)
    d = rng.uniform(start - 0.5, stop - 0.5)
    hw = rng.uniform(0, samples.shape[..., 1:] - 1)
    return replace(
        samples,
        centre_dhw=np.where(placed, np.concatenate([d[..., None], hw], axis=2), np.nan),
        stack=np.where(placed, np.stack([start, stop], axis=2), samples.stack),
    )


def strengths(**most):
    sampled = {name: st.just(0.0) | st.floats(0.01, high) for name, high in most.items()}
    return st.builds(AugmentConfig, **sampled)


AUGMENTS = strengths(
    rotation_degrees=180,
    scale=0.9,
    shear_degrees=45,
    shift_mm=50,
    brightness=1,
    contrast=0.9,
    noise=1,
    gamma=2,
    bias_field=1,
    blur_mm=9,
    low_resolution=15,
    cutout=1,
    probability=1,
    slice_dropout=0.95,
)
CROPS = st.builds(
    CropConfig,
    slices=st.integers(1, 12),
    pick=st.sampled_from(["spread", "window", "all"]),
    height=st.integers(16, 300),
    width=st.integers(16, 300),
    pixel_mm=st.floats(0.2, 3),
    pixel_mm_of=st.sampled_from([{}, {"axial_t2": 0.4}]),
    centre=st.sampled_from(["image", "random"]),
)


@settings(max_examples=150)
@given(
    crop=CROPS,
    augment=AUGMENTS,
    seed=st.integers(0, 2**32 - 1),
    shuffle=st.booleans(),
    chosen=st.lists(st.integers(0, N - 1), min_size=1, max_size=5),
)
def test_arrays_are_computed_as_one_view_after_the_other(
    studies, crop, augment, seed, shuffle, chosen
):
    rng = np.random.default_rng(seed)
    uniform = rng.random((N_UNIFORM, len(chosen) * SLOTS))
    chances = rng.random((len(chosen) * SLOTS, 60))
    mirrors = rng.random((len(chosen), 3)) < 0.5
    views = sample_views(
        studies,
        np.array(chosen),
        crop,
        augment,
        mirrors=mirrors,
        uniform=UniformNumbers(uniform),
        left_out=chances if augment.slice_dropout > 0 else None,
        shuffle=shuffle,
    )
    assert len(views) == len(chosen) * SLOTS
    for number, view in enumerate(views):
        sample, slot = divmod(number, SLOTS)
        u = dict(zip(TAKEN, uniform[:, number].tolist(), strict=True))
        row, slices, positions, matrix, numbers, key = expected_view(
            studies,
            (chosen[sample], slot),
            crop,
            augment,
            u,
            chances[number].tolist(),
            np.flatnonzero(mirrors[sample]),
            shuffle=shuffle,
        )
        filling = len(view.slices) - len(slices)
        assert view.row == row
        assert view.slices.tolist() == [*slices, *[-1] * filling]
        assert view.position == pytest.approx([*positions, *[0.0] * filling], abs=1e-6)
        assert view.matrix == pytest.approx(matrix, rel=1e-5, abs=1e-3)
        assert view.numbers == pytest.approx(numbers, rel=1e-12, abs=1e-12)
        assert view.key.tolist() == key
        assert view.slices.dtype == np.int32
        assert view.matrix.dtype == view.position.dtype == np.float32
