"""Headers: classic and enhanced files of one stack are one volume."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from fixtures.dicom import item
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from lumbar.pipeline.dicom.header import read_series_header
from lumbar.pipeline.dicom.parse import parse, transfer_syntax
from lumbar.pipeline.reject import RejectedError

ORDER = (3, 0, 6, 1, 5, 2, 4)
"""The order of the frames in the file, which says nothing."""


def enhanced(phantom, *, times=1, slopes=None):
    """Return one enhanced file of a phantom, its frames in `ORDER`, each ``times`` times."""
    classic = [phantom.dataset(index) for index in range(phantom.depth)]
    dataset = classic[0]
    frames, pixels = [], []
    for index in ORDER:
        for time in range(times, 0, -1):
            frame = item(
                PlanePositionSequence=[
                    item(ImagePositionPatient=classic[index].ImagePositionPatient)
                ],
                FrameContentSequence=[item(TemporalPositionIndex=time)],
            )
            if slopes is not None:
                frame.PixelValueTransformationSequence = [
                    item(RescaleSlope=slopes[index], RescaleIntercept="0")
                ]
            frames.append(frame)
            pixels.append(phantom.picture(index) + 7 * (time - 1))
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=dataset.ImageOrientationPatient)],
        PixelMeasuresSequence=[item(PixelSpacing=dataset.PixelSpacing, SliceThickness="3")],
        MREchoSequence=[item(EffectiveEchoTime=100.0)],
        MRTimingAndRelatedParametersSequence=[item(RepetitionTime="3000")],
    )
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.NumberOfFrames = len(frames)
    del dataset.ImageOrientationPatient, dataset.ImagePositionPatient, dataset.PixelSpacing
    dataset.PixelData = np.stack(pixels).astype(np.uint16).tobytes()
    return dataset


@pytest.mark.parametrize("rle", [False, True], ids=["raw", "rle"])
def test_classic_and_enhanced_are_one_volume(tools, tmp_path, rle):
    tools.phantom.write(tmp_path / "classic", rle=rle)
    tools.save(enhanced(tools.phantom), tmp_path / "enhanced" / "one.dcm", rle=rle)
    classic = tools.cached(tmp_path / "classic", tmp_path / "out-classic")
    found = tools.cached(tmp_path / "enhanced", tmp_path / "out-enhanced")
    assert np.array_equal(classic.volume(0), found.volume(0))
    assert np.array_equal(classic.attributes(0).affine, found.attributes(0).affine)
    # A frame is named by its number in the file, counted from one.
    assert found.attributes(0).instance_numbers == tuple(
        ORDER.index(index) + 1 for index in range(7)
    )
    assert found.series["series_type"].to_list() == ["sagittal_t2"]


def test_first_time_of_an_enhanced_series_is_kept(tools, tmp_path):
    tools.save(enhanced(tools.phantom, times=3), tmp_path / "src" / "one.dcm")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert np.abs(tools.decoded_mm(cache, 0) - tools.expected_mm(cache, 0)[..., 0]).max() < 0.03
    assert cache.attributes(0).flags == ("repeated_positions", "files_left_out")
    assert cache.rejected.select("path", "reason").rows() == [("one.dcm", "repeated_position")]
    assert cache.rejected["detail"][0].startswith("14 frames")


def test_each_frame_has_its_own_rescaling(tools, tmp_path):
    slopes = [f"{1 + index / 4}" for index in range(7)]
    tools.save(enhanced(tools.phantom, slopes=slopes), tmp_path / "src" / "one.dcm")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    found, window = tools.rescaled(cache), cache.attributes(0).window
    step = (window.high - window.low) / 32767
    for index in range(7):
        expected = tools.phantom.picture(index).astype(float) * (1 + index / 4)
        assert np.abs(found[index] - expected).max() <= step


def test_what_a_frame_says_of_itself_comes_before_what_all_share(tools, tmp_path):
    dataset = enhanced(tools.phantom, slopes=["2"] * 7)
    (shared,) = dataset.SharedFunctionalGroupsSequence
    shared.PlanePositionSequence = [item(ImagePositionPatient=["0", "0", "0"])]
    shared.PixelValueTransformationSequence = [item(RescaleSlope="9", RescaleIntercept="5")]
    tools.save(dataset, tmp_path / "src" / "one.dcm")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    attributes = cache.attributes(0)
    assert attributes.affine[:3, 3] == pytest.approx(tools.phantom.origin)
    assert cache.volume(0).shape[0] == 7
    assert attributes.window.low == 2 * tools.phantom.picture(0).min()


def test_functional_groups_that_do_not_match_the_frames(tools, tmp_path):
    dataset = enhanced(tools.phantom)
    dataset.NumberOfFrames = 6
    tools.save(dataset, tmp_path / "src" / "one.dcm")
    rejected = tools.cached(tmp_path / "src", tmp_path / "out").rejected
    assert rejected.select("reason", "detail").rows() == [
        ("unreadable", "7 functional groups for 6 frames")
    ]


def test_instance_number_falls_back_to_the_file_name(tools, tmp_path):
    def nameless(dataset, _):
        del dataset.InstanceNumber

    phantom = replace(tools.phantom, instance_numbers=(20, 19, 18, 17, 16, 15, 14))
    phantom.write(tmp_path / "src", edit=nameless)
    attributes = tools.cached(tmp_path / "src", tmp_path / "out").attributes(0)
    assert attributes.instance_numbers == phantom.instance_numbers


def test_file_without_preamble_and_meta_group(tools, tmp_path):
    dataset = tools.phantom.dataset(0)
    dataset.PixelData = tools.phantom.picture(0).tobytes()
    for implicit, name in ((True, "1.2.840.10008.1.2"), (False, "1.2.840.10008.1.2.1")):
        path = tmp_path / name
        pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=True)
        data = path.read_bytes()
        assert data[128:132] != b"DICM"
        assert transfer_syntax(parse(data)) == name


def without_preamble(data):
    """The meta group from the first byte on, as some archives pass files on."""
    return data[132:]


def noisy_preamble(data):
    return b"II*\0" * 32 + data[128:]


@pytest.mark.parametrize("layout", ["tree", "rsna"])
@pytest.mark.parametrize("rle", [False, True], ids=["raw", "rle"])
@pytest.mark.parametrize("strip", [without_preamble, noisy_preamble])
def test_files_of_any_head_and_name_are_a_volume(tools, tmp_path, layout, rle, strip):
    """Without a preamble, or with one of another format, called as scanners call their files."""
    tools.phantom.write(tmp_path / "plain", rle=rle)
    below = "train_images/100/1" if layout == "rsna" else "A/B"
    folder = tmp_path / "src" / below
    folder.mkdir(parents=True)
    names = ("IM000001", "2.IMA", "3.MR", "i4.MRDC.4", "5", "6.jpg", "7.dicom.bak")
    for number, name in enumerate(names, start=1):
        data = (tmp_path / "plain" / f"{number}.dcm").read_bytes()
        (folder / name).write_bytes(strip(data))
    found, expected = tools.assert_same_volume(tmp_path)
    assert found.rejected.is_empty()
    assert found.attributes(0).instance_numbers == (1, 2, 3, 4, 5, 6, 7)
    assert found.series["transfer_syntax"].to_list() == expected.series["transfer_syntax"].to_list()


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_bare_data_sets_are_a_volume(tools, tmp_path, implicit):
    """No preamble, no mark and no meta group: nothing but the elements."""
    tools.phantom.write(tmp_path / "plain")
    (tmp_path / "src").mkdir()
    for index in range(7):
        dataset = tools.phantom.dataset(index)
        dataset.PixelData = tools.phantom.picture(index).tobytes()
        path = tmp_path / "src" / f"{index}"
        pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=True)
        assert path.read_bytes()[:2] != b"\0\0"
    tools.assert_same_volume(tmp_path)


@pytest.mark.parametrize("data", [b"", b"no", bytes(400), b"\xff" * 4000, b"PK\3\4" * 99])
def test_bytes_that_are_no_dicom(data):
    with pytest.raises(RejectedError, match="not_dicom"):
        parse(data)


def test_series_header_requires_nothing():
    header = read_series_header(Dataset())
    assert (header.description, header.echo_time_ms, header.transfer_syntax) == ("", None, "")


def test_echoes_of_one_file_are_told_apart_whatever_their_order(tools, tmp_path):
    """Two echoes a slice, in another order at each slice: all of the volume is the first one."""
    dataset = enhanced(tools.phantom, times=2)
    pixels = np.frombuffer(dataset.PixelData, np.uint16).reshape(14, 48, 40).copy()
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    for pair in range(7):
        # `enhanced` writes the later time, whose picture is 7 brighter, first.
        if pair % 2:
            order = [2 * pair + 1, 2 * pair]
            frames[2 * pair : 2 * pair + 2] = [frames[k] for k in order]
            pixels[2 * pair : 2 * pair + 2] = pixels[order]
    for index, frame in enumerate(frames):
        late = frame.FrameContentSequence[0].TemporalPositionIndex == 2
        del frame.FrameContentSequence
        frame.MREchoSequence = [item(EffectiveEchoTime=90.0 if late else 12.5)]
        assert late == ((index % 2 == 0) != bool(index // 2 % 2))
    del dataset.SharedFunctionalGroupsSequence[0].MREchoSequence
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.PixelData = pixels.tobytes()
    tools.save(dataset, tmp_path / "src" / "one.dcm")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert np.abs(tools.decoded_mm(cache, 0) - tools.expected_mm(cache, 0)[..., 0]).max() < 0.03
    assert cache.attributes(0).flag_details["repeated_positions"] == "14 images of 7 positions"
    assert cache.series["series_type"].to_list() == ["other"]  # 12.5 and 3000 ms are neither


def test_several_stacks_of_one_file_are_those_of_classic_files(tools, tmp_path):
    """Frames of two tilted axial stacks in turn, each with an orientation and pixels of its own."""
    axial = replace(tools.planes["axial"], depth=4, encoded=2)
    turned = Rotation.from_euler("x", 20, degrees=True)
    lower = replace(
        axial,
        column_direction=tuple(turned.apply((0, 1, 0))),
        step=tuple(turned.apply((0, 0, -3.5))),
        origin=(-40.0, -35.0, -40.0),
        instance_numbers=(5, 6, 7, 8),
    )
    for stack in (axial, lower):
        stack.write(tmp_path / "classic")
    dataset = axial.dataset(0)
    frames, pixels = [], []
    for index in range(4):
        for number, stack in enumerate((lower, axial)):
            classic = stack.dataset(index)
            frames.append(
                item(
                    FrameContentSequence=[item(StackID=str(number), InStackPositionNumber=index)],
                    PlanePositionSequence=[item(ImagePositionPatient=classic.ImagePositionPatient)],
                    PlaneOrientationSequence=[
                        item(ImageOrientationPatient=classic.ImageOrientationPatient)
                    ],
                    PixelMeasuresSequence=[item(PixelSpacing=classic.PixelSpacing)],
                )
            )
            pixels.append(stack.picture(index))
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.NumberOfFrames = len(frames)
    del dataset.ImageOrientationPatient, dataset.ImagePositionPatient, dataset.PixelSpacing
    dataset.PixelData = np.stack(pixels).tobytes()
    tools.save(dataset, tmp_path / "enhanced" / "one.dcm")
    classic = tools.cached(tmp_path / "classic", tmp_path / "out-classic")
    found = tools.cached(tmp_path / "enhanced", tmp_path / "out-enhanced")
    assert np.array_equal(classic.volume(0), found.volume(0))
    for one, other in zip(classic.attributes(0).stacks, found.attributes(0).stacks, strict=True):
        assert (one.start, one.stop) == (other.start, other.stop)
        assert np.array_equal(one.affine, other.affine)
    assert found.attributes(0).instance_numbers == (2, 4, 6, 8, 1, 3, 5, 7)
    assert "several_orientations" in found.attributes(0).flags


def test_series_header_takes_the_first_echo():
    frames = [item(MREchoSequence=[item(EffectiveEchoTime=float(ms))]) for ms in (80, 12, 40)]
    dataset = item(PerFrameFunctionalGroupsSequence=frames)
    assert read_series_header(dataset).echo_time_ms == 12


def test_a_slope_of_two_values_is_refused(tools, tmp_path):
    def doubled(dataset, index):
        if index == 3:
            dataset.RescaleSlope = ["2", "7"]

    tools.phantom.write(tmp_path / "src", edit=doubled)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.select("path", "reason").rows() == [("4.dcm", "bad_rescale")]


@pytest.mark.parametrize("surplus", [[item()], [item(FrameContentSequence=[item()])] * 3])
@pytest.mark.parametrize("rle", [False, True], ids=["raw", "rle"])
def test_items_after_the_last_frame_are_ignored(tools, tmp_path, surplus, rle):
    dataset = enhanced(tools.phantom)
    tools.save(dataset, tmp_path / "plain" / "one.dcm", rle=rle)
    dataset = enhanced(tools.phantom)
    dataset.PerFrameFunctionalGroupsSequence = [
        *dataset.PerFrameFunctionalGroupsSequence,
        *surplus,
    ]
    tools.save(dataset, tmp_path / "src" / "one.dcm", rle=rle)
    found, _ = tools.assert_same_volume(tmp_path)
    assert found.rejected.is_empty()


def test_what_all_frames_share_may_stand_outside_of_the_groups(tools, tmp_path):
    dataset = enhanced(tools.phantom)
    (shared,) = dataset.SharedFunctionalGroupsSequence
    for group in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        dataset.update(shared[group][0])
        del shared[group]
    tools.save(dataset, tmp_path / "src" / "one.dcm")
    tools.save(enhanced(tools.phantom), tmp_path / "plain" / "one.dcm")
    found, expected = tools.assert_same_volume(tmp_path)
    assert np.array_equal(found.attributes(0).affine, expected.attributes(0).affine)


@pytest.mark.parametrize("slope", [2.5, -1.0])
@pytest.mark.parametrize("where", ["file", "shared", "frames", "file and empty frames"])
def test_rescaling_of_a_multi_frame_file(tools, tmp_path, where, slope):
    """A negative slope turns the picture round, whichever of the three places says it."""
    groups = {"RescaleSlope": f"{slope}", "RescaleIntercept": "-7"}
    dataset = enhanced(tools.phantom)
    if where.startswith("file"):
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slope}", "-7"
        for frame in dataset.PerFrameFunctionalGroupsSequence if "frames" in where else ():
            frame.PixelValueTransformationSequence = [item(RescaleType="US")]
    elif where == "shared":
        (shared,) = dataset.SharedFunctionalGroupsSequence
        shared.PixelValueTransformationSequence = [item(**groups)]
    else:
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            frame.PixelValueTransformationSequence = [item(**groups)]
    tools.save(dataset, tmp_path / "src" / "one.dcm")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    expected = np.stack([tools.phantom.picture(index).astype(float) for index in range(7)])
    expected = expected * slope - 7
    assert np.abs(tools.rescaled(cache) - expected).max() <= np.ptp(expected) / 32767


@pytest.mark.parametrize(
    ("tags", "slope", "intercept"),
    [({"RescaleSlope": "-2"}, -2, 0), ({"RescaleIntercept": "-500"}, 1, -500)],
)
def test_half_of_a_rescaling_is_taken_at_its_word(tools, tmp_path, tags, slope, intercept):
    tools.with_tags(**tags).write(tmp_path / "src")
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    expected = np.stack([tools.phantom.picture(index).astype(float) for index in range(7)])
    expected = expected * slope + intercept
    assert np.abs(tools.rescaled(cache) - expected).max() <= np.ptp(expected) / 32767


def test_a_negative_slope_with_padding_and_the_other_photometric(tools, tmp_path):
    """Padding is found in what is stored, the window lies in what is rescaled."""

    def edit(dataset, index):
        picture = np.full((48, 40), 300) + np.arange(40) + index
        picture[:, :9] = -2000
        dataset.PixelRepresentation = 1
        dataset.RescaleSlope, dataset.RescaleIntercept = "-1", "0"
        dataset["PixelPaddingValue"] = DataElement("PixelPaddingValue", "US", 63536)
        dataset.PixelData = picture.astype(np.int16).tobytes()

    replace(tools.phantom, depth=7).write(tmp_path / "src", edit=edit)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    window, volume = cache.attributes(0).window, np.asarray(cache.volume(0))
    assert (window.low, window.high) == (-345, -309)
    assert not volume[:, :, :9].any()
    assert (np.diff(volume[0, 0, 9:].astype(int)) < 0).all()


@pytest.mark.parametrize("text", [b"nan", b"inf", b"1e9", b"-1.", b"0.0"])
def test_spacing_that_makes_no_sense(tools, tmp_path, text):
    tools.phantom.write(tmp_path / "src")
    path = tmp_path / "src" / "4.dcm"
    path.write_bytes(path.read_bytes().replace(b"1.5\\2", text + b"\\2"))
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    assert cache.rejected.select("path", "reason").rows() == [("4.dcm", "bad_geometry")]
