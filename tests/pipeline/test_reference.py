"""Voxel for voxel against other converters: their volumes, and dcm2niix where it is installed.

``--grid native`` before normalisation is exact; ``fit`` lies within half a grey level of an
independent resampling.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from fixtures.dicom import REFERENCES
from imagecodecs import jpeg2k_encode, jpeg8_encode, jpegls_encode
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.dicom.parse import quiet_pydicom
from lumbar.pipeline.geometry.orient import choose_in_plane, turn
from lumbar.pipeline.series.normalise import Rescale, rescale
from lumbar.pipeline.series.read import (
    SeriesFiles,
    order_and_decode,
    parse_files,
    read_files,
    read_headers,
)
from lumbar.pipeline.series.task import SeriesTask

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
CORNER_MM = 0.05
PLACE_TOLERANCE = 0.02
"""How far from a whole voxel of the reference ours may lie: NIfTI's affines are float32."""

DCM2NIIX = shutil.which("dcm2niix") or shutil.which("dcm2niix", path=Path(sys.executable).parent)
needs_dcm2niix = pytest.mark.skipif(DCM2NIIX is None, reason="dcm2niix is not installed")

NATIVE = PreprocessConfig(grid="native", dtype="int16", percentiles=(0, 100))

PRIVATE_SCALE = {
    "1901_WIP_3DpCASL_cl",
    "1901_WIP_3DpCASL_enh_real",
    "Ph_801_WIP_B0_NS_e1",
    "d2n_philips_enhanced_anatomical_001",
}
"""References that hold Philips' private scale instead of the standard's slope: one factor."""


def test_every_reference_is_one_of_these(real_dicom):
    """But for a mosaic, refused by name, and the field map that shares its slices' positions."""
    found = {
        path.name.removesuffix(".nii.gz") for path in real_dicom.glob("series/_oracle_nifti/*")
    }
    assert found - REFERENCES.keys() == {"ts_siemens_mosaic_1", "Ph_801_WIP_B0_NS_e2_fieldmaphz"}


def decoded(tmp_path, folder):
    """Return (volume of rescaled values, its affine) as they are before normalisation."""
    files = tuple(
        sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    )
    series = SeriesFiles(
        SeriesTask(
            study_id="1", series_id="1", source=folder, files=files, named=None, has_csv=False,
            cache=tmp_path, config=NATIVE,
        )
    )  # fmt: skip
    with quiet_pydicom():
        parse_files(series, read_files(series))
        headers, _ = read_headers(series)
        ordered, pictures = order_and_decode(series, headers)
    slices = [
        turn(
            pictures[header].values * np.float64(header.slope) + header.intercept,
            choose_in_plane(header, ordered.plane),
        )
        for header in ordered.headers
    ]
    single = [rescale(pictures[h], Rescale(h.slope, h.intercept), 0.0) for h in ordered.headers]
    assert all(
        np.allclose(turn(one, choose_in_plane(header, ordered.plane)), exact, rtol=1e-6)
        for one, header, exact in zip(single, ordered.headers, slices, strict=True)
    )
    return np.stack(slices)


def resampled(reference, affine_lps, to_lps, shape):
    """Return a reference's values at a volume's voxels, which have to be whole voxels of it."""
    places = np.einsum("ij,jdhw->idhw", np.linalg.inv(affine_lps) @ to_lps, voxels(shape))[:3]
    assert np.abs(places - np.rint(places)).max() < PLACE_TOLERANCE
    return reference[tuple(np.rint(places).astype(int))]


def voxels(shape):
    places = np.indices(shape).astype(float)
    return np.concatenate([places, np.ones_like(places[:1])])


def read_nifti(path):
    """Return the values, those of the first time, and the affine in LPS."""
    image = nibabel.load(path)
    values = np.asarray(image.dataobj, np.float64)
    return values[..., 0] if values.ndim == 4 else values, RAS_TO_LPS @ image.affine


