"""From runs to a blend: members, labels and series of a cache, the fit, and what is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lumbar.cache.labels import severities_of
from lumbar.cache.store import Cache
from lumbar.train.ensemble.blend import BlendFile, MemberFile, PriorFile, Space
from lumbar.train.ensemble.combine import own_series
from lumbar.train.ensemble.fit import BlendFit, fit_blend
from lumbar.train.inference.out_of_fold import ConfigurationRuns, find_members


@dataclass(frozen=True, slots=True)
class BlendedRuns:
    """A blend of runs: its members, the fit with its out-of-fold predictions, and its file."""

    members: list[ConfigurationRuns]
    fit: BlendFit
    file: BlendFile


def blend_runs(
    runs: Sequence[Path], cache: Cache, *, space: Space, path_of: Callable[[Path], str]
) -> BlendedRuns:
    """Fit a blend of runs to the studies that they held out.

    The runs of one configuration are one member. ``path_of`` returns the name of a run in the
    blend's file.

    Raises
    ------
    MissingError, InputError
        As `find_members` and `fit_blend` do.
    """
    members, study_ids = find_members(runs, cache)
    labels = cache.labels.filter(pl.col("study_id").is_in(study_ids)).sort("study_id")
    # Held-out studies are labelled ones, so these are all.
    assert labels["study_id"].to_list() == study_ids
    fit = fit_blend(
        [member.member(study_ids) for member in members],
        own_series(cache, study_ids),
        severities_of(labels),
        space=space,
        patients=cache.patients,
    )
    file = BlendFile(
        space=space,
        members=tuple(
            MemberFile(
                name=member.name,
                runs=tuple(path_of(held_out.run) for held_out in member.held_out),
                **_by_group(fit, m),
            )
            for m, member in enumerate(members)
        ),
        prior=PriorFile(**_by_group(fit, len(members))),
    )
    return BlendedRuns(members, fit, file)


def _by_group(fit: BlendFit, m: int) -> dict[str, dict[str, Any]]:
    """Return the weights and the losses of a member by group."""
    return {
        "weights": {group: float(weights[m]) for group, weights in fit.weights.items()},
        "losses": {
            group: float(losses[m]) if np.isfinite(losses[m]) else None
            for group, losses in fit.losses.items()
        },
    }
