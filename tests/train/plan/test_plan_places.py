"""Where in the patient lie the pixels of a plan: sides, mirrors and the middles of discs.

The volumes hold where each voxel lies in the patient; the plan's views are rendered with scipy.
"""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbar.cache.names import CELLS, EXCHANGED_CELLS, LEVELS, SeriesType
from lumbar.cache.store import Cache
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import ABSENT, Samples

T1, T2, AXIAL = SeriesType.SAGITTAL_T1, SeriesType.SAGITTAL_T2, SeriesType.AXIAL_T2
VOXELS_PER_MM = 50
HEIGHT, WIDTH = 60, 64


def turned(affine, about_z, about_y):
    """Return an affine turned about the patient's z and y axes, by degrees."""
    (a, b), turn = np.deg2rad((about_z, about_y)), np.eye(4)
    one = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    other = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turn[:3, :3] = one @ other
    return turn @ np.array(affine)


SAGITTAL = [[3.0, 0, 0, -20], [0, 0, 0.7, -15], [0, -0.9, 0, 20], [0, 0, 0, 1]]
AXIAL_ROWS = [[0, 0, 0.7, -12], [0, 0.9, 0, -18], [-3.0, 0, 0, 30], [0, 0, 0, 1]]
UPRIGHT = {
    "sagittal": SAGITTAL,
    "sagittal reversed": [[-3.0, 0, 0, 25], [0, 0, 0.7, -15], [0, -0.9, 0, 20], [0, 0, 0, 1]],
    "axial": AXIAL_ROWS,
    "axial from the left": [[0, 0, -0.7, 14], [0, 0.9, 0, -18], [-3.0, 0, 0, 30], [0, 0, 0, 1]],
    "lateral rows": [[0, 0.9, 0, -19], [0, 0, 0.7, -15], [3.0, 0, 0, 30], [0, 0, 0, 1]],
    "coronal": [[0, 0, 0.7, -20], [3.0, 0, 0, -9], [0, -0.9, 0, 40], [0, 0, 0, 1]],
}
AFFINES = UPRIGHT | {
    "oblique sagittal": turned(SAGITTAL, 20, 12),
    "oblique axial": turned(AXIAL_ROWS, -15, 25),
}
RUNS = {
    "sagittal": ((0, 1), (2, 1), (1, -1)),
    "sagittal reversed": ((0, -1), (2, 1), (1, -1)),
    "axial": ((2, 1), (1, 1), (0, -1)),
    "axial from the left": ((2, -1), (1, 1), (0, -1)),
    "lateral rows": ((1, 1), (2, 1), (0, 1)),
    "coronal": ((2, 1), (0, 1), (1, -1)),
    "oblique sagittal": ((0, 1), (2, 1), (1, -1)),
    "oblique axial": ((2, 1), (1, 1), (0, -1)),
}
"""The array axis along which x, y and z grow (1) or fall (-1), read off the affines by eye."""

MIRRORED_CELLS = [
    CELLS.index(cell.replace("left", "?").replace("right", "left").replace("?", "right"))
    for cell in CELLS
]
MIRRORS = ("side_exchange", "mirror_front_back", "mirror_head_foot")
DISTORTED = {"rotation_degrees": 10, "scale": 0.1, "shear_degrees": 4, "shift_mm": 3}


@pytest.fixture(scope="module")
def patients(tmp_path_factory, write_cache):
    """Eight studies of series in all orientations, deep and shallow, with points; voxels hold x.

    Every other study lacks the sagittal T2 and has two axial series.
    """
    rng = np.random.default_rng(3)
    names = list(AFFINES)
    volumes, labels, points = [], {}, []
    for number in range(len(names)):
        study_id = f"p{number}"
        labels[study_id] = rng.integers(-1, 3, 25)
        kinds = [(T1, 15, 0), (AXIAL, 9, 3), (AXIAL, 12, 5) if number % 2 else (T2, 4, 1)]
        for series_type, depth, further in kinds:
            name = names[(number + further) % len(names)]
            affine = np.array(AFFINES[name], float)
            shape = (depth, HEIGHT, WIDTH)
            x_mm = places_mm(affine, shape)[0]
            series_id = f"{depth}-{name.replace(' ', '_')}"
            pixels = np.rint(x_mm * VOXELS_PER_MM).astype(np.int16)
            volumes.append((study_id, series_id, series_type, pixels, affine))
            points += [
                {
                    "study_id": study_id,
                    "series_id": series_id,
                    "condition": "spinal_canal_stenosis",
                    "level": level,
                    "instance_number": 1,
                    **dict.fromkeys(("x", "y", "x_mm", "y_mm", "z_mm"), 40.0),
                    **dict(zip("dhw", rng.uniform((0, 22, 20), (depth - 1, 38, 44)), strict=True)),
                }
                for level in ("l2_l3", "l5_s1")
                for _ in range(2)
            ]
    folder = tmp_path_factory.mktemp("patients") / "cache"
    cache = Cache(write_cache(folder, volumes, labels, scale=1 / VOXELS_PER_MM, points=points))
    rows = range(cache.series.height)
    affines = [cache.attributes(row).affine for row in rows]
    return SimpleNamespace(
        cache=cache,
        name=[sid.partition("-")[2].replace("_", " ") for sid in cache.series["series_id"]],
        affine=affines,
        # x is what the cache holds.
        places=[
            (
                cache.volume(row) / VOXELS_PER_MM,
                *places_mm(affines[row], cache.volume(row).shape)[1:],
            )
            for row in rows
        ],
        samples={
            "series": Samples.of_series(cache, rows),
            "discs": Samples.of_discs(cache, rows),
            "studies": Samples.of_studies(cache, list(labels), (T1, T2, AXIAL)),
        },
    )


