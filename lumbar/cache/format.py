"""Cache format 1: the attributes of a stored volume, and the columns of every table.

A volume is a Zarr v3 array in ``volumes.zarr/<study>/<series>`` whose voxels are one file, plain or
compressed slice by slice (`Profile`); its attributes are a `VolumeAttributes`. The tables are
Parquet files beside it.
``docs/cache-format.md`` describes the same in words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast, get_args

import numpy as np
import polars as pl
from jaxtyping import Float

from lumbar.cache.errors import FormatError, InputError
from lumbar.cache.names import KNOWN_COLUMNS, TARGET_COLUMNS, SeriesType

FORMAT_VERSION = 1

CACHE_FILE = "cache.json"
VOLUMES = "volumes.zarr"
SERIES_TABLE = "series.parquet"
LABELS_TABLE = "labels.parquet"
COORDINATES_TABLE = "coordinates.parquet"
REJECTED_TABLE = "rejected.parquet"

HALF_VOXEL = 0.5
"""A point lies in a volume up to the outer edge of its border voxels."""

STORED_DTYPES = ("uint8", "int16")

Profile = Literal["fast", "archive"]
"""``fast``: the voxels as they are, to be mapped. ``archive``: each slice compressed."""

SERIES_SCHEMA = pl.Schema(
    {
        "study_id": pl.String(),
        "series_id": pl.String(),
        "series_type": pl.String(),
        "path": pl.String(),
        "dtype": pl.String(),
        "depth": pl.Int32(),
        "height": pl.Int32(),
        "width": pl.Int32(),
        "nbytes": pl.Int64(),
        "crc32c": pl.UInt32(),
        "metadata_crc32c": pl.UInt32(),
        "affine": pl.List(pl.Float64()),
        "n_stacks": pl.Int32(),
        "spacing_d_mm": pl.Float64(),
        "spacing_h_mm": pl.Float64(),
        "spacing_w_mm": pl.Float64(),
        "scale": pl.Float64(),
        "offset": pl.Float64(),
        "window_low": pl.Float64(),
        "window_high": pl.Float64(),
        "mean": pl.Float64(),
        "std": pl.Float64(),
        "source_hash": pl.String(),
        "config_hash": pl.String(),
        "manufacturer": pl.String(),
        "transfer_syntax": pl.String(),
        "n_files": pl.Int32(),
        "flags": pl.List(pl.String()),
    }
)
LABELS_SCHEMA = pl.Schema(
    [
        ("study_id", pl.String()),
        *((name, pl.UInt8()) for name in TARGET_COLUMNS),
        *((name, pl.Boolean()) for name in KNOWN_COLUMNS),
    ]
)
COORDINATES_SCHEMA = pl.Schema(
    dict.fromkeys(("study_id", "series_id", "condition", "level"), pl.String)
    | {"instance_number": pl.Int32}
    | dict.fromkeys(("x", "y", "d", "h", "w", "x_mm", "y_mm", "z_mm"), pl.Float64)
)
REJECTED_SCHEMA = pl.Schema(
    dict.fromkeys(("study_id", "series_id", "path", "reason", "detail"), pl.String)
)
TABLE_SCHEMAS = {
    SERIES_TABLE: SERIES_SCHEMA,
    LABELS_TABLE: LABELS_SCHEMA,
    COORDINATES_TABLE: COORDINATES_SCHEMA,
    REJECTED_TABLE: REJECTED_SCHEMA,
}

_SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def is_safe_id(value: str) -> bool:
    """Tell whether an id is safe as a folder name."""
    return _SAFE_ID.fullmatch(value) is not None


def check_id(value: str, *, name: str) -> str:
    """Return an id that is safe as a folder name; raise `InputError` for any other."""
    if not is_safe_id(value):
        raise InputError(
            what=f"{name} cannot name a folder",
            got=repr(value[:160]),
            expected="1 to 128 letters, digits, '.', '_' or '-', not starting with '.'",
            cure="rename the folder or correct the header",
        )
    return value


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices ``start`` to ``stop`` share one orientation.

    ``affine`` is 4x4 float64 and maps a column ``(d - start, h, w, 1)``, voxel centres from zero,
    to patient millimetres ``(x, y, z, 1)`` in DICOM's LPS.
    """

    start: int
    stop: int
    affine: Float[np.ndarray, "4 4"]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"start": self.start, "stop": self.stop, "affine": self.affine.tolist()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Stack:
        """Read the JSON form."""
        return cls(
            int(value["start"]),
            int(value["stop"]),
            np.asarray(value["affine"], np.float64).reshape(4, 4),
        )


