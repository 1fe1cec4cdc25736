import numpy as np
import pytest

from lumbar.train.kernels.render import LIGHT_RENDERERS, RENDERERS
from lumbar.train.plan import pixel_params

IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], np.float32)


def pack(grid_hw, **values):
    """Return the numbers of a sample; what is not named is off."""
    packed = np.zeros(pixel_params.COUNT, np.float32)
    packed[pixel_params.GRID_H], packed[pixel_params.GRID_W] = grid_hw
    packed[pixel_params.GAIN] = packed[pixel_params.GAMMA] = 1
    for name, value in values.items():
        first = getattr(pixel_params, name.upper())
        packed[first : first + np.size(value)] = value
    return packed


@pytest.fixture
def identity():
    return IDENTITY


@pytest.fixture
def render_slices():
    """Return the function that renders a view of a shape with some steps on."""

    def render_slices(
        volume,
        slices,
        shape_hw,
        *,
        matrix=IDENTITY,
        grid_hw=None,
        key=(0, 0),
        stored="float32",
        **values,
    ):
        kind, nothing = (np.float32, np.nan) if stored.endswith("float32") else (np.int16, 77)
        out = np.full((len(slices), *shape_hw), nothing, kind)
        packed = pack(grid_hw or shape_hw, **values)
        renderers = LIGHT_RENDERERS if stored.startswith("light_") else RENDERERS
        run = renderers[stored.removeprefix("light_")]
        matrix, slices = np.float32(matrix), np.array(slices, np.int32)
        run(out, volume, slices, matrix, packed, np.array(key, np.uint32))
        return out

    return render_slices


@pytest.fixture
def random_volume():
    def random_volume(rng, dtype, shape):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)

    return random_volume
