"""Mixup and cutmix: the random partners and shares of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from lumbar.train.plan.augment import AugmentConfig

Box = tuple[int, int, int, int]
"""(h0, w0, h1, w1) in pixels of the crop."""


@dataclass(frozen=True, slots=True)
class Mix:
    """The partner of each sample of a batch, and the share of its own pixels.

    With ``boxes`` (cutmix) the partner's pixels fill a box, and ``share`` is the area outside of
    it; without (mixup) every pixel is ``share * own + (1 - share) * partner``. Both mix targets by
    ``share``.

    Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018; Yun et al., "CutMix:
    Regularization Strategy to Train Strong Classifiers with Localizable Features", 2019.
    """

    partner: Int64[np.ndarray, " b"]
    share: Float32[np.ndarray, " b"]
    boxes: tuple[Box, ...] | None

    def filled_to(self, n: int) -> Mix:
        """Return the mix of ``n`` samples; the added ones stay as they are."""
        more = np.arange(len(self.partner), n)
        return Mix(
            np.concatenate([self.partner, more]),
            np.concatenate([self.share, np.ones(len(more), np.float32)]),
            None if self.boxes is None else (*self.boxes, *[(0, 0, 0, 0)] * len(more)),
        )


def sample_mix(
    augment: AugmentConfig, n: int, size_hw: tuple[int, int], rng: np.random.Generator
) -> Mix | None:
    """Sample how the ``n`` samples of a batch are mixed; None where mixing is off.

    The only sample of a batch of one is its own partner and stays as it is.
    """
    alphas = [alpha for alpha in (augment.mixup, augment.cutmix) if alpha > 0]
    if not alphas:
        return None
    chosen = int(rng.integers(len(alphas)))
    share = rng.beta(alphas[chosen], alphas[chosen], size=n)
    # Neighbours on a random ring: with two or more samples none is its own partner.
    ring = rng.permutation(n)
    partner = np.empty(n, np.int64)
    partner[ring] = np.roll(ring, 1)
    if augment.mixup > 0 and chosen == 0:
        return Mix(partner, share.astype(np.float32), None)
    boxes = _sample_boxes(share, size_hw, rng)
    h0, w0, h1, w1 = boxes.T
    outside = 1 - (h1 - h0) * (w1 - w0) / np.prod(size_hw)
    return Mix(partner, outside.astype(np.float32), tuple(map(tuple, boxes.tolist())))


def _sample_boxes(
    share: Float64[np.ndarray, " n"], size_hw: tuple[int, int], rng: np.random.Generator
) -> Int64[np.ndarray, "n 4"]:
    """Sample boxes of the crop's shape around random places, clipped at the edges."""
    size = np.array(size_hw)
    half = np.sqrt(1 - share)[:, None] / 2 * size
    place = rng.random((len(share), 2)) * size
    corners = np.hstack([place - half, place + half])
    boxes: Int64[np.ndarray, "n 4"] = np.rint(np.clip(corners, 0, np.tile(size, 2))).astype(int)
    return boxes