@dataclass(frozen=True, slots=True)
class SourceGrid:
    """Where the pixels of the original images lie in slices ``start`` to ``stop``.

    ``matrix`` is 2x3 float64 and maps a column ``(x, y, 1)`` of the original image (column, row,
    zero-based, pixel centres) to ``(h, w)`` of the stored slice. ``picture`` is rows and columns of
    the original image, None where the volume does not record them.
    """

    start: int
    stop: int
    matrix: Float[np.ndarray, "2 3"]
    picture: tuple[int, int] | None = None

    def holds(self, x: float, y: float) -> bool:
        """Tell if a place lies on the original image, up to the outer edge of its border pixels."""
        if self.picture is None:
            return True
        rows, columns = self.picture
        return -HALF_VOXEL <= x <= columns - HALF_VOXEL and -HALF_VOXEL <= y <= rows - HALF_VOXEL

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        form = {"start": self.start, "stop": self.stop, "matrix": self.matrix.tolist()}
        return form | ({} if self.picture is None else {"picture": list(self.picture)})

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SourceGrid:
        """Read the JSON form."""
        return cls(
            int(value["start"]),
            int(value["stop"]),
            np.asarray(value["matrix"], np.float64).reshape(2, 3),
            (int(value["picture"][0]), int(value["picture"][1])) if "picture" in value else None,
        )


