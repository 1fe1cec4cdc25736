import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.cache.names import CELLS, EXCHANGED_CELLS, SeriesType
from lumbar.cache.store import Cache
from lumbar.train.plan import (
    MAX_NOISE_SEED,
    NO_SLICE,
    AugmentConfig,
    CropConfig,
    Plan,
    draw_matrix,
    exchange_sides,
    pick_slices,
)
from lumbar.train.samples import SeriesSet
from lumbar.train.warp import warp_slices

CROP = CropConfig(slices=6, height=32, width=24, pixel_mm=2.0)


def make_series(n):
    rng = np.random.default_rng(n)
    return SeriesSet(
        row=np.arange(n) * 3 + 1,
        study_id=tuple(f"s{i}" for i in range(n)),
        shape=rng.integers(4, 90, (n, 3)),
        spacing_mm=rng.uniform(0.3, 2, (n, 2)),
        lateral_axis=rng.integers(0, 3, n),
        severity=rng.integers(-1, 3, (n, 25)).astype(np.int8),
    )


def contents(request):
    """Return a request as values that compare."""
    values = {name: getattr(request, name) for name in request.__slots__}
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}


def make_plan(n=11, augment=None, **options):
    options = {"batch": 3, "shuffle": True} | options
    return Plan(make_series(n), CROP, augment or AugmentConfig(side_exchange=0.5), **options)


def test_a_plan_is_a_function_of_its_arguments():
    plan = make_plan(seed=5)
    asked = [(epoch, step) for epoch in range(4) for step in range(plan.steps)]
    first = {key: [contents(r) for r in plan.requests(*key)] for key in asked}
    for again in (plan, make_plan(seed=5)):
        for i in np.random.default_rng(0).permutation(len(asked)):
            assert [contents(r) for r in again.requests(*asked[i])] == first[asked[i]]


def test_epochs_and_seeds_differ_when_shuffled():
    def order(plan, epoch):
        return [r.row for step in range(plan.steps) for r in plan.requests(epoch, step)]

    orders = [order(make_plan(40, seed=seed), epoch) for seed in range(3) for epoch in range(3)]
    assert len(set(map(tuple, orders))) == 9
    still = make_plan(40, shuffle=False)
    assert order(still, 0) == order(still, 7) == still.series.row.tolist()


