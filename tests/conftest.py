"""What the whole suite shares.

Settings of Hypothesis, a small cache, the command line, and the folder of real DICOM.
"""

import atexit
import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import settings

from lumbar import cli
from lumbar.cache.format import (
    COORDINATES_SCHEMA,
    COORDINATES_TABLE,
    LABELS_SCHEMA,
    LABELS_TABLE,
    REJECTED_SCHEMA,
    REJECTED_TABLE,
    SERIES_TABLE,
    IntensityWindow,
    SourceGrid,
    Stack,
    VolumeAttributes,
)
from lumbar.cache.index import build_index
from lumbar.cache.names import SeriesType
from lumbar.cache.tables import config_hash, write_cache_file, write_table
from lumbar.cache.volumes import write_volume

pytest_plugins = ["fixtures.cache", "fixtures.network", "fixtures.train"]

os.environ.setdefault("MPLBACKEND", "Agg")

if sys.dont_write_bytecode and "PYTHONPYCACHEPREFIX" not in os.environ:
    # Nothing is written beside the sources, as was asked for. Without any byte code each process
    # that a test starts would compile torch and everything else anew, for seconds.
    sys.pycache_prefix = tempfile.mkdtemp(prefix="lumbar-bytecode-")
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)
    sys.dont_write_bytecode = False
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

TINY_CONFIG = {"made_by": "tests"}


@pytest.fixture
def tiny_cache(tmp_path):
    """A finished cache of one study: a sagittal series and an axial one of two stacks."""
    cache = tmp_path / "cache"
    cache.mkdir()
    rng = np.random.default_rng(2024)
    sagittal = np.array([[4.0, 0, 0, -8], [0, 0, 0.5, -20], [0, -0.5, 0, 30], [0, 0, 0, 1]])
    axial = np.array([[0, 0, 0.5, -15], [0, 0.5, 0, -18], [-3.5, 0, 0, 12], [0, 0, 0, 1]])
    lower = axial + np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, -30], [0, 0, 0, 0]])
    write_volume(
        cache,
        rng.integers(0, 256, (5, 96, 80), np.uint8),
        tiny_attributes("100.1", SeriesType.SAGITTAL_T2, (Stack(0, 5, sagittal),)),
    )
    write_volume(
        cache,
        rng.integers(0, 256, (4, 72, 64), np.uint8),
        tiny_attributes("100.2", SeriesType.AXIAL_T2, (Stack(0, 2, axial), Stack(2, 4, lower))),
    )
    labels = dict.fromkeys(LABELS_SCHEMA, 0) | {"study_id": "100"}
    labels |= {"spinal_canal_stenosis_l4_l5_severe": 1, "spinal_canal_stenosis_l4_l5_known": True}
    point = {"study_id": "100", "series_id": "100.1", "level": "l4_l5", "instance_number": 3}
    point |= {"condition": "spinal_canal_stenosis", "x": 40.0, "y": 60.0, "d": 2.0, "h": 60.0}
    x_mm, y_mm, z_mm, _ = sagittal @ (2, 60, 40, 1)
    point |= {"w": 40.0, "x_mm": x_mm, "y_mm": y_mm, "z_mm": z_mm}
    write_table(cache, SERIES_TABLE, build_index(cache))
    write_table(cache, LABELS_TABLE, pl.DataFrame([labels], schema=LABELS_SCHEMA, strict=False))
    write_table(cache, COORDINATES_TABLE, pl.DataFrame([point], schema=COORDINATES_SCHEMA))
    write_table(cache, REJECTED_TABLE, pl.DataFrame(schema=REJECTED_SCHEMA))
    write_cache_file(cache, config=TINY_CONFIG, counts={"series": 2, "studies": 1})
    return cache


def tiny_attributes(series_id, series_type, stacks):
    depth = stacks[-1].stop
    affine = stacks[0].affine
    spacing_d_mm, spacing_h_mm, spacing_w_mm = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return VolumeAttributes(
        study_id="100",
        series_id=series_id,
        series_type=series_type,
        stacks=stacks,
        source_grids=(SourceGrid(0, depth, np.array([[0.0, 1, 0], [1, 0, 0]])),),
        spacing_mm=(spacing_d_mm, spacing_h_mm, spacing_w_mm),
        scale=1 / 255,
        offset=0.0,
        window=IntensityWindow(12.0, 900.0),
        instance_numbers=tuple(range(1, depth + 1)),
        sop_instance_uids=tuple(f"100.1.{n}" for n in range(1, depth + 1)),
        source_hash="0" * 16,
        config_hash=config_hash(TINY_CONFIG),
        manufacturer="none",
        transfer_syntax="1.2.840.10008.1.2.5",
        n_files=depth,
    )


@pytest.fixture(scope="session")
def command_line():
    """A function that runs ``lumbar`` with arguments in this process: status, out and err."""

    def run(*arguments):
        out, err, status = io.StringIO(), io.StringIO(), 0
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "argv", ["lumbar", *map(str, arguments)]),
        ):
            try:
                cli.main()
            except SystemExit as end:
                status = end.code or 0
        return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())

    return run


@pytest.fixture(scope="session")
def real_dicom():
    """The folder that LUMBAR_DICOM names: real series, which no repository may hold."""
    named = os.environ.get("LUMBAR_DICOM")
    if not named:
        pytest.skip("real DICOM is not part of the repository: LUMBAR_DICOM names its folder")
    folder = Path(named)
    assert folder.is_dir(), f"LUMBAR_DICOM names no folder: {folder}"
    return folder
