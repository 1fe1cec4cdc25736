"""A blend: non-negative weights of its members, summing to one in each group of conditions.

``probability`` averages probabilities, ``log`` their logarithms. A cell that a member does not
predict leaves the member out, and the weights of the others are scaled up. Where all members with a
weight are left out, the eligible member with the lowest loss of its own is taken.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, assert_never

import numpy as np
from jaxtyping import Bool, Float64
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lumbar import __version__
from lumbar.cache.errors import FormatError, MissingError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.names import GROUP_CELLS, N_CELLS

Space = Literal["probability", "log"]

BLEND_FILE = "blend.json"
BLEND_VERSION = 1

SMALLEST = 1e-9
"""Probabilities are not taken below this before the logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """Weights (m, 25) of the members by cell; ``losses`` are those of each member alone.

    The training prior may be the last member. It is eligible wherever another member is.
    """

    space: Space
    weights: Float64[np.ndarray, "m 25"]
    losses: Float64[np.ndarray, "m 25"]

    @classmethod
    def equal(cls, members: int) -> Blend:
        """Return the plain mean."""
        weights = np.ones((members, N_CELLS)) / members
        return cls(space="probability", weights=weights, losses=np.zeros((members, N_CELLS)))

    def shares(self, eligible: Bool[np.ndarray, "m n 25"]) -> Float64[np.ndarray, "m n 25"]:
        """Return each member's share of each cell; the shares of a cell sum to one.

        A cell without an eligible member has shares of zero.
        """
        shares = self.weights[:, None] * eligible
        without_weight = eligible.any(axis=0) & (shares.sum(axis=0) == 0)
        losses = np.minimum(self.losses, np.finfo(np.float64).max)[:, None]
        lowest = np.where(eligible, losses, np.inf).argmin(axis=0)
        best = np.arange(len(self.weights))[:, None, None] == lowest
        shares = np.where(without_weight, best, shares)
        total = shares.sum(axis=0)
        return np.asarray(shares / np.where(total > 0, total, 1.0))


def with_prior(
    probabilities: Float64[np.ndarray, "m n 25 3"],
    eligible: Bool[np.ndarray, "m n 25"],
    prior: Float64[np.ndarray, "n 25 3"],
) -> tuple[Float64[np.ndarray, "m+1 n 25 3"], Bool[np.ndarray, "m+1 n 25"]]:
    """Append the training prior as a member that is eligible wherever another one is."""
    return (
        np.concatenate([probabilities, prior[None]]),
        np.concatenate([eligible, eligible.any(axis=0, keepdims=True)]),
    )


def weighted_mean(
    probabilities: Float64[np.ndarray, "m n 25 3"],
    shares: Float64[np.ndarray, "m n 25"],
    *,
    space: Space,
) -> Float64[np.ndarray, "n 25 3"]:
    """Return the mean of the members by their shares; NaN where no member has one.

    Probabilities without a share may be NaN.
    """
    counted = (shares > 0)[..., None]
    match space:
        case "probability":
            mean = (np.where(counted, probabilities, 0.0) * shares[..., None]).sum(axis=0)
        case "log":
            logs = np.log(np.where(counted, probabilities, 1.0).clip(SMALLEST))
            mean = np.exp((logs * shares[..., None]).sum(axis=0))
        case _:
            assert_never(space)
    total = mean.sum(axis=-1, keepdims=True)
    empty = ~counted.any(axis=0)
    return np.where(empty, np.nan, mean / np.where(empty, 1.0, total))


Weight = Annotated[float, Field(ge=0, le=1)]


class PriorFile(BaseModel):
    """Weight and loss of the training prior by group of conditions; None without a prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weights: dict[str, Weight]
    losses: dict[str, float | None]

    @model_validator(mode="after")
    def _groups_are_ours(self) -> PriorFile:
        for given in (self.weights, self.losses):
            if given.keys() != GROUP_CELLS.keys():
                msg = f"the groups {', '.join(GROUP_CELLS)}"
                raise ValueError(msg)
        return self


class MemberFile(PriorFile):
    """Weight and loss of the mean of ``runs``, which are paths from the blend's folder."""

    name: str
    runs: tuple[str, ...] = Field(min_length=1)


class BlendFile(BaseModel):
    """``blend.json``: the members, and the training prior as the last of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    blend_version: Literal[1] = 1
    lumbar_version: str = __version__
    space: Space
    members: tuple[MemberFile, ...] = Field(min_length=1)
    prior: PriorFile

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> BlendFile:
        for group in GROUP_CELLS:
            total = sum(one.weights[group] for one in (*self.members, self.prior))
            # A group that no member was trained on has no weights.
            if total != 0 and abs(total - 1) > 1e-6:
                msg = f"weights of {group} that sum to one, not to {total:.4f}"
                raise ValueError(msg)
        return self

    def blend(self) -> Blend:
        """Return the weights by cell."""
        every = (*self.members, self.prior)
        losses = [
            {group: np.inf if loss is None else loss for group, loss in one.losses.items()}
            for one in every
        ]
        return Blend(
            space=self.space,
            weights=by_cell([one.weights for one in every]),
            losses=by_cell(losses),
        )

    def runs(self, folder: Path) -> list[list[Path]]:
        """Return the runs of each member of a blend that lies in ``folder``."""
        return [[folder / run for run in member.runs] for member in self.members]


def by_cell(values: list[dict[str, float]]) -> Float64[np.ndarray, "m 25"]:
    """Return a row per member, which gives each cell the value of its group."""
    spread = np.zeros((len(values), N_CELLS))
    for row, of_member in enumerate(values):
        for group, cells in GROUP_CELLS.items():
            spread[row, cells] = of_member[group]
    return spread


def write_blend(path: Path, blend: BlendFile) -> None:
    """Write ``blend.json`` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, blend.model_dump_json(indent=2).encode() + b"\n")


def read_blend(path: Path) -> BlendFile:
    """Read a ``blend.json``, or that of a folder.

    Raises
    ------
    MissingError, FormatError
        If there is none, or it is damaged or of another program.
    """
    file = path / BLEND_FILE if path.is_dir() else path
    try:
        return BlendFile.model_validate(json.loads(file.read_bytes()))
    except FileNotFoundError as error:
        raise MissingError(
            what="no such blend",
            where=file,
            got="nothing",
            expected=f"the {BLEND_FILE} that `lumbar blend` wrote",
            cure="name one that is there, or fit one",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise FormatError(
            what="blend",
            where=f"{file} at {'.'.join(map(str, first['loc'])) or 'the whole'}",
            got=first["msg"],
            expected=f"a blend of version {BLEND_VERSION} that `lumbar blend` wrote",
            cure="fit it again",
        ) from error
    except ValueError as error:
        raise FormatError(
            what="blend that cannot be read",
            where=file,
            got=error,
            expected=f"the {BLEND_FILE} that `lumbar blend` wrote",
            cure="fit it again",
        ) from error
