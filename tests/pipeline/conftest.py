"""A phantom whose voxels encode patient millimetres, written as DICOM like the data set's."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from lumbar.cache.names import CELLS
from lumbar.cache.store import Cache
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.execution import isolate
from lumbar.pipeline.output import unchanged
from lumbar.pipeline.preprocess import preprocess
from lumbar.pipeline.series import convert
from lumbar.pipeline.source.rsna_csv import POINT_COLUMNS, SERIES_COLUMNS

VALUE_AT_ZERO_MM = 20000
VALUES_PER_MM = 50
"""A voxel's stored value is ``20000 + 50 * millimetres``: 0.02 mm per step, -400 to 900 mm."""


@dataclass(frozen=True)
class Phantom:
    """A stack of slices; ``encoded`` says which of x, y, z the voxels encode."""

    row_direction: tuple = (0.0, 1.0, 0.0)
    column_direction: tuple = (0.0, 0.0, -1.0)
    step: tuple = (4.0, 0.0, 0.0)
    origin: tuple = (-12.0, -40.0, 60.0)
    depth: int = 7
    rows: int = 48
    columns: int = 40
    row_spacing: float = 1.5
    column_spacing: float = 2.0
    encoded: int = 0
    instance_numbers: tuple = ()
    tags: dict = field(default_factory=dict)
    first_file: int = 1

    @property
    def numbers(self):
        return self.instance_numbers or tuple(range(1, self.depth + 1))

    def position(self, index):
        return np.array(self.origin) + index * np.array(self.step)

    def points(self, index, row, column):
        """Return patient coordinates of pixels of slice ``index``."""
        down = np.array(self.column_direction) * self.row_spacing
        along = np.array(self.row_direction) * self.column_spacing
        row, column = np.asarray(row, float), np.asarray(column, float)
        return self.position(index) + row[..., None] * down + column[..., None] * along

    def picture(self, index):
        row, column = np.mgrid[: self.rows, : self.columns]
        mm = self.points(index, row, column)[..., self.encoded]
        return np.rint(VALUE_AT_ZERO_MM + VALUES_PER_MM * mm).astype(np.uint16)

    def dataset(self, index):
        """Return the header of a slice, no more than the data set's files have."""
        number = self.numbers[index]
        dataset = pydicom.Dataset()
        dataset.StudyInstanceUID = "100"
        dataset.SeriesInstanceUID = "100.1"
        dataset.SOPInstanceUID = f"100.1.{number}" if number >= 0 else "100.1.0"
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = [f"{v:.8g}" for v in self.position(index)]
        cosines = (*self.row_direction, *self.column_direction)
        dataset.ImageOrientationPatient = [f"{v:.8g}" for v in cosines]
        dataset.PixelSpacing = [f"{self.row_spacing:.8g}", f"{self.column_spacing:.8g}"]
        dataset.Rows, dataset.Columns = self.rows, self.columns
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.PixelRepresentation = 0
        for keyword, value in self.tags.items():
            setattr(dataset, keyword, value)
        return dataset

    def write(self, folder, *, edit=None, rle=False):
        """Write one file per slice, named by its instance number; ``edit`` changes each header."""
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(self.depth):
            dataset = self.dataset(index)
            dataset.PixelData = self.picture(index).tobytes()
            if edit is not None:
                edit(dataset, index)
            name = self.numbers[index] + self.first_file - 1
            save(dataset, folder / f"{name}.dcm", rle=rle)