def is_scaled(found, expected):
    """Tell if two volumes agree exactly, up to one factor and offset of the whole volume."""
    design = np.stack([expected.ravel(), np.ones(expected.size)], axis=1)
    (factor, offset), *_ = np.linalg.lstsq(design, found.ravel(), rcond=None)
    step = np.diff(np.unique(found)).min()
    return bool(np.abs(found - (expected * factor + offset)).max() < step / 100)


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_native_values_are_exactly_the_references(tools, tmp_path, real_dicom, name):
    folder = real_dicom / "series" / REFERENCES[name]
    found = decoded(tmp_path, folder)
    attributes = tools.cached(folder, tmp_path / "out", NATIVE).attributes(0)
    assert len(attributes.stacks) == 1
    reference, affine_lps = read_nifti(real_dicom / "series" / "_oracle_nifti" / f"{name}.nii.gz")
    expected = resampled(reference, affine_lps, attributes.affine, found.shape)
    assert found.size == reference.size
    assert np.array_equal(found, expected) == (name not in PRIVATE_SCALE)
    assert is_scaled(found, expected)


def corners_lps(affine, shape):
    voxels = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    return (np.c_[voxels, np.ones(8)] @ affine.T)[:, :3]


def fitted_gain(found, expected):
    """Return the factor between two pictures; a converter may leave the rescaling to its header."""
    expected = expected.astype(float)
    return float((found * expected).sum() / (expected * expected).sum())


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_cached_volume_agrees_with_its_reference(tools, tmp_path, real_dicom, name):
    cache = tools.cached(real_dicom / "series" / REFERENCES[name], tmp_path / "out", NATIVE)
    reference, affine_lps = read_nifti(real_dicom / "series" / "_oracle_nifti" / f"{name}.nii.gz")
    attributes, volume = cache.attributes(0), np.asarray(cache.volume(0), float)
    assert cache.series.height == 1
    assert len(attributes.stacks) == 1
    assert volume.size == reference.size
    ours, theirs = (
        corners_lps(attributes.affine, volume.shape),
        corners_lps(affine_lps, reference.shape),
    )
    assert np.linalg.norm(ours[:, None] - theirs[None], axis=2).min(axis=1).max() < CORNER_MM
    expected = resampled(reference, affine_lps, attributes.affine, volume.shape)
    low, high = attributes.window.low, attributes.window.high
    found = tools.rescaled(cache)
    step = (high - low) * attributes.scale
    gain = fitted_gain(found, expected)
    assert np.abs(found - expected * gain).max() <= step + 1e-3 * (high - low)


def area_average(line, length):
    """Return a line of values brought to fewer, each the mean of what it covers."""
    edges = np.linspace(0, len(line), length + 1)
    summed = np.concatenate([np.zeros_like(line[:1]), np.cumsum(line, axis=0)])
    at_edges = np.stack(
        [
            np.interp(edges, np.arange(len(line) + 1), column)
            for column in summed.reshape(len(line) + 1, -1).T
        ],
        axis=1,
    ).reshape(length + 1, *line.shape[1:])
    return np.diff(at_edges, axis=0) * (length / len(line))


