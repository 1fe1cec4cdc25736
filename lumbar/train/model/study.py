"""The network of a whole study: any number of series of several types in, 25 x 3 logits out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn

from lumbar.cache.errors import InputError
from lumbar.cache.names import SERIES_TYPES, SeriesType
from lumbar.train.device_tensors import to_device
from lumbar.train.model.anatomy import ANATOMY
from lumbar.train.model.config import ModelConfig
from lumbar.train.model.encoder import SliceEncoder
from lumbar.train.model.heads import make_head
from lumbar.train.model.sequence import make_plane_pool, slice_vectors
from lumbar.train.model.study_join import CellJoin, SequenceJoin, TypeSlices

SHARED = "shared"
"""The name of the one encoder of all types."""


class StudyClassifier(nn.Module):
    """One encoder per series type, or one for all; a join of their slices; a head of all 25 cells.

    ``size`` is height and width of all crops in pixels, ``field_mm`` in millimetres per type. In
    training each series is left out with the probability ``series_dropout``, but never all of a
    study; torch's generator on the host gives the random numbers.
    """

    def __init__(
        self,
        config: ModelConfig,
        types: tuple[SeriesType, ...],
        *,
        size: tuple[int, int],
        field_mm: Mapping[SeriesType, tuple[float, float]],
    ) -> None:
        super().__init__()
        self.types = _checked(types)
        self.series_dropout = config.series_dropout
        shared = SliceEncoder(config, size=size) if config.shared_encoder else None
        self.encoder = nn.ModuleDict(
            {SHARED: shared} if shared else {t: SliceEncoder(config, size=size) for t in types}
        )
        channels = self.encoders[0].channels
        pools = {
            str(t): make_plane_pool(config, channels, ANATOMY[t], field_mm=field_mm[t])
            for t in types
        }
        self.pool = nn.ModuleDict(pools)
        join = CellJoin if config.head == "cells" else SequenceJoin
        self.join: CellJoin | SequenceJoin = join(config, types, pools[types[0]].channels)
        self.head = make_head(config, self.join.channels)

    @property
    def encoders(self) -> list[SliceEncoder]:
        """The slice encoders: one, or one per type."""
        return [e for e in self.encoder.values() if isinstance(e, SliceEncoder)]

    @property
    def parts(self) -> list[list[nn.Module]]:
        """What follows the encoders, from input to output."""
        return [[self.pool], [self.join], [self.head]]

    def forward(
        self,
        image: Float[torch.Tensor, "b s d 1 h w"],
        present: Bool[torch.Tensor, "b s d"],
        position: Float[torch.Tensor, "b s d"],
        lengths: Int64[torch.Tensor, "b s"] | None = None,
        series_type: Int64[torch.Tensor, "b s"] | None = None,
        level: Int64[torch.Tensor, " b"] | None = None,
    ) -> Float[torch.Tensor, "b 25 3"]:
        """Return float32 logits; an absent series of a study has no slices.

        ``lengths`` and ``series_type`` (indices into `SERIES_TYPES`) lie on the host. Without them
        every study has one series of each type, in the types' order. ``level`` is not used.
        """
        if lengths is not None and self.training and self.series_dropout:
            lengths = drop_series(lengths, self.series_dropout)
            kept = to_device(lengths > 0, present.device)
            present = present & kept[..., None]
        of_type = {
            t: self._encode(t, rows, image, present, position, lengths)
            for t, rows in self._rows_of_types(present, lengths, series_type).items()
        }
        logits: torch.Tensor = self.head(self.join(of_type, present, lengths))
        logits = logits.flatten(1, 2).float()
        if self.training:
            logits = logits + self._zero_of(t for t in self.types if t not in of_type)
        return logits

    def _rows_of_types(
        self,
        present: Bool[torch.Tensor, "b s d"],
        lengths: Int64[torch.Tensor, "b s"] | None,
        series_type: Int64[torch.Tensor, "b s"] | None,
    ) -> dict[SeriesType, Int64[torch.Tensor, " n"]]:
        """Return the rows, among the batch's B x S series, of each type that it has."""
        b, s = present.shape[:2]
        if lengths is None:
            assert s == len(self.types)
            studies = torch.arange(b, device=present.device) * s
            return {t: studies + slot for slot, t in enumerate(self.types)}
        assert series_type is not None
        numbers = series_type.masked_fill(lengths == 0, -1).flatten()
        rows = {t: (numbers == SERIES_TYPES.index(t)).nonzero().squeeze(1) for t in self.types}
        return {t: of_type for t, of_type in rows.items() if len(of_type)}

    def _encode(
        self,
        series_type: SeriesType,
        rows: Int64[torch.Tensor, " n"],
        image: Float[torch.Tensor, "b s d 1 h w"],
        present: Bool[torch.Tensor, "b s d"],
        position: Float[torch.Tensor, "b s d"],
        lengths: Int64[torch.Tensor, "b s"] | None,
    ) -> TypeSlices:
        """Encode the series of one type, by their rows."""
        counted = None if lengths is None else lengths.flatten()[rows]
        there = to_device(rows, image.device)
        pixels, position, present = (x.flatten(0, 1)[there] for x in (image, position, present))
        encoder, pool = self._encoder_of(series_type), self.pool[series_type]
        vectors = slice_vectors(encoder, pool, pixels, present, counted)
        return TypeSlices(there, vectors, present, position, counted)

    def _encoder_of(self, series_type: SeriesType) -> nn.Module:
        encoder: nn.Module = self.encoder[SHARED if SHARED in self.encoder else series_type]
        return encoder

    def _zero_of(self, types: Iterable[SeriesType]) -> Float[torch.Tensor, ""]:
        """Return 0, computed from the weights of types that the batch lacks.

        So their gradient is 0 instead of missing: all ranks must have the same gradients.
        """
        zero: torch.Tensor = self.join.kind[self.types[0]].new_zeros(())
        for series_type in types:
            parts = (self._encoder_of(series_type), self.pool[series_type])
            weights = [w for part in parts for w in part.parameters()]
            for weight in [*weights, *self.join.weights_of(series_type)]:
                if weight.requires_grad:
                    zero = zero + 0.0 * weight.sum()
        return zero


def drop_series(lengths: Int64[torch.Tensor, "b s"], probability: float) -> torch.Tensor:
    """Return lengths with series left out at random; at least one stays per study."""
    sampled = torch.rand(lengths.shape).masked_fill(lengths == 0, -1.0)
    kept = (sampled >= probability) | (sampled == sampled.amax(dim=1, keepdim=True))
    remaining: torch.Tensor = lengths * kept
    return remaining


def _checked(types: tuple[SeriesType, ...]) -> tuple[SeriesType, ...]:
    unknown = [t for t in types if t not in ANATOMY]
    if unknown or len(set(types)) < len(types):
        raise InputError(
            what="types of a model of studies",
            where="study_types",
            got=", ".join(types),
            expected=f"each once, of {', '.join(ANATOMY)}",
            cure="correct it in the file or with --set",
        )
    return types
