"""From batches to probabilities, and from the series of a study to the study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64

from lumbar.train.batch import Batch
from lumbar.train.loss import CellLoss
from lumbar.train.model.classifier import SeriesClassifier


@torch.inference_mode()
def predict_batches(
    model: SeriesClassifier, loss: CellLoss, batches: Iterable[Batch], *, bfloat16: bool
) -> tuple[Float64[np.ndarray, "n 25 3"], float]:
    """Return the probabilities of every sample in order, and the mean loss of the known cells."""
    model.eval()
    probabilities, losses, weights = [], [], []
    for batch in batches:
        logits = forward(model, batch, bfloat16=bfloat16)
        probabilities.append(loss.probabilities(logits).double().cpu().numpy())
        losses.append(float(loss(logits, batch.target)))
        weights.append(float(loss.weight(batch.target).sum()))
    mean_loss = float(np.average(losses, weights=weights)) if sum(weights) else 0.0
    return np.concatenate(probabilities), mean_loss


def forward(
    model: SeriesClassifier, batch: Batch, *, bfloat16: bool
) -> Float[torch.Tensor, "b 25 3"]:
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


def study_means(
    study_ids: Sequence[str], probabilities: Float64[np.ndarray, "n 25 3"]
) -> dict[str, Float64[np.ndarray, "25 3"]]:
    """Return the mean over the series of each study, in the order of first appearance."""
    rows: dict[str, list[int]] = {}
    for row, study_id in enumerate(study_ids):
        rows.setdefault(study_id, []).append(row)
    return {study_id: probabilities[indices].mean(axis=0) for study_id, indices in rows.items()}
