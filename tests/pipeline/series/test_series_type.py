"""Series types from headers alone."""

import pytest

from lumbar.cache.names import SERIES_DESCRIPTIONS
from lumbar.pipeline.dicom.header import SeriesHeader
from lumbar.pipeline.geometry.orient import Plane
from lumbar.pipeline.series.series_type import PLANES, find_series_type


def header(description="", echo_ms=None, repetition_ms=None, scanning=()):
    return SeriesHeader(
        description=description,
        scanning_sequence=scanning,
        echo_time_ms=echo_ms and float(echo_ms),
        repetition_time_ms=repetition_ms and float(repetition_ms),
        manufacturer="",
        transfer_syntax="",
    )


@pytest.mark.parametrize(
    ("found", "plane", "expected"),
    [
        (header("T1"), Plane.SAGITTAL, "sagittal_t1"),
        (header("T2"), Plane.SAGITTAL, "sagittal_t2"),
        (header("T2"), Plane.AXIAL, "axial_t2"),
        (header("SAG STIR"), Plane.SAGITTAL, "sagittal_t2"),
        (header("t2_tse_sag_384"), Plane.SAGITTAL, "sagittal_t2"),
        (header("t2_tirm_sag"), Plane.SAGITTAL, "sagittal_t2"),
        (header("Sag T1 FSE"), Plane.SAGITTAL, "sagittal_t1"),
        (header("T1"), Plane.AXIAL, "other"),
        (header("T2"), Plane.CORONAL, "other"),
        (header("T2* medic"), Plane.AXIAL, "other"),
        (header("T2 SAG HEADCOIL"), Plane.SAGITTAL, "sagittal_t2"),
        (header("Sag T2 different"), Plane.SAGITTAL, "sagittal_t2"),
        (header("T2 sag high bandwidth"), Plane.SAGITTAL, "sagittal_t2"),
        (header("T2 sag myelopathy"), Plane.SAGITTAL, "sagittal_t2"),
        (header("T2 eADC"), Plane.SAGITTAL, "other"),
        (header("T2 diffusion_TRACEW"), Plane.SAGITTAL, "other"),
        (header("T2 myelography"), Plane.SAGITTAL, "other"),
        (header("T2 perfusion"), Plane.SAGITTAL, "other"),
        (header("ep2d_diff_T2"), Plane.SAGITTAL, "other"),
        (header("localizer T2"), Plane.SAGITTAL, "other"),
        (header("T1 and T2"), Plane.SAGITTAL, "other"),
        (header("spine", 12, 600), Plane.SAGITTAL, "sagittal_t1"),
        (header("spine", 110, 3500), Plane.SAGITTAL, "sagittal_t2"),
        (header("spine", 110, 3500), Plane.AXIAL, "axial_t2"),
        (header("spine", 20, 3500), Plane.SAGITTAL, "other"),
        (header("spine", 3, 20, ("GR",)), Plane.SAGITTAL, "other"),
        (header("spine", 80, 9000, ("EP", "SE")), Plane.SAGITTAL, "other"),
        (header(), Plane.SAGITTAL, "other"),
    ],
    ids=str,
)
def test_type_of(found, plane, expected):
    assert find_series_type(found, plane) == expected


def test_every_type_of_the_csv_has_a_plane():
    assert set(PLANES) == set(SERIES_DESCRIPTIONS.values())
