"""A run's network for other programs: ONNX or torch.export, with a page of what goes in and out.

The exported network takes any number of samples of a fixed number of slices; those that a sample
does not have are marked absent, and may hold anything.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from lumbar import __version__
from lumbar.cache.errors import InputError, LumbarError
from lumbar.cache.files.atomic import write_atomically
from lumbar.cache.names import CELLS, SERIES_TYPES, SEVERITIES
from lumbar.train.loss import CellLoss
from lumbar.train.model.exportable import masked
from lumbar.train.run.checkpoint import ModelBundle
from lumbar.train.run.config import RunConfig

FORMAT_VERSION = 1
FORMATS: dict[str, Literal["onnx", "torch.export"]] = {".onnx": "onnx", ".pt2": "torch.export"}
EXTRA = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4
"""The largest difference of a logit in float32: other kernels add in another order."""
CHECKED_BATCHES = (1, 3, 2)
"""Samples of the batches that are compared; traced with 2, since 1 would be taken for fixed."""
TRACED_BATCH = 2


class ParityError(LumbarError, ArithmeticError):
    """The exported network does not give what the trained one does."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how far its logits are from the network's at most."""

    model: Path
    page: Path
    largest_difference: float


class ExportedNetwork(nn.Module):
    """The network as it is exported: logits and probabilities from tensors alone."""

    def __init__(self, bundle: ModelBundle) -> None:
        super().__init__()
        config = bundle.config
        self.network = masked(bundle.model)
        self.loss = CellLoss(config.loss, config.series_types)

    def forward(
        self,
        image: torch.Tensor,
        present: torch.Tensor,
        position: torch.Tensor,
        level: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and probabilities, both (B, 25, 3)."""
        logits = self.network(image, present, position, None, None, level)
        return logits, self.loss.probabilities(logits)


def export(bundle: ModelBundle, out: Path, *, slices: int | None = None) -> Exported:
    """Write the network as ``out`` and a page about it beside it, and compare it with the trained.

    ``slices`` are those of a sample, by default the crop's.

    Raises
    ------
    InputError
        If the name does not tell the format, or what ONNX needs is not installed.
    ParityError
        If what was written gives other logits; nothing stays then.
    """
    kind = _format_of(out)
    config = bundle.config
    slices = slices or config.crop.slices
    network = ExportedNetwork(bundle).eval()
    example = random_inputs(config, batch=TRACED_BATCH, slices=slices, seed=0)
    with torch.no_grad(), _quiet():
        program = torch.export.export(
            network, tuple(example.values()), dynamic_shapes=_dynamic(example), strict=False
        )
        write_atomically(out, _onnx(program) if kind == "onnx" else _saved(program))
        run = _onnx_runner(out) if kind == "onnx" else _torch_runner(out)
        difference = _largest_difference(bundle, run, slices=slices)
    if not difference <= TOLERANCE:
        out.unlink()
        raise ParityError(
            what="the exported network gives other logits",
            where=out,
            got=f"a difference of {difference:.2g}",
            expected=f"at most {TOLERANCE:g}",
            cure="try the other format, or another version of torch",
        )
    page = out.with_suffix(".json")
    described = describe(bundle, kind, example, difference)
    write_atomically(page, (json.dumps(described, indent=2) + "\n").encode())
    return Exported(out, page, difference)


def random_inputs(
    config: RunConfig, *, batch: int, slices: int, seed: int
) -> dict[str, torch.Tensor]:
    """Return inputs of the exported network by name: noise, and stacks of varied length.

    Of a study's series some are absent, never all.
    """
    rng = np.random.default_rng(seed)
    types = len(config.series_types)
    n = (batch, types) if config.sample == "study" else (batch,)
    lengths = rng.integers(1, slices + 1, n)
    if config.sample == "study":
        gone = rng.random(n) < 0.3
        gone[np.arange(batch), rng.integers(types, size=batch)] = False
        lengths[gone] = 0
    present = np.arange(slices) < lengths[..., None]
    shape = (*n, slices, 1, config.crop.height, config.crop.width)
    inputs = {
        "image": rng.random(shape, np.float32),
        "present": present,
        "position": np.sort(rng.random((*n, slices), np.float32), axis=-1) * present,
    }
    if config.sample == "disc":
        inputs["level"] = rng.integers(5, size=batch)
    return {name: torch.from_numpy(value) for name, value in inputs.items()}


def describe(
    bundle: ModelBundle,
    kind: str,
    inputs: dict[str, torch.Tensor],
    difference: float,
) -> dict[str, Any]:
    """Return the page about an exported network, ready for JSON."""
    config = bundle.config
    trained_cells = CellLoss(config.loss, config.series_types).trained.tolist()
    return {
        "format_version": FORMAT_VERSION,
        "lumbar_version": __version__,
        "format": kind,
        "sample": config.sample,
        "series_types": [str(t) for t in config.series_types],
        "inputs": [
            {
                "name": name,
                "dtype": str(value.dtype).removeprefix("torch."),
                "shape": ["batch", *value.shape[1:]],
                "meaning": MEANING[name],
            }
            for name, value in inputs.items()
        ],
        "outputs": [
            {
                "name": name,
                "dtype": "float32",
                "shape": ["batch", len(CELLS), len(SEVERITIES)],
                "meaning": MEANING[name],
            }
            for name in ("logits", "probabilities")
        ],
        "cells": list(CELLS),
        "severities": list(SEVERITIES),
        "trained_cells": [
            c for c, is_trained in zip(CELLS, trained_cells, strict=True) if is_trained
        ],
        "crop": config.crop.model_dump(mode="json"),
        "preprocess": bundle.preprocess,
        "parity": {"largest_difference_of_logits": difference, "tolerance": TOLERANCE},
    }


MEANING = {
    "image": "slices in the canonical orientation of a lumbar cache, in normalised values, of "
    "the crop's pixel_mm (pixel_mm_of for some types); of a study one series of each type, in the "
    "order of series_types",
    "present": "which slices there are; they come first, and a series that is absent has none",
    "position": "of each slice in its stack: (index + 0.5) / depth, 0 where none is",
    "level": "of the disc in the middle of the crop, 0 for L1/L2 to 4 for L5/S1",
    "logits": "of the severities of each cell; of a disc, its own level's alone mean something",
    "probabilities": "of the severities of each cell; those that were not trained mean nothing",
}


def _format_of(out: Path) -> Literal["onnx", "torch.export"]:
    if out.suffix not in FORMATS:
        raise InputError(
            what="cannot tell the format of the export",
            where=out,
            got=out.suffix or "no ending",
            expected=" or ".join(FORMATS),
            cure="name the file so",
        )
    missing = [name for name in EXTRA if find_spec(name) is None]
    if FORMATS[out.suffix] == "onnx" and missing:
        raise InputError(
            what="ONNX is not installed",
            where=out,
            got=f"no {', '.join(missing)}",
            expected=", ".join(EXTRA),
            cure="pip install 'lumbar[export]', or export to a .pt2 file",
        )
    return FORMATS[out.suffix]


def _dynamic(inputs: dict[str, torch.Tensor]) -> dict[str, dict[int, Any]]:
    batch = torch.export.Dim("batch")
    return {name: {0: batch} for name in inputs}


def _saved(program: torch.export.ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _onnx(program: torch.export.ExportedProgram) -> bytes:
    names = ["logits", "probabilities"]
    converted = torch.onnx.export(program, dynamo=True, verbose=False, output_names=names)
    assert converted is not None
    written: bytes = converted.model_proto.SerializeToString()
    return written


LogitsFunction = Callable[[dict[str, torch.Tensor]], np.ndarray]
"""From inputs by name to logits."""


def _onnx_runner(path: Path) -> LogitsFunction:
    session = import_module("onnxruntime").InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )

    def run(inputs: dict[str, torch.Tensor]) -> np.ndarray:
        named = {name: value.numpy() for name, value in inputs.items()}
        return np.asarray(session.run(["logits"], named)[0])

    return run


def _torch_runner(path: Path) -> LogitsFunction:
    module = torch.export.load(path).module()

    def run(inputs: dict[str, torch.Tensor]) -> np.ndarray:
        logits: np.ndarray = module(*inputs.values())[0].numpy()
        return logits

    return run


def _largest_difference(bundle: ModelBundle, run: LogitsFunction, *, slices: int) -> float:
    """Return how far apart the logits of the trained network and the written one are."""
    config, network = bundle.config, bundle.model.eval()
    numbers = torch.tensor([SERIES_TYPES.index(t) for t in config.series_types])
    differences = []
    for seed, batch in enumerate(CHECKED_BATCHES):
        inputs = random_inputs(config, batch=batch, slices=slices, seed=seed)
        image, present, position = (inputs[n] for n in ("image", "present", "position"))
        lengths = present.sum(dim=-1)
        expected = network(
            image, present, position, lengths, numbers.expand(lengths.shape), inputs.get("level")
        )
        differences.append(np.abs(run(inputs) - expected.numpy()).max())
    return float(np.max(differences))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings and logs about their own internals."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
