"""Small networks of every family, and inputs for them with absent slices and series."""

from dataclasses import dataclass, replace

import pytest
import torch

from lumbar.train.config import RunConfig
from lumbar.train.model.networks import build_model

HEIGHT, WIDTH = 64, 48
FAMILIES = ("series", "disc", "study")


@dataclass(frozen=True)
class Inputs:
    image: torch.Tensor
    present: torch.Tensor
    position: torch.Tensor
    lengths: torch.Tensor
    series_type: torch.Tensor
    level: torch.Tensor

    def __iter__(self):
        names = ("image", "present", "position", "lengths", "series_type", "level")
        return iter(getattr(self, name) for name in names)

    def padded(self, more, *, junk):
        """Return the same with more absent slices; all absent ones hold ``junk``."""
        pixels = torch.nn.functional.pad(self.image, (0, 0, 0, 0, 0, 0, 0, more))
        present = torch.nn.functional.pad(self.present, (0, more))
        position = torch.nn.functional.pad(self.position, (0, more))
        junk = torch.tensor(junk)
        return replace(
            self,
            image=torch.where(present[..., None, None, None], pixels, junk),
            present=present,
            position=torch.where(present, position, junk),
        )

    def chosen(self, samples):
        """Return some of the samples."""
        return Inputs(*(value[samples] for value in self))


@pytest.fixture(scope="session")
def make_network():
    """Return a function that builds a small network of a family from the options of its model."""

    def make(family, *, seed=1, series="sagittal_t2", **options):
        torch.manual_seed(seed)
        model = {"backbone": "test_resnet", "stride": 8, "hidden": 12, **options}
        config = RunConfig(
            series="study" if family == "study" else series,
            discs=family == "disc",
            crop={"height": HEIGHT, "width": WIDTH, "pixel_mm": 4.0},
            loss={"conditions": "all"} if family == "study" else {},
            model=model,
        )
        return build_model(config)

    return make


@pytest.fixture(scope="session")
def make_inputs():
    """Return a function that makes inputs of a family; a study has absent series and two axial."""

    def make(family, lengths=None, *, depth=6, seed=0):
        generator = torch.Generator().manual_seed(seed)
        if lengths is None:
            lengths = [[3, 4, 6, 1], [0, 2, 0, 0], [6, 6, 0, 5]] if family == "study" else [4, 1, 6]
        lengths = torch.tensor(lengths)
        n = tuple(lengths.shape)
        present = torch.arange(depth) < lengths[..., None]
        image = torch.rand((*n, depth, 1, HEIGHT, WIDTH), generator=generator)
        position = torch.rand((*n, depth), generator=generator).sort(dim=-1).values * present
        types = torch.tensor([0, 1, 2, 2])[: n[-1]] if family == "study" else torch.tensor(1)
        return Inputs(
            image=image * present[..., None, None, None],
            present=present,
            position=position,
            lengths=lengths,
            series_type=types.expand(n),
            level=torch.arange(n[0]) % 5,
        )

    return make