def save(dataset, path, *, rle=False):
    """Write a data set with preamble and the shortest meta group that names its encoding."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.preamble = bytes(128)
    if rle:
        dataset.compress(RLELossless, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=False, little_endian=True, implicit_vr=False)


EXACT = PreprocessConfig(dtype="int16", percentiles=(0, 100), grid="native")


@dataclass(frozen=True)
class Tools:
    """What the tests of the pipeline share."""

    phantom: Phantom
    planes: dict
    save: Callable
    exact: PreprocessConfig

    def run(self, src, out, config=None, **options):
        """Preprocess in this process and return the events."""
        options = {"workers": 0} | options
        return list(preprocess(src, out, config or self.exact, **options))

    def cached(self, src, out, config=None, **options):
        self.run(src, out, config, **options)
        return Cache(out)

    def decoded_mm(self, cache, row):
        """Return the millimetres that the voxels of a volume encode, -inf on the padding."""
        attributes = cache.attributes(row)
        stored = np.asarray(cache.volume(row), float)
        low, high = attributes.window.low, attributes.window.high
        rescaled = (stored * attributes.scale + attributes.offset) * (high - low) + low
        return (rescaled - VALUE_AT_ZERO_MM) / VALUES_PER_MM

    def expected_mm(self, cache, row):
        """Return patient coordinates of all voxels by the stacks' affines: (d, h, w, 3)."""
        attributes = cache.attributes(row)
        depth, height, width = cache.volume(row).shape
        places = np.empty((depth, height, width, 3))
        h, w = np.mgrid[:height, :width]
        for stack in attributes.stacks:
            for d in range(stack.start, stack.stop):
                voxel = np.stack([np.full_like(h, d - stack.start), h, w, np.ones_like(h)])
                places[d] = np.einsum("ij,jhw->hwi", stack.affine, voxel)[..., :3]
        return places

    def rescaled(self, cache):
        """Return the rescaled values of the first volume."""
        attributes = cache.attributes(0)
        low, high = attributes.window.low, attributes.window.high
        return np.asarray(cache.volume(0), float) * attributes.scale * (high - low) + low

    def assert_same_volume(self, tmp_path, src="src", other="plain"):
        """Cache two sources; their first volumes are the same. Return both caches."""
        found = self.cached(tmp_path / src, tmp_path / "out")
        expected = self.cached(tmp_path / other, tmp_path / "out-other")
        assert np.array_equal(found.volume(0), expected.volume(0))
        return found, expected

    def write_points(self, rsna, rows):
        """Write the coordinates CSV: study, series, number, x and y per row."""
        filled = [(*row[:3], "Spinal Canal Stenosis", "L4/L5", *row[3:]) for row in rows]
        table = pl.DataFrame(filled, schema=list(POINT_COLUMNS), orient="row")
        table.write_csv(rsna / "train_label_coordinates.csv")

    def with_tags(self, **tags):
        return replace(self.phantom, tags=tags)


PLANES = {
    "sagittal": Phantom(),
    "axial": Phantom(
        row_direction=(1.0, 0.0, 0.0),
        column_direction=(0.0, 1.0, 0.0),
        step=(0.0, 0.0, -3.5),
        origin=(-40.0, -35.0, 20.0),
    ),
    "coronal": Phantom(
        row_direction=(1.0, 0.0, 0.0),
        column_direction=(0.0, 0.0, -1.0),
        step=(0.0, 5.0, 0.0),
        origin=(-40.0, -15.0, 33.0),
    ),
}


@pytest.fixture(scope="session")
def tools():
    return Tools(PLANES["sagittal"], PLANES, save, EXACT)


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled although the test has just written them."""
    monkeypatch.setattr(unchanged, "SETTLED_NS", -(10**12))


@pytest.fixture
def decoded(monkeypatch):
    """A list that grows by the id of each series that is decoded."""
    found = []
    genuine = convert.order_and_decode

    def counted(series, headers):
        found.append(series.task.series_id)
        return genuine(series, headers)

    monkeypatch.setattr(convert, "order_and_decode", counted)
    return found


@pytest.fixture
def converted(monkeypatch):
    """A list that grows by study and series of each series whose files are read."""
    found = []
    genuine = isolate.convert

    def counted(task):
        found.append("/".join(task.key))
        return genuine(task)

    monkeypatch.setattr(isolate, "convert", counted)
    return found


@pytest.fixture
def rsna(tmp_path):
    """A source of the data set's layout: two studies, three series, all CSV files."""
    src = tmp_path / "rsna"
    images = src / "train_images"
    fast = {"rows": 24, "columns": 20, "row_spacing": 3.0, "column_spacing": 4.0}
    for plane, study_id, series_id, rle in (
        ("sagittal", "100", "7", True),
        ("axial", "100", "8", True),
        ("sagittal", "200", "7", False),
    ):
        uids = {"StudyInstanceUID": study_id, "SeriesInstanceUID": f"{study_id}.{series_id}"}
        phantom = replace(PLANES[plane], **fast, tags=uids)
        phantom.write(images / study_id / series_id, rle=rle)
    series = [
        ("100", "7", "Sagittal T2/STIR"),
        ("100", "8", "Axial T2"),
        ("200", "7", "Sagittal T1"),
    ]
    table = pl.DataFrame(series, schema=list(SERIES_COLUMNS), orient="row")
    table.write_csv(src / "train_series_descriptions.csv")
    rng = np.random.default_rng(5)
    texts = np.array(["Normal/Mild", "Moderate", "Severe", ""])
    cells = {cell: texts[rng.integers(0, 4, 2)] for cell in CELLS}
    pl.DataFrame({"study_id": ["200", "100"]} | cells).write_csv(src / "train.csv")
    points = [
        ("100", "7", 3, "Spinal Canal Stenosis", "L4/L5", 10.5, 7.25),
        ("100", "8", 2, "Left Subarticular Stenosis", "L5/S1", 12.0, 4.0),
        ("200", "7", 99, "Right Neural Foraminal Narrowing", "L1/L2", 3.0, 4.0),
    ]
    pl.DataFrame(points, schema=list(POINT_COLUMNS), orient="row").write_csv(
        src / "train_label_coordinates.csv"
    )
    return src