def places_mm(affine, shape):
    return (
        np.einsum("pk,kdhw->pdhw", affine[:3, :3], np.indices(shape))
        + affine[:3, 3, None, None, None]
    )


def make_plan(samples, crop, seed=0, *, shuffle=True, world=1, rank=0, **augment):
    strengths = AugmentConfig(**AugmentConfig.none().model_dump() | augment)
    return Plan(
        samples,
        crop,
        strengths,
        batch=len(samples),
        shuffle=shuffle,
        seed=seed,
        world=world,
        rank=rank,
    )


def is_mirrored(view, drawn_mm, runs):
    """Tell whether a picture's patient axis runs against its volume's; None of a single slice."""
    axis, direction = runs
    if axis == 0:
        here = view.slices >= 0
        if here.sum() < 2:
            return None
        along, place = view.position[here], np.nanmean(drawn_mm, axis=(1, 2))
    else:
        inside = np.isfinite(drawn_mm)
        along, place = np.indices(drawn_mm.shape)[axis][inside], drawn_mm[inside]
    slope = np.sum((along - along.mean()) * (place - place.mean()))
    assert abs(slope) > 1e-3
    return bool(slope * direction < 0)


CROPS = st.builds(
    CropConfig,
    slices=st.sampled_from([3, 6]),
    pick=st.sampled_from(["spread", "window", "all"]),
    height=st.sampled_from([20, 17]),
    width=st.just(18),
    pixel_mm_of=st.sampled_from([{}, {"axial_t2": 0.7}]),
    centre=st.sampled_from(["image", "random"]),
)
CHANCES = st.sampled_from([0.0, 0.5, 1.0])