def fitted(picture_hw, height, width):
    """Scale a picture by itself: means where it shrinks, then scipy's linear where it grows."""
    for axis, length in ((0, height), (1, width)):
        if length < picture_hw.shape[axis]:
            picture_hw = np.moveaxis(
                area_average(np.moveaxis(picture_hw, axis, 0), length), 0, axis
            )
    h = (np.arange(height) + 0.5) * picture_hw.shape[0] / height - 0.5
    w = (np.arange(width) + 0.5) * picture_hw.shape[1] / width - 0.5
    return map_coordinates(picture_hw, np.meshgrid(h, w, indexing="ij"), order=1, mode="nearest")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, 96) for name in sorted(REFERENCES)),
        ("d2n_siemens_anatomical_001", 384),
        ("d2n_philips_anatomical_001", 160),
        ("siemens_xa10", 100),
    ],
)
def test_fit_is_within_half_a_grey_level_of_an_independent_resampling(
    tools, tmp_path, real_dicom, name, size
):
    """From the reference's own values: percentiles by numpy, scaled by means and by scipy."""
    folder = real_dicom / "series" / REFERENCES[name]
    native = tools.cached(folder, tmp_path / "native", NATIVE).attributes(0)
    cache = tools.cached(folder, tmp_path / "fit", PreprocessConfig(size=size))
    found, attributes = np.asarray(cache.volume(0), float), cache.attributes(0)
    reference, affine_lps = read_nifti(real_dicom / "series" / "_oracle_nifti" / f"{name}.nii.gz")
    ours = decoded(tmp_path, folder)
    expected = resampled(reference, affine_lps, native.affine, ours.shape)
    low, high = np.percentile(expected, (0.5, 99.5))
    spacing_h, spacing_w = np.linalg.norm(native.affine[:3, 1:3], axis=0)
    field = np.array(expected.shape[1:]) * (spacing_h, spacing_w)
    height, width = np.rint(field / (field.max() / size)).astype(int)
    top, left = (size - height) // 2, (size - width) // 2
    for stored, picture in zip(found, expected, strict=True):
        levels = np.clip((fitted(picture, height, width) - low) / (high - low), 0, 1) * 255
        inside = stored[top : top + height, left : left + width]
        assert np.abs(inside - levels).max() <= 0.501
        assert stored.sum() == inside.sum()
    assert attributes.flags == native.flags


