"""Real series in the folder LUMBAR_DICOM: each ends as a volume or a named rejection.

`test_reference` compares those that have a reference with it, voxel for voxel.
"""

import numpy as np
import polars as pl
import pytest
from fixtures.dicom import REFERENCES

from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.flags import Flag
from lumbar.pipeline.reject import Reason

EXACT = PreprocessConfig(grid="native", dtype="int16", percentiles=(0, 100))
FLAGS = {
    "canon_sag_dti_b0_40sl": [],
    "ge_genesis_wrist_coronal_implicit": [],
    "siemens_sag_t1_gap_hfdl": [],
    "siemens_xa_jpegll_fragmented_24of96": [],
    "enhanced_sag_knee_temporal": ["repeated_positions", "few_slices", "files_left_out"],
    "ge_localizer_3plane_ff": ["other_planes", "files_left_out"],
    "siemens_mosaic_rewritten_by_agfa_pacs": ["repeated_positions", "files_left_out"],
    "d2n/failing_gantrytilting_001": ["sheared", "few_slices"],
    "d2n/failing_notavolume_001": [
        "repeated_positions",
        "spacing_unknown",
        "few_slices",
        "files_left_out",
    ],
    "d2n/failing_slicecount_001": ["few_slices"],
    "d2n/failing_sliceincrement_001": ["gap", "few_slices"],
    "d2n/ge_anatomical_001_implicit": ["few_slices"],
    "d2n/generic_anatomical_001": ["few_slices"],
    "d2n/philips_dti_001": ["repeated_positions", "few_slices", "files_left_out"],
    "d2n/philips_enhanced_anatomical_001_implicit": [],
}
REFUSED = {"ts_equivalence_siemens_mosaic": Reason.MOSAIC, "d2n/generic_rgb_001": Reason.COLOUR}

SAME_VOXELS = [
    "generic_compressed_001",
    "generic_compressed_jpeg_001",
    "generic_compressed_jpegls_001",
    "generic_compressed_rle_001",
]


@pytest.mark.parametrize("name", sorted(FLAGS))
def test_series_is_cached_with_its_flags(tools, tmp_path, real_dicom, name):
    cache = tools.cached(real_dicom / "series" / name, tmp_path / "out", EXACT)
    assert [list(flags) for flags in cache.series["flags"]] == [FLAGS[name]]
    left_out = set(cache.rejected["reason"])
    assert left_out <= {Reason.REPEATED_POSITION, Reason.OTHER_PLANE}
    assert bool(left_out) == (Flag.FILES_LEFT_OUT in FLAGS[name])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_series_is_refused_by_name(tools, tmp_path, real_dicom, name):
    cache = tools.cached(real_dicom / "series" / name, tmp_path / "out", EXACT)
    assert cache.series.is_empty()
    assert set(cache.rejected["reason"]) == {REFUSED[name]}


def test_each_series_is_covered(real_dicom):
    found = set()
    for folder in real_dicom.glob("series/**/"):
        if folder.name != "_oracle_nifti" and any(path.is_file() for path in folder.iterdir()):
            found.add(folder.relative_to(real_dicom / "series").as_posix())
    assert found == (
        FLAGS.keys()
        | REFUSED.keys()
        | set(REFERENCES.values())
        | {f"d2n/{name}" for name in SAME_VOXELS}
    )


def test_one_image_in_four_transfer_syntaxes_is_one_volume(tools, tmp_path, real_dicom):
    volumes = []
    for name in SAME_VOXELS:
        source = real_dicom / "series" / "d2n" / name
        cache = tools.cached(source, tmp_path / name, EXACT)
        volumes.append((np.asarray(cache.volume(0)), cache.attributes(0).affine))
    for volume, affine in volumes[1:]:
        assert np.array_equal(volume, volumes[0][0])
        assert np.array_equal(affine, volumes[0][1])


def test_classic_and_enhanced_are_one_volume(tools, tmp_path, real_dicom):
    classic, enhanced = (
        tools.cached(real_dicom / "series" / f"philips_pcasl_{kind}_oblique", tmp_path / kind)
        for kind in ("classic", "enhanced")
    )
    assert np.array_equal(classic.volume(0), enhanced.volume(0))
    assert np.allclose(classic.attributes(0).affine, enhanced.attributes(0).affine, atol=1e-6)


def test_left_and_right_of_a_real_spine_stay(tools, tmp_path, real_dicom):
    cache = tools.cached(real_dicom / "series" / "siemens_sag_t1_gap_hfdl", tmp_path / "out", EXACT)
    attributes = cache.attributes(0)
    assert attributes.series_type == "sagittal_t1"
    assert attributes.affine[0, 3] == pytest.approx(-81.6, abs=1e-3)
    assert attributes.affine[0, 0] == pytest.approx(4.8, abs=1e-3)


def test_quirks_end_as_volumes_or_named_rejections(tools, tmp_path, real_dicom):
    cache = tools.cached(real_dicom / "quirks", tmp_path / "out")
    assert not cache.rejected.filter(pl.col("reason") == Reason.FAILED).height
    rows = dict(cache.rejected.select("path", "reason").iter_rows())
    expected = {
        "dcm4che/3gb-bulk-data-truncated": Reason.UNREADABLE,
        "fo-dicom/GH1339_spine_ax_t2_missing_seqdelim.dcm": None,
        "fo-dicom/GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": Reason.UNREADABLE,
        "fo-dicom/GH1146.dcm": Reason.TRUNCATED,
        "misc/MR_enhanced_RGB_ColFA.dcm": Reason.COLOUR,
        "misc/seg_fractional.dcm": Reason.UNSUPPORTED_PIXELS,
        "nondicom/crayons.icc": Reason.NOT_DICOM,
        "pydicom/reportsi.dcm": Reason.NOT_AN_IMAGE,
        "pydicom-data/liver_nonbyte_aligned.dcm": Reason.UNSUPPORTED_PIXELS,
        "siemens_xa60/DICOMDIR": Reason.NOT_AN_IMAGE,
        "uih_mosaic_no_ipp/00000001.dcm": Reason.NO_POSITION,
        "dcm_qa_12bit/12bitUnsigned.dcm": Reason.MOSAIC,
    }
    assert {path: rows.get(path) for path in expected} == expected
    files = {path for path in (real_dicom / "quirks").rglob("*") if path.is_file()}
    assert len(rows) + sum(cache.series["n_files"]) >= len(files)