def test_exchanged_cells_swap_the_names_left_and_right():
    assert list(EXCHANGED_CELLS) == MIRRORED_CELLS


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["series", "discs", "studies"]),
    crop=CROPS,
    chances=st.tuples(CHANCES, CHANCES, CHANCES),
    dropout=st.sampled_from([0.0, 0.4]),
    low_resolution=st.sampled_from([0.0, 2.0]),
    seed=st.integers(0, 2**32 - 1),
    shuffle=st.booleans(),
    world=st.sampled_from([1, 3]),
)
def test_what_is_rendered_on_the_left_of_the_patient_carries_the_left_target(
    patients,
    render_with_scipy,
    kind,
    crop,
    chances,
    dropout,
    low_resolution,
    seed,
    shuffle,
    world,
):
    samples = patients.samples[kind]
    augment = DISTORTED | dict(zip(MIRRORS, chances, strict=True))
    augment |= {"slice_dropout": dropout, "low_resolution": low_resolution, "probability": 0.7}
    requests = [
        request
        for rank in range(world)
        for plan in [
            make_plan(samples, crop, seed, shuffle=shuffle, world=world, rank=rank, **augment)
        ]
        for request in plan.requests(0, 0)
        if not request.filler
    ]
    assert sorted(request.index for request in requests) == list(range(len(samples)))
    for request in requests:
        seen = [set(), set(), set()]
        for slot, view in enumerate(request.views):
            if samples.row[request.index, slot] == ABSENT:
                assert (view.slices == -1).all()
                continue
            assert view.row == samples.row[request.index, slot]
            for patient in range(3):
                runs = RUNS[patients.name[view.row]][patient]
                drawn_mm = render_with_scipy(patients.places[view.row][patient], view)
                seen[patient].add(is_mirrored(view, drawn_mm, runs))
        # One decision for a patient: all views that show it agree.
        decisions = [{True, False} & found for found in seen]
        for patient, chance in enumerate(chances):
            assert len(decisions[patient]) <= 1
            if chance != 0.5:
                assert decisions[patient] <= {chance == 1.0}
        assert decisions[0] <= {request.sides_exchanged}
        own = samples.severity[request.index]
        expected = own[MIRRORED_CELLS] if True in decisions[0] else own
        if decisions[0]:
            assert request.severity.tolist() == expected.tolist()


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["series", "discs", "studies"]),
    crop=CROPS,
    mirrors=st.sets(st.sampled_from(range(3)), min_size=1),
    dropout=st.sampled_from([0.0, 0.4]),
    low_resolution=st.sampled_from([0.0, 2.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_mirror_is_the_mirror_of_the_image_and_of_the_grades_and_of_nothing_else(
    patients, render_with_scipy, kind, crop, mirrors, dropout, low_resolution, seed
):
    samples = patients.samples[kind]
    augment = DISTORTED | {"slice_dropout": dropout, "low_resolution": low_resolution}
    chances = {MIRRORS[patient]: 1.0 for patient in mirrors}
    plain_plan = make_plan(samples, crop, seed, **augment)
    mirror_plan = make_plan(samples, crop, seed, **augment, **chances)
    pairs = zip(plain_plan.requests(2, 0), mirror_plan.requests(2, 0), strict=True)
    for plain, mirror in pairs:
        assert plain.index == mirror.index
        assert (plain.sides_exchanged, mirror.sides_exchanged) == (False, 0 in mirrors)
        own = samples.severity[plain.index]
        assert plain.severity.tolist() == own.tolist()
        assert mirror.severity.tolist() == (own[MIRRORED_CELLS] if 0 in mirrors else own).tolist()
        for before, after in zip(plain.views, mirror.views, strict=True):
            assert before.row == after.row
            assert before.intensity == after.intensity
            here = before.slices >= 0
            assert (after.slices >= 0).tolist() == here.tolist()
            if not here.any():
                continue
            axes = {RUNS[patients.name[after.row]][patient][0] for patient in mirrors}
            x_mm = patients.places[after.row][0]
            expected = np.flip(render_with_scipy(x_mm, before), tuple(axes))
            got = render_with_scipy(x_mm, after)
            inside = np.isfinite(got) & np.isfinite(expected)
            assert (np.isfinite(got) == np.isfinite(expected)).mean() > 0.9, "but for the edges"
            assert np.abs(got - expected)[inside].max() < 0.02
            backwards = 1 - before.position[here][::-1]
            position = backwards if 0 in axes else before.position[here]
            assert after.position[here] == pytest.approx(position, abs=1e-6)
            assert (np.diff(after.position[here]) > 0).all()
            assert not after.position[~here].any()


@pytest.mark.parametrize("patient", range(3))
def test_without_distortion_a_mirror_negates_about_the_middle_of_the_image(
    patients, render_with_scipy, patient
):
    crop = CropConfig(slices=6, height=20, width=18, pixel_mm=1.0)
    samples = patients.samples["series"]
    plain_plan = make_plan(samples, crop, shuffle=False)
    mirror_plan = make_plan(samples, crop, shuffle=False, **{MIRRORS[patient]: 1.0})
    n_checked = 0
    for plain, mirror in zip(plain_plan.requests(0, 0), mirror_plan.requests(0, 0), strict=True):
        (before,), (after,) = plain.views, mirror.views
        if patients.name[before.row] not in UPRIGHT:
            continue
        depth = samples.shape[plain.index, 0, 0]
        middle = patients.affine[before.row] @ [(depth - 1) / 2, 29.5, 31.5, 1]
        for axis, mm in enumerate(patients.places[before.row]):
            here_mm, there_mm = render_with_scipy(mm, before), render_with_scipy(mm, after)
            expected = 2 * middle[axis] - here_mm if axis == patient else here_mm
            if (before.slices < 0).any() or depth == 15:
                # Evenly spaced slices lie evenly around the middle of these stacks only.
                assert np.abs(there_mm - expected).max() < 0.03
                n_checked += 1
    assert n_checked >= 20


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_disc_lies_in_the_middle_of_its_crop_and_of_its_slices(
    patients, render_with_scipy, shuffle
):
    # Odd sizes: the middle of the crop is a pixel.
    crop = CropConfig(slices=3, height=21, width=17, pixel_mm=0.8, centre="random")
    augment = {"rotation_degrees": 20, "scale": 0.2, "shear_degrees": 10}
    samples = patients.samples["discs"]
    plan = make_plan(samples, crop, 5, shuffle=shuffle, **augment)
    means = patients.cache.coordinates.group_by("study_id", "series_id", "level").agg(
        pl.col("d", "h", "w").mean()
    )
    centres = {
        (study, series, level): (d, h, w)
        for study, series, level, d, h, w in means.select(
            "study_id", "series_id", "level", "d", "h", "w"
        ).iter_rows()
    }
    requests = plan.requests(0, 0)
    assert len(requests) == len(centres) == 48
    for request in requests:
        (view,) = request.views
        study, series = patients.cache.series.select("study_id", "series_id").row(view.row)
        d, h, w = centres[study, series, LEVELS[samples.level[request.index]]]
        depth = patients.cache.volume(view.row).shape[0]
        inside = np.clip(d, 1, depth - 2)
        assert abs(view.slices.mean() - inside) <= 0.5
        assert (np.diff(view.slices) == 1).all()
        drawn_mm = [render_with_scipy(mm, view)[:, 10, 8] for mm in patients.places[view.row]]
        homogeneous = np.vstack([drawn_mm, np.ones(3)])
        drawn_d, drawn_h, drawn_w, _ = np.linalg.inv(patients.affine[view.row]) @ homogeneous
        assert drawn_d == pytest.approx(view.slices, abs=0.05)
        assert drawn_h == pytest.approx(np.full(3, h), abs=0.05)
        assert drawn_w == pytest.approx(np.full(3, w), abs=0.05)
        known = [cell for cell, grade in zip(CELLS, request.severity, strict=True) if grade != -1]
        assert len(known) <= 5
        assert all(cell.endswith(LEVELS[samples.level[request.index]]) for cell in known)


# Series of several stacks.


@pytest.fixture(scope="module")
def stacked(tmp_path_factory, write_cache):
    """A study of one axial series: a stack of four slices whose sides run along D, then an upright
    one of five and a tilted one of six, with a disc in each of these two; voxels hold x.
    """
    runs = (
        (4, turned(AXIAL_ROWS, 0, 50)),
        (5, np.array(AXIAL_ROWS)),
        (6, turned(AXIAL_ROWS, 10, 25)),
    )
    x_mm = np.concatenate([places_mm(affine, (n, HEIGHT, WIDTH))[0] for n, affine in runs])
    point = {"study_id": "1", "series_id": "ax", "condition": "spinal_canal_stenosis"}
    point |= dict.fromkeys(("x", "y", "x_mm", "y_mm", "z_mm"), 40.0) | {"instance_number": 1}
    points = [
        point | {"level": level, "d": d, "h": 29.0, "w": 31.0}
        for level, d in (("l2_l3", 4.0), ("l3_l4", 7.0), ("l4_l5", 9.0), ("l5_s1", 14.0))
    ]
    pixels = np.rint(x_mm * VOXELS_PER_MM).astype(np.int16)
    volumes = [("1", "ax", AXIAL, pixels, runs)]
    labels = {"1": np.random.default_rng(5).integers(0, 3, 25)}
    folder = tmp_path_factory.mktemp("stacked") / "cache"
    cache = Cache(write_cache(folder, volumes, labels, scale=1 / VOXELS_PER_MM, points=points))
    return SimpleNamespace(cache=cache, x_mm=cache.volume(0) / VOXELS_PER_MM)


@pytest.mark.parametrize("kind", ["series", "discs"])
@pytest.mark.parametrize("exchange", [0.0, 1.0])
def test_the_sides_of_several_stacks_change_with_their_targets(
    stacked, render_with_scipy, kind, exchange
):
    crop = CropConfig(slices=15 if kind == "series" else 3, height=20, width=18)
    of = Samples.of_series if kind == "series" else Samples.of_discs
    samples = of(stacked.cache, [0])
    plan = make_plan(samples, crop, side_exchange=exchange)
    for request in plan.requests(0, 0):
        (view,) = request.views
        upright = view.slices[view.slices >= 0]
        assert (np.diff(upright) > 0).all(), "the order of the slices has no side"
        drawn_mm = render_with_scipy(stacked.x_mm, view)[upright >= 4]
        assert is_mirrored(view, drawn_mm, (2, 1)) == (exchange == 1.0)
        own = samples.severity[request.index]
        expected = own[MIRRORED_CELLS] if exchange else own
        assert request.severity.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (3, [[4, 5, 6], [6, 7, 8], [9, 10, 11], [12, 13, 14]]),
        (8, [[*range(4, 9)]] * 2 + [[*range(9, 15)]] * 2),
    ],
)
def test_the_slices_of_a_disc_are_those_of_its_stack(stacked, wanted, found):
    crop = CropConfig(slices=wanted, height=20, width=18)
    samples = Samples.of_discs(stacked.cache, [0])
    for shuffle in (False, True):
        requests = make_plan(samples, crop, shuffle=shuffle).requests(0, 0)
        views = {request.index: request.views[0] for request in requests}
        slices = [views[index].slices for index in range(4)]
        assert [picked[picked >= 0].tolist() for picked in slices] == found
        for picked in slices:
            assert picked.tolist() == [*picked[picked >= 0], *[-1] * (picked < 0).sum()]
    every = make_plan(samples, crop.model_copy(update={"pick": "all"})).requests(0, 0)
    assert all((request.views[0].slices >= 0).sum() == 15 for request in every)