@settings(max_examples=150)
@given(
    n=st.integers(1, 40),
    world=st.sampled_from([1, 2, 4, 8]),
    batch=st.integers(1, 9),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_an_epoch_has_every_series_once_over_all_ranks(n, world, batch, shuffle, epoch):
    plans = [make_plan(n, batch=batch, shuffle=shuffle, rank=r, world=world) for r in range(world)]
    assert len({plan.steps for plan in plans}) == 1
    rows = []
    for plan in plans:
        for step in range(plan.steps):
            requests = plan.requests(epoch, step)
            assert 1 <= len(requests) <= batch
            for request in requests:
                if request.filler:
                    assert len(requests) == 1
                    assert set(request.severity.tolist()) == {-1}
                else:
                    rows.append(request.row)
    assert sorted(rows) == plans[0].series.row.tolist()


def test_a_sample_is_the_same_on_whichever_rank_it_falls():
    def by_row(world, batch):
        plans = [make_plan(23, batch=batch, rank=r, world=world, seed=2) for r in range(world)]
        requests = [q for p in plans for step in range(p.steps) for q in p.requests(1, step)]
        return {q.row: contents(q) for q in requests if not q.filler}

    assert by_row(1, 5) == by_row(4, 2) == by_row(8, 1)


def test_a_filler_does_not_touch_the_series_it_borrows():
    plan = make_plan(1, rank=1, world=2)
    (filler,) = plan.requests(0, 0)
    assert filler.filler
    assert (filler.severity == -1).all()
    assert (plan.series.severity[0] != -1).any()


@given(depth=st.integers(1, 300), wanted=st.integers(1, 64), seed=st.none() | st.integers(0, 999))
def test_slices_are_sorted_and_each_is_from_its_stretch(depth, wanted, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    slices = pick_slices(depth, wanted, rng)
    if depth <= wanted:
        assert slices.tolist() == [*range(depth), *[NO_SLICE] * (wanted - depth)]
        return
    assert (np.diff(slices) >= 0).all()
    edges = np.arange(wanted + 1) * depth / wanted
    assert (slices >= np.floor(edges[:-1])).all()
    assert (slices < np.ceil(edges[1:])).all()
    assert len(set(slices.tolist())) == wanted
    if seed is None:
        assert np.abs(slices + 0.5 - (edges[:-1] + edges[1:]) / 2).max() <= 0.5


def test_jitter_reaches_every_slice():
    rng = np.random.default_rng(0)
    seen = {s for _ in range(300) for s in pick_slices(40, 8, rng).tolist()}
    assert seen == set(range(40))


def test_the_largest_random_number_stays_inside_the_stack():
    class Largest(np.random.Generator):
        def random(self):
            return np.nextafter(1.0, 0.0)

    assert pick_slices(40, 16, Largest(np.random.PCG64())).max() == 39


def to_mm(matrix, points_wh, spacing_hw):
    """Return where output pixels lie in the source, in its own millimetres."""
    return (points_wh @ matrix[:, :2].T + matrix[:, 2]) * np.array(spacing_hw)[::-1]


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)),
    source=st.tuples(st.integers(16, 512), st.integers(16, 512)),
    scale=st.floats(0, 0.5),
    rotation=st.floats(0, 180),
    shift=st.floats(0, 30),
)
def test_the_matrix_scales_turns_and_shifts_millimetres(
    seed, spacing, source, scale, rotation, shift
):
    crop = CropConfig(slices=1, height=48, width=80, pixel_mm=0.7)
    augment = AugmentConfig(rotation_degrees=rotation, scale=scale, shift_mm=shift)
    rng = np.random.default_rng(seed)
    matrix = draw_matrix(crop, augment, source, np.array(spacing), rng).astype(np.float64)
    # Three points an output millimetre apart: the centre, one to the right, one below.
    centre, step = np.array([39.5, 23.5]), 1 / crop.pixel_mm
    points = centre + np.array([[0, 0], [step, 0], [0, step]])
    middle, right, below = to_mm(matrix, points, spacing)
    right, below = right - middle, below - middle
    # Float32 holds a place of 500 pixels to 3e-5.
    near = {"abs": 1e-3}
    assert np.linalg.norm(right) == pytest.approx(np.linalg.norm(below), **near)
    assert right @ below == pytest.approx(0, **near)
    assert right[0] * below[1] - right[1] * below[0] > 0, "a matrix that mirrors"
    assert 1 / (1 + scale) - 1e-3 <= np.linalg.norm(right) <= 1 + scale + 1e-3
    assert abs(np.rad2deg(np.arctan2(right[1], right[0]))) <= rotation + 0.1
    source_centre = (np.array(source)[::-1] - 1) / 2 * np.array(spacing)[::-1]
    assert np.abs(middle - source_centre).max() <= shift + 1e-3


def test_the_draws_fill_their_ranges():
    augment = AugmentConfig(rotation_degrees=20, scale=0.3, shift_mm=10)
    crop = CropConfig(slices=1, height=33, width=33, pixel_mm=1)
    rng = np.random.default_rng(1)
    matrices = [draw_matrix(crop, augment, (65, 65), np.ones(2), rng) for _ in range(2000)]
    angles = [np.rad2deg(np.arctan2(m[1, 0], m[0, 0])) for m in matrices]
    zooms = [np.hypot(m[0, 0], m[1, 0]) for m in matrices]
    shifts = np.array([m @ (16, 16, 1) for m in matrices]) - 32
    assert (min(angles), max(angles)) == pytest.approx((-20, 20), abs=0.3)
    assert (min(zooms), max(zooms)) == pytest.approx((1 / 1.3, 1.3), abs=0.01)
    assert shifts.min(axis=0) == pytest.approx([-10, -10], abs=0.2)
    assert shifts.max(axis=0) == pytest.approx([10, 10], abs=0.2)
    assert abs(np.mean(angles)) < 1
    assert abs(np.mean(np.log(zooms))) < 0.02


def test_intensity_draws_are_within_their_bounds_and_reach_them():
    augment = AugmentConfig(brightness=0.1, contrast=0.2, noise=0.05)
    plan = make_plan(30, augment)
    requests = [r for e in range(20) for s in range(plan.steps) for r in plan.requests(e, s)]
    for name, low, high in (("gain", 0.8, 1.2), ("offset", -0.1, 0.1), ("noise", 0, 0.05)):
        values = [getattr(r, name) for r in requests]
        assert low <= min(values) < low + 0.02
        assert high - 0.02 < max(values) <= high
    seeds = [r.noise_seed for r in requests]
    assert len(set(seeds)) > len(seeds) - 3
    assert max(seeds) < MAX_NOISE_SEED
    assert all(int(np.float32(seed)) == seed for seed in seeds)
    assert not any(r.sides_exchanged for r in requests)