@dataclass(frozen=True, slots=True)
class IntensityWindow:
    """The rescaled intensities that became 0 and 1."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeAttributes:
    """Attributes of a stored volume; ``normalised = stored * scale + offset``.

    ``flag_details`` has, for some flags, what was found and where. ``image_grids`` is empty where
    each of the ``instance_numbers`` means one image; otherwise it has the grids of every number,
    one per slice that the number may mean.
    """

    study_id: str
    series_id: str
    series_type: SeriesType
    stacks: tuple[Stack, ...]
    source_grids: tuple[SourceGrid, ...]
    spacing_mm: tuple[float, float, float]
    scale: float
    offset: float
    window: IntensityWindow
    instance_numbers: tuple[int, ...]
    sop_instance_uids: tuple[str, ...]
    source_hash: str
    config_hash: str
    manufacturer: str = ""
    transfer_syntax: str = ""
    n_files: int = 0
    flags: tuple[str, ...] = ()
    flag_details: Mapping[str, str] = field(default_factory=dict)
    image_grids: Mapping[int, tuple[SourceGrid, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_id(self.study_id, name="study_id")
        check_id(self.series_id, name="series_id")
        for runs, name in ((self.stacks, "stacks"), (self.source_grids, "source_grids")):
            _check_runs(runs, depth=self.depth, name=name, series_id=self.series_id)
        if len(self.spacing_mm) != 3 or not all(
            math.isfinite(s) and s > 0 for s in self.spacing_mm
        ):
            raise FormatError(
                what="spacing of a volume",
                where=self.series_id,
                got=self.spacing_mm,
                expected="three finite positive millimetres",
            )
        if len(self.sop_instance_uids) != self.depth:
            raise FormatError(
                what="sop_instance_uids of a volume",
                where=self.series_id,
                got=f"{len(self.sop_instance_uids)} UIDs",
                expected=f"one per slice, {self.depth}",
            )

    @property
    def depth(self) -> int:
        """Number of slices."""
        return len(self.instance_numbers)

    def grids_of(self, number: int) -> tuple[SourceGrid, ...]:
        """Return the grids of an instance number: none if not cached, several if ambiguous."""
        if self.image_grids:
            return self.image_grids.get(number, ())
        slices = [d for d, named in enumerate(self.instance_numbers) if named == number]
        return tuple(replace(self.grid_of(d), start=d, stop=d + 1) for d in slices)

    def grid_of(self, d: int) -> SourceGrid:
        """Return the grid of a slice."""
        return next(grid for grid in self.source_grids if grid.start <= d < grid.stop)

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """The affine of the first stack."""
        return self.stacks[0].affine

    def stack_of(self, d: int) -> Stack:
        """Return the stack that holds a slice."""
        return next(stack for stack in self.stacks if stack.start <= d < stack.stop)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as ``zarr.json`` has them."""
        return {
            "format_version": FORMAT_VERSION,
            "study_id": self.study_id,
            "series_id": self.series_id,
            "series_type": str(self.series_type),
            "affine": self.affine.tolist(),
            "stacks": [stack.to_json() for stack in self.stacks],
            "source_grids": [grid.to_json() for grid in self.source_grids],
            "spacing_mm": list(self.spacing_mm),
            "scale": self.scale,
            "offset": self.offset,
            "window": asdict(self.window),
            "instance_numbers": list(self.instance_numbers),
            "sop_instance_uids": list(self.sop_instance_uids),
            "source_hash": self.source_hash,
            "config_hash": self.config_hash,
            "manufacturer": self.manufacturer,
            "transfer_syntax": self.transfer_syntax,
            "n_files": self.n_files,
            "flags": list(self.flags),
            # Only where there are any: the bytes of all other volumes stay the same.
            **({"flag_details": dict(self.flag_details)} if self.flag_details else {}),
            **({"image_grids": _grids_to_json(self.image_grids)} if self.image_grids else {}),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> VolumeAttributes:
        """Read the attributes of a stored volume; raise `FormatError` for another version."""
        check_version(value.get("format_version"), where=f"volume {value.get('series_id')}")
        try:
            return cls(
                study_id=value["study_id"],
                series_id=value["series_id"],
                series_type=SeriesType(value["series_type"]),
                stacks=tuple(Stack.from_json(v) for v in value["stacks"]),
                source_grids=tuple(SourceGrid.from_json(v) for v in value["source_grids"]),
                spacing_mm=(*map(float, value["spacing_mm"]),),  # type: ignore[arg-type]  # length is checked
                scale=float(value["scale"]),
                offset=float(value["offset"]),
                window=IntensityWindow(**value["window"]),
                instance_numbers=tuple(map(int, value["instance_numbers"])),
                sop_instance_uids=tuple(value["sop_instance_uids"]),
                source_hash=value["source_hash"],
                config_hash=value["config_hash"],
                manufacturer=value["manufacturer"],
                transfer_syntax=value["transfer_syntax"],
                n_files=int(value["n_files"]),
                flags=tuple(value["flags"]),
                flag_details=dict(value.get("flag_details", {})),
                image_grids=_read_image_grids(value.get("image_grids", {})),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                what="attributes of a volume",
                where=value.get("series_id"),
                got=f"{type(error).__name__}: {error}",
                expected=f"the attributes of cache format {FORMAT_VERSION}",
                cure="run `lumbar preprocess` again with --overwrite",
            ) from error


def _grids_to_json(grids: Mapping[int, tuple[SourceGrid, ...]]) -> dict[str, Any]:
    return {str(number): [one.to_json() for one in grids[number]] for number in sorted(grids)}


def _read_image_grids(value: dict[str, Any]) -> dict[int, tuple[SourceGrid, ...]]:
    return {int(number): tuple(map(SourceGrid.from_json, grids)) for number, grids in value.items()}


def _check_runs(
    runs: tuple[Stack, ...] | tuple[SourceGrid, ...], *, depth: int, name: str, series_id: str
) -> None:
    """Check that the runs cover slices 0 to ``depth`` in order, none empty."""
    edges = [0, *(run.stop for run in runs)]
    starts = [run.start for run in runs]
    in_order = starts == edges[:-1] and all(run.start < run.stop for run in runs)
    if not runs or not in_order or edges[-1] != depth:
        raise FormatError(
            what=f"{name} of a volume",
            where=series_id,
            got=[(run.start, run.stop) for run in runs],
            expected=f"runs that cover slices 0 to {depth} without gap or overlap",
        )


def check_profile(profile: object, *, where: object) -> Profile:
    """Return a profile; raise `FormatError` for one that this code does not read."""
    for known in get_args(Profile):
        if profile == known:
            return cast("Profile", known)
    raise FormatError(
        what="profile of a cache",
        where=where,
        got=repr(profile),
        expected=" or ".join(get_args(Profile)),
        cure="install the lumbar that wrote it, or preprocess again into another folder",
    )


def check_version(version: object, *, where: object) -> None:
    """Raise `FormatError` unless ``version`` is the one that this code reads."""
    if version != FORMAT_VERSION:
        raise FormatError(
            what="cache format",
            where=where,
            got=f"format_version {version}",
            expected=f"format_version {FORMAT_VERSION}",
            cure="install the lumbar that wrote it, or preprocess again into another folder",
        )
