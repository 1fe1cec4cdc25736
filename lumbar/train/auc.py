"""Area under the ROC curve from ranks (Mann-Whitney), ties counted half."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def auc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float | None:
    """Return the probability that a positive scores above a negative; None if a class is absent.

    Source: U = R - n(n + 1) / 2, with R the sum of the positives' mean ranks; AUC = U / (n m).
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    u = mean_ranks[group][positive].sum() - n_positive * (n_positive + 1) / 2
    return float(u / (n_positive * n_negative))
