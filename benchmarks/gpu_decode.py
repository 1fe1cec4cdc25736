"""`lumbar preprocess --decode gpu` beside the CPU's decoders: a frame alone, and whole series.

    python benchmarks/gpu_decode.py --json decode.json --markdown decode.md

Frames and series are generated. Each frame's values by the GPU are held against the CPU's before
anything is timed. Medians of interleaved rounds, the least and the greatest beside them. Where no
GPU decodes, the CPU is measured alone, and with ``--device cuda`` that is an error that says why.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from ingest.files import Kind, write_kind
from ingest.measure import Field, Run, measure_rounds, run_lumbar_with
from peers.results import write_results
from peers.rows import Row, row
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from lumbar.pipeline.codecs import decode_on_gpu
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.decode import decode
from lumbar.pipeline.gpu import find_gpu_problem
from lumbar.train.bench.spread import Spread

BITS = 12
SECONDS_A_ROUND = 0.2
TITLE = "Decoding on a GPU beside the CPU"
ENCODERS = {
    "jpeg_lossless": (
        "1.2.840.10008.1.2.4.70",
        lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=1, bitspersample=BITS),
    ),
    "jpeg2000": (
        "1.2.840.10008.1.2.4.90",
        lambda a: imagecodecs.jpeg2k_encode(
            a, codecformat="j2k", reversible=True, bitspersample=BITS
        ),
    ),
    "htj2k": (
        "1.2.840.10008.1.2.4.201",
        lambda a: imagecodecs.htj2k_encode(a, reversible=True),
    ),
}
"""Transfer syntax of each kind of frame, and what encodes it without loss."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--markdown", type=Path, help="where the tables go")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--sides", type=int, nargs="+", default=[320, 512])
    parser.add_argument("--series", type=int, default=16, help="of the whole run")
    parser.add_argument("--workers", type=int, default=min(4, len(os.sched_getaffinity(0))))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the files that were asked for; return 0 unless a GPU was wanted in vain."""
    options = parse_arguments(arguments)
    # Worker processes find this folder's modules by it.
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)
    problem = "not asked for" if options.device == "cpu" else find_gpu_problem()
    decoders = ["cpu"] if problem else ["cpu", "gpu"]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="lumbar-decode-") as folder:
        for found in (
            *frame_rows(options, decoders),
            *series_rows(options, decoders, Path(folder)),
        ):
            rows.append(found)
            spread = f"{found['low']:.4g} - {found['high']:.4g}"
            sys.stdout.write(f"{found['name']}: {found['value']:.4g} ({spread}) {found['unit']}\n")
    write_results(options, describe(options, problem), rows, title=TITLE)
    sys.stdout.write(f"{summarise(rows, problem)}\n")
    return 1 if options.device == "cuda" and problem else 0


def frame_rows(options: argparse.Namespace, decoders: Sequence[str]) -> Iterator[Row]:
    """Yield milliseconds a frame in one process, one frame after the other."""
    for side in options.sides:
        for name, (syntax, encode) in ENCODERS.items():
            dataset = _dataset(_picture(side, options.seed), syntax, encode)
            if "gpu" in decoders:
                _check_alike(dataset, syntax)
            taken: dict[str, list[float]] = {decoder: [] for decoder in decoders}
            for _ in range(options.repeats):
                for decoder in decoders:
                    taken[decoder].append(_ms_a_frame(dataset, on_gpu=decoder == "gpu"))
            yield from _rows(f"frame/{name}_{side}", taken, "ms a frame")


def series_rows(
    options: argparse.Namespace, decoders: Sequence[str], folder: Path
) -> Iterator[Row]:
    """Yield milliseconds a file of whole JPEG 2000 series, from the scan to the stored volume."""
    kind = Kind("jpeg2000", options.sides[-1], None)
    series = write_kind(folder / "source", kind, n_series=options.series, seed=options.seed)
    field = Field(folder / "source", series, "")
    runs: dict[str, Run] = {
        "cpu": run_lumbar_with(PreprocessConfig(decode="cpu")),
        "gpu": run_lumbar_with(PreprocessConfig(decode="gpu")),
    }
    taken: dict[str, list[float]] = {decoder: [] for decoder in decoders}
    for _, decoder, seconds in measure_rounds(
        [field],
        {decoder: runs[decoder] for decoder in decoders},
        folder / "out",
        workers=options.workers,
        repeats=options.repeats,
    ):
        taken[decoder].append(1000 * seconds / field.n_files)
    yield from _rows(f"series/{kind.name}", taken, "ms a file", workers=options.workers)


def _rows(start: str, taken: dict[str, list[float]], unit: str, **more: Any) -> Iterator[Row]:
    for decoder, times_ms in taken.items():
        yield row(f"{start}/{decoder}", Spread.of(times_ms), unit, **more)
    if "gpu" in taken:
        gain = np.array(taken["cpu"]) / np.array(taken["gpu"])
        yield row(f"{start}/cpu_over_gpu", Spread.of(gain.tolist()), "times", **more)


def _picture(side: int, seed: int) -> np.ndarray:
    """Return an image as smooth and as noisy as MR is."""
    rng = np.random.default_rng(seed)
    row_index, column = np.mgrid[:side, :side] * (300 / side)
    wave = 1 + np.sin(row_index / 17) * np.cos(column / 23)
    noisy = wave * 1500 + rng.normal(0, 40, wave.shape)
    return np.clip(np.rint(noisy), 0, 2**BITS - 1).astype(np.uint16)


def _dataset(picture: np.ndarray, syntax: str, encode: Any) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.Rows, dataset.Columns = picture.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, BITS, BITS - 1
    dataset.PixelRepresentation = 0
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate([bytes(encode(picture))])
    dataset["PixelData"].is_undefined_length = True
    return dataset


def _check_alike(dataset: pydicom.Dataset, syntax: str) -> None:
    """End where the GPU does not take a frame, or gives other values."""
    if decode_on_gpu(dataset, 0, syntax) is None:
        sys.exit(f"the GPU does not decode {UID(syntax).name}")
    by_cpu, by_gpu = (decode(dataset, 0, on_gpu=on_gpu).values for on_gpu in (False, True))
    if not np.array_equal(by_cpu, by_gpu):
        sys.exit(f"the GPU gives other values of {UID(syntax).name}")


def _ms_a_frame(dataset: pydicom.Dataset, *, on_gpu: bool) -> float:
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS_A_ROUND or not count:
        decode(dataset, 0, on_gpu=on_gpu)
        count += 1
    return 1000 * (time.perf_counter() - started) / count


def summarise(rows: Sequence[Row], problem: str) -> str:
    """Return all medians as one line."""
    medians: dict[str, list[str]] = {}
    for one in rows:
        if one["unit"] != "times":
            name, _, decoder = one["name"].rpartition("/")
            medians.setdefault(name, []).append(f"{decoder} {one['value']:.3g}")
    each = "; ".join(f"{name} {', '.join(told)}" for name, told in medians.items())
    return f"ms: {each}" + (f"; no GPU: {problem}" if problem else "")


def describe(options: argparse.Namespace, problem: str) -> dict[str, Any]:
    """Return what is needed to read the numbers again; no path, no host."""
    # Worker processes import this file again, and need no torch.
    import torch  # noqa: PLC0415

    from lumbar.train.bench.hardware import describe_machine  # noqa: PLC0415

    machine = describe_machine(torch.device("cpu" if problem else "cuda"))
    machine["versions"] |= {"imagecodecs": imagecodecs.__version__, "pydicom": pydicom.__version__}
    if problem:
        machine["gpu"] = f"not used: {problem}"
    else:
        from nvidia import nvimgcodec  # noqa: PLC0415

        machine["versions"]["nvimgcodec"] = nvimgcodec.__version__
    return machine | {
        "seed": options.seed,
        "repeats": options.repeats,
        "workers": options.workers,
        "series": options.series,
        "sides": options.sides,
    }


if __name__ == "__main__":
    sys.exit(main())
