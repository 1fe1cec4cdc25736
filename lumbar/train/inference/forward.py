"""Forward passes: from batches to probabilities, and from samples to their studies."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import nn

from lumbar.cache.names import LEVELS, N_CELLS, N_SEVERITIES
from lumbar.train.evaluation.predictions import Predictions
from lumbar.train.loss import CellLoss
from lumbar.train.plan.samples import WHOLE_SPINE, Samples
from lumbar.train.reader.batch import Batch
from lumbar.train.run.distributed import Ranks


@torch.inference_mode()
def predict_batches(
    model: nn.Module,
    loss: CellLoss,
    batches: Iterable[Batch],
    *,
    bfloat16: bool,
    ranks: Ranks | None = None,
) -> tuple[Float64[np.ndarray, "n 25 3"], float]:
    """Return the probabilities of every sample in the plan's order, and the loss of all of them.

    The loss is that of all samples as one batch. Each rank predicts its own share of a plan, and
    all ranks get the whole result.
    """
    model.eval()
    ranks = ranks or Ranks()
    real, places, probabilities, terms = [], [], [], []
    for batch in batches:
        logits = forward(model, batch, bfloat16=bfloat16)
        real += [not request.filler for request in batch.requests]
        places += [request.index for request in batch.requests if not request.filler]
        probabilities.append(loss.probabilities(logits).double())
        terms.append(
            torch.stack([loss.sums(logits, batch.target), loss.weights(batch.target)]).double()
        )
    sums, weights = ranks.sum(torch.stack(terms).sum(dim=0))
    # Copied once, at the end: a copy after each batch would make the device wait for the host.
    own = torch.cat(probabilities).cpu().numpy()[real]
    every = ranks.gather((places, own))
    whole = np.concatenate([part for _, part in every])
    order = np.argsort(np.concatenate([place for place, _ in every]), kind="stable")
    return whole[order], float(loss.total(sums, weights))


def forward(model: nn.Module, batch: Batch, *, bfloat16: bool) -> Float[torch.Tensor, "b 25 3"]:
    """Run the network on a batch, in bfloat16 if wanted."""
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


def study_means(samples: Samples, probabilities: Float64[np.ndarray, "n 25 3"]) -> Predictions:
    """Return the mean over each study's samples, in the order of first appearance.

    A disc predicts the cells of its own level alone. A cell that no sample of the study predicts is
    NaN.
    """
    row_of: dict[str, int] = {}
    rows = [row_of.setdefault(study_id, len(row_of)) for study_id in samples.study_id]
    level = samples.level[:, None]
    predicted = (level == WHOLE_SPINE) | (np.arange(N_CELLS) % len(LEVELS) == level)
    sums, counts = np.zeros((len(row_of), N_CELLS, N_SEVERITIES)), np.zeros((len(row_of), N_CELLS))
    np.add.at(sums, rows, np.where(predicted[..., None], probabilities, 0.0))
    np.add.at(counts, rows, predicted)
    counts[counts == 0] = np.nan
    return Predictions(tuple(row_of), sums / counts[..., None])
