"""Which loaders are measured, and why others are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lumbar.bench.loaders.loaders import LoaderInput, LoaderSpec, lacking_shared_memory
from lumbar.train.reader.placement import DEVICE_SHARE, free_bytes, stored_bytes
from lumbar.train.telemetry.cpu import usable_cores

MAX_WORKERS = 8
"""Most workers that are tried by default."""


@dataclass(frozen=True, slots=True)
class Contenders:
    """The loaders to measure, and why others are left out."""

    specs: list[LoaderSpec]
    left_out: list[str]


def choose_contenders(
    source: LoaderInput, reader: LoaderSpec, workers: Sequence[int] | None
) -> Contenders:
    """Return the loaders to measure; ``reader``, which the verdict is about, comes first.

    It is never left out: where its volumes do not fit, it raises an error itself.
    """
    cores = min(usable_cores(), MAX_WORKERS)
    counts = sorted(set(workers or (0, cores // 2, cores)))
    others = [other for other in _placements(source, reader) if other != reader]
    others += [LoaderSpec("cache_dataloader", count) for count in counts]
    others.append(LoaderSpec("dicom_dataloader", counts[-1]))
    reasons = {spec: _why_not(source, spec) for spec in others}
    return Contenders(
        [reader, *(spec for spec in others if not reasons[spec])],
        [f"{reason}." for reason in reasons.values() if reason],
    )


def _placements(source: LoaderInput, reader: LoaderSpec) -> list[LoaderSpec]:
    """Return the reader with every tier and draw that the device allows."""
    if source.device.type == "cpu":
        return [replace(reader, tier="disk"), replace(reader, tier="device")]
    return [
        replace(reader, tier="disk", draw="cpu"),
        replace(reader, tier="disk", draw="gpu"),
        replace(reader, tier="device", draw="gpu"),
    ]


def _why_not(source: LoaderInput, spec: LoaderSpec) -> str | None:
    """Return why a loader cannot be measured here, or None where it can."""
    if spec.kind == "dicom_dataloader" and source.decode is None:
        return "DICOM on the fly was not measured: no folder of DICOM files was named (--src)"
    if spec.kind == "lumbar_reader":
        return _lacking_room(source) if spec.tier == "device" else None
    return lacking_shared_memory(source, spec)


def _lacking_room(source: LoaderInput) -> str | None:
    """Return why the volumes cannot all lie on the device, or None where they can."""
    needed = stored_bytes(source.cache, source.plan.samples.rows)
    free = free_bytes(source.device)
    if needed <= free * DEVICE_SHARE:
        return None
    return (
        f"tier device was not measured: {needed / 1e9:.1f} GB of volumes, {free / 1e9:.1f} GB free"
    )
