"""The held-out studies, predicted by all ranks together and scored as one."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64

from lumbar.train.inference import forward
from lumbar.train.loss import CellLoss
from lumbar.train.ranks import Ranks
from lumbar.train.reader import Reader


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