@given(seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_no_augmentation_changes_nothing(seed, epoch):
    plan = make_plan(7, AugmentConfig.none(), batch=7, shuffle=False, seed=seed)
    for place, request in enumerate(plan.requests(epoch, 0)):
        depth, height, width = plan.series.shape[place]
        spacing_h, spacing_w = plan.series.spacing_mm[place]
        across, down = CROP.pixel_mm / spacing_w, CROP.pixel_mm / spacing_h
        expected = [
            [across, 0, (width - 1) / 2 - across * (CROP.width - 1) / 2],
            [0, down, (height - 1) / 2 - down * (CROP.height - 1) / 2],
        ]
        assert request.matrix == pytest.approx(np.array(expected), rel=1e-5, abs=1e-4)
        assert (request.gain, request.offset, request.noise) == (1, 0, 0)
        assert not request.sides_exchanged
        assert request.severity.tolist() == plan.series.severity[place].tolist()
        assert request.slices.tolist() == pick_slices(int(depth), CROP.slices, None).tolist()


def test_position_is_the_place_of_the_slice_in_its_stack():
    plan = make_plan(12, AugmentConfig(), batch=12, shuffle=False)
    for place, request in enumerate(plan.requests(0, 0)):
        depth = plan.series.shape[place, 0]
        for slice_, position in zip(request.slices, request.position, strict=True):
            assert position == pytest.approx((slice_ + 0.5) / depth if slice_ >= 0 else 0)


# The exchange of sides, on volumes whose voxels say where in the patient they lie.

VOXELS_PER_MM = 50
AFFINES = {
    "sagittal": [[3.0, 0, 0, -20], [0, 0, 0.7, -15], [0, -0.9, 0, 20], [0, 0, 0, 1]],
    "axial": [[0, 0, 0.7, -12], [0, 0.9, 0, -18], [-3.0, 0, 0, 30], [0, 0, 0, 1]],
    "axial from the left": [[0, 0, -0.7, 14], [0, 0.9, 0, -18], [-3.0, 0, 0, 30], [0, 0, 0, 1]],
    "lateral rows": [[0, 0.9, 0, -19], [0, 0, 0.7, -15], [3.0, 0, 0, 30], [0, 0, 0, 1]],
}


@pytest.fixture(scope="module")
def patients(tmp_path_factory, write_cache):
    """A cache of one volume an orientation, deep and shallow: each voxel holds its x."""
    rng = np.random.default_rng(3)
    volumes, labels = [], {}
    for name, affine in AFFINES.items():
        for depth in (4, 15):
            shape = (depth, 60, 64)
            x_mm = np.einsum("k,kdhw->dhw", np.array(affine)[0, :3], np.indices(shape))
            volume = np.rint((x_mm + affine[0][3]) * VOXELS_PER_MM).astype(np.int16)
            study_id = f"{name.replace(' ', '-')}-{depth}"
            volumes.append((study_id, "1", SeriesType.OTHER, volume, np.array(affine, float)))
            labels[study_id] = rng.integers(-1, 3, 25)
    folder = tmp_path_factory.mktemp("patients") / "cache"
    return Cache(write_cache(folder, volumes, labels, scale=1 / VOXELS_PER_MM))


def read_mm(cache, request, crop):
    image = np.empty((crop.slices, crop.height, crop.width), np.float32)
    numbers = np.array([1 / VOXELS_PER_MM, 0, 0, 0], np.float32)
    warp_slices(image, cache.volume(request.row), request.slices, request.matrix, numbers)
    return image


def with_and_without(cache, crop, augment, seed, *, shuffle):
    series = SeriesSet.from_cache(cache, range(len(AFFINES) * 2))
    plans = [
        Plan(
            series,
            crop,
            augment.model_copy(update={"side_exchange": p}),
            batch=len(series),
            shuffle=shuffle,
            seed=seed,
        )
        for p in (0.0, 1.0)
    ]
    pairs = zip(*(plan.requests(0, 0) for plan in plans), strict=True)
    places = {int(row): place for place, row in enumerate(series.row)}
    return series, [(places[plain.row], plain, exchanged) for plain, exchanged in pairs]


MIRRORED_CELLS = [
    CELLS.index(cell.replace("left", "?").replace("right", "left").replace("?", "right"))
    for cell in CELLS
]


def test_exchanged_cells_swap_the_names_left_and_right():
    assert list(EXCHANGED_CELLS) == MIRRORED_CELLS


@pytest.mark.parametrize("seed", range(4))
def test_an_exchange_of_sides_is_the_mirror_of_the_image_and_of_the_grades(patients, seed):
    crop = CropConfig(slices=6, height=20, width=18, pixel_mm=1.0)
    augment = AugmentConfig(rotation_degrees=10, scale=0.1, shift_mm=3)
    series, pairs = with_and_without(patients, crop, augment, seed, shuffle=True)
    for place, plain, exchanged in pairs:
        assert (plain.sides_exchanged, exchanged.sides_exchanged) == (False, True)
        axis = series.lateral_axis[place]
        depth = int((plain.slices >= 0).sum())
        before = read_mm(patients, plain, crop)[:depth]
        after = read_mm(patients, exchanged, crop)[:depth]
        assert after == pytest.approx(np.flip(before, axis), abs=0.02)
        assert np.abs(after - before).max() > 1
        assert exchanged.severity.tolist() == plain.severity[MIRRORED_CELLS].tolist()


def test_without_distortion_the_exchange_negates_x_about_the_middle(patients):
    crop = CropConfig(slices=6, height=20, width=18, pixel_mm=1.0)
    _, pairs = with_and_without(patients, crop, AugmentConfig.none(), 0, shuffle=False)
    for _, plain, exchanged in pairs:
        attributes = patients.attributes(plain.row)
        middle = attributes.affine @ [(attributes.depth - 1) / 2, 29.5, 31.5, 1]
        here = plain.slices >= 0
        x_mm = read_mm(patients, plain, crop)[here]
        mirrored_mm = read_mm(patients, exchanged, crop)[here]
        assert mirrored_mm == pytest.approx(2 * middle[0] - x_mm, abs=0.03)


def test_an_exchange_moves_positions_with_the_slices(patients):
    crop = CropConfig(slices=6, height=20, width=18, pixel_mm=1.0)
    series, pairs = with_and_without(patients, crop, AugmentConfig(), 1, shuffle=True)
    for place, plain, exchanged in pairs:
        here = plain.slices >= 0
        assert (exchanged.slices >= 0).tolist() == here.tolist()
        if series.lateral_axis[place] != 0:
            assert exchanged.position.tolist() == plain.position.tolist()
            assert exchanged.slices.tolist() == plain.slices.tolist()
            continue
        depth = series.shape[place, 0]
        # A slice at index s of the stack lies at index depth - 1 - s of the mirrored one.
        mirrored = (depth - 1 - exchanged.slices[here] + 0.5) / depth
        assert exchanged.position[here] == pytest.approx(mirrored, abs=1e-6)
        assert (np.diff(exchanged.position[here]) >= 0).all()
        assert not exchanged.position[~here].any()


@given(seed=st.integers(0, 500), axis=st.integers(0, 2))
def test_two_exchanges_are_none(seed, axis):
    plan = make_plan(9, AugmentConfig(), batch=9, seed=seed)
    for request in plan.requests(0, 0):
        once = exchange_sides(request, axis, CROP)
        twice = exchange_sides(once, axis, CROP)
        assert contents(once) != contents(request)
        assert twice.matrix == pytest.approx(request.matrix, abs=1e-3)
        assert twice.position == pytest.approx(request.position, abs=1e-6)
        assert twice.slices.tolist() == request.slices.tolist()
        assert twice.severity.tolist() == request.severity.tolist()
        assert not twice.sides_exchanged


def test_an_exchange_leaves_its_request_as_it_was():
    (request, *_) = make_plan(5, AugmentConfig(), batch=5).requests(0, 0)
    before = contents(request)
    for axis in range(3):
        exchange_sides(request, axis, CROP)
    assert contents(request) == before


def test_the_probability_of_an_exchange_is_kept():
    plan = make_plan(50, AugmentConfig(side_exchange=0.3))
    requests = [r for e in range(40) for s in range(plan.steps) for r in plan.requests(e, s)]
    assert np.mean([r.sides_exchanged for r in requests]) == pytest.approx(0.3, abs=0.03)