def run_dcm2niix(source, target):
    target.mkdir()
    subprocess.run(
        # -p n: the standard's slope and intercept, not Philips' private scale.
        [DCM2NIIX, "-z", "n", "-b", "y", "-p", "n", "-f", "%s_%e_%t",
         "-o", str(target), str(source)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return sorted(target.glob("*.nii"))


TAGS = {
    "Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "SeriesNumber": 3,
    "PatientPosition": "HFS", "Manufacturer": "SIEMENS",
}  # fmt: skip
"""What dcm2niix wants to know of an image."""


def textured(dataset, index):
    """Give each slice a picture of its own that is no other one turned or mirrored."""
    row, column = np.mgrid[: dataset.Rows, : dataset.Columns]
    picture = 900 + 310 * index + 23 * row + 11 * column + (row * column) % 17
    dataset.PixelData = picture.astype(np.uint16).tobytes()


def signed_and_rescaled(dataset, index):
    textured(dataset, index)
    dataset.PixelRepresentation = 1
    values = np.frombuffer(dataset.PixelData, np.uint16).astype(int) - 2000
    dataset.PixelData = values.astype(np.int16).tobytes()
    dataset.RescaleSlope, dataset.RescaleIntercept = "0.25", "-40"


def twelve_bits(dataset, index):
    textured(dataset, index)
    dataset.BitsStored, dataset.HighBit = 12, 11


def compress(path, syntax, encode):
    """Compress a written file of twelve bits."""
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([bytes(encode(dataset.pixel_array))])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(path, enforce_file_format=False)


COMPRESSED = {
    "57": lambda a: jpeg8_encode(a, lossless=True, predictor=6, bitspersample=12),
    "70": lambda a: jpeg8_encode(a, lossless=True, predictor=1, bitspersample=12),
    "80": jpegls_encode,
    "90": lambda a: jpeg2k_encode(a, codecformat="j2k", reversible=True, bitspersample=12),
}
"""Transfer syntaxes that dcm2niix decodes too."""


def test_dcm2niix_is_there_where_everything_is_tested():
    """CI installs it with the extra ``test``: there, nothing below may be left out in silence."""
    assert DCM2NIIX is not None or "CI" not in os.environ


@needs_dcm2niix
@pytest.mark.parametrize("plane", ["sagittal", "axial", "coronal"])
@pytest.mark.parametrize(
    ("rle", "edit"),
    [(False, textured), (True, textured), (False, signed_and_rescaled), (True, twelve_bits)],
    ids=["raw", "rle", "signed", "rle-12-bits"],
)
def test_dcm2niix_makes_the_same_volume_of_a_phantom(tools, tmp_path, plane, rle, edit):
    """Numbered backwards, of uneven pixels: the same value at each place in the patient."""
    phantom = replace(tools.planes[plane], depth=5, instance_numbers=(5, 4, 3, 2, 1), tags=TAGS)
    phantom.write(tmp_path / "src", rle=rle, edit=edit)
    check_by_dcm2niix(tools, tmp_path)


@needs_dcm2niix
@pytest.mark.parametrize("number", COMPRESSED)
def test_dcm2niix_makes_the_same_volume_of_compressed_files(tools, tmp_path, number):
    phantom = replace(tools.planes["axial"], depth=4, tags=TAGS)
    phantom.write(tmp_path / "src", edit=twelve_bits)
    for path in (tmp_path / "src").iterdir():
        compress(path, f"1.2.840.10008.1.2.4.{number}", COMPRESSED[number])
    check_by_dcm2niix(tools, tmp_path)


@needs_dcm2niix
def test_dcm2niix_makes_the_same_volume_of_an_oblique_stack(tools, tmp_path):
    """Slices turned by 20 and 7 degrees: no axis of the patient is one of the picture's."""
    turned = Rotation.from_euler("xz", (20, 7), degrees=True)
    axial = tools.planes["axial"]
    phantom = replace(
        axial, depth=5, tags=TAGS, row_direction=tuple(turned.apply(axial.row_direction)),
        column_direction=tuple(turned.apply(axial.column_direction)),
        step=tuple(turned.apply((0.0, 0.0, -3.5))), origin=tuple(turned.apply(axial.origin)),
    )  # fmt: skip
    phantom.write(tmp_path / "src", edit=textured)
    check_by_dcm2niix(tools, tmp_path)


def check_by_dcm2niix(tools, tmp_path):
    """Hold the one series of ``src`` against what dcm2niix makes of it, exactly."""
    (path,) = run_dcm2niix(tmp_path / "src", tmp_path / "nifti")
    reference, affine_lps = read_nifti(path)
    found = decoded(tmp_path, tmp_path / "src")
    attributes = tools.cached(tmp_path / "src", tmp_path / "out", NATIVE).attributes(0)
    expected = resampled(reference, affine_lps, attributes.affine, found.shape)
    assert np.array_equal(found, expected)
    assert len(np.unique(found)) > 500


REAL = [
    "canon_sag_dti_b0_40sl",
    "ge_genesis_wrist_coronal_implicit",
    "philips_pcasl_classic_oblique",
    "philips_pcasl_enhanced_oblique",
    "siemens_sag_t1_gap_hfdl",
    "siemens_xa_jpegll_fragmented_24of96",
    "d2n/ge_anatomical_001_implicit",
    "d2n/generic_compressed_001",
    "d2n/siemens_anatomical_001",
]
"""Series that both convert to one volume."""


@needs_dcm2niix
@pytest.mark.parametrize("name", REAL)
def test_dcm2niix_makes_the_same_volume_of_a_real_series(tools, tmp_path, real_dicom, name):
    folder = real_dicom / "series" / name
    paths = run_dcm2niix(folder, tmp_path / "nifti")
    assert len(paths) == 1, json.dumps([path.name for path in paths])
    reference, affine_lps = read_nifti(paths[0])
    found = decoded(tmp_path, folder)
    attributes = tools.cached(folder, tmp_path / "out", NATIVE).attributes(0)
    expected = resampled(reference, affine_lps, attributes.affine, found.shape)
    assert found.size == reference.size
    # NIfTI keeps slope and intercept in single precision: far below a step of the values.
    rounding = 2.0**-23 * np.abs(expected).max() if "philips" in name else 0.0
    assert rounding < np.diff(np.unique(found)).min() / 100
    assert np.abs(found - expected).max() <= rounding
