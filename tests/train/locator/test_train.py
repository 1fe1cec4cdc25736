import numpy as np
import pytest
import torch

from lumbar.cache.errors import InputError, LumbarError
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.locator.locate import Locator, locate
from lumbar.train.locator.positions import place_error

CPU = torch.device("cpu")
ONE_EPOCH = {"epochs": 1}


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled_reader")
def test_discs_of_series_that_were_never_seen_are_found(phantoms, trained, held_out):
    locator, losses = trained
    assert losses[-1] < 0.7 * losses[0]
    assert locator.series_type == SeriesType.SAGITTAL_T2
    assert locator.levels.all()
    places = locate(phantoms.cache, held_out, locator, device=CPU, threads=1)
    error = place_error(phantoms.cache, held_out, places)
    assert error.discs == 5 * len(held_out)
    # Discs are 30 mm apart, pixels and slices 4 mm.
    assert error.median_mm < 5
    assert error.p95_mm < 12
    usual = np.broadcast_to(phantoms.places[: held_out[0]].mean(axis=0), places.shape)
    assert place_error(phantoms.cache, held_out, usual).median_mm > 2 * error.median_mm


@pytest.mark.usefixtures("uncompiled_reader")
def test_what_a_checkpoint_holds_finds_the_same_places(phantoms, trained, held_out, tmp_path):
    locator, _ = trained
    torch.save(locator.state(), tmp_path / "locator.pt")
    read = Locator.from_state(torch.load(tmp_path / "locator.pt", weights_only=True))
    assert (read.config, read.series_type) == (locator.config, locator.series_type)
    first, again = (
        locate(phantoms.cache, held_out, one, device=CPU, threads=1) for one in (locator, read)
    )
    assert np.array_equal(first, again)
    alone = locate(phantoms.cache, held_out[2:3], read, device=CPU, threads=1)
    assert alone[0] == pytest.approx(first[2], abs=1e-3)
    assert locate(phantoms.cache, [], read, device=CPU, threads=1).shape == (0, 5, 3)


def test_the_same_seed_gives_the_same_weights_and_changes_no_other_random_numbers(
    phantoms, train_small, small_locator
):
    config = small_locator.model_copy(update=ONE_EPOCH)
    before = torch.get_rng_state()
    runs = [train_small(phantoms.cache, range(6), config, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (locator.network.state_dict() for locator, _ in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["place.weight"], other["place.weight"])
    assert runs[0][1] == runs[1][1]


def test_series_without_points_are_left_out(
    phantoms, train_small, small_locator, tmp_path, write_cache, point
):
    names = ("a", "b")
    volumes = [
        (name, f"{name}.t2", SeriesType.SAGITTAL_T2, phantoms.cache.volume(row), np.eye(4))
        for row, name in enumerate(names)
    ]
    points = [point("a", "a.t2", level, (4, 10 * level, 20)) for level in (0, 1, 4)]
    cache = Cache(write_cache(tmp_path / "cache", volumes, {}, points=points))
    config = small_locator.model_copy(update=ONE_EPOCH)
    with_both, _ = train_small(cache, [0, 1], config)
    alone, _ = train_small(cache, [0], config)
    assert with_both.levels.tolist() == [True, True, False, False, True]
    weights = with_both.network.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in alone.network.state_dict().items())


def test_series_that_cannot_be_learnt_from_are_refused(
    phantoms, spine, train_small, small_locator, tmp_path, write_cache, point
):
    with pytest.raises(InputError, match=r"levels of discs.*got none.*two or more"):
        train_small(spine, spine.rows_of(SeriesType.SAGITTAL_T2))
    with pytest.raises(InputError, match="series of one type"):
        train_small(spine, range(4))
    volumes = [("a", "a.t2", SeriesType.SAGITTAL_T2, phantoms.cache.volume(0), np.eye(4))]
    points = [point("a", "a.t2", 3, (4, 10, 20))]
    cache = Cache(write_cache(tmp_path / "cache", volumes, {}, points=points))
    with pytest.raises(InputError, match=r"got \['l4_l5'\]"):
        train_small(cache, [0])
    wild = small_locator.model_copy(update={"lr": 1e30, "epochs": 3})
    with pytest.raises(LumbarError, match=r"not finite.*locator\.lr"):
        train_small(phantoms.cache, range(8), wild)


@pytest.mark.usefixtures("uncompiled_reader")
def test_series_of_another_type_are_not_looked_at(spine, trained):
    axial = spine.rows_of(SeriesType.AXIAL_T2)
    with pytest.raises(InputError, match=r"axial_t2.*expected sagittal_t2"):
        locate(spine, axial, trained[0], device=CPU, threads=1)
