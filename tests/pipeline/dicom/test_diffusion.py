"""Diffusion by image type, contrast and b-value."""

import pytest
from fixtures.dicom import item
from pydicom.dataset import Dataset

from lumbar.pipeline.dicom.diffusion import shows_diffusion


def private(block, creator, element, vr, value):
    dataset = Dataset()
    dataset.add_new(block, "LO", creator)
    dataset.add_new(element, vr, value)
    return dataset


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (item(ImageType=["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]), True),
        (item(ImageType=["DERIVED", "PRIMARY", "ADC"]), True),
        (item(ImageType=["ORIGINAL", "PRIMARY", "M"]), False),
        (item(AcquisitionContrast="DIFFUSION"), True),
        (item(AcquisitionContrast="T2"), False),
        (item(DiffusionBValue=800.0), True),
        (item(DiffusionBValue=0.0), False),
        (private(0x00190010, "SIEMENS MR HEADER", 0x0019100C, "IS", "1000"), True),
        (private(0x00190010, "SIEMENS MR HEADER", 0x0019100C, "UN", b"1000"), True),
        (private(0x00190010, "SOMEBODY", 0x0019100C, "IS", "1000"), False),
        (private(0x20010010, "Philips Imaging DD 001", 0x20011003, "FL", 1000.0), True),
        (private(0x20010010, "Philips Imaging DD 001", 0x20011003, "FL", 0.0), False),
        (private(0x20010010, "Philips Imaging DD 001", 0x20011003, "UN", b"\0\0zD"), True),
        (
            item(
                PerFrameFunctionalGroupsSequence=[
                    item(),
                    item(MRDiffusionSequence=[item(DiffusionBValue=500.0)]),
                ]
            ),
            True,
        ),
        (
            item(
                SharedFunctionalGroupsSequence=[
                    item(MRDiffusionSequence=[item(DiffusionDirectionality="ISOTROPIC")])
                ]
            ),
            True,
        ),
        (
            item(
                SharedFunctionalGroupsSequence=[
                    item(MRDiffusionSequence=[item(DiffusionDirectionality="NONE")])
                ]
            ),
            False,
        ),
    ],
)
def test_diffusion_is_told_by_what_the_file_says(dataset, expected):
    assert shows_diffusion(dataset) is expected


@pytest.mark.parametrize("where", [0, 3])
def test_a_series_with_one_diffusing_file_is_other(tools, tmp_path, where):
    """The first file may be the one without: its b-value is 0."""

    def edit(dataset, index):
        dataset.SeriesDescription = "T2"
        dataset.DiffusionBValue = 0.0 if index != where else 800.0

    tools.phantom.write(tmp_path / "src", edit=edit)
    assert tools.cached(tmp_path / "src", tmp_path / "out").series["series_type"][0] == "other"
