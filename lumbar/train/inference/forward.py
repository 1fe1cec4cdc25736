"""Forward passes: from batches to probabilities, and from samples to their studies."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import nn

from lumbar.cache.names import LEVELS, N_CELLS, N_SEVERITIES
from lumbar.train.loss import CellLoss
from lumbar.train.plan.samples import WHOLE_SPINE, Samples
from lumbar.train.reader.batch import Batch
from lumbar.train.reader.reader import Reader
from lumbar.train.run.distributed import Ranks


@torch.inference_mode()
def predict_batches(
    model: nn.Module, loss: CellLoss, batches: Iterable[Batch], *, bfloat16: bool
) -> tuple[Float64[np.ndarray, "n 25 3"], float]:
    """Return the probabilities of every sample in order, and the loss of all as one batch."""
    model.eval()
    probabilities, sums, weights = [], [], []
    for batch in batches:
        logits = forward(model, batch, bfloat16=bfloat16)
        probabilities.append(loss.probabilities(logits).double())
        sums.append(loss.sums(logits, batch.target))
        weights.append(loss.weights(batch.target))
    whole = loss.total(torch.stack(sums).sum(dim=0), torch.stack(weights).sum(dim=0))
    # Fetched at the end: batch after batch, the device would wait for the host.
    return torch.cat(probabilities).cpu().numpy(), float(whole)


def forward(model: nn.Module, batch: Batch, *, bfloat16: bool) -> Float[torch.Tensor, "b 25 3"]:
    """Run the network on a batch, in bfloat16 where that is asked for."""
    with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=bfloat16):
        logits: torch.Tensor = model(
            batch.image,
            batch.present,
            batch.position,
            batch.lengths,
            batch.series_type,
            batch.level,
        )
    return logits


def study_predictions(
    samples: Samples, probabilities: Float64[np.ndarray, "n 25 3"]
) -> dict[str, Float64[np.ndarray, "25 3"]]:
    """Return the mean of each study's samples, in the order of first appearance.

    A disc speaks of the cells of its own level alone. A cell of which no sample of the study speaks
    is NaN.
    """
    level = samples.level[:, None]
    speaks = (level == WHOLE_SPINE) | (np.arange(N_CELLS) % len(LEVELS) == level)
    rows: dict[str, list[int]] = {}
    for row, study_id in enumerate(samples.study_id):
        rows.setdefault(study_id, []).append(row)
    means = {}
    for study_id, indices in rows.items():
        spoken = speaks[indices]
        total = np.where(spoken[..., None], probabilities[indices], 0.0).sum(axis=0)
        count = spoken.sum(axis=0)
        mean = np.full((N_CELLS, N_SEVERITIES), np.nan)
        mean[count > 0] = total[count > 0] / count[count > 0, None]
        means[study_id] = mean
    return means


@torch.inference_mode()
def predict_samples(
    model: torch.nn.Module, loss: CellLoss, reader: Reader, ranks: Ranks, *, bfloat16: bool
) -> tuple[Float64[np.ndarray, "n 25 3"], float]:
    """Return the probabilities of every sample of a reader's plan, and the loss of all of them.

    Each rank predicts its share; all ranks get the whole, in the order of the samples.
    """
    model.eval()
    real, places, probabilities, terms = [], [], [], []
    for batch in reader.epoch():
        logits = forward(model, batch, bfloat16=bfloat16)
        real += [not request.filler for request in batch.requests]
        places += [r.index for r in batch.requests if not r.filler]
        probabilities.append(loss.probabilities(logits).double())
        terms.append(
            torch.stack([loss.sums(logits, batch.target), loss.weights(batch.target)]).double()
        )
    sums, weights = ranks.sum(torch.stack(terms).sum(dim=0))
    # Fetched at the end: batch after batch, the device would wait for the host.
    own = torch.cat(probabilities).cpu().numpy()[real]
    every = ranks.gather((places, own))
    whole = np.concatenate([part for _, part in every])
    order = np.argsort(np.concatenate([place for place, _ in every]), kind="stable")
    return whole[order], float(loss.total(sums, weights))
